"""The surfaces that are fuzzed: which inputs are drawn for each, as JSON values, and which call they go to."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import yaml
from harness import hostile_files
from harness.fuzz_calls import CALLBACKS, ODD
from harness.fuzz_cli import checked
from harness.fuzz_draws import Rng, damaged_bytes, damaged_json, damaged_text, name, odd_value, one
from harness.public_calls import CALLS, CONFIG, LIGHT, OWN, PLAN, SPEC, adapter, bert
from support.synthetic_runs import sum_again, write_synthetic

import tensoradapt as ta
from tensoradapt.adapter.checkpoint import seal
from tensoradapt.files import FORMULA, csv_bytes
from tensoradapt.lab.runs.store import SUMS, read_run
from tensoradapt.lab.sweeps.spec import read_spec
from tensoradapt.lora.read_folder import read_lora
from tensoradapt.networks import modes
from tensoradapt.storage.load import unattached
from tensoradapt.text import align


@dataclass(frozen=True)
class Surface:
    """``share``: of the inputs of a run of all surfaces. ``draw`` gives a JSON value, with which ``call`` calls the
    package in a folder that ``ground`` filled once; what a call writes there is left behind.
    """

    share: float
    draw: Callable[[Rng, Path], Any]
    call: Callable[[Any, Path], Any]
    ground: Callable[[Path], Any] = lambda folder: None


# layouts


MODES = (
    *(mode.name for mode in modes.MODES), "out1", "out2", "in1", "in2",
    "(", ")", ":", "*", "out*", "in*", "é", "Layer", "1", "-", "layer layer", "(layer proj)", "(head dim)", "", "\t",
)  # fmt: skip
LAYOUTS = (
    ": out : in", "layer : out : in", "layer proj : out : in", "layer proj : head dim : model",
    "(layer proj) : out : in", "layer (proj head) : dim : model", "layer proj : out1 out2 : in1 in2",
    "layer task proj : out : in", "layer : in : out",
)  # fmt: skip
PARAMETERIZATIONS = (
    "lora",
    "cp",
    "tucker",
    "tensor_train",
    "tensor_ring",
    "dense",
    "vera",
    "loretta",
    "kronecker",
    "x",
)


def draw_layout(rng: Rng, _: Path) -> dict[str, Any]:
    drawn: dict[str, Any] = {"layout": layout(rng), "method": one(rng, PARAMETERIZATIONS)}
    drawn["rank"] = one(rng, (1, 1, 2, 2, 3, 16, {"layer": 2}, {"out": 2, "in": 3}, None))
    if any(digit in drawn["layout"] for digit in "12") or rng.random() < 0.1:
        drawn["split"] = {side: one(rng, ([4, 4], [4, 4], [2, 8], [2, 8], [16], [3, 5])) for side in ("out", "in")}
    if "task" in drawn["layout"] or rng.random() < 0.1:
        drawn["tasks"] = ["a", "b"]
    return drawn


def layout(rng: Rng) -> str:
    """A layout of random modes, of random order, or with a piece that is damaged."""
    kind = int(rng.integers(4))
    if kind == 0:
        tokens = [one(rng, MODES) for _ in range(int(rng.integers(0, 9)))]
        for _ in range(int(rng.integers(0, 3))):
            tokens.insert(int(rng.integers(len(tokens) + 1)), ":")
        return " ".join(tokens)
    if kind == 1:
        index = [mode for mode in ("layer", "proj", "head", "task") if rng.random() < 0.5]
        rows, columns = one(rng, (("out", "in"), ("head dim", "model"), ("in", "out"), ("out1 out2", "in1 in2")))
        return f"{' '.join(rng.permutation(index))} : {rows} : {columns}"
    words = one(rng, LAYOUTS).split(" ")
    if kind == 2:
        words[int(rng.integers(len(words)))] = one(rng, MODES)
        return " ".join(words)
    return damaged_text(rng, " ".join(words), MODES)


def call_layout(drawn: dict[str, Any], _: Path) -> None:
    planned = ta.plan(PLAN["sites"], **drawn)
    assert planned.n_params >= 0 and str(planned)


# arguments of public calls: the places of odd values in ODD, to which values are only added


def draw_arguments(calls: Sequence[str], rng: Rng, _: Path) -> dict[str, Any]:
    call = one(rng, calls)
    names = list(CALLS[call][1])
    chosen = rng.choice(names, size=min(len(names), int(rng.integers(1, 4))), replace=False)
    wrong = {str(name): int(rng.integers(len(ODD))) for name in chosen}
    return {"call": call, "wrong": {k: i for k, i in wrong.items() if not (k in CALLBACKS and callable(ODD[i]))}}


def call_arguments(drawn: dict[str, Any], _: Path) -> None:
    call, good = CALLS[drawn["call"]]
    call(**{**good, **{name: ODD[i] for name, i in drawn["wrong"].items()}})


HEAVY = (
    *("attach", "use", "merge", "detach", "equal_steps", "model_card", "adapters", "unmerge", "parameter_groups"),
    *("summarise", "frontier", "compare"),
)


# files: one of a folder is damaged, then the folder read


@cache
def whole(path: Path) -> bytes:
    return path.read_bytes()


@cache
def document(path: Path) -> Any:
    return json.loads(whole(path))


def draw_damage(rng: Rng, folder: Path, patterns: Sequence[str], sealed: bool = False) -> dict[str, Any]:
    """Damage to one of the files, of which JSON is mostly damaged by its values."""
    path = one(rng, sorted(found for pattern in patterns for found in folder.glob(pattern)))
    if path.suffix == ".json" and rng.random() < 0.8:
        edited = damaged_json(rng, document(path))
        if sealed and isinstance(edited, dict) and rng.random() < 0.8:
            edited["checksum"] = seal(edited)  # a forger would write it too
        data = json.dumps(edited).encode()
    else:
        data = damaged_bytes(rng, whole(path))
    return {**place(path, folder), "data": data.decode("latin-1")}


def place(path: Path, folder: Path) -> dict[str, Any]:
    """A file in a folder; one of a run by the place of its run, as its name is a hash."""
    parts = path.relative_to(folder).parts
    if parts[0] != "runs":
        return {"file": "/".join(parts), "of": 0}
    pattern = f"runs/*/{parts[-1]}"
    return {"file": pattern, "of": sorted(folder.glob(pattern)).index(path)}


def placed(drawn: dict[str, Any], folder: Path) -> Path:
    return sorted(folder.glob(drawn["file"]))[drawn["of"]]


@contextlib.contextmanager
def damage(drawn: dict[str, Any], folder: Path) -> Any:
    path = placed(drawn, folder)
    before = whole(path)
    path.write_bytes(drawn["data"].encode("latin-1"))
    try:
        yield
    finally:
        path.write_bytes(before)


def call_checkpoint(drawn: dict[str, Any], folder: Path) -> None:
    with damage(drawn, folder):
        if len(drawn["data"]) % 8:
            made = unattached(folder / "adapter")
            made.delta(made.plan.sites[0].name)
        else:
            load(folder / "adapter")


def load(path: Path) -> None:
    model = plain()
    ta.load(model, path, strict=False)
    ta.detach(model)


plain = cache(bert)


def call_lora(drawn: dict[str, Any], folder: Path) -> None:
    with damage(drawn, folder):
        read_lora(folder / "lora")


def runs_ground(folder: Path) -> None:
    for seed in (0, 1):
        write_synthetic(folder / "runs", parameterization="cp", task="planted", n_test=20, seed=seed)


@contextlib.contextmanager
def summed(path: Path) -> Any:
    """Give an edited file of a run its right checksum, so that what is edited is read."""
    sums = path.with_name(SUMS)
    before = whole(sums)
    if path != sums:
        sum_again(path.parent)
    try:
        yield
    finally:
        sums.write_bytes(before)


def call_runs(drawn: dict[str, Any], folder: Path) -> None:
    path = placed(drawn, folder)
    with damage(drawn, folder), summed(path):
        run = read_run(path.parent)
        if len(drawn["data"]) % 16 == 0:
            assert ta.results(folder / "runs") is not None
        assert run.array("predictions") is not None


# specifications


def toml(value: Any) -> str:
    """A value as TOML; what it has no form for is written as JSON, which is damage too."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def draw_spec(rng: Rng, _: Path) -> str:
    needed = ("model", "task", "rank", "seed", "layout", "method", "steps", "lr")
    spec = {key: value for key, value in SPEC.items() if key in needed or rng.random() < 0.6}
    spec["lr"] = [1e-3, 3e-3]
    if rng.random() < 0.2:
        spec["method"] = ["lora", {"method": "tucker", "layout": "layer proj : out : in", "alpha": [2.0, 3.0]}]
    if rng.random() < 0.8:
        key = one(rng, list(spec))
        spec = {**spec, key: odd_value(rng, spec[key])} if rng.random() < 0.5 else damaged_json(rng, spec)
    text = "\n".join(f"{key} = {toml(value)}" for key, value in spec.items()) if isinstance(spec, dict) else str(spec)
    return damaged_text(rng, text) if rng.random() < 0.2 else text


def call_spec(text: str, folder: Path) -> None:
    with written(folder / "spec.toml", text.encode(errors="surrogatepass")) as path:
        read_spec(path)


@contextlib.contextmanager
def written(path: Path, data: bytes) -> Any:
    path.write_bytes(data)
    try:
        yield path
    finally:
        path.unlink()


# files of tasks


CELLS = ("good", "bad", "yes", "no", "0", "1", "2.5", "", " ", "nan", "text", "a, b", '"', "None", "1e400", "-0")
SETTINGS = {key: value for key, value in OWN.items() if key != "train"}


def draw_task(rng: Rng, _: Path) -> dict[str, Any]:
    suffix = one(rng, ("csv", "csv", "tsv", "jsonl", "json"))
    names = ["text", "label"] if rng.random() < 0.9 else [name(rng) for _ in range(int(rng.integers(1, 4)))]
    kind = one(rng, (("good", "bad"), ("0", "1", "2"), ("0.5", "1.5", "2.5"), CELLS))
    rows = [
        [name(rng) if rng.random() < 0.02 else f"text {i}" if j == 0 else one(rng, kind) for j in range(len(names))]
        for i in range(int(rng.integers(0, 40)))
    ]
    text = "\n".join(table(suffix, names, rows))
    text = damaged_text(rng, text) if rng.random() < 0.3 else text
    data = text.encode(errors="surrogatepass")
    data = damaged_bytes(rng, data) if rng.random() < 0.2 else data
    chosen = {key: value for key, value in SETTINGS.items() if rng.random() < 0.1}
    settings = {key: odd_value(rng, value) if rng.random() < 0.5 else value for key, value in chosen.items()}
    return {"suffix": suffix, "data": data.decode("latin-1"), "settings": settings}


def table(suffix: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    if suffix in ("json", "jsonl"):
        return [json.dumps(objects)] if suffix == "json" else list(map(json.dumps, objects))
    return [("\t" if suffix == "tsv" else ",").join(row) for row in (names, *rows)]


def call_task(drawn: dict[str, Any], folder: Path) -> None:
    with written(folder / f"task.{drawn['suffix']}", drawn["data"].encode("latin-1")) as path:
        task = ta.register_task("mine", replace=True, train=str(path), **drawn["settings"])
        assert task.load().train.labels is not None


# names: refused, or harmless where they are written


def as_cell(text: str, _: Path) -> None:
    data = csv_bytes([text, "a"], [{text: text, "a": text}]).decode()
    assert not data.startswith(FORMULA) or not text, "a formula as a column"
    for cell in next(reader for i, reader in enumerate(csv.reader(io.StringIO(data, newline=""))) if i == 1):
        assert not cell.startswith(FORMULA) and printable(cell.replace("\n", ""))


def printable(text: Any) -> bool:
    assert not [c for c in str(text) if not c.isprintable() and c != "\n"], "a character that acts on a terminal"
    return True


def as_adapter(text: str, _: Path) -> None:
    model = plain()
    made = ta.attach(model, ta.plan(CONFIG, ": out : in", "lora", 1, train=()), name=text)
    assert printable(str(made))
    ta.detach(model)


def as_task(text: str, _: Path) -> None:
    assert printable(ta.plan(CONFIG, "layer task : out : in", "cp", 2, tasks=(text, "b")))


def as_layout(text: str, _: Path) -> None:
    assert printable(ta.plan(CONFIG, f"layer {text} : out : in", "cp", 2))


def as_card(text: str, _: Path) -> None:
    card = ta.model_card(adapter(), repo_id=text, base_model=text, license=text, tags=(text,))
    front = yaml.safe_load(card.removeprefix("---\n").split("\n---\n")[0])
    assert front["base_model"] == front["license"] == text and text in front["tags"], "front matter says another text"


def as_label(text: str, folder: Path) -> None:
    rows = [f"text {i},{cell}" for i, cell in enumerate(["a", "b"] * 8)]
    data = csv_bytes(["text", "label"], [{"text": row, "label": (text, "b")[i % 2]} for i, row in enumerate(rows)])
    with written(folder / "label.csv", data) as path:
        task = ta.register_task("mine", replace=True, train=str(path))
        assert printable(task.name)


def as_printed(text: str, _: Path) -> None:
    assert printable("\n".join(align([(text, "a"), ("b", text)])))


def as_spec(text: str, _: Path) -> None:
    read_spec({**SPEC, "reference": [], "method": [{"method": "cp", "name": text}]})


def as_command(text: str, _: Path) -> None:
    words = ["plan", "--model", "tiny-random-bert", f"--method={text}", "--rank", "2"]
    assert not (wrong := checked(words)), wrong


PLACES: Mapping[str, Callable[[str, Path], None]] = {
    "cell": as_cell, "adapter": as_adapter, "task": as_task, "layout": as_layout, "card": as_card, "label": as_label,
    "printed": as_printed, "spec": as_spec, "command": as_command,
}  # fmt: skip
OFTEN = ("cell", "adapter", "task", "layout", "card", "label", "printed", "spec") * 3 + ("command",)


def draw_name(rng: Rng, _: Path) -> dict[str, str]:
    return {"place": one(rng, OFTEN), "name": name(rng)}


def call_name(drawn: dict[str, str], folder: Path) -> None:
    PLACES[drawn["place"]](drawn["name"], folder)


ADAPTER = ("adapter/adapter.json", "adapter/adapter.json", "adapter/adapter.safetensors")
LORA = ("lora/adapter_config.json", "lora/adapter_model.safetensors")
SURFACES: Mapping[str, Surface] = {
    "layouts": Surface(0.25, draw_layout, call_layout),
    "plan arguments": Surface(0.2, partial(draw_arguments, LIGHT), call_arguments),
    "other arguments": Surface(0.03, partial(draw_arguments, HEAVY), call_arguments),
    "checkpoints": Surface(
        0.1,
        partial(draw_damage, patterns=ADAPTER, sealed=True),
        call_checkpoint,
        lambda folder: hostile_files.adapter_folder(folder / "adapter"),
    ),
    "LoRA folders": Surface(
        0.12, partial(draw_damage, patterns=LORA), call_lora, lambda folder: hostile_files.lora_folder(folder / "lora")
    ),
    "specifications": Surface(0.1, draw_spec, call_spec),
    "files of tasks": Surface(0.08, draw_task, call_task),
    "folders of runs": Surface(0.06, partial(draw_damage, patterns=("runs/*/*",)), call_runs, runs_ground),
    "names": Surface(0.06, draw_name, call_name),
}


@cache
def grounds(surface: str) -> Path:
    """The folder of a surface, made once in a process."""
    folder = Path(mkdtemp(prefix="fuzz-"))
    SURFACES[surface].ground(folder)
    return folder


def clear() -> None:
    """Remove the folders of all surfaces."""
    for surface in SURFACES:
        shutil.rmtree(grounds(surface), ignore_errors=True)
    grounds.cache_clear()

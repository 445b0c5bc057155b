"""Files and folders that a command line may be given: whole ones, and every kind of damage to them."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from support.sweeping import TINY
from support.synthetic_runs import write_synthetic
from transformers import BertConfig, BertForSequenceClassification

import tensoradapt as ta
from tensoradapt.lab.runs.store import write_failure
from tensoradapt.lab.runs.work_folder import Work
from tensoradapt.lab.sweeps import record
from tensoradapt.lab.sweeps.due import due
from tensoradapt.lab.sweeps.plan_sweep import plan_sweep
from tensoradapt.lab.sweeps.spec import read_spec

CONFIG = {
    **{"model_type": "bert", "hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2},
    **{"intermediate_size": 24, "vocab_size": 40, "max_position_embeddings": 16},
    "architectures": ["BertForSequenceClassification"],
}
ESCAPE = "a\x1b[31m\x07\r\nb"
ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 3, 10**6, 10**9, 10**400, 0.5, 1e308, float("nan"), float("inf"), "", "x", ESCAPE, "\ud800",
    "x" * 10**6, "[/b] {}%s", [], [1], ["x", None], [[]], {}, {"a": 1}, {ESCAPE: ESCAPE}, {"x": {"y": [0]}},
)  # fmt: skip
WHOLE = {
    "nothing in it": b"",
    "a bracket": b"[",
    "a list": b"[]",
    "null": b"null",
    "a number": b"3",
    "a number of 5,000 digits": b"9" * 5000,
    "a text": b'"x"',
    "a table": b"{}",
    "no UTF-8": b'{"a": "\xff\xfe"}',
    "null bytes": b"\x00" * 100,
    "nested deep": b"[" * 100_000,
    "nested deep and closed": b'{"a": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "a key twice": b'{"a": 1, "a": 2}',
    "NaN": b'{"a": NaN}',
}
SPECS = {
    "empty.toml": b"",
    "deep.toml": b"a = " + b"[" * 5000,
    "deep tables.toml": b"[" + b"a." * 5000 + b"a]",
    "deep inline.toml": b"a = " + b"{a = " * 5000,
    "digits.toml": b"steps = " + b"9" * 400,
    "more digits.toml": b"steps = " + b"9" * 5000,
    "null.toml": b'model = "a\\u0000b"\n\x00',
    "latin.toml": 'model = "é"'.encode("latin-1"),
    "json.toml": b'{"model": 3}',
}


def damaged(document: Any) -> Iterator[tuple[str, bytes]]:
    """Every way of damage to a JSON file, and its text: whole files, and each value replaced or removed."""
    yield from WHOLE.items()
    for path in places(document):
        name = "/".join(map(str, path))
        yield f"without {name}", json.dumps(replaced(document, path)).encode()
        for value in ODD_VALUES:
            yield f"{name} = {str(value)[:30]!r}", json.dumps(replaced(document, path, value)).encode()


def places(document: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a JSON document; of a list, the first element stands for all."""
    items = document.items() if isinstance(document, dict) else enumerate(document[:1])
    for key, value in items:
        yield (*above, key)
        if isinstance(value, dict | list):
            yield from places(value, (*above, key))


def replaced(document: Any, path: tuple[Any, ...], *value: Any) -> Any:
    """A copy of a document with one value replaced, or removed if none is given."""
    new = copy.deepcopy(document)
    inner = new
    for key in path[:-1]:
        inner = inner[key]
    if value:
        inner[path[-1]] = value[0]
    else:
        del inner[path[-1]]
    return new


def odd_paths(folder: Path) -> list[str]:
    """Paths below a folder that are no plain files and folders, or whose names are odd."""
    folder.mkdir()
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    os.mkfifo(folder / "fifo")
    (folder / "file").write_text("x")
    (folder / "empty").mkdir()
    (folder / "up").symlink_to(folder)
    (folder / "locked").mkdir(mode=0)
    (folder / ESCAPE).mkdir()
    (folder / os.fsdecode(b"\xff\xfe")).mkdir()
    names = ["loop", "a", "fifo", "file", "file/x", "empty", "up", "locked", "none", "none/none", ESCAPE, "x" * 300]
    names += [os.fsdecode(b"\xff\xfe"), "/".join(["x" * 200] * 30), "empty/../file", "a\x00b", "\ud800", "loop/x"]
    return ["", " ", "-", "x" * 5000, *(str(folder / name) for name in names)]


def runs(folder: Path) -> Path:
    """A folder of runs that were never trained, with a sweep, a failure and a run in hand."""
    kinds: tuple[dict[str, Any], ...] = (
        {"parameterization": "cp", "task": "planted"},
        {"parameterization": "lora", "task": "planted", "n_params": 2000},
        {"kind": "head", "task": "planted"},
    )
    for kind in kinds:
        for seed in (0, 1):
            write_synthetic(folder, seed=seed, n_test=20, accuracy=0.6 + 0.2 * seed, **kind)
    spec = read_spec(TINY)
    planned = plan_sweep(spec, folder)
    record.write(planned, {"packages": {}, "commit": None})
    first, second, *_ = due(planned).configs
    write_failure(folder, first.id, {"kind": "X", "error": "no luck", "traceback": "", "config": first.as_dict()})
    work = Work(folder, second.id)
    work.prepare(second, 25)
    (work.path / "attempts.jsonl").write_text(json.dumps({"event": "started", "time": 1.0, "pid": os.getpid()}) + "\n")
    return folder


def model_folder(folder: Path, **changes: Any) -> Path:
    """The config of a tiny BERT."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    return folder


def lora_folder(folder: Path) -> Path:
    """A LoRA folder of that BERT, as PEFT writes it."""
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["query"], "bias": "none"}
    settings |= {"fan_in_fan_out": False, "use_rslora": False, "use_dora": False, "rank_pattern": {}}
    settings |= {"alpha_pattern": {}, "modules_to_save": None, "layers_to_transform": None, "task_type": None}
    modules = [f"base_model.model.bert.encoder.layer.{layer}.attention.self.query" for layer in range(2)]
    shapes = {"A": (2, 16), "B": (16, 2)}
    tensors = {f"{module}.lora_{side}.weight": torch.ones(shapes[side]) for module in modules for side in shapes}
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def adapter_folder(folder: Path) -> Path:
    """An adapter of that BERT."""
    model = BertForSequenceClassification(BertConfig(**CONFIG))
    ta.attach(model, ta.plan(ta.find_sites(model, ("q",)), "layer : out : in", "cp", 2, train=())).save(folder)
    return folder

"""The command line with any arguments, files and folders: an exit code, one plain error, and no file that was not asked
for.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import fuzz_cli, hostile_files
from harness.fuzz_cli import Commands, call, checked, escapes, files
from support.checksums import sum_again
from support.sweeping import write_spec

from tensoradapt.lab.runs.store import SUMS

COMMANDS = fuzz_cli.names()
PLAN = ["--method", "cp", "--rank", "2"]
TINY = ["plan", "--model", "tiny-random-bert"]


@dataclass(frozen=True)
class Ground:
    """What commands read (``given``), and where they may write (``work``)."""

    given: Path
    work: Path
    inputs: dict[str, list[str]]
    outputs: list[str]

    @property
    def runs(self) -> str:
        return str(self.given / "runs")

    @property
    def model(self) -> str:
        return str(self.given / "model")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    top = tmp_path_factory.mktemp("ground")
    given, work = top / "given", top / "work"
    given.mkdir()
    (work / "folder").mkdir(parents=True)
    (work / "file").write_text("x")
    (work / "loop").symlink_to(work / "loop")
    os.mkfifo(work / "fifo.csv")
    odd = hostile_files.odd_paths(given / "odd")
    for name, data in hostile_files.SPECS.items():
        (given / name).write_bytes(data)
    runs, lora = hostile_files.runs(given / "runs"), hostile_files.lora_folder(given / "lora")
    model, adapter = hostile_files.model_folder(given / "model"), hostile_files.adapter_folder(given / "adapter")
    specs = [*[str(write_spec(given))] * 6, *(str(given / name) for name in hostile_files.SPECS), *odd]
    inputs = {"runs": [*[str(runs)] * 6, *odd], "spec": specs, "model": [*[str(model)] * 3, *odd]}
    inputs["folder"] = [*[str(lora)] * 4, *[str(adapter)] * 4, *odd]
    names = [
        "new.csv",
        "new/er/t.tex",
        "file",
        "file/x.md",
        "folder",
        "fifo.csv",
        "loop",
        "x" * 300,
        "a\x00b",
        "\ud800",
    ]
    outputs = [
        *(str(work / name) for name in [*names, hostile_files.ESCAPE]),
        "",
        " ",
        "x" * 5000,
        "/dev/null/x",
        "name",
    ]
    return Ground(given, work, inputs, outputs)


@pytest.fixture(autouse=True)
def bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of its own to write to, and little memory."""
    inner = tmp_path / "inner" / "most"  # ../.. is drawn too, and is to hold this test's files alone
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def random_calls(ground: Ground, command: str, n: int, seed: int) -> dict[str, list[str]]:
    """The kinds of faults of random calls; none may change what it reads, none that fails may leave a file."""
    drawn = Commands(ground.inputs, ground.outputs, np.random.default_rng([seed, COMMANDS.index(command)]))
    inputs, before = files(ground.given), [files(ground.work)]

    def changed(words: Sequence[str]) -> str:
        now = files(ground.work)
        left = [path for path in now if Path(path).name.startswith(".") or path.endswith(".tmp")]
        before[0] = now
        return f"left {left[0]}" if left else ""

    tried, kinds = escapes((drawn.drawn(command) for _ in range(n)), changed)
    now = {path: state for path, state in files(ground.given).items() if path in inputs}
    if now != inputs:
        kinds["changed what it read"] = [path for path in inputs if now.get(path) != inputs[path]]
    print(f"{command}: {tried:,} calls")
    return kinds


@pytest.mark.thorough
@pytest.mark.parametrize("command", COMMANDS)
def test_random_arguments(command: str, ground: Ground) -> None:
    assert not random_calls(ground, command, 25, 0)


@pytest.mark.nightly
@pytest.mark.parametrize("command", COMMANDS)
def test_many_random_arguments(command: str, ground: Ground) -> None:
    assert not random_calls(ground, command, 500, 1)


def rewritten(folder: Path, file: str, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(data)
    return folder


def config_that_is(kind: Callable[[Path], Any]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "m").mkdir()
        kind(folder / "m" / "config.json")
        return folder / "m"

    return make


def model(**changes: Any) -> Callable[[Path], Path]:
    return lambda folder: hostile_files.model_folder(folder / "m", **changes)


MODELS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "layers": (model(num_hidden_layers=10**6), "'num_hidden_layers' is 1000000; expected at most 1,000"),
    "labels": (model(num_labels=10**12), "'num_labels' is 1000000000000; expected at most 1,048,576"),
    "digits": (model(hidden_size=10**400), "'hidden_size' is 1000"),
    "a text as size": (model(hidden_size="x"), "does not hold a model that transformers can load"),
    "no heads": (model(num_attention_heads=0), "num_attention_heads of the config (BertConfig) is 0; expected a whole"),
    "layers below 0": (model(num_hidden_layers=-1), "num_hidden_layers of the config (BertConfig) is -1"),
    "code of its own": (
        model(model_type="mine", auto_map={"AutoConfig": "mine.Mine"}),
        "does not hold a model that transformers can load",
    ),
    "a folder": (config_that_is(Path.mkdir), "config.json is no file; expected the config of a model"),
    "a pipe": (config_that_is(os.mkfifo), "config.json is no file"),
    "a device": (config_that_is(lambda path: path.symlink_to("/dev/zero")), "config.json is no file"),
    "nested": (config_that_is(lambda path: path.write_text("[" * 5000)), "nested 5000 deep, and at most 32 are read"),
    "a list": (config_that_is(lambda path: path.write_text("[]")), "config.json is a list"),
}


@pytest.mark.parametrize("name", MODELS)
def test_configs_that_are_none(name: str, tmp_path: Path) -> None:
    make, says = MODELS[name]
    words = ["plan", "--model", str(make(tmp_path)), *PLAN]
    assert not checked(words)
    ended = call(words)
    assert ended.code == 2 and says in " ".join(ended.err.split())


ARGUMENTS: dict[str, tuple[list[str], str]] = {
    "a value of 5,000 characters": (["methods", "--rank", "x" * 5000], "invalid int value: 'xxx"),
    "an unknown argument that steers a terminal": (["methods", "cp", "\x1b[31m"], r"unexpected argument '\x1b[31m'"),
    "a name that steers a terminal": ([*TINY, "--method", "\x1b[31m"], r"\x1b[31m"),
    "two hyphens as a value": (["plan", "--model=--", *PLAN], "argument --model: expected a value, and -- is none"),
    "an empty path": (["results", "runs", "--out", ""], "argument --out: '' is no path"),
    "a path with a null byte": (["results", "a\x00b"], "argument RUNS: 'a\\x00b' is no path"),
    "a path that no system takes": (["results", "\ud800"], "argument RUNS: '\\ud800' is no path"),
    "a path of 5,000 characters": (["report", "x" * 5000], "and no path can be that"),
    "an unknown command of 5,000 characters": (["x" * 5000], "unknown command 'xxx"),
    "a model with a null byte": (["plan", "--model", "a\x00b", *PLAN], "unknown model 'a\\x00b'"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_are_none(name: str) -> None:
    words, says = ARGUMENTS[name]
    assert not checked(words)
    ended = call(words)
    assert ended.code == 2 and says in " ".join(ended.err.split())


def edited(ground: Ground, tmp_path: Path, file: str, path: Sequence[Any], *value: Any) -> str:
    """A folder of runs in which one value of one file that has it was changed, and its checksum with it."""
    runs = hostile_files.runs(tmp_path / "runs")
    documents = {found: json.loads(found.read_text()) for found in sorted(runs.glob(file))}
    found = next(name for name, document in documents.items() if path in hostile_files.places(document))
    found.write_text(json.dumps(hostile_files.replaced(documents[found], path, *value)))
    if (found.parent / SUMS).is_file():
        sum_again(found.parent)
    return str(runs)


EDITS: dict[str, tuple[str, tuple[Any, ...], tuple[Any, ...], str]] = {
    "a method that is a number": ("*/config.json", ("method",), (3,), "method is 3; expected a text"),
    "no task": ("*/config.json", ("task",), (), "task is missing; expected name of a task"),
    "a rate that is a text": ("*/config.json", ("training", "lr"), ("x",), "lr is 'x'; expected a finite number"),
    "a seed that is a table": ("*/config.json", ("seed",), ({},), "seed is {}; expected a whole number"),
    "a rank that is a list": ("*/config.json", ("adapter", "rank"), ([],), "rank is []"),
    "a method of a million characters": ("*/config.json", ("method",), ("x" * 10**6,), "expected a name of at most"),
    "scores that are a list": ("*/result.json", ("test",), ([],), "test is []; expected a mapping"),
    "a scale of 400 digits": ("*/config.json", ("adapter", "scale"), (10**400,), "scale is 1"),
    "a scale that is a table": ("*/result.json", ("adapter", "scale"), ({},), "scale is {}"),
    "another rank": ("*/config.json", ("adapter", "rank"), (99,), "is not the config that its folder is named by"),
    "a metric that is a list": ("*/result.json", ("metric",), ([],), "metric is []; expected a table"),
    "an unknown status": ("*/result.json", ("status",), ("x",), "status is 'x'"),
    "parameters that are a text": ("*/result.json", ("n_params",), ("x",), "n_params is 'x'"),
    "a time that is a text": ("*/measurements.json", ("seconds",), ("x",), "seconds is 'x'"),
    "an error without a config": (
        "*/error.json",
        ("config",),
        (),
        "config is {}; expected a table",
    ),
    "a specification with other seeds": ("sweeps/*.json", ("spec", "seed"), ([1],), "was changed: its name is not"),
    "a cell with a size that is a text": ("sweeps/*.json", ("cells", 0, "size"), ("x",), "cannot be read"),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", EDITS)
def test_runs_that_were_edited(name: str, ground: Ground, tmp_path: Path) -> None:
    file, path, value, says = EDITS[name]
    runs = edited(ground, tmp_path, file, path, *value)
    spec = str(ground.given / "spec.toml")
    calls = [
        ["results", runs],
        ["results", runs, "--means"],
        ["results", runs, "--status"],
        ["results", runs, "--spec", spec],
    ]
    assert not [wrong for words in calls if (wrong := checked(words))]
    printed = "".join(ended.out + ended.err for ended in map(call, calls))
    assert says in " ".join(printed.split())


@pytest.mark.parametrize("key", ["method", "task", "model"])
def test_names_that_steer_a_terminal_are_refused_and_written_out(key: str, ground: Ground, tmp_path: Path) -> None:
    runs = edited(ground, tmp_path, "*/config.json", (key,), hostile_files.ESCAPE)
    for words in (["results", runs], ["results", runs, "--means"], ["report", runs, "--out", str(tmp_path / "page")]):
        assert not checked(words)
        ended = call(words)
        said = " ".join(ended.err.split())
        assert ended.code == 2 and rf"{key} is {hostile_files.ESCAPE!r}; expected a text without line breaks" in said
    assert not (tmp_path / "page").exists()


@pytest.mark.thorough
@pytest.mark.parametrize(("file", "key"), [("*/result.json", "note"), ("*/error.json", "error")])
def test_notes_that_steer_a_terminal_are_written_out(file: str, key: str, ground: Ground, tmp_path: Path) -> None:
    runs = edited(ground, tmp_path, file, (key,), hostile_files.ESCAPE)
    tables = [str(tmp_path / f"table.{kind}") for kind in ("csv", "tex", "parquet")]
    calls = [["results", runs], ["results", runs, "--means"], ["report", runs, "--out", str(tmp_path / "page.html")]]
    calls += [["results", runs, "--out", *tables]]
    assert not [wrong for words in calls if (wrong := checked(words))]
    verdict, _, table = call(calls[0]).out.partition("\n\n")
    assert verdict and len([line for line in table.splitlines() if not line.startswith("*:")]) == 1 + 6 + 1
    assert "\x1b" not in (tmp_path / "table.csv").read_text() + (tmp_path / "table.tex").read_text()


DAMAGED = (
    "*/config.json",
    "*/result.json",
    "*/measurements.json",
    "*/provenance.json",
    "*/error.json",
    "sweeps/*.json",
)


def damage(ground: Ground, file: Path, calls: Sequence[Sequence[str]], every: int) -> None:
    """Calls on each kind of damage to a JSON file, or on one of ``every``."""
    whole, n, kinds = file.read_bytes(), 0, dict[str, str]()
    for i, (how, data) in enumerate(hostile_files.damaged(json.loads(whole))):
        if i % every:
            continue
        file.write_bytes(data)
        if (file.parent / SUMS).is_file():
            sum_again(file.parent)
        for words in calls:
            n += 1
            if wrong := checked(words):
                kinds.setdefault(wrong, f"{how}: {words[0]}")
    print(f"{file.name}: {n:,} calls")
    assert not kinds


def damaged_runs(ground: Ground, tmp_path: Path, pattern: str, every: int) -> None:
    runs = hostile_files.runs(tmp_path / "runs")
    r = str(runs)
    calls = [["results", r], ["results", r, "--means"], ["results", r, "--out", str(tmp_path / "t.parquet")]]
    calls += [["results", r, "--status"], ["results", r, "--where", "lr<=1", "rank=2", "tuning=no", "--out", "t.csv"]]
    calls += [["sweep", str(ground.given / "spec.toml"), "--out", r, "--dry-run"]]
    damage(ground, sorted(runs.glob(pattern))[0], calls, every)


@pytest.mark.thorough
@pytest.mark.parametrize("pattern", DAMAGED)
def test_damaged_runs(pattern: str, ground: Ground, tmp_path: Path) -> None:
    damaged_runs(ground, tmp_path, pattern, 101)


@pytest.mark.nightly
@pytest.mark.parametrize("pattern", DAMAGED)
def test_every_damage_to_runs(pattern: str, ground: Ground, tmp_path: Path) -> None:
    damaged_runs(ground, tmp_path, pattern, 5)


def damaged_folder(ground: Ground, tmp_path: Path, kind: str, every: int) -> None:
    out = str(tmp_path / "out")
    base = hostile_files.model_folder(tmp_path / "base")
    plan = ["plan", "--model", str(base), *PLAN]
    if kind == "adapter":
        folder = hostile_files.adapter_folder(tmp_path / "adapter")
        file, calls = folder / "adapter.json", [["export", str(folder), "--model", str(base), "--out", out]]
    elif kind == "lora":
        folder = hostile_files.lora_folder(tmp_path / "lora")
        how = ["--layout", "layer : out : in", *PLAN, "--out", out]
        file, calls = folder / "adapter_config.json", [["compress", str(folder), "--model", str(base), *how]]
    else:
        export = ["export", str(ground.given / "adapter"), "--model", str(base), "--out", out]
        file, calls = base / "config.json", [plan, export]
    assert [call(words).code for words in calls] == [0] * len(calls)
    damage(ground, file, calls, every)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["adapter", "lora", "model"])
def test_damaged_folders(kind: str, ground: Ground, tmp_path: Path) -> None:
    damaged_folder(ground, tmp_path, kind, 29)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["adapter", "lora", "model"])
def test_every_damage_to_folders(kind: str, ground: Ground, tmp_path: Path) -> None:
    damaged_folder(ground, tmp_path, kind, 1)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an interrupt in a destructor is lost
@pytest.mark.parametrize("command", ["plan", "methods", "results", "status", "sweep", "export"])
def test_ctrl_c_at_any_call_is_one_line(command: str, ground: Ground, tmp_path: Path) -> None:
    words = {
        "plan": [*TINY, *PLAN],
        "methods": ["methods"],
        "results": ["results", ground.runs, "--out", "table.csv"],
        "status": ["results", ground.runs, "--status"],
        "sweep": ["sweep", str(ground.given / "spec.toml"), "--out", "out", "--dry-run"],
        "export": ["export", str(ground.given / "adapter"), "--model", ground.model, "--out", "lora"],
    }[command]
    n = interrupted(words, None)[1]
    assert n > 10
    for at in np.unique(np.geomspace(1, n, 12).astype(int)):
        ended, _ = interrupted(words, int(at))
        assert ended.code in (0, 1) and ended.err.strip().count("\n") == 0, (at, ended)
        assert "stopped" in ended.err or ended.code == 0, (at, ended)
        assert not list(tmp_path.rglob("*.tmp"))


def interrupted(words: list[str], at: int | None) -> tuple[fuzz_cli.Ended, int]:
    """A call that is interrupted as it calls the package's function of number ``at``, and how many it called."""
    n, inside = 0, False

    def count(frame: Any, event: str, _: Any) -> None:
        nonlocal n, inside
        inside = inside or frame.f_code.co_name == "parser"
        if event == "call" and inside and "/tensoradapt/" in frame.f_code.co_filename:
            n += 1
            if n == at:
                sys.setprofile(None)
                raise KeyboardInterrupt

    sys.setprofile(count)
    try:
        return call(words), n
    finally:
        sys.setprofile(None)


def test_a_closed_pipe_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, to_read = {}, os.pipe()
    os.close(to_read[0])
    stderr = io.StringIO()
    with io.TextIOWrapper(os.fdopen(to_read[1], "wb")) as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        monkeypatch.setattr(sys, "stderr", stderr)
        ended["code"] = fuzz_cli.main(["methods"])
    assert ended["code"] == 1 and not stderr.getvalue()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_full_disk_behind_the_output_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "stderr", stderr)
        code = fuzz_cli.main(["methods"])
    assert code == 2 and stderr.getvalue() == "error: 'standard output': No space left on device\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_encoding_without_a_character_gets_an_escape(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(data, encoding=encoding))
    assert fuzz_cli.main([*TINY, *PLAN, "--tasks", "é≤"]) in (0, 2)
    assert fuzz_cli.main(["methods"]) == 0 and data.getvalue()
    sys.stdout.detach()  # type: ignore[union-attr]


def test_without_any_output_there_is_an_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert fuzz_cli.main(["methods"]) == 0
    assert fuzz_cli.main(["results", "no-such-folder"]) == 2


def test_memory_that_does_not_suffice_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("tensoradapt.lab.cli.methods.methods_page", greedy)
    monkeypatch.setattr("tensoradapt.lab.cli.methods.method_rows", greedy)
    ended = call(["methods"])
    assert ended.code == 2 and ended.err.startswith("error: the memory does not suffice")


def test_a_table_takes_no_pipe_s_place(ground: Ground) -> None:
    ended = call(["results", ground.runs, "--out", str(ground.work / "fifo.csv")])
    assert ended.code == 2 and "fifo.csv is a device or pipe" in " ".join(ended.err.split())
    assert (ground.work / "fifo.csv").is_fifo()

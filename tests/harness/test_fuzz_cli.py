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
from support.sweeping import write_spec
from support.synthetic_runs import sum_again

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
    outputs = [str(work / name) for name in [*names, hostile_files.ESCAPE]]
    outputs += ["", " ", "x" * 5000, "/dev/null/x", "name"]
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
    "no heads": (model(num_attention_heads=0), "num_attention_heads of the config (BertConfig) is 0; expected a whole"),
    "code of its own": (
        model(model_type="mine", auto_map={"AutoConfig": "mine.Mine"}),
        "does not hold a model that transformers can load",
    ),
    "a folder": (config_that_is(Path.mkdir), "config.json is no file; expected the config of a model"),
    "a device": (config_that_is(lambda path: path.symlink_to("/dev/zero")), "config.json is no file"),
    "nested": (config_that_is(lambda path: path.write_text("[" * 5000)), "nested 5000 deep, and at most 32 are read"),
}


@pytest.mark.parametrize("name", MODELS)
def test_configs_that_are_none(name: str, tmp_path: Path) -> None:
    make, says = MODELS[name]
    words = ["plan", "--model", str(make(tmp_path)), *PLAN]
    assert not checked(words)
    ended = call(words)
    assert ended.code == 2 and says in " ".join(ended.err.split())


ARGUMENTS: dict[str, tuple[list[str], str]] = {
    "a value of 5,000 characters": (["methods", "--rank", "x" * 5000], "--rank is 'xxx"),
    "an unknown argument that steers a terminal": (["methods", "cp", "\x1b[31m"], r"unexpected argument '\x1b[31m'"),
    "two hyphens as a value": (["plan", "--model=--", *PLAN], "unknown model '--'"),
    "an empty path": (["results", "runs", "--out", ""], "--out: '' is no path"),
    "a path with a null byte": (["results", "a\x00b"], "'a\\x00b' is no path"),
    "an unknown command of 5,000 characters": (["x" * 5000], "unknown command 'xxx"),
    "a model with a null byte": (["plan", "--model", "a\x00b", *PLAN], "unknown model 'a\\x00b'"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_are_none(name: str) -> None:
    words, says = ARGUMENTS[name]
    assert not checked(words)
    ended = call(words)
    assert ended.code == 2 and says in " ".join(ended.err.split())


DAMAGED = [f"*/{name}.json" for name in ("config", "result", "measurements", "provenance", "error")] + ["sweeps/*.json"]


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
        inside = inside or frame.f_code.co_name == "app"
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

"""Fuzzing of the command line: argument lists drawn from its own parsers, and what came of each call."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin
from unittest.mock import patch

import numpy as np
from cyclopts.argument import Argument
from harness.fuzz_calls import LONGEST, SLOWEST, outcome

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.cli.main import TABLE, app, main

ODD = (
    "", " ", "-1", "0", "1", "8", "1e400", "nan", "inf", "-0.0", "1e-320", "9" * 400, "1_0", "x" * 5000, "a\x00b", "\n",
    "\x1b[31mred\x1b[0m\x07", "é", "\ud800", "../..", "/dev/null", "/dev/zero", "/dev/null/x", "--", "-", "--rank",
    "--x=1", "@file", "%s %d {}", "[/b]", "*", "(", ": out : in", "layer proj : out : in", "a : b : c : d", "cp",
    "lora", "all", "q", "true", "a=b", "=", "lr<=nan", "rank=2", "lr>" + "9" * 400, "status=x", "n_params>=1",
    "cuda:99", "True", "tiny-random-bert", "None", "[]", "frontier", "\ufeff", "a" * 255 + "/b",
)  # fmt: skip
GOOD: Mapping[str, tuple[str, ...]] = {
    "model": ("tiny-random-bert",),
    "method": ("cp", "lora", "tucker", "tensor_train", "dense", "vera", "lorta", "fact-tk", "lotr"),
    "layout": (": out : in", "layer proj : head dim : model", "(layer proj) : out : in"),
    "projections": ("attention", "mlp", "all", "q", "v"),
    "rank": ("1", "2", "4", "1000000", "2147483648"),
    "budget": ("500", "1000000", "1" + "0" * 30),
    "figures": ("frontier", "curves", "differences", "all"),
    "x": ("rank", "seconds", "n_params"),
    "at": ("8", "budget", "auto"),
    "reference": ("LoRA", "lora", "head"),
    "task": ("planted", "snippets"),
    "where": ("task=planted", "n_params<=5000", "tuning=no", "method=LoRA"),
    "device": ("cpu", "auto", "cuda"),
    "executor": ("inline", "local", "slurm", "ray"),
    "stale": ("keep", "rerun", "error"),
    "seed": ("0", "1"),
    "slurm": ("time=60", "gpus=1"),
    "ray": ("cpus=1",),
}


PATIENCE = 60  # seconds that a call may take on a busy machine


@dataclass
class Commands:
    """Argument lists for the commands. ``inputs``: paths to read, by name of the option or positional; ``outputs``:
    paths to write, all in a folder that a test may write to.
    """

    inputs: Mapping[str, Sequence[str]]
    outputs: Sequence[str]
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def drawn(self, command: str) -> list[str]:
        """A random argument list of a command."""
        words = [command]
        for argument in arguments(command):
            if self.rng.random() < (0.95 if argument.required else 0.15):
                words += self._given(command, argument)
        if self.rng.random() < 0.03:
            words.insert(int(self.rng.integers(len(words) + 1)), self._one(ODD))
        return words + (["--dry-run"] if command == "sweep" else [])

    def _given(self, command: str, argument: Argument) -> list[str]:
        name = argument.field_info.name
        hint = next((kind for kind in get_args(argument.hint) if kind not in (str, Path, NoneType)), argument.hint)
        if hint is bool:
            return [argument.name]
        several = get_origin(hint) is list
        name = "runs" if name == "folder" and command in READ_RUNS else name
        values = [self._value(name) for _ in range(int(self.rng.integers(1, 4)) if several else 1)]
        if argument.index is not None:
            return values
        return [f"{argument.name}={values[0]}", *values[1:]]

    def _value(self, name: str) -> str:
        if name in OUTPUTS:
            return self._one(self.outputs)
        known = (*self.inputs.get(name, ()), *GOOD.get(name, ()))
        return self._one(known if known and self.rng.random() < 0.7 else ODD)

    def _one(self, values: Sequence[str]) -> str:
        return str(values[int(self.rng.integers(len(values)))])


OUTPUTS = ("out",)
READ_RUNS = ("results", "plot", "report")


def names() -> list[str]:
    """All commands."""
    return list(TABLE)


def arguments(command: str) -> list[Argument]:
    """The options and positionals of a command."""
    return list(app()[command].assemble_argument_collection())


def refused_runs(*_: Any, **__: Any) -> Any:
    raise TensorAdaptError("no run is to begin here")


@dataclass(frozen=True)
class Ended:
    """How a call ended."""

    code: int
    out: str
    err: str


def call(words: Sequence[str]) -> Ended:
    """A call of ``main`` that begins no run; what it prints is kept."""
    out, err = io.StringIO(), io.StringIO()
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        patch("tensoradapt.lab.sweeps.frontier.load_data"),
        patch("tensoradapt.lab.sweeps.frontier.sweep", refused_runs),
    ):
        try:
            code = main(list(words))
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else -1
    return Ended(code, out.getvalue(), err.getvalue())


def fault(words: Sequence[str], ended: Ended) -> str:
    """What is wrong with what a call printed and returned; empty where nothing is."""
    if ended.code not in (0, 1, 2):
        return f"exit code {ended.code}"
    both = ended.out + ended.err
    if "Traceback" in both:
        return "a traceback"
    if odd := re.findall(r"[^\n]", "".join(c for c in both if not c.isprintable())):
        return f"prints {odd[0]!r}"
    error = ended.err[ended.err.find("error:") :]
    if ended.code == 2 and "error:" not in ended.err:
        return f"code 2 without an error: {ended.err[:80]!r}"
    if ended.code == 0 and "--json" in words and "--help" not in words:  # a document, and on stderr what a sweep says
        return "" if is_json(ended.out) else f"prints no JSON: {ended.out[:80]!r}"
    if ended.code == 0 and ended.err:
        return f"code 0 with {ended.err[:80]!r}"
    if len(error) > LONGEST + 100:
        return f"an error of {len(error):,} characters: {error[:60]!r}"
    return ""


def is_json(text: str) -> bool:
    """Whether a text is one JSON document."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def checked(words: Sequence[str]) -> str:
    """What is wrong with a call, by kind; empty where nothing is."""
    found, began = [], time.process_time()

    def run() -> None:
        found.append(fault(words, call(words)))

    # the processor's time is what counts, as the machine may be shared; the clock's bounds what waits
    wrong = outcome(run, PATIENCE) or found[0]
    return wrong or ("over 5 s" if time.process_time() - began > SLOWEST else "")


def files(folder: Path) -> dict[str, tuple[int, ...]]:
    """Every path below a folder with its size and time of change, without following links."""
    kept = {}
    for path in folder.rglob("*"):
        found = path.lstat()
        kept[str(path)] = (found.st_size if path.is_file() else 0, found.st_mtime_ns if path.is_file() else 0)
    return kept


def escapes(calls: Iterator[Sequence[str]], after: Callable[[Sequence[str]], str]) -> tuple[int, dict[str, list[str]]]:
    """How many calls there were, and an argument list for each kind of fault; ``after``: a further check of each."""
    n, kinds = 0, dict[str, list[str]]()
    for words in calls:
        n += 1
        if kind := checked(words) or after(words):
            kinds.setdefault(kind, [word[:60] for word in words])
    return n, kinds

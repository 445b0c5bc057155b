"""The work of a sweep, its status and its tables grows with the number of its runs, and no faster."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from unittest.mock import patch

import pytest
from support.sweeping import HOW, TINY, left_by

import tensoradapt as ta
from tensoradapt import files
from tensoradapt.lab.runs import perform
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.sweeps.status import status


def counted(root: Path, n: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Counter[str]]:
    """How many configs are made and files are opened by each step of a sweep of 14 n runs, none of them computed."""
    found: dict[str, Counter[str]] = {}
    given = {**TINY, "lr": [1e-3, 3e-3, 1e-2], "weight_decay": [0.01 * i for i in range(n)]}
    how = {**HOW, "say": lambda line: None}

    def step(name: str, call: object, *arguments: object, **more: object) -> object:
        counts = found[name] = Counter()
        made, opened = RunConfig.__post_init__, files.open_bytes
        with monkeypatch.context() as patched, patch("os.fsync"):
            patched.setattr(perform, "execute", left_by(score))
            patched.setattr(RunConfig, "__post_init__", lambda one: counts.update(["configs"]) or made(one))
            patched.setattr(files, "open_bytes", lambda path: counts.update(["files"]) or opened(path))
            return call(*arguments, **more)

    spec = {**given, "tuning": {"extend": 0}}
    step("dry run", ta.sweep, spec, root, dry_run=True, **how)
    assert step("all runs", ta.sweep, spec, root, **how).finished == 28 * n
    step("again", ta.sweep, spec, root, **how)
    step("status", status, root)
    step("results", ta.results, root)
    return found


def score(config: RunConfig) -> float:
    """The middle rate is the best."""
    return 0.9 - abs(config.training.lr - 3e-3)


@pytest.mark.thorough
def test_three_times_the_runs_take_three_times_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (counted(tmp_path / str(n), n, monkeypatch) for n in (1, 3))
    for step, counts in few.items():
        for what, n in counts.items():
            assert many[step][what] <= 3 * n * 1.05 + 5, (step, what, n, many[step][what])

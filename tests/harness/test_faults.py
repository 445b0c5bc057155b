"""A save that is killed, or whose system calls fail, leaves the last good state: the old files or the new ones.

``python tests/harness/faults.py`` tries every fault and prints how many there were.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.faults import Faults, failed, killed
from harness.system_calls import needs_strace
from harness.two_saves import KINDS

import tensoradapt as ta


@needs_strace
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tries", [killed, failed])
@pytest.mark.parametrize("step", [pytest.param(9, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.nightly)])
def test_a_fault_at_a_system_call_leaves_the_old_state_or_the_new_one(
    kind: str, tries: Callable[[Faults, int], None], step: int, tmp_path: Path
) -> None:
    """``killed`` and ``failed`` check what each fault left; every ``step``-th of at least 14 calls is tried."""
    faults = Faults(kind, tmp_path)
    tries(faults, step)
    assert faults.left.total() >= -(-14 // step) and set(faults.left) <= {"old", "new"}
    print(f"{kind}: {faults.left.total()} faults left {dict(faults.left)}")


def saving(folder: str) -> None:
    """A process that saves one adapter after another into a folder, until it is killed."""
    saves = KINDS["adapter.save"](Path(folder))
    while True:
        saves.change()
        saves.second()


@pytest.mark.slow
def test_two_writers_at_once_leave_one_s_files_or_what_is_refused(tmp_path: Path) -> None:
    """Each save renames three files, so two of them can be mixed; never is a mixture loaded."""
    saves = KINDS["adapter.save"](tmp_path / "at")
    saves.first()
    writers = [multiprocessing.get_context("fork").Process(target=saving, args=(tmp_path / "at",)) for _ in range(2)]
    for writer in writers:
        writer.start()
    read = Counter[bool]()
    try:
        while read.total() < 60:
            try:
                saves.read()
                read[True] += 1
            except ta.TensorAdaptError:
                read[False] += 1
    finally:
        for writer in writers:
            writer.kill()
            writer.join()
    assert read[True] and all(writer.exitcode == -9 for writer in writers), "a writer failed"
    saves.second()
    saves.read()
    print(f"two writers: {read[True]} loads, {read[False]} refused")


def test_a_clock_that_goes_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, make in KINDS.items():
        folder = tmp_path / kind
        saves = make(folder)
        saves.first()
        for path in folder.rglob("*"):
            os.utime(path, (2**33, 2**33))  # the year 2242
        before = saves.read()
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: 1.0)
            saves.change()
            saves.second()
        for path in folder.rglob("*"):
            os.utime(path, (1, 1))
        assert saves.read() != before
        saves.first()
        saves.read()

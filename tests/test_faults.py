"""A save that is killed, or whose system calls fail, leaves the last good state: the old files or the new ones.

``pytest -m "nightly or not nightly" -s tests/test_faults.py`` prints how many faults were tried.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest
from support.system_calls import OF_FILES, REFUSED, WELL, needs_strace, system_calls, traced
from support.two_saves import KINDS, TwoSaves

import tensoradapt as ta

ERRORS = ("ENOSPC", "EIO", "EROFS")


class Faults:
    """A save over old files, again and again, each with one fault; counts what was left."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.at, self.old, self.log = folder / "at", folder / "old", folder / "log"
        self.saves: TwoSaves = KINDS[kind](self.at)
        self.saves.first()
        shutil.copytree(self.at, self.old)
        self.before = self.saves.read()
        self.saves.change()
        self.saves.second()
        self.after = self.saves.read()
        assert self.after != self.before
        self.left = Counter[str]()

    def reset(self) -> None:
        shutil.rmtree(self.at)
        shutil.copytree(self.old, self.at)

    def calls(self) -> list[tuple[str, int]]:
        self.reset()
        return system_calls(self.saves.second, self.log)

    def one(self, fault: str) -> int:
        """Try a fault; returns how the save ended, once what it left is checked."""
        self.reset()
        ended = traced(self.saves.second, self.log, fault)
        try:
            found = self.saves.read()
        except ta.TensorAdaptError:  # files of two saves, which is noticed
            state = "refused"
        else:
            state = "old" if found == self.before else "new" if found == self.after else "lost"
        assert state != "lost" and (ended != WELL or state == "new" or self.saves.quiet), (fault, ended, state)
        self.left[state] += 1
        return ended


@pytest.fixture
def faults(kind: str, tmp_path: Path) -> Faults:
    return Faults(kind, tmp_path)


def killed(faults: Faults, step: int) -> None:
    calls = faults.calls()
    assert len(calls) > 15
    for name, at in calls[1:-1:step]:  # the first is of the copy's stop, the last its exit
        assert faults.one(f"{name}:signal=KILL:when={at}") == -9, (name, at)
    assert not faults.left["refused"]
    faults.reset()
    faults.saves.second()
    assert faults.saves.read() == faults.after


def failed(faults: Faults, step: int) -> None:
    calls = [call for call in faults.calls() if OF_FILES.fullmatch(call[0])]
    assert len(calls) > 10
    for i, (error, (name, at)) in enumerate((error, call) for error in ERRORS for call in calls):
        if i % step == 0:
            ended = faults.one(f"{name}:error={error}:when={at}")
            assert ended in (WELL, REFUSED), (error, name, at, faults.log.read_text()[-300:])
    assert not faults.left["refused"]


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_some_kills(faults: Faults) -> None:
    killed(faults, 9)


@needs_strace
@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_at_every_system_call(faults: Faults, kind: str) -> None:
    killed(faults, 1)
    print(f"{kind}: {faults.left.total()} kills left {dict(faults.left)}")


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_some_calls_that_fail(faults: Faults) -> None:
    failed(faults, 9)


@needs_strace
@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_every_call_of_files_that_fails(faults: Faults, kind: str) -> None:
    failed(faults, 1)
    print(f"{kind}: {faults.left.total()} errors left {dict(faults.left)}")


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

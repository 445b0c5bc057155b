"""Try every fault of every kind of save and print what they left: ``python tests/harness/faults.py``.

Needs strace. A fault is a kill (SIGKILL) at one system call of a save over older files, or an error (ENOSPC, EIO or
EROFS) of one call of files. Each must leave the old state or the new one, whole, and a save afterwards must succeed.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections import Counter
from importlib import metadata
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[1])]

from harness.system_calls import OF_FILES, REFUSED, WELL, system_calls, traced  # noqa: E402
from harness.two_saves import KINDS, TwoSaves  # noqa: E402

import tensoradapt as ta  # noqa: E402
from tensoradapt.text import align  # noqa: E402

RECORD = Path(__file__).parents[2] / "benchmarks" / "records" / "faults.json"

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


def main() -> None:
    saves, rows = {}, [("save", "fault", "tried", "old state", "new state")]
    for kind in KINDS:
        saves[kind] = {}
        for what, tries in (("kills", killed), ("errors", failed)):
            with tempfile.TemporaryDirectory() as folder:
                faults = Faults(kind, Path(folder))
                tries(faults, 1)
            left = saves[kind][what] = dict(faults.left)
            rows.append((kind, what, *(str(n) for n in (sum(left.values()), left.get("old", 0), left.get("new", 0)))))
            print(f"{kind}, {what}: {left}", flush=True)
    total = sum(int(row[2]) for row in rows[1:])
    print("\n".join(align(rows)), f"\n{total} faults, nothing lost")
    versions = {"python": platform.python_version(), "torch": metadata.version("torch"), "system": platform.system()}
    RECORD.write_text(json.dumps({"saves": saves, "versions": versions}, indent=2) + "\n")


if __name__ == "__main__":
    main()

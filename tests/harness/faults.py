"""Try every fault of every kind of save and print what they left: ``python tests/harness/faults.py``.

Needs strace. A fault is a kill (SIGKILL) at one system call of a save over older files, or an error (ENOSPC, EIO or
EROFS) of one call of files. Each must leave the old state or the new one, whole, and a save afterwards must succeed.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from importlib import metadata
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[1])]

from harness.faulty_saves import Faults, failed, killed  # noqa: E402
from harness.two_saves import KINDS  # noqa: E402

from tensoradapt.text import align  # noqa: E402

RECORD = Path(__file__).parents[2] / "benchmarks" / "records" / "faults.json"


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

"""How many instructions a step of `speed.py` takes, counted by valgrind: the same on a busy machine as on a quiet one.

    python benchmarks/speed_instructions.py small frozen "PEFT LoRA r=8" "cp r=8"    # what valgrind runs

A process under callgrind attaches each row and takes a step that is not counted, then one that is. Nothing else of the
process is counted. Starting takes about two minutes, as all of torch is loaded fifty times slower.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from speed_models import base_of, batch_of, shared
from speed_rows import rows_of
from speed_turns import Competitor

FROZEN = "frozen"


def count(shape: str, names: Sequence[str]) -> dict[str, int]:
    """The instructions of a step of the frozen model and of each row, by name."""
    if not shutil.which("valgrind"):
        raise SystemExit("--instructions needs valgrind, which is not installed; install it, or leave the flag out")
    with tempfile.TemporaryDirectory() as folder:
        tool = ["valgrind", "--quiet", "--tool=callgrind", "--collect-atstart=no", f"--callgrind-out-file={folder}/out"]
        subprocess.run([*tool, sys.executable, __file__, shape, FROZEN, *names], check=True)
        found = [total(Path(folder) / f"out.{i + 1}") for i in range(len(names) + 1)]
    return dict(zip((FROZEN, *names), found, strict=True))


def total(path: Path) -> int:
    """The instructions of one of callgrind's files."""
    return int(re.search(r"^(?:totals|summary): (\d+)", path.read_text(), re.MULTILINE)[1])  # type: ignore[index]


def main() -> None:
    """Step through rows, each counted into a file of its own."""
    shape, *names = sys.argv[1:]
    torch.set_num_threads(1)
    base = base_of(shape, "cpu", "float32")
    batch, rows = batch_of(base, shape, "cpu"), {row.name: row for row in rows_of(base)}
    for name in names:
        row = rows.get(name)  # the frozen model is none
        model = row.attach(shared(base), row.plan(base)) if row else base
        competitor = Competitor(model, batch, "cpu")
        competitor.step()
        torch._C._valgrind_toggle()
        competitor.step()
        torch._C._valgrind_toggle_and_dump_stats()


if __name__ == "__main__":
    main()

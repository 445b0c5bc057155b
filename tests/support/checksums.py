"""Makes the checksums of a run's folder those of its files, so that what a test edited there is read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tensoradapt.lab.runs.store import SUMS


def sum_again(folder: Path) -> None:
    """Write the checksums of the files in a run's folder as they are now."""
    files = [path for path in folder.iterdir() if path.name not in (SUMS, "attempts.jsonl")]
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    (folder / SUMS).write_text(json.dumps(sums))

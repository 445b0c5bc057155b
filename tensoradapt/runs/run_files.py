"""Read the files of a run within bounds, and compare them with their checksums."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import parse_json, read_bounded, reason

SUMS = "checksums.json"  # the checksums of the other files of a run
HEAD_LABEL = "frozen base + head"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a run; raises TensorAdaptError where it is missing, damaged or was changed."""
    again = f"expected a JSON object written by write_run: delete the folder {path.parent} to run it again"
    try:
        data = read_bytes(path)
    except OSError as error:
        raise TensorAdaptError(f"{path} cannot be read ({reason(error)}); {again}") from error
    document = parse_json(data, path, again)
    if not isinstance(document, dict):
        raise TensorAdaptError(f"{path} cannot be read (a {type(document).__name__} at its top); {again}")
    return document


def read_bytes(path: Path) -> bytes:
    """The bytes of a run's file; raises TensorAdaptError where they are not those that were written."""
    data = read_bounded(path, "and no file of a run has as many; delete the folder to run it again")
    if path.name == SUMS:
        return data
    if read_json(path.parent / SUMS).get(path.name) not in (None, hashlib.sha256(data).hexdigest()):
        raise TensorAdaptError(
            f"{path} was changed after its run ended: its checksum is not that of {SUMS}. Put it back as it was, or "
            f"delete the folder {path.parent} to run it again"
        )
    return data

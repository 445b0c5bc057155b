"""Where the data of a task is: in the folder that TENSORADAPT_DATA names, or else online."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tensoradapt.errors import TensorAdaptError, first_line, of_extra

T = TypeVar("T")
UNSET = "TENSORADAPT_DATA is not set"


def local(file: str) -> Path | None:
    """Return the path of a file or folder in the one that TENSORADAPT_DATA names; None where it names none."""
    root = os.environ.get("TENSORADAPT_DATA")
    return Path(root).expanduser() / file if root else None


def missing(path: Path | None) -> str:
    """Say in words why data is not local."""
    return f"there is no {path}" if path else UNSET


def from_hub(task: str, *name: str) -> Any:
    """Return a data set of the hub by its name and part; raises TensorAdaptError where `datasets` is not installed."""
    return of_extra("datasets", "hub", f'loading "{task}" online').load_dataset(*name)


def online(load: Callable[[], T], task: str, why_not_local: str, holding: str) -> T:
    """Return what ``load`` gives; where it raises, raise TensorAdaptError that names both ways to provide the data.

    ``holding``: what the local folder should hold, empty for a task that is never local.
    """
    try:
        return load()
    except Exception as error:  # the hub client's errors share no base class
        here = f"set TENSORADAPT_DATA to a folder with {holding}, or " if holding else ""
        raise TensorAdaptError(
            f'task "{task}" is neither local ({why_not_local}) nor to be had online ({first_line(error)}): {here}run '
            'pip install "tensoradapt[hub]" where the hub can be reached'
        ) from error

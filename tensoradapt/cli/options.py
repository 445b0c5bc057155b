"""Options that several commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensoradapt.checks import shown

DEFAULT_OUT = Path("runs") / "frontier"
DEFAULT_MODEL = "all-minilm-l6-v2"


def path(text: str) -> Path:
    """Return an option or argument as a path; one that the system cannot take is refused."""
    try:
        if not text or b"\0" in os.fsencode(text):
            raise ValueError
    except ValueError:  # a character that no file name can have
        raise argparse.ArgumentTypeError(f"{shown(text)} is no path; expected that of a file or folder") from None
    return Path(text)


def add_layout(p: argparse.ArgumentParser) -> None:
    """Add ``--layout``."""
    p.add_argument("--layout", nargs="+", metavar="LAYOUT", help='such as "layer proj : head dim : model"')


def add_projections(p: argparse.ArgumentParser, default: Sequence[str] | None) -> None:
    """Add ``--projections``."""
    p.add_argument(
        "--projections", nargs="+", metavar="P", default=default, help="attention, mlp, all, or names such as q v"
    )


def add_selection(p: argparse.ArgumentParser) -> None:
    """Add the options that choose runs of a folder."""
    p.add_argument(
        "--where", nargs="+", default=(), metavar="CONDITION", help='such as task=sst2 "n_params<=5000" tuning=false'
    )
    p.add_argument("--spec", type=path, metavar="FILE", help="only the runs of this sweep")


def picked(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return the values of the named options, by name, to pass to a function whose parameters have the same names."""
    return {name: getattr(args, name) for name in names}

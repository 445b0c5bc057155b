"""Options that several commands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from tensoradapt import checks
from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.cli.output import complain
from tensoradapt.text import plain

RUNS = Path("runs")  # where commands leave folders of runs, unless they are told another place
DEFAULT_OUT = RUNS / "frontier"
OF_RUNS = ("sweeps/*.json", "[!.]*/result.json", "[!.]*/error.json")  # files by which a folder of runs is known
DEFAULT_MODEL = "all-minilm-l6-v2"


def path(text: str) -> Path:
    """Return an option or argument as a path; one that the system cannot take is refused."""
    try:
        if not text or b"\0" in os.fsencode(text):
            raise ValueError
    except ValueError:  # a character that no file name can have
        raise argparse.ArgumentTypeError(f"{shown(text)} is no path; expected that of a file or folder") from None
    return Path(text)


def n_params(text: str) -> int:
    """Return an option as a number of parameters: 18600, or 18.6k."""
    try:
        return checks.count(text, "budget")
    except TensorAdaptError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_runs(p: argparse.ArgumentParser) -> None:
    """Add the folder of runs."""
    p.add_argument("runs", nargs="?", type=path, metavar="RUNS", help="folder of runs (default: the newest in ./runs)")


def runs_folder(given: Path | None) -> Path:
    """Return the folder of runs that was given, or else the newest one, and say on stderr which that is.

    Raises TensorAdaptError where there is none.
    """
    if given is not None:
        return given
    if (found := newest_runs()) is None:
        raise TensorAdaptError(
            f"no folder of runs was named, and there is none in ./{RUNS}; expected one: name it, or make one with "
            "tensoradapt frontier"
        )
    complain(f"reading {plain(str(found))}, the newest folder of runs in ./{RUNS}")
    return found


def newest_runs() -> Path | None:
    """Return the folder of runs in ./runs that was last written to, which may be ./runs itself; None without one."""
    try:
        found = [folder for folder in (RUNS, *RUNS.glob("[!.]*")) if any(any(folder.glob(kind)) for kind in OF_RUNS)]
        return max(found, key=lambda folder: folder.stat().st_mtime_ns, default=None)
    except OSError:  # a folder that cannot be read, or is gone meanwhile
        return None


def add_layout(p: Any) -> None:
    """Add ``--layout``."""
    p.add_argument("--layout", nargs="+", metavar="LAYOUT", help='such as "layer proj : head dim : model"')


def add_selection(parser: argparse.ArgumentParser) -> Any:
    """Add the options that choose runs of a folder, and return their group."""
    p = parser.add_argument_group("which runs, and what they are compared with")
    p.add_argument(
        "--where", nargs="+", default=(), metavar="CONDITION", help='such as task=sst2 "n_params<=5000" tuning=false'
    )
    p.add_argument("--spec", type=path, metavar="FILE", help="only the runs of this sweep")
    return p


def picked(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return the values of the named options, by name, to pass to a function whose parameters have the same names."""
    return {name: getattr(args, name) for name in names}

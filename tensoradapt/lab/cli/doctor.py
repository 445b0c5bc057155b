"""The command ``doctor``: what is broken in an installation, a machine or a folder of runs, and the remedy."""

from __future__ import annotations

from pathlib import Path

from tensoradapt import __version__
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab import checkup
from tensoradapt.lab.cli.options import Json, Places, newest_runs
from tensoradapt.lab.cli.output import show_json, show_table, show_text

HOME = Path(__file__).parents[2]


def doctor(runs: Places = None, /, *, deep: bool = False, json: Json = False) -> int:
    """Print a line for each thing that is checked, and return the exit code.

    Args:
        runs: folders of runs, to look for runs left behind (default: the newest in ./runs)
        deep: also compare fetched models and data with their archives
    """
    if missing := [folder for folder in runs or () if not folder.is_dir()]:
        raise TensorAdaptError(
            f"{missing[0]} is no folder; expected a folder of runs: leave it out or run a sweep first"
        )
    findings = checkup.examine(deep, runs or filter(None, (newest_runs(),)))
    broken = sum(finding.state == checkup.BROKEN for finding in findings)
    if json:
        checks = [finding._asdict() for finding in findings]
        show_json({"version": __version__, "folder": HOME, "broken": broken, "checks": checks})
    else:
        show_text(f"tensoradapt {__version__} in {HOME}")
        show_table(("state", "check", "found"), findings)
        show_text(f"{broken} of {len(findings)} checks found something broken" if broken else "nothing is broken")
    return 1 if broken else 0

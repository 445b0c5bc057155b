"""Whether runs that are compared, or averaged, were made in one way: with the same data, steps and choice of rates.

Within one specification what differs was asked for. Runs of several specifications in one folder must agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pandas import DataFrame

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.results import CONFIGURATION
from tensoradapt.lab.runs.row import SETUP
from tensoradapt.lab.tasks.splits import DataSpec
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.records import names
from tensoradapt.training.options import Training

Row = Mapping[str, Any]
PROTOCOL = ("steps", *names(DataSpec), "tuned_on")  # what two methods must have in common to be compared
APART = (*CONFIGURATION, "lr", "precision", "tasks", "train")
# what the seeds of one configuration have in common, beside what tells configurations apart
ALIKE = tuple(
    name
    for name in dict.fromkeys((*names(DataSpec), *names(Training), *SETUP, *names(AdapterSpec)))
    if name not in APART
)
MISSING = {
    "tuned_on": "a rate that was given",
    **{name: f"{name} all" for name in ("n_train", "n_validation", "n_test")},
}
SELECT = (
    "select the runs of one by spec= or where={condition!r} (--spec, --where), or run each specification into a folder "
    "of its own"
)


def differing(table: DataFrame) -> bool:
    """Return whether the runs of a task differ in anything that two methods must have in common."""
    own = table[~table["tuning"]]
    return any(of_task[name].nunique(dropna=False) > 1 for _, of_task in own.groupby("task") for name in PROTOCOL)


def check_alike(called: str, own: Sequence[Row]) -> None:
    """Raise TensorAdaptError where the runs of one configuration differ in a setting beside their seeds."""
    for name in filter(own[0].__contains__, ALIKE):
        rows = list({_text(name, row): row for row in own}.values())
        if len(rows) > 1:
            raise TensorAdaptError(
                f"{called} has runs with {_text(name, rows[0])} and {_text(name, rows[1])}; expected one, as their "
                f"mean is of neither: {SELECT.format(condition=_condition(name, *rows[:2]))}"
            )


def apart(first: Row, second: Row) -> str:
    """Return the first thing that two runs of different specifications do not have in common; "" where they compare.

    Runs of no folder of sweeps compare, as nothing says how they were made.
    """
    if first.get("sweep") is None or second.get("sweep") is None:
        return ""
    if set(first["sweep"].split()) & set(second["sweep"].split()):
        return ""
    return next((name for name in PROTOCOL if first.get(name) != second.get(name)), "")


def refused(first: str, second: str, own: Row, other: Row) -> TensorAdaptError:
    """Return the error for a method and its reference that were not made by one protocol."""
    name = apart(own, other)
    return TensorAdaptError(
        f"{first} has {_text(name, own)}, and {second}, which it would be compared with, has {_text(name, other)}, in "
        "runs of different specifications; expected one protocol, as such scores do not compare: "
        f"{SELECT.format(condition=_condition(name, other, own))}, or run both methods by one"
    )


def _text(name: str, row: Row) -> str:
    value = row[name]
    if value is None:
        return MISSING.get(name, f"no {name}")
    return f"a rate chosen with seeds {value}" if name == "tuned_on" else f"{name} {value}"


def _condition(name: str, row: Row, other: Row) -> str:
    """Return the condition that a run meets and another does not; a missing value meets "!=" alone."""
    return f"{name}!={other[name]}" if row[name] is None else f"{name}={row[name]}"

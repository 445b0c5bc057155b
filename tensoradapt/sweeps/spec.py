"""The specification of a sweep as records, and the part of it that describes a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from tensoradapt.checks import Check, checked, flag, listed, mapping, number, one_of, rank, whole
from tensoradapt.errors import TensorAdaptError
from tensoradapt.planning.scale import SCALES
from tensoradapt.runs.store import FORMER_HEAD_LABEL, run_id

Size = Mapping[str, Any]  # {"rank": r}, {"budget": n}, or empty for a method without a rank
PROPOSERS = ("grid", "optuna")
EXAMPLE = "such as trials = 20 and, under [search], learning_rate = {low = 1e-4, high = 1e-1}"
# what is searched, and the settings that would fix it
FIXED = {
    "learning_rate": ("learning_rates",),
    "head_learning_rate": ("head_learning_rate",),
    "scale": ("scale",),
    "rank": ("ranks", "budgets"),
    "budget": ("ranks", "budgets"),
}


@dataclass(frozen=True)
class Method:
    """A published adapter, a parameterization over layouts, or a reference; ``kind`` is that of its runs."""

    name: str
    kind: str
    sizes: tuple[Size, ...]
    learning_rates: tuple[float, ...]
    published: str | None = None
    parameterization: str | None = None
    layout: tuple[str, ...] | None = None
    projections: tuple[str, ...] = ()
    scale: str | float = "matched"
    plan: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Search:
    """A search of ``trials`` for each method and task, ``parallel`` of them at once.

    ``space``: by its name in ``FIXED``, a range ({"low", "high", "log"}) or a tuple of choices.
    """

    trials: int
    parallel: int
    space: Mapping[str, Any]

    @property
    def size(self) -> str:
        """The size that is searched, "rank" or "budget"; "" where every size is run."""
        return next((key for key in ("rank", "budget") if key in self.space), "")


@dataclass(frozen=True)
class SweepSpec:
    """All that a sweep runs: methods x sizes x tasks x seeds.

    ``runs``: further settings of every run. ``search``: what is searched instead of grids of learning rates.
    """

    model: str
    tasks: tuple[str, ...]
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    tuning_seed: int
    runs: Mapping[str, Any]
    search: Search | None = None

    @property
    def id(self) -> str:
        """The hash of the specification, which later additions (a search, the head's label) leave as it was."""
        said = {key: value for key, value in asdict(self).items() if key != "search" or value is not None}
        former = {"head": {"name": FORMER_HEAD_LABEL}}
        return run_id({**said, "methods": [{**row, **former.get(row["kind"], {})} for row in said["methods"]]})

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SweepSpec:
        """The specification of a record (``dataclasses.asdict``, through JSON).

        >>> from tensoradapt.sweeps.read_spec import read_spec
        >>> spec = read_spec({"model": "tiny-random-bert", "tasks": ["planted"], "published": ["lora"], "ranks": [1],
        ...                   "learning_rates": [1e-3], "seeds": [0], "steps": 60})
        >>> SweepSpec.from_dict(asdict(spec)) == spec
        True
        """
        methods = tuple(Method(**method) for method in record["methods"])
        search = record.get("search")
        return cls(**{**record, "methods": methods, "search": Search(**search) if search else None})


def read_search(settings: Mapping[str, Any]) -> Search | None:
    """The search among the checked settings of a sweep; None for a grid.

    Raises TensorAdaptError for settings that a grid does not use, and for what a search lacks or has fixed.
    """
    given = [key for key in ("search", "trials", "parallel") if key in settings]
    if settings.get("proposer", "grid") == "grid":
        if given:
            raise TensorAdaptError(f'{given[0]} is given without a search; expected proposer = "optuna" as well')
        return None
    for key in ("search", "trials"):
        if key not in settings:
            raise TensorAdaptError(f"{key} is missing; a search needs it, {EXAMPLE}")
    space = settings["search"]
    if "learning_rate" not in space:
        raise TensorAdaptError(f"search.learning_rate is missing; a search needs it, {EXAMPLE}")
    if {"rank", "budget"} <= space.keys():
        raise TensorAdaptError("search.rank and search.budget were given; expected one of them")
    check_fixed(space, settings, "")
    return Search(settings["trials"], settings.get("parallel", 1), space)


def check_fixed(space: Mapping[str, Any], settings: Mapping[str, Any], where: str) -> None:
    """Raise TensorAdaptError for a setting that fixes what is searched."""
    for key in space:
        for other in FIXED[key]:
            if other in settings:
                raise TensorAdaptError(f"{where}{other} and search.{key} were given; expected one of them")


def _axis(check: Check, value: Any, where: str) -> Any:
    """A range, or a list of choices."""
    if not isinstance(value, Mapping):
        return listed(check, value, where)
    range_ = {"log": True, **checked(mapping(value, where), {"low": number, "high": number, "log": flag}, f"{where}.")}
    if not range_.keys() >= {"low", "high"} or range_["low"] >= range_["high"]:
        raise TensorAdaptError(f"{where} is {dict(value)}; expected low and high, and low below high")
    return range_


def scale(value: Any, where: str) -> str | float:
    """Return the scale of an adapter: the name of a rule, or a number."""
    return one_of(tuple(SCALES), value, where) if isinstance(value, str) else number(value, where)


def space_of(value: Any, where: str) -> dict[str, Any]:
    """The table ``[search]``, its keys in the order of ``SPACE``."""
    space = checked(mapping(value, where), SPACE, f"{where}.")
    return {key: space[key] for key in SPACE if key in space}


SPACE: dict[str, Check] = {
    "learning_rate": partial(_axis, number),
    "head_learning_rate": partial(_axis, number),
    "scale": partial(_axis, scale),
    "rank": partial(listed, rank),
    "budget": partial(listed, whole),
}

"""The specification of a sweep as records, and the parts of it that describe tuning and a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from tensoradapt.checks import Check, checked, flag, listed, mapping, number, one_of, rank, whole
from tensoradapt.errors import TensorAdaptError
from tensoradapt.planning.scale import SCALES
from tensoradapt.records import changed, digest
from tensoradapt.training.options import Training

Size = Mapping[str, Any]  # {"rank": r}, {"budget": n}, or empty for a method without a rank
OPTIMIZER = "equal_steps"  # the optimizer of adapters, where a specification names none
PROPOSERS = ("grid", "optuna")
TUNE = ("size", "method", "none")
TUNING_SEEDS, EXTEND = (1000, 1001), 3  # for a grid, unless others are given
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
    """A published adapter, a parameterization over layouts, or a reference; ``kind`` is that of its runs.

    ``own_rates``: whether ``learning_rates`` were given for this method. Where they were not, the head on a frozen base
    trains at the rate that heads of the sweep have.
    """

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
    own_rates: bool = True


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

    Args:
        runs: further settings of every run.
        tuning_seeds: seeds of the runs that choose a learning rate.
        search: what is searched instead of grids of learning rates.
        tune: whether rates are chosen at each "size", or for a "method" at its middle size; "none" where every method
            has one.
        extend: how many rates may be tried beyond the ends of each grid.
        data: records of tasks of own data, by name.
        pack: how many runs may take turns in one process, over one base in memory; no part of what is computed.
        head_rates: the head's rate on each task that has one, where ``runs`` gives none (``cells.with_head_rates``).
    """

    model: str
    tasks: tuple[str, ...]
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]
    runs: Mapping[str, Any]
    search: Search | None = None
    tune: str = "none"
    extend: int = 0
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pack: int = 1
    head_rates: Mapping[str, float] = field(default_factory=dict)

    def head_lr(self, task: str) -> float | None:
        """The head's rate on a task, given or by the model; None where the head trains at the rate of the rest."""
        return self.runs.get("head_lr", self.head_rates.get(task))

    def rates_of(self, method: Method, task: str) -> tuple[float, ...]:
        """The rates of a method on a task: its grid, or for the head on a frozen base that of heads."""
        head = None if method.kind != "head" or method.own_rates else self.head_lr(task)
        return (head,) if head else method.learning_rates

    def of_task(self, task: str) -> dict[str, Any]:
        """The settings of runs of one task: the record of its data, and its own length of texts."""
        record = self.data.get(task, {})
        length = record.get("source", {}).get("max_length")
        return ({"data": record} if record else {}) | ({"max_length": length} if length else {})

    @property
    def id(self) -> str:
        """Return the hash of what is computed: how many runs are packed and where own data lies are no part of it, nor
        are the head's rates, which follow from model and tasks.
        """
        said = {key: value for key, value in asdict(self).items() if key not in ("pack", "head_rates")}
        said["data"] = {
            name: {**record, "source": self.of_task(name).get("max_length")} for name, record in self.data.items()
        }
        return digest(said)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SweepSpec:
        """Return the specification of a record (``dataclasses.asdict``, through JSON).

        >>> from tensoradapt.sweeps.read_spec import read_spec
        >>> spec = read_spec({"model": "tiny-random-bert", "tasks": ["planted"], "published": ["lora"], "ranks": [1],
        ...                   "learning_rates": [1e-3], "seeds": [0], "steps": 60})
        >>> SweepSpec.from_dict(asdict(spec)) == spec
        True
        """
        methods = tuple(Method(**method) for method in record["methods"])
        search = record["search"] and Search(**record["search"])
        return cls(**{**record, "methods": methods, "search": search})


def read_tuning(settings: Mapping[str, Any], methods: Sequence[Method]) -> dict[str, Any]:
    """How rates are tuned, among the checked settings of a sweep: its ``tuning_seeds``, ``tune`` and ``extend``.

    Where no method has several rates, these have one normal form. Raises TensorAdaptError for settings that contradict
    each other or the grids, and for a tuning seed that is reported.
    """
    grids = [method for method in methods if len(method.learning_rates) > 1]
    seeds = settings.get("tuning_seeds") or (TUNING_SEEDS if grids else TUNING_SEEDS[:1])
    if shared := [seed for seed in seeds if seed in settings["seeds"]]:
        raise TensorAdaptError(
            f"tuning_seeds has {shared[0]}, which is one of seeds; expected others, such as tuning_seeds = "
            f"[{max(*settings['seeds'], *seeds) + 1}]: rates chosen on a seed that is reported are chosen on the result"
        )
    (_check_search_tuning if "search" in settings else _check_grid_tuning)(settings, grids)
    if not grids:
        return {"tuning_seeds": seeds[:1], "tune": "method" if "search" in settings else "none", "extend": 0}
    chosen = {"tune": settings.get("tune", "size"), "extend": settings.get("extend", EXTEND)}
    return {"tuning_seeds": seeds, **chosen}


def _check_search_tuning(settings: Mapping[str, Any], _: Sequence[Method]) -> None:
    """Refuse what a search does not do: it tries each configuration once, at a method's middle size or any."""
    if given := [key for key in ("tune", "extend") if key in settings]:
        raise TensorAdaptError(
            f"{given[0]} and a search were given; expected one of them: a search has no grid, runs at the middle size "
            "of each method, and takes rank or budget under [search] to try several"
        )
    if len(settings.get("tuning_seeds", ())) > 1:
        raise TensorAdaptError(
            f"tuning_seeds has {len(settings['tuning_seeds'])} seeds; expected one with a search, whose trials run once"
        )


def _check_grid_tuning(settings: Mapping[str, Any], grids: Sequence[Method]) -> None:
    """Refuse several rates that are not to be tuned, and what would tune without them."""
    off = settings.get("tune") == "none"
    if off and grids:
        raise TensorAdaptError(
            f'tune is "none", and {grids[0].name} has {len(grids[0].learning_rates)} learning_rates; expected one for '
            'each method, or tune = "size" or "method"'
        )
    if not grids and settings.get("extend"):
        raise TensorAdaptError(
            f"extend is {settings['extend']}, and every method has one of learning_rates; expected several, whose last "
            "two give the step beyond them, or no extend"
        )


def trained_by(optimizer: str, training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of training with an optimizer, without those at their defaults, which mean the same."""
    said = changed(Training(lr=1.0, steps=1, **{**training, "optimizer": optimizer}))
    return {key: value for key, value in said.items() if key not in ("lr", "steps")}


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

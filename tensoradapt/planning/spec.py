"""AdapterSpec: everything that describes an adapter, declared once. No torch.

``plan`` and ``attach`` read it; Python's signature of ``plan``, TOML and JSON files, PEFT's config and the command line
are made from its fields. To add one, declare it here and use it where it acts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from functools import partial
from typing import Any

from tensoradapt import checks, parameterizations
from tensoradapt import published as papers
from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.networks import mapped, starts
from tensoradapt.networks.modes import RUNTIME, TASK
from tensoradapt.networks.varied import DRAWN, HOWS
from tensoradapt.planning.scale import SCALES
from tensoradapt.planning.size import Size
from tensoradapt.planning.trained_modules import AUTO, patterns
from tensoradapt.records import changed, check_fields, documented, value
from tensoradapt.text import COLUMNS, Rank, screen

RULES = ("add", "dora", "hira")
MISMATCH = ("split", "crop", "error")
DEEPEST = 20  # tables and lists within each other
PEFT_TARGETS = {
    **dict.fromkeys(("target_modules", "targets", "target"), "it is called projections"),
    "modules": 'it is called projections for the matrices of layers, such as "q"; modules outside the layers are given '
    'as sites: plan(find_sites(model, (), modules=("NAME",)), "lora", rank=1), and attach takes the plan',
    **dict.fromkeys(
        ("layers", "layers_to_transform", "exclude", "exclude_modules", "scope"),
        "give find_sites(model, layers=..., exclude=..., scope=...) in place of the model",
    ),
}
LAYOUT_EXAMPLE = "a text such as ': out : in', or a list of texts"


def _method(given: Any, where: str) -> Any:
    return checks.text(given, where) if isinstance(given, str) else given


def _layout(given: Any, where: str) -> tuple[Any, ...]:
    """Return layouts as a tuple of texts, each alone or with the projections that it is for."""
    if not (isinstance(given, str | list | tuple) and given):
        raise TensorAdaptError(f"{where} is {shown(given)}; expected {LAYOUT_EXAMPLE}")
    return tuple(_one_layout(item, where) for item in ([given] if isinstance(given, str) else given))


def _one_layout(given: Any, where: str) -> Any:
    if isinstance(given, Mapping) and set(given) == {"layout", "projections"}:  # TOML's form of the pair
        projections = given["projections"]
        given = (given["layout"], [projections] if isinstance(projections, str) else projections)
    if isinstance(given, list | tuple) and len(given) == 2 and not isinstance(given[1], str):
        return checks.text(given[0], where), checks.strings(given[1], f"projections of {where} {given[0]!r}")
    if not isinstance(given, str):
        raise TensorAdaptError(f"{where} has {shown(given)}; expected {LAYOUT_EXAMPLE}")
    return given


def _scale(given: Any, where: str) -> str | float:
    if isinstance(given, str):
        if given not in SCALES:
            raise TensorAdaptError(f"{where} is {shown(given)}{did_you_mean(given, SCALES)}, or a number")
        return given
    checks.check_number(where, given, above=0)
    return given if type(given) is int else float(given)


def _rates(given: Any, where: str) -> dict[str, float]:
    return {k: checks.number(v, f"rate of {k!r}") for k, v in checks.named(checks.anything, given, where).items()}


def _frozen(given: Any, where: str) -> Any:
    """Return names of factors, or how each is frozen where one is set."""
    if not isinstance(given, Mapping):
        return checks.strings(given, where)
    how = checks.named(partial(checks.one_of, HOWS), given, where)
    return tuple(how) if set(how.values()) <= {DRAWN} else how


def _rank(given: Any, where: str) -> Rank:
    if isinstance(given, float) and given.is_integer():  # as files and tables may write it
        given = int(given)
    checks.check_rank(given, where)
    if not isinstance(given, Mapping):
        return int(given)
    if odd := [key for key in given if not isinstance(key, str)]:
        raise TensorAdaptError(f"{where} has the key {shown(odd[0])}; expected names of modes or bonds")
    return {name: checks.whole(n, f"{where} of {name!r}") for name, n in given.items()}


def _rank_pattern(given: Any, where: str) -> dict[str, Rank]:
    if not isinstance(given, Mapping) or not all(isinstance(pattern, str) for pattern in given):
        raise TensorAdaptError(
            f'{where} is {shown(given)}; expected a mapping of site name patterns to ranks, as in {{"*.layers.0.*": 2}}'
        )
    return {pattern: _rank(rank, f"{where} of {pattern!r}") for pattern, rank in given.items()}


def _options(given: Any, where: str) -> dict[str, Any]:
    return checks.named(lambda value, _: _as_written(value, where), given, where)


def _as_written(given: Any, where: str, deepest: int = DEEPEST) -> Any:
    """Return tables and lists in one form; widths, which JSON and TOML keep as text, become numbers."""
    if not isinstance(given, Mapping | list | tuple):
        return given
    if deepest == 0:
        raise TensorAdaptError(f"{where} has tables or lists that are nested more than {DEEPEST} deep")
    if isinstance(given, Mapping):
        return {_width(key): _as_written(item, where, deepest - 1) for key, item in given.items()}
    return tuple(_as_written(item, where, deepest - 1) for item in given)


def _width(key: Any) -> Any:
    return int(key) if isinstance(key, str) and key.isdecimal() and len(key) < 19 else key


def _tasks(given: Any, where: str) -> Any:
    """Return names of tasks as a tuple; a table of those of other runtime modes, in the order of the modes."""
    if not isinstance(given, Mapping):
        return _distinct(given, where)
    if odd := [mode for mode in given if mode not in RUNTIME]:
        raise TensorAdaptError(f"{where} has {shown(odd[0])}, which no batch chooses{did_you_mean(odd[0], RUNTIME)}")
    by_mode = {mode: names for mode in RUNTIME if (names := _distinct(given.get(mode, ()), f"{where} of {mode}"))}
    return by_mode.get(TASK, ()) if by_mode.keys() <= {TASK} else by_mode


def _distinct(given: Any, where: str) -> tuple[str, ...]:
    names = given if isinstance(given, Sequence) and not isinstance(given, str) else [None]
    sound = all(isinstance(name, str) and name.strip() and name.isprintable() for name in names)
    if not sound or len(set(names)) < len(names):
        raise TensorAdaptError(
            f"{where}={shown(given)}; expected a sequence of distinct, printable names, as in tasks=('rte', 'cola')"
        )
    return tuple(names)


def tasks_of(layouts: Sequence[str], names: Sequence[str]) -> Any:
    """Return ``tasks`` with the same names for each runtime mode of some layouts; () where they have none."""
    modes = {mode for text in layouts for mode in text.partition(":")[0].split()}
    return _tasks({mode: names for mode in RUNTIME if mode in modes}, "tasks")


def _dropout(given: Any, where: str) -> float:
    if not checks.is_number(given) or not 0 <= given < 1:
        raise TensorAdaptError(f"{where} is {shown(given)}; expected a number from 0 up to, not including, 1")
    return float(given)


@documented
@dataclass(frozen=True)
class AdapterSpec:
    """Everything that describes an adapter: its method, layout, size and settings (docs/reference/fields.md).

    None means: what the method sets, else the default. With ``paper=False`` a published adapter keeps what defines it
    (network, layout, options, frozen factors, a start that is not zero, multipliers of rates between factors), and its
    targets, scale, alpha and trained modules are those of every method. ``paper=True`` takes these from the paper too.

    Args:
        {fields}

    Raises TensorAdaptError for a field that no model could make right.

    >>> import tensoradapt as ta
    >>> spec = ta.AdapterSpec("cp", "layer proj : head dim : model", 8)
    >>> spec == ta.AdapterSpec("layer proj : head dim : model", "cp", 8)
    True
    """

    method: Any = value(
        _method,
        "a parameterization or a published adapter, in any spelling, or an object with build, count and oracle",
        former=("published", "parameterization", "parameterizations", "peft_type"),
    )
    layout: Any = value(
        _layout,
        "one layout or several, such as 'layer proj : head dim : model'; by default the method's usual ones",
        listed=True,
        former=("layouts",),
    )
    rank: Any = value(
        _rank,
        "an upper bound, clipped to what modes and bonds can carry except in published adapters, or one for each bond",
        former=("ranks", "r", "lora_rank", "lora_r", "dim"),
    )
    _: KW_ONLY
    paper: bool = value(
        checks.flag, "whether a published adapter takes targets, scale and modules from its paper", False
    )
    budget: int | None = value(
        checks.count, 'the most trainable parameters, in place of rank; "18k" is 18,000', former=("budgets",)
    )
    projections: str | Sequence[str] | None = value(
        checks.projections,
        "matrices of a model: attention (default), mlp, experts, all, names such as q, or the model's own",
        listed=True,
        former=PEFT_TARGETS,
    )
    scale: str | float | None = value(
        _scale,
        "matched (default: the first step of LoRA r=8, alpha=16), paper, or a number that multiplies the tensor",
        former={"scaling": "it is called scale", "use_rslora": 'where it is true write method="rslora", paper=True'},
    )
    alpha: float | None = value(
        checks.number,
        "the alpha of the scale; by default 16 where matched, else the paper's",
        former={
            "lora_alpha": "it is called alpha; with r=16 and alpha=32 the matched scale of LoRA is 2.83, and PEFT's "
            'alpha / r = 2 is scale="paper"',
        },
    )
    start: str | None = value(
        partial(checks.one_entering, "starts", tuple(starts.BUILT_IN)),
        "zero (one factor is zero), subtract (the drawn value is held and subtracted), paper (as the source draws), "
        "gradient (from the gradients of the batches given to attach), or the start of a paper (docs/guides/starts.md)",
        former=("init_lora_weights", "init_weights", "init"),
    )
    start_rate: float | None = value(
        checks.number,
        "the learning rate of the step of full fine-tuning that start='lora-sb' begins with; by default 1e-5",
        later=True,
    )
    rule: str = value(
        partial(checks.one_of, RULES),
        "add, dora (arXiv 2402.09353: each row's length is trained apart) or hira (ICLR 2025: the update multiplies "
        "the base weight, entry by entry)",
        "add",
        former={
            name: f'where it is true write rule="{name.removeprefix("use_")}"' for name in ("use_dora", "dora", "hira")
        },
    )
    options: Mapping[str, Any] | None = value(_options, "further arguments of the parameterization's build")
    # ``splits.check_parts`` says what it has to be
    split: Any = value(_as_written, "sizes of the parts of a mode, or of each width it can have, such as out=[24,16]")
    on_mismatch: str | None = value(
        partial(checks.one_of, MISMATCH),
        "where matrices of several shapes are tied: split (a tensor for each shape), crop (the smaller read the first "
        "entries of the larger) or error",
    )
    rates: Mapping[str, float] | None = value(_rates, "multipliers of the learning rate by factor")
    frozen: str | Sequence[str] | Mapping[str, str] | None = value(
        _frozen,
        "factors that are not trained: their names, or a table that says of each drawn (from the seed), ones, identity "
        "or shift",
        listed=True,
        later=True,
    )
    shared: Mapping[str, str | Sequence[str]] | None = value(
        partial(checks.named, checks.strings),
        "index modes that a factor leaves out, by factor, as it is shared over them",
        later=True,
    )
    map: str | Mapping[str, int] | None = value(
        mapped.checked,
        'what all trained factors are made of: {"unilora": n}, one vector of n numbers, or {"nola": n}, n coefficients '
        "of random bases for each factor; the name alone takes its size from the budget",
        former=("theta_d_length", "num_basis"),
        later=True,
    )
    rank_pattern: Mapping[str, Rank] | None = value(
        _rank_pattern, "ranks by site name pattern, for tensors whose sites all match"
    )
    train: str | Sequence[str] = value(
        lambda given, where: patterns(given),
        "base modules to train in place, by name or pattern; auto is the head of a classifier",
        (AUTO,),
        listed=True,
        former={
            **dict.fromkeys(("modules_to_save", "heads", "trainable"), "it is called train"),
            **dict.fromkeys(("bias", "fan_in_fan_out", "inference_mode", "task_type"), "leave it out"),
        },
    )
    tasks: Sequence[str] | Mapping[str, Sequence[str]] = value(
        _tasks, f"names of the values of a task mode, or a table of those of {', '.join(RUNTIME)}", (), listed=True
    )
    dropout: float = value(
        _dropout, "probability of dropout for the input of the updates", 0.0, former=("lora_dropout",)
    )
    rank_dropout: float = value(_dropout, "probability of dropout for each component of an update", 0.0)

    def __post_init__(self) -> None:
        if _is_layout(self.method) and not _is_layout(self.layout):  # told apart by their colons
            method, layout = self.layout, self.method
            object.__setattr__(self, "method", method)
            object.__setattr__(self, "layout", layout)
        check_fields(self)
        _check_together(self)

    def __repr__(self) -> str:
        said = [f"{name}={given!r}" for name, given in changed(self).items()]
        line = f"AdapterSpec({', '.join(said)})"
        return line if len(line) <= COLUMNS else screen("AdapterSpec(\n    " + ",\n    ".join(said) + ")")

    @property
    def name(self) -> str:
        """The name of the method: that of an object is its class's or module's."""
        return parameterizations.name_of(self.method) if not isinstance(self.method, str) else self.method

    @property
    def runtime(self) -> dict[str, Sequence[str]]:
        """The names of the values of each mode that a batch chooses."""
        by_mode = self.tasks if isinstance(self.tasks, Mapping) else {TASK: self.tasks}
        return {mode: names for mode, names in by_mode.items() if names}

    @property
    def n_tasks(self) -> int:
        """The number of updates that a site has: one for each choice of the runtime modes."""
        return math.prod(map(len, self.runtime.values()))


TITLES = {  # under which the help of commands has the fields
    "method and size": tuple("method layout split rank budget paper rank_pattern options on_mismatch".split()),
    "matrices": ("projections", "train", "tasks"),
}
TITLES["scale and training"] = tuple(f.name for f in fields(AdapterSpec) if f.name not in sum(TITLES.values(), ()))


def by_place(args: Sequence[Any], given: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Name the layouts and ranks among arguments that are given by their places: texts with colons, numbers.

    Returns the other arguments, and all named ones.

    >>> by_place(("cp", 8), {}), by_place((": out : in",), {"method": "cp"})
    ((['cp'], {'rank': 8}), ([], {'method': 'cp', 'layout': ': out : in'}))
    """
    others: list[Any] = []
    named = dict(given)
    for arg in args:
        is_rank = checks.is_whole(arg) or isinstance(arg, int | float | Mapping)
        field = "layout" if _is_layout(arg) else "rank" if is_rank else None
        if field is None or field in named:
            others.append(arg)
        else:
            named[field] = arg
    return others, named


def _is_layout(given: Any) -> bool:
    return isinstance(given, list | tuple) or (isinstance(given, str) and ":" in given)


def _check_together(spec: AdapterSpec) -> None:
    """Raise for fields that exclude each other on any model."""
    if not _maps(spec):  # the size of a map is not its rank
        Size(spec.rank, spec.budget)  # raises for both
    if spec.alpha is not None and spec.scale is not None and not isinstance(spec.scale, str):
        raise TensorAdaptError(
            f"both scale={shown(spec.scale)} and alpha={shown(spec.alpha)} were given; a number as scale is the whole "
            "multiplier"
        )
    if spec.rule == "dora" and spec.tasks:
        raise TensorAdaptError(
            f"rule='dora' and tasks={spec.tasks} were given; a row has one length, and each task would need its own. "
            "Plan one adapter for each task, or with rule='add'"
        )
    if spec.rank_pattern and spec.rank is None:
        given = f"budget={shown(spec.budget)}" if spec.budget is not None else "no rank"
        raise TensorAdaptError(f"rank_pattern was given with {given}; expected rank=, the rank of all other tensors")


def _maps(spec: AdapterSpec) -> bool:
    row = papers.named(spec.method) if isinstance(spec.method, str) else None
    return spec.map is not None or bool(row and row.map)

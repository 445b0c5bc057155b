"""Read a specification from a TOML file or a mapping: every key known, every value of its type and within its range.

Two texts of one meaning give one sweep: ``1`` and ``1.0``, any order of keys, defaults written or left out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from tensoradapt import checks, parameterizations
from tensoradapt import published as papers
from tensoradapt.errors import TensorAdaptError, did_you_mean, located
from tensoradapt.files import read_bounded, reason
from tensoradapt.records import default_of
from tensoradapt.runs.config import REFERENCES, DataSpec
from tensoradapt.sweeps.spec import (
    OPTIMIZER,
    PROPOSERS,
    TUNE,
    Method,
    Size,
    SweepSpec,
    check_fixed,
    read_search,
    read_tuning,
    scale,
    space_of,
    trained_by,
)
from tensoradapt.tasks.registry import resolve
from tensoradapt.tasks.task import Task
from tensoradapt.training.options import OPTIMIZERS, PRECISIONS, Training


def read_spec(source: Path | str | Mapping[str, Any]) -> SweepSpec:
    """Read a sweep from a TOML file, or from a mapping with the same keys.

    Raises TensorAdaptError for a file that cannot be read and, naming the key, for one that is unknown or missing, a
    wrong type, a value out of range or named twice, and two methods of one name.
    """
    if not isinstance(source, Mapping):
        source = _load(checks.place(source, "spec"))
    settings = checks.checked(source, TOP, "")
    for key in ("model", "tasks", "seeds", "steps"):
        _require(settings, key, "")
    search = read_search(settings)
    if search and search.size:
        settings[f"{search.size}s"] = search.space[search.size]
    methods = tuple(_methods(settings))
    _check_methods(methods, settings)
    tuning = read_tuning(settings, methods)
    settings["training"] = trained_by(settings.get("optimizer", OPTIMIZER), settings.get("training", {}))
    runs = {name: settings.get(key) for key, name in RUNS.items()}
    return SweepSpec(
        model=settings["model"],
        tasks=tuple(task.name for task, _ in settings["tasks"]),
        methods=methods,
        seeds=settings["seeds"],
        runs={name: value for name, value in runs.items() if value is not None and value != DEFAULTS.get(name)},
        search=search,
        data={task.name: record for task, record in settings["tasks"] if record},
        pack=_pack(settings, methods),
        **tuning,
    )


def _pack(settings: Mapping[str, Any], methods: Sequence[Method]) -> int:
    """How many runs may take turns in one process; full fine-tuning leaves no frozen base to share."""
    pack: int = settings.get("pack", 1)
    if pack > 1 and all(method.kind == "full" for method in methods):
        raise TensorAdaptError(
            f"pack is {pack}, and every method is full fine-tuning, whose runs share no frozen base; leave pack out"
        )
    return pack


def _load(path: Path) -> Mapping[str, Any]:
    try:
        data = read_bounded(path, "and no specification has as many")
        return tomllib.loads(data.decode("utf-8-sig"))  # some editors begin a file with a byte order mark
    except (OSError, ValueError, RecursionError) as error:
        why = "nested too deep" if isinstance(error, RecursionError) else reason(error)
        raise TensorAdaptError(
            f'{path} cannot be read ({why}); expected a sweep in TOML, such as model = "tiny-random-bert", '
            'tasks = ["planted"], published = ["lora"], ranks = [1], learning_rates = [1e-3], seeds = [0], steps = 60'
        ) from None


def _require(settings: Mapping[str, Any], key: str, where: str) -> Any:
    if settings.get(key) is None:
        raise TensorAdaptError(f"{where}{key} is missing; every sweep needs it")
    return settings[key]


def _methods(settings: Mapping[str, Any]) -> list[Method]:
    """Published rows, parameterizations x layouts, tables of ``[[methods]]`` and references, in this order."""
    methods = [method_of({"published": name}, settings, "") for name in settings.get("published", ())]
    for factoring in settings.get("parameterizations", ()):
        for layout in settings.get("layouts", (None,)):
            name = factoring if len(settings.get("layouts", ())) < 2 else f"{factoring} over {' | '.join(layout)}"
            methods.append(method_of({"parameterization": factoring, "layout": layout, "name": name}, settings, ""))
    methods += [method_of(table, settings, f"methods[{i}].") for i, table in enumerate(settings.get("methods", ()))]
    own = isinstance(settings.get("learning_rates"), Mapping) or "search" in settings
    for kind in settings.get("references", ()):
        grid = _grid_of(kind, settings.get("learning_rates"), settings)
        methods.append(Method(REFERENCES[kind], kind, ({},), grid, own_rates=own))
    return methods


def _grid_of(name: str, rates: Any, settings: Mapping[str, Any]) -> tuple[float, ...]:
    """A method's rates; none where they are searched."""
    if "search" in settings:
        return ()
    if isinstance(rates, Mapping) and name not in rates:
        raise TensorAdaptError(
            f"learning_rates has no grid for {name!r}, only for {', '.join(rates)}; expected one for each method, such "
            f'as "{name}" = [1e-3], or one list for all'
        )
    grid = rates[name] if isinstance(rates, Mapping) else rates
    return _require({"learning_rates": grid}, "learning_rates", f"{name}: ")


def method_of(table: Mapping[str, Any], settings: Mapping[str, Any], where: str = "") -> Method:
    """The method of a table ``[[methods]]`` in a sweep with these settings, or of a name in its lists."""
    table = checks.checked(table, METHOD, where)
    check_fixed(settings.get("search", {}), table, where)
    published, factoring = table.get("published"), table.get("parameterization")
    row = papers.get(published) if published else None
    if (row is None) == (factoring is None):
        raise TensorAdaptError(
            f"{where or 'methods: '}published={published!r} and parameterization={factoring!r} were given; "
            "expected exactly one of them"
        )
    name = table.get("name") or (row.name if row else str(factoring))
    own = row is not None and settings.get("targets") == PAPER  # the paper's targets and scale
    projections = table.get("projections") or settings.get("projections") or (() if own else ("attention",))
    return Method(
        name=name,
        kind="adapter",
        sizes=_sizes(table, settings, where, ranked=row is not None or factoring not in ("dense", "quanta")),
        learning_rates=_grid_of(name, table.get("learning_rates") or settings.get("learning_rates"), settings),
        published=row.name if row else None,
        parameterization=factoring,
        layout=table.get("layout"),
        projections=projections,
        scale=table.get("scale") or settings.get("scale") or (row.scale if row and own else "matched"),
        plan={**({"on_mismatch": "split"} if row and not own else {}), **table.get("plan", {})} or None,
    )


def _sizes(table: Mapping[str, Any], settings: Mapping[str, Any], where: str, ranked: bool) -> tuple[Size, ...]:
    """The ranks or budgets of a method's table, or else those of the sweep."""
    if not ranked:
        return ({},)
    of = table if table.keys() & {"ranks", "budgets"} else settings
    if len(of.keys() & {"ranks", "budgets"}) != 1:
        given = " and ".join(sorted(of.keys() & {"ranks", "budgets"})) or "neither ranks nor budgets"
        raise TensorAdaptError(f"{where}{given} given; expected exactly one of ranks and budgets")
    # in ascending order, so that of two budgets with one plan the smaller is run
    return tuple({"rank": r} for r in of.get("ranks", ())) or tuple({"budget": n} for n in sorted(of["budgets"]))


def _check_methods(methods: Sequence[Method], settings: Mapping[str, Any]) -> None:
    if not methods:
        raise TensorAdaptError("the sweep has no methods; expected published, parameterizations, methods or references")
    if settings.get("layouts") and not settings.get("parameterizations"):
        raise TensorAdaptError("layouts is given without parameterizations; a published adapter has its own layout")
    names = [method.name for method in methods]
    if twice := [name for name in names if names.count(name) > 1]:
        raise TensorAdaptError(f"two methods are called {twice[0]!r}; give one of them another name in [[methods]]")
    rates = settings.get("learning_rates")
    valid = {*names, *settings.get("references", ())}
    if isinstance(rates, Mapping) and (odd := [name for name in rates if name not in valid]):
        raise TensorAdaptError(f"learning_rates names {odd[0]!r}, which is no method{did_you_mean(odd[0], valid)}")


def _published(value: Any, where: str) -> str:
    return papers.get(checks.text(value, where)).name


def _tasks(value: Any, where: str) -> tuple[tuple[Task, Mapping[str, Any]], ...]:
    """Names, files and tables of own data, in any order; each becomes a task with its record."""
    found = checks.listed_freely(resolve, value, where)
    names = [task.name for task, _ in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise TensorAdaptError(f"{where} names {twice[0]!r} twice; name each once, own data by name =")
    return found


def _parameterization(value: Any, where: str) -> str:
    return checks.one_of(parameterizations.names(), parameterizations.name_of(checks.text(value, where)), where)


def _rates(value: Any, where: str) -> Any:
    """One grid for all, or one for each method by name."""
    if isinstance(value, Mapping):
        return {name: _grid(grid, f"{where}.{name}") for name, grid in value.items()}
    return _grid(value, where)


def _plan(value: Any, where: str) -> dict[str, Any]:
    arguments = checks.checked(checks.mapping(value, where), PLAN, f"{where}.")
    if arguments.get("start") == "gradient":
        raise TensorAdaptError(
            f'{where}.start is "gradient", which takes batches; expected "zero", "subtract" or "paper"'
        )
    return arguments


def _training(value: Any, where: str) -> dict[str, Any]:
    """Options of ``fit`` beside the rates and the steps, which have keys of their own."""
    options = checks.checked(checks.mapping(value, where), TRAINING, f"{where}.")
    with located(where):
        Training(lr=1.0, steps=1, **options)
    return options


def _finite(value: Any, where: str) -> float:
    if not checks.is_number(value):
        raise TensorAdaptError(f"{where} is {value!r}; expected a finite number")
    return value


def _layout(value: Any, where: str) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) and value else checks.texts(value, where)


DEFAULTS = {option.name: default_of(option) for option in fields(DataSpec)} | {"training": {}}
MOST_PACKED = 1000  # runs in one process
SAME, PAPER = "same", "paper"  # targets of published adapters: those of all methods (default), or their papers'
_grid = partial(checks.listed, checks.number)
OWN_KEYS = {"lr", "head_lr", "steps", "optimizer"}  # options that are keys of a specification
TRAINING: dict[str, checks.Check] = {
    **{option.name: _finite for option in fields(Training) if option.name not in OWN_KEYS},
    "precision": partial(checks.one_of, PRECISIONS),
}
# passed on to ``tensoradapt.plan``, which knows what the texts may be
PLAN: dict[str, checks.Check] = {
    **dict.fromkeys(("on_mismatch", "rule", "start"), checks.text),
    "alpha": checks.number,
    "options": checks.mapping,
    "rank_pattern": partial(checks.of_each, checks.rank),
    "rates": partial(checks.of_each, checks.number),
    "split": partial(checks.of_each, checks.parts),
}
SIZES: dict[str, checks.Check] = {
    "ranks": partial(checks.listed, checks.rank),
    "budgets": partial(checks.listed, checks.whole),
    "scale": scale,
}
METHOD: dict[str, checks.Check] = {
    **SIZES,
    "name": checks.text,
    "published": _published,
    "parameterization": _parameterization,
    "layout": lambda value, where: None if value is None else _layout(value, where),
    "projections": checks.texts,
    "learning_rates": _grid,
    "plan": _plan,
}
TOP: dict[str, checks.Check] = {
    **SIZES,
    "model": checks.text,
    "tasks": _tasks,
    "published": partial(checks.listed, _published),
    "parameterizations": partial(checks.listed, _parameterization),
    "layouts": partial(checks.listed, _layout),
    "methods": partial(checks.listed, checks.mapping),
    "references": partial(checks.listed, partial(checks.one_of, tuple(REFERENCES))),
    "projections": checks.texts,
    "targets": partial(checks.one_of, (SAME, PAPER)),
    "learning_rates": _rates,
    "seeds": partial(checks.listed, partial(checks.whole, least=0)),
    "tune": partial(checks.one_of, TUNE),
    "tuning_seeds": partial(checks.listed, partial(checks.whole, least=0)),
    "extend": partial(checks.whole, least=0),
    "steps": checks.whole,
    "head_learning_rate": checks.number,
    "proposer": partial(checks.one_of, PROPOSERS),
    "trials": checks.whole,
    "pack": partial(checks.whole, most=MOST_PACKED),
    "parallel": checks.whole,
    "search": space_of,
    "optimizer": partial(checks.one_of, OPTIMIZERS),
    "training": _training,
    **dict.fromkeys(("batch", "n_train", "n_validation", "n_test", "max_length"), checks.whole),
}
# settings of every run: their names here and in RunConfig
RUNS = {
    **{key: key for key in ("steps", "training", "batch", "n_train", "n_validation", "n_test", "max_length")},
    "head_learning_rate": "head_lr",
}

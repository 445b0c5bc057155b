"""SweepSpec: what a sweep computes, declared once, and how it is read from a TOML file or a mapping.

The keys of a specification are the fields of records: of the sweep and its tuning and search, which are declared here,
and of an adapter, its training and its data, each of which may stand at the top or in the table of one method. A list
is several values. Two texts of one meaning give one sweep: ``1`` and ``1.0``, any order of keys, defaults written or
left out.
"""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from tensoradapt import checks
from tensoradapt.checks import Check, shown
from tensoradapt.errors import TensorAdaptError, closest, did_you_mean, located
from tensoradapt.files import read_bounded, reason
from tensoradapt.habits import WORDS
from tensoradapt.lab.runs.config import REFERENCES
from tensoradapt.lab.runs.kept import KEEP
from tensoradapt.lab.tasks.registry import resolve
from tensoradapt.lab.tasks.splits import DataSpec
from tensoradapt.networks import starts
from tensoradapt.planning.resolve import resolve as resolve_spec
from tensoradapt.planning.scale import SCALES
from tensoradapt.planning.size import Size
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.published import registry
from tensoradapt.records import (
    as_json,
    changed,
    check_fields,
    check_known,
    digest,
    needed,
    of_record,
    read,
    said,
    value,
    values_of,
)
from tensoradapt.training.options import Training

Rates = tuple[float, ...]
SIZES = ("rank", "budget")
OPTIMIZER = "equal_steps"  # the optimizer of adapters, where a specification names none
AT = ("size", "method", "none")
MOST_PACKED = 1000  # runs in one process
# what is searched, and the keys that would fix it
FIXED = {"lr": ("lr",), "head_lr": ("head_lr",), "scale": ("scale",), "rank": SIZES, "budget": SIZES}
_IN_TABLES = "its keys stand at the top, or in the table of a method"
_STEPS = "a run has steps, the same for every method: epochs * examples / batch"
_PRECISION = 'write precision = "bf16"'
MOVED = {  # keys that no field is called, or has been called by another form
    **dict.fromkeys(("epochs", "n_epochs", "num_epochs", "num_train_epochs"), _STEPS),
    **dict.fromkeys(("bf16", "fp16"), _PRECISION),
    **dict.fromkeys(
        ("scheduler", "lr_scheduler", "lr_scheduler_type"),
        "rates rise in the share warmup of the steps and fall to 0 along a line; another schedule is for a loop of "
        "your own",
    ),
    "warmup_steps": "warmup is a share of the steps: warmup_steps / steps",
    "n_seeds": "the seeds themselves are listed: seed = [0, 1, 2]",
    "baseline": 'reference is "head", "full" or "bitfit"; LoRA is a method, which tables compare the others with',
    "tasks": "the tasks of a sweep are called task, and each run sets those of its adapter",
    "train": "each run trains the head of its task, so leave it out; task names the tasks",
    "layouts": 'it is called layout, and several are a list of lists, such as layout = [[": out : in"], ...]',
    "targets": "paper = true takes what a paper sets; else all methods have the same targets and scale",
    "plan": _IN_TABLES,
    "training": _IN_TABLES,
    "tune": "it is called at, under [tuning]",
    "tuning_seed": "it is called seed, under [tuning]",
    "tuning_seeds": "it is called seed, under [tuning]",
    "extend": "it stands under [tuning]",
    "proposer": "a table [search] makes a search by Optuna",
    "trials": "it stands under [search]",
    "parallel": "it stands under [search]",
}


def _several(check: Check, given: Any, where: str) -> tuple[Any, ...]:
    """Return one value, or a list of values without repeats, as a tuple."""
    return checks.listed(check, given, where) if isinstance(given, list | tuple) else (check(given, where),)


def _range(check: Check, given: Any, where: str) -> Any:
    """Return a range as a table with low, high and log, or choices as a tuple."""
    if not isinstance(given, Mapping):
        return _several(check, given, where)
    keys = {"low": checks.number, "high": checks.number, "log": checks.flag}
    found = {"log": True, **checks.checked(checks.mapping(given, where), keys, f"{where}.")}
    if not found.keys() >= {"low", "high"} or found["low"] >= found["high"]:
        raise TensorAdaptError(f"{where} is {dict(given)}; expected low and high, and low below high")
    return found


def _scale(given: Any, where: str) -> str | float:
    return checks.one_of(tuple(SCALES), given, where) if isinstance(given, str) else checks.number(given, where)


@dataclass(frozen=True)
class Tuning:
    """How a grid of learning rates is tuned; the table ``[tuning]``."""

    at: str = value(
        partial(checks.one_of, AT),
        "where a grid of several rates is tuned: at each size, at the middle size of a method, or none (no grid)",
        "size",
    )
    seed: tuple[int, ...] = value(
        partial(_several, partial(checks.whole, least=0)),
        "the seeds that rates are chosen on, which are never reported; of a search the first",
        (1000, 1001),
        listed=True,
        former=("seeds",),
    )
    extend: int = value(
        partial(checks.whole, least=0), "how many rates may be tried beyond each grid, while the best is at its edge", 3
    )

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Search:
    """A search by Optuna of ``trials`` for each method and task, in place of grids; the table ``[search]``.

    A range is a table with ``low``, ``high`` and ``log`` (default true); a list has choices.
    """

    trials: int = field(metadata=needed(checks.whole, "trials for each method on each task"))
    lr: Any = field(
        metadata=needed(
            partial(_range, checks.number),
            "a range such as {low = 1e-4, high = 1e-1}, or a list",
            former=("learning_rate",),
        )
    )
    parallel: int = value(checks.whole, "trials that are asked for at once", 1)
    head_lr: Any = value(
        partial(_range, checks.number), "a range or list, searched as well", former=("head_learning_rate",)
    )
    scale: Any = value(partial(_range, _scale), "a range or list, searched as well")
    rank: Any = value(partial(_several, checks.rank), "a list; then the best size alone is reported")
    budget: Any = value(partial(_several, checks.count), "a list, as rank")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.rank is not None and self.budget is not None:
            raise TensorAdaptError("rank and budget were given; expected one of them")

    @property
    def space(self) -> dict[str, Any]:
        """What is searched, by name: ranges and tuples of choices."""
        return {name: axis for name in FIXED if (axis := getattr(self, name)) is not None}

    @property
    def size(self) -> str:
        """The size that is searched, "rank" or "budget"; "" where every size is run."""
        return next((key for key in SIZES if key in self.space), "")


@dataclass(frozen=True)
class Method:
    """An adapter at each of its sizes, or a reference, and how it is trained.

    Args:
        name: what tables and figures call it.
        kind: that of its runs: adapter, head or full.
        adapters: one for each size; of a reference None alone.
        lr: the rates of its grid, of which one is chosen; none where they are searched.
        training: the other fields of ``Training`` that differ from their defaults.
        data: how much data its runs have.
        own_lr: False for a frozen base whose ``lr`` was not given: its head trains at the rate that heads have.
    """

    name: str
    kind: str
    adapters: tuple[AdapterSpec | None, ...]
    lr: Rates
    training: Mapping[str, Any]
    data: DataSpec
    own_lr: bool = True

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The ranks or budgets of the adapters, in their order."""
        return tuple(map(Size.of, self.adapters))

    def at(self, size: Size) -> AdapterSpec | None:
        """Return the adapter of a size, which may be one that is searched."""
        first = self.adapters[0]
        return first and replace(first, rank=size.rank, budget=size.budget)


@dataclass(frozen=True)
class SweepSpec:
    """All that a sweep runs: methods x sizes x tasks x seeds. ``read_spec`` makes one."""

    model: str = field(
        metadata=needed(checks.text, "a built-in model, a folder, or a name on the hub", former=("models",))
    )
    task: tuple[str, ...] = field(
        metadata=needed(
            partial(_several, checks.text),
            "names of tasks, files of own data, or tables (docs/start/your-data.md)",
            listed=True,
        )
    )
    seed: tuple[int, ...] = field(
        metadata=needed(
            partial(_several, partial(checks.whole, least=0)),
            "the seeds that are reported",
            listed=True,
            former=("seeds",),
        )
    )
    method: tuple[Method, ...] = value(
        checks.anything,
        "parameterizations and published adapters, in any spelling, or tables with their own settings",
        (),
        listed=True,
        former=("methods", "published", "parameterization", "parameterizations"),
    )
    reference: tuple[Method, ...] = value(
        checks.anything,
        "head (frozen base and head), full (everything is trained) and bitfit (head and biases), or tables with own "
        "settings",
        (),
        listed=True,
        former=("references",),
    )
    tuning: Tuning = value(of_record(Tuning), "how a grid of several lr is tuned", Tuning())
    search: Search | None = value(of_record(Search), "a search by Optuna in place of grids")
    keep: str = value(
        partial(checks.one_of, KEEP),
        "whose adapters are kept for ta.load_run: best (of each method and size the run that is best on validation), "
        "all or none",
        "best",
    )
    own: Mapping[str, Mapping[str, Any]] = value(checks.anything, "records of tasks of own data, by name", {})

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def methods(self) -> tuple[Method, ...]:
        """All methods, references last."""
        return (*self.method, *self.reference)

    @property
    def id(self) -> str:
        """Return the hash of what is computed.

        Whose adapters are kept and where own data lies are no part of it.
        """
        table = {key: item for key, item in table_of(self).items() if key != "keep"}
        own = {name: {**record, "source": longest_of(record)} for name, record in self.own.items()}
        return digest({**table, "own": own})


def longest_of(record: Mapping[str, Any]) -> int | None:
    """Return how long the texts of own data may be, from its record; None where it does not say."""
    length: int | None = record.get("source", {}).get("max_length")
    return length


PLAIN = ("model", "task", "seed", "search", "keep")  # keys that no other key changes
SWEEP = [f for f in fields(SweepSpec) if f.name != "own"]  # which is no key of a file
ADAPTER = [f for f in fields(AdapterSpec) if f.name not in ("tasks", "train")]
TRAINING = [f for f in fields(Training) if f.name != "lr"]
LR = [f for f in fields(Training) if f.name == "lr"]
DATA = list(fields(DataSpec))
OF_METHODS = [*ADAPTER, *TRAINING, *DATA]
KEYS = {name for f in (*SWEEP, *OF_METHODS, *LR) for name in (f.name, *f.metadata["former"])}


@dataclass(frozen=True)
class Named:
    """The keys of a table of ``method`` or ``reference`` that no other record has."""

    reference: str = value(partial(checks.one_of, tuple(REFERENCES)), "head, full or bitfit", "")
    name: str = value(checks.text, "what tables and figures call it", "")


KIND, NAME = fields(Named)
OF_REFERENCES = [KIND, *(f for f in TRAINING if f.name != "optimizer"), *DATA]  # references take AdamW's steps


def read_spec(source: Path | str | Mapping[str, Any], own: Mapping[str, Any] | None = None) -> SweepSpec:
    """Read a sweep from a TOML file, or from a mapping with the same keys.

    Args:
        source: the file, or the mapping.
        own: records of own data by task, where these are known: tasks are then taken by name, and no data is read.

    Raises:
        TensorAdaptError: for a file that cannot be read and, naming the place and key, for a key that is unknown or
            missing, a wrong type, a value out of range or named twice, and two methods of one name.
    """
    given = source if isinstance(source, Mapping) else _load(checks.as_path(source, "spec"))
    table = {key: _plain(item) for key, item in given.items() if item is not None}
    _check_known(table, [*SWEEP, *(f for f in OF_METHODS if f.name != "method"), *LR])
    if own is None:
        found = _tasks(table["task"]) if "task" in table else {}
        table |= {"task": tuple(found)} if found else {}
        own = {name: record for name, record in found.items() if record}
    made = read(SweepSpec, {**{key: table[key] for key in PLAIN if key in table}, "own": dict(own)})
    reader = _Reader(table, made.search)
    made = replace(made, method=reader.methods("method"), reference=reader.methods("reference"))
    _check_methods(made, table, reader)
    return replace(made, tuning=_tuning(table.get("tuning", {}), made))


def _load(path: Path) -> Mapping[str, Any]:
    try:
        data = read_bounded(path, "and no specification has as many")
        table = tomllib.loads(data.decode("utf-8-sig"))  # some editors begin a file with a byte order mark
        json.dumps(table, default=str)  # a key of many dots is read at any depth, which nothing after this can walk
        return table
    except (OSError, ValueError, RecursionError) as error:
        why = "nested too deep" if isinstance(error, RecursionError) else reason(error)
        raise TensorAdaptError(
            f'{path} cannot be read ({why}); expected a sweep in TOML, such as model = "tiny-random-bert", '
            'task = "planted", method = "lora", rank = 1, lr = 1e-3, seed = 0, steps = 60'
        ) from None


def _plain(item: Any) -> Any:
    """Return a value with whole floats as integers (8.0 is 8), and short ranges and arrays of one axis as lists."""
    if isinstance(item, Mapping):
        return {key: _plain(each) for key, each in item.items() if each is not None}
    if isinstance(item, list | tuple) or (isinstance(item, range) and len(item) <= checks.MOST):
        return [_plain(each) for each in item]
    array = getattr(item, "ndim", None) == 1 and hasattr(item, "tolist")  # NumPy, pandas, torch
    if array and len(item) <= checks.MOST and not getattr(item, "is_meta", False):
        return _plain(item.tolist())
    return int(item) if isinstance(item, float) and item.is_integer() else item


def _check_known(table: Mapping[str, Any], declared: Sequence[Any]) -> None:
    names = {f.name for f in declared}
    moved = [key for key in MOVED if key not in names]
    others = [name for f in declared for name in (f.name, *f.metadata["former"])]
    for key in table:
        near = key if key in (*moved, *others, *WORDS) else closest(key, [*others, *moved])
        if near in moved:
            raise TensorAdaptError(f"unknown key {key}; {'' if key == near else f'{near}: '}{MOVED[near]}")
    check_known(table, declared)


def _tasks(given: Any) -> dict[str, Mapping[str, Any]]:
    """Return records of tasks by name, from names, files and tables; empty for a task that its name alone loads."""
    items = given if isinstance(given, list | tuple) else [given]
    found = [(task.name, record) for task, record in checks.listed_freely(resolve, items, "task")]
    names = [name for name, _ in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise TensorAdaptError(f"task names {twice[0]!r} twice; name each once, own data by name =")
    return dict(found)


def _values(f: Any, given: Any) -> list[Any]:
    """Return the checked values, without repeats, that a table gives for a field."""
    each = values_of(f, given)
    if not each:
        raise TensorAdaptError(f"{f.name} is {shown(given)}; expected a value, or a list of at least one")
    alone = each == [given]
    found = [f.metadata["check"](v, f.name if alone else f"{f.name}[{i}]") for i, v in enumerate(each)]
    if f.name == "start" and (reading := [name for name in found if starts.get(name).needs_batches]):
        raise TensorAdaptError(f'start is "{reading[0]}", which takes batches; expected "zero", "subtract" or "paper"')
    if twice := [v for i, v in enumerate(found) if v in found[:i]]:
        raise TensorAdaptError(f"{f.name} names {_text(f.name, twice[0])} twice; name each once")
    return found


def _axes(table: Mapping[str, Any], declared: Sequence[Any]) -> dict[str, list[Any]]:
    """Return the values that a table gives for each of some fields."""
    return {f.name: _values(f, table[f.name]) for f in declared if f.name in table}


def _without(axes: Mapping[str, list[Any]], others: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {key: values for key, values in axes.items() if key not in others}


def _combinations(axes: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


class _Reader:
    """Reads the methods of a specification, with the settings that they share."""

    def __init__(self, table: Mapping[str, Any], search: Search | None) -> None:
        self.table, self.search = table, search
        self.axes = _axes(table, [f for f in OF_METHODS if f.name != "method"])
        self.lr = self._rates(table)
        self.called: set[str] = set()  # names that a table ``lr`` may have
        self._check_free(table)
        if search and search.size:
            self.axes[search.size] = list(search.space[search.size])

    def methods(self, key: str) -> tuple[Method, ...]:
        """Return the methods of the key "method" or "reference"."""
        given = self.table.get(key, [])
        rows = given if isinstance(given, list | tuple) else [given]
        if not rows and key in self.table:
            raise TensorAdaptError(f"{key} is {shown(given)}; expected a name, or a list of at least one")
        if twice := [row for i, row in enumerate(rows) if isinstance(row, str) and row in rows[:i]]:
            raise TensorAdaptError(f"{key} names {twice[0]!r} twice; name each once")
        return tuple(one for i, row in enumerate(rows) for one in self._of_row(key, row, f"{key}[{i}]"))

    def _of_row(self, key: str, row: Any, where: str) -> list[Method]:
        """Return the methods of a row: a name, or a table with settings of its own."""
        table = row if isinstance(row, Mapping) else {key: checks.text(row, where)}
        with located(where):
            declared = OF_METHODS if key == "method" else OF_REFERENCES
            _check_known(table, [*declared, NAME, *LR])
            self._check_free(table)
            if key not in table:
                raise TensorAdaptError(f"{key} is missing; expected {declared[0].metadata['help']}")
            own = _axes(table, declared)
            name = checks.text(table["name"], "name") if "name" in table else ""
            choices = [*(self._adapters(own) if key == "method" else self._references(own))]
        with located(where) if isinstance(row, Mapping) else nullcontext():
            return [*self._made(key, name, own, self._rates(table), choices)]

    def _adapters(self, own: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
        """Yield the settings of each adapter; a layout at the top of the file is for parameterizations alone."""
        axes = {key: values for key, values in {**_without(self.axes, own), **own}.items() if key not in SIZES}
        layouts = [] if "layout" in own else axes.pop("layout", [])
        for choice in _combinations(axes):
            found = registry.find(choice["method"], choice.get("paper", False))
            choice["method"] = found.name
            yield from ({**choice, "layout": one} for one in layouts) if layouts and not found.row else [choice]

    def _references(self, own: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
        shared = {f.name: self.axes[f.name] for f in OF_REFERENCES if f.name in self.axes}
        yield from _combinations({**_without(shared, own), **own})

    def _made(
        self, key: str, name: str, own: Mapping[str, Any], rates: Rates, choices: Sequence[dict[str, Any]]
    ) -> Iterator[Method]:
        for choice in choices:
            kind = "adapter" if key == "method" else choice[key]
            called = name or (choice[key] if kind == "adapter" else REFERENCES[kind])
            full = called + _differing(choice, choices, key, bool(name))
            by_name = (full, called) if kind == "adapter" else (full, called, kind)
            self.called.update(by_name)
            given = bool(rates) or isinstance(self.lr, Mapping) or self.search is not None
            yield Method(
                name=full,
                kind=kind,
                adapters=tuple(self._sized(choice, own)) if kind == "adapter" else (None,),
                lr=rates or self._grid(by_name),
                training=_training(choice, kind),
                data=read(DataSpec, _part(choice, DATA)),
                own_lr=kind != "head" or given,
            )

    def _sized(self, choice: Mapping[str, Any], own: Mapping[str, list[Any]]) -> Iterator[AdapterSpec]:
        """Yield the adapter at each of its own ranks or budgets, or else at those of the sweep."""
        found = registry.find(choice["method"], choice.get("paper", False))
        of = own if own.keys() & set(SIZES) else self.axes
        given = [key for key in SIZES if key in of]
        settings = _part(choice, ADAPTER)
        if not found.ranked:
            yield _plainest(read(AdapterSpec, settings))
            return
        if len(given) != 1:
            raise TensorAdaptError(
                f"{' and '.join(given) or 'neither rank nor budget'} given; expected exactly one of rank and budget"
            )
        # budgets in ascending order, so that of two with one plan the smaller is run
        for size in sorted(of["budget"]) if given == ["budget"] else of["rank"]:
            yield _plainest(read(AdapterSpec, {**settings, given[0]: size}))

    def _rates(self, table: Mapping[str, Any]) -> Any:
        """Return the learning rates that a table gives: a grid for all, or, at the top, one for each method by name."""
        given = table.get("lr", ())
        if isinstance(given, Mapping) and table is self.table:
            return checks.named(lambda rates, _: tuple(_values(LR[0], rates)), given, "lr")
        return tuple(_values(LR[0], given)) if "lr" in table else ()

    def _grid(self, names: Sequence[str]) -> Rates:
        """Return a method's rates, found under one of its names; none where rates are searched."""
        if self.search is not None:
            return ()
        if not isinstance(self.lr, Mapping):
            if not self.lr:
                raise TensorAdaptError(f"{names[0]}: lr is missing; every method needs it")
            return tuple(self.lr)
        found = [name for name in names if name in self.lr]
        found += [key for key in self.lr if getattr(registry.known(key), "name", key) in names]
        if not found:
            raise TensorAdaptError(
                f"lr has no grid for {names[-1]!r}, only for {', '.join(self.lr)}; expected one for each method, such "
                f'as "{names[-1]}" = [1e-3], or one list for all'
            )
        return tuple(self.lr[found[0]])

    def _check_free(self, table: Mapping[str, Any]) -> None:
        """Raise TensorAdaptError for a key that fixes what is searched."""
        for key in self.search.space if self.search else ():
            if fixed := [other for other in FIXED[key] if other in table]:
                raise TensorAdaptError(f"{fixed[0]} and search.{key} were given; expected one of them")


def _part(choice: Mapping[str, Any], declared: Sequence[Any]) -> dict[str, Any]:
    return {f.name: choice[f.name] for f in declared if f.name in choice}


def _training(choice: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the fields of a method's training that differ from their defaults, without its rates."""
    given = {"optimizer": OPTIMIZER} if kind == "adapter" else {}
    made = read(Training, {"lr": 1.0, **given, **_part(choice, TRAINING)})
    return {key: item for key, item in changed(made).items() if key != "lr"}


def _plainest(adapter: AdapterSpec) -> AdapterSpec:
    """Return an adapter without what its method sets anyway, so that a default that is written out is the same run."""
    for f in ADAPTER:
        given = getattr(adapter, f.name)
        if f.default is None and f.name not in ("method", *SIZES) and given is not None:
            bare: AdapterSpec = replace(adapter, **{f.name: None})  # type: ignore[arg-type]  # a field that takes None
            adapter = bare if getattr(resolve_spec(bare).spec, f.name) == given else adapter
    return adapter


def _differing(choice: Mapping[str, Any], choices: Sequence[Mapping[str, Any]], key: str, named: bool) -> str:
    """Return the settings that tell a method from the others of its row, as they follow its name."""
    several = [name for name in choice if any(other.get(name) != choice[name] for other in choices)]
    texts = {name: _text(name, choice[name]) for name in several if name != key or named}
    return "".join(f" over {text}" if name == "layout" else f", {name} {text}" for name, text in texts.items())


def _text(name: str, item: Any) -> str:
    """Return a value as it is written in the name of a method."""
    if isinstance(item, list | tuple):
        return (" | " if name == "layout" else " ").join(_text("", each) for each in item)
    if isinstance(item, Mapping):
        return " ".join(f"{key}={_text('', each)}" for key, each in item.items())
    return str(item).lower() if isinstance(item, bool) else f"{item:g}" if isinstance(item, float) else str(item)


def _check_methods(spec: SweepSpec, table: Mapping[str, Any], reader: _Reader) -> None:
    found = spec.methods
    if not found:
        raise TensorAdaptError(
            'the sweep has no methods; expected method or reference, such as method = ["lora", "cp"]'
        )
    factored = any(not registry.find(m.adapters[0].method, m.adapters[0].paper).row for m in found if m.adapters[0])
    if "layout" in table and not factored:
        raise TensorAdaptError(
            "layout is given, and no method is a parameterization; a published adapter has its own layout, unless its "
            "own table gives another"
        )
    names = [method.name for method in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise TensorAdaptError(
            f"two methods are called {twice[0]!r}; give one of them another name, in a table of method"
        )
    grids = reader.lr if isinstance(reader.lr, Mapping) else ()
    meant = {name: getattr(registry.known(name), "name", name) for name in grids}
    known = [name for name in meant.values() if name in reader.called]
    if odd := [name for name in meant if name not in reader.called and known.count(meant[name]) != 1]:
        raise TensorAdaptError(f"lr names {odd[0]!r}, which is no method{did_you_mean(odd[0], reader.called)}")


def _tuning(table: Any, spec: SweepSpec) -> Tuning:
    """Return how rates are tuned; where no method has several rates, in one form, so that ids are the same.

    Raises TensorAdaptError for settings that contradict each other or the grids, and for a tuning seed that is
    reported.
    """
    if isinstance(table, Mapping) and (odd := [f.name for f in (*OF_METHODS, *LR) if f.name in table]):
        raise TensorAdaptError(f"tuning: unknown key {odd[0]}; it stands at the top, or in the table of a method")
    asked = read(Tuning, table, "tuning")
    grids = [method for method in spec.methods if len(method.lr) > 1]
    seeds = asked.seed if grids or "seed" in table else asked.seed[:1]
    if both := [seed for seed in seeds if seed in spec.seed]:
        raise TensorAdaptError(
            f"tuning.seed has {both[0]}, which is one of seed; expected others, such as seed = "
            f"[{max(*spec.seed, *seeds) + 1}] under [tuning]: rates chosen on a seed that is reported are chosen on "
            "the result"
        )
    if spec.search:
        _check_search_tuning(table, asked)
    else:
        _check_grid_tuning(table, asked, grids)
    if not grids:
        return Tuning("method" if spec.search else "none", seeds[:1], 0)
    return asked


def _check_search_tuning(table: Mapping[str, Any], asked: Tuning) -> None:
    """Refuse tuning that a search does not do: it tries each configuration once, at a method's middle size or any."""
    if given := [key for key in ("at", "extend") if key in table]:
        raise TensorAdaptError(
            f"tuning.{given[0]} and a search were given; expected one of them: a search has no grid, runs at the "
            "middle size of each method, and takes rank or budget under [search] to try several"
        )
    if "seed" in table and len(asked.seed) > 1:
        raise TensorAdaptError(
            f"tuning.seed has {len(asked.seed)} seeds; expected one with a search, whose trials run once"
        )


def _check_grid_tuning(table: Mapping[str, Any], asked: Tuning, grids: Sequence[Method]) -> None:
    """Refuse several rates that are not to be tuned, and settings of tuning where no method has several."""
    if asked.at == "none" and grids:
        raise TensorAdaptError(
            f'tuning.at is "none", and lr of {grids[0].name} has {len(grids[0].lr)} values; expected one for each '
            'method, or at = "size" or "method" under [tuning]'
        )
    if not grids and table.get("extend"):
        raise TensorAdaptError(
            f"tuning.extend is {asked.extend}, and every method has one lr; expected several, whose last two give the "
            "step beyond them, or no extend"
        )


def table_of(spec: SweepSpec) -> dict[str, Any]:
    """Return a sweep as the table of a file, in JSON's types, which ``read_spec`` reads as the same sweep.

    >>> spec = read_spec({"model": "tiny-random-bert", "task": "planted", "method": ["lora", "cp"], "rank": [1, 2],
    ...                   "lr": 1e-3, "seed": 0, "steps": 60})
    >>> read_spec(table_of(spec)) == spec
    True
    """
    heads = [list(method.lr) for method in spec.reference if not method.own_lr]
    tuning = as_json(spec.tuning) if not spec.search else {"seed": list(spec.tuning.seed)}
    found = {
        "model": spec.model,
        "task": list(spec.task),
        "seed": list(spec.seed),
        "method": [_adapter_row(method) for method in spec.method],
        "reference": [_reference_row(method) for method in spec.reference],
        "lr": heads[0] if heads else [],
        "tuning": tuning,
        "search": said(spec.search) if spec.search else {},
        "keep": spec.keep,
    }
    return {key: item for key, item in found.items() if item != [] and item != {}}


def _adapter_row(method: Method) -> dict[str, Any]:
    first = method.adapters[0]
    assert first is not None
    row = {"method": first.method, **({} if method.name == first.method else {"name": method.name})}
    listed = {f.name for f in ADAPTER if f.metadata["listed"]}
    for name, item in changed(replace(first, rank=None, budget=None, rank_pattern=None)).items():
        row[name] = [as_json(item)] if name in listed else as_json(item)  # a list of lists, which holds pairs too
    row |= {"rank_pattern": as_json(first.rank_pattern)} if first.rank_pattern else {}
    for key in SIZES:
        if values := [as_json(size.asked[key]) for size in method.sizes if key in size.asked]:
            row[key] = values
    return row | {"optimizer": "adamw"} | _trained_row(method)


def _reference_row(method: Method) -> dict[str, Any]:
    named = {} if method.name == REFERENCES[method.kind] else {"name": method.name}
    return {"reference": method.kind, **named, **_trained_row(method)}


def _trained_row(method: Method) -> dict[str, Any]:
    lr = {"lr": list(method.lr)} if method.lr and method.own_lr else {}
    return {**lr, **method.training, **said(method.data)}

"""The lines that a sweep prints: its plan, the time and disk that it still needs, and each run that ends."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.names import display
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.row import adapter_cells
from tensoradapt.lab.sweeps.due import Due
from tensoradapt.lab.sweeps.executors.executor import Slots
from tensoradapt.lab.sweeps.plan_sweep import Cell, Sweep
from tensoradapt.lab.sweeps.spec import Method, Search, SweepSpec
from tensoradapt.lab.tasks.classification import Classification
from tensoradapt.lab.tasks.rates import kind_of
from tensoradapt.lab.tasks.splits import DataSpec
from tensoradapt.planning.resolve import resolve
from tensoradapt.text import align, count_text, duration_text

IN_BASE = {"full": "the whole model", "bitfit": "all biases"}  # what references train of it


def plan_text(sweep: Sweep, now: Due, todo: int) -> str:
    """Return the plan of a sweep as text: its cells with their parameters, empty ones with the reason, and its rates.

    Of the rates it says which runs choose them, and which grids were extended.
    """
    spec, filled = sweep.spec, sum(not cell.empty for cell in sweep.cells)
    head = (
        f"sweep {spec.id}: {spec.model} on {', '.join(spec.task)}; {count_text(len(spec.methods), 'method')}, "
        f"{count_text(filled, 'cell')}, seed{'s' * (len(spec.seed) > 1)} {' '.join(map(str, spec.seed))}: "
        f"{count_text(now.total, 'run')}, {todo} of them to do"
    )
    kinds = {method.name: method.kind for method in spec.methods}
    rows = [("method", "size", "parameters", "of budget"), *(_row(cell, kinds[cell.method]) for cell in sweep.cells)]
    empty = [f"empty: {display(cell.method)}, {cell.size.text}: {cell.empty}" for cell in sweep.cells if cell.empty]
    how = [*(_search(spec, spec.search) if spec.search else _rates(spec)), *_head_rates(sweep)]
    after = [*_layouts(spec), *how, *_tuning(now), *map(extended_text, now.extended), *_unequal(spec)]
    return "\n".join([head, *align(rows), *empty, *after])


def _layouts(spec: SweepSpec) -> Iterator[str]:
    """Yield a line for each list of layouts that was given for one adapter, and might have been meant as a grid."""
    adapters = (method.adapters[0] for method in spec.method)
    for texts in dict.fromkeys(resolve(one).layouts for one in adapters if one and one.layout):
        if len(texts) > 1:
            lists = ", ".join(f"[{text!r}]" for text in texts)
            first = ", else ".join(map(repr, texts))
            yield f"layouts of one adapter: a matrix takes {first}. To compare them: layout = [{lists}]"


def _unequal(spec: SweepSpec) -> Iterator[str]:
    """Yield a warning where methods have other targets or scales, so that what differs is not the method alone."""
    searched = spec.search.space if spec.search else {}
    adapters = {method.name: method.adapters[0] for method in spec.method if method.adapters[0]}
    setups = [(display(name), adapter_cells(adapter)) for name, adapter in adapters.items()]
    differing = []
    for key in ("projections", "scale"):
        values: dict[str, list[str]] = {}
        for name, found in setups if key not in searched else ():
            values.setdefault(str(found[key]), []).append(name)
        if len(values) > 1:
            differing.append(f"{key} " + ", ".join(f"{value} ({', '.join(names)})" for value, names in values.items()))
    if differing:
        remedy = ": without paper = true all methods have the same targets and scale"
        of_papers = any(adapter.paper for adapter in adapters.values())
        yield f"warning: methods differ in {'; and in '.join(differing)}" + (remedy if of_papers else "")


def _row(cell: Cell, kind: str) -> tuple[str, str, str, str]:
    if cell.empty:
        return display(cell.method), cell.size.text, "empty", ""
    count = IN_BASE[kind] if cell.n_params is None else f"{cell.n_params:,}"
    budget = cell.size.budget
    of_budget = f"{100 * (cell.n_params or 0) / budget:.1f} %" if budget else ""
    return display(cell.method), cell.size.text, count, of_budget


def _rates(spec: SweepSpec) -> Iterator[str]:
    """Yield one line for the methods that have the same rates."""
    grids: dict[tuple[float, ...], list[Method]] = {}
    for method in spec.methods:
        if method.own_lr:
            grids.setdefault(method.lr, []).append(method)
    for grid, methods in grids.items():
        how = "" if len(grid) == 1 else f"; each method's is chosen on validation {_how_tuned(spec)}"
        named = "" if len(grids) == 1 else f" of {_named(methods)}"
        yield f"learning rate{'s' if len(grid) > 1 else ''}{named}: {' '.join(f'{lr:g}' for lr in grid)}{how}"


def _named(methods: Iterable[Method]) -> str:
    return ", ".join(display(method.name) for method in methods)


def _head_rates(sweep: Sweep) -> Iterator[str]:
    """Yield one line for each rate of heads, and where it is from."""
    spec, given = sweep.spec, dict[float, list[Method]]()
    for method in spec.methods:
        if (rate := method.training.get("head_lr")) is not None:
            given.setdefault(rate, []).append(method)
    for rate, methods in given.items():
        named = "" if len(methods) == len(spec.methods) else f" of {_named(methods)}"
        yield f"learning rate of the head{named}: {rate:g}"
    tasks: dict[str, list[str]] = {}
    for task, lr in sweep.head_rates.items():
        chosen = sweep.tasks[task]
        why = f"{lr:g}, measured for {kind_of(chosen, spec.model)}s and {chosen.kind}"  # type: ignore[attr-defined]
        tasks.setdefault(why, []).append(task)
    for why, on_tasks in tasks.items():
        on = f" on {', '.join(on_tasks)}" if len(tasks) > 1 else ""
        yield f"learning rate of the head{on}: {why}"


def _how_tuned(spec: SweepSpec) -> str:
    seeds = spec.tuning.seed
    where = "at each size" if spec.tuning.at == "size" else "at its middle size"
    return f"{where}, {'by the mean over seeds' if len(seeds) > 1 else 'with seed'} {' '.join(map(str, seeds))}"


def _tuning(now: Due) -> Iterator[str]:
    """Yield a line that says what tuning costs."""
    if not now.tuning:
        return
    share = f"{now.tuning} of the {now.total} runs ({100 * now.tuning / now.total:.0f} %)"
    more = f"; at most {now.more} more where the best rate is at an end of its grid" if now.more else ""
    yield f"tuning: {share} choose learning rates, beside {now.total - now.tuning} reported{more}"


def extended_text(extended: str) -> str:
    """Return a line for a grid that was extended."""
    return f"best at the edge: extended {extended}"


def _search(spec: SweepSpec, search: Search) -> Iterator[str]:
    at_once = f", {search.parallel} at once" if search.parallel > 1 else ""
    yield (
        f"search of each method on each task, by Optuna with seed {spec.tuning.seed[0]}: {search.trials} trials"
        f"{at_once}; the best on validation is run with every seed"
    )
    yield from (f"  {name} {_axis_text(axis)}" for name, axis in search.space.items())


def _axis_text(axis: Any) -> str:
    if not isinstance(axis, Mapping):
        return "of " + " ".join(map(str, axis))
    return f"from {axis['low']:g} to {axis['high']:g}" + ("" if axis["log"] else ", not by its logarithm")


def precision_text(spec: SweepSpec, slots: Slots) -> str:
    """Return a line for a GPU on which runs compute in fp32; "" elsewhere, and where a precision was given."""
    if slots.device == "cpu" or any("precision" in method.training for method in spec.methods):
        return ""
    return 'precision is fp32; with precision = "auto" runs compute in bf16 where the device has units for it'


def run_text(config: RunConfig) -> str:
    """Return a line for a run, by the name under which its method is shown."""
    named = f"{display(str(config.method))} {config.size.text}".strip()
    tuning = f", tuning lr {config.training.lr:g}" if config.tuning else ""
    return f"{named}, seed {config.seed} on {config.task}{tuning}"


def ended_text(config: RunConfig, result: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> str:
    """Return a line for a run that ended, with the score that counts: validation where it chooses a rate, else test."""
    what = run_text(config)
    if result is None:
        return f"{what}: FAILED ({(error or {}).get('kind')}): {str((error or {}).get('error'))[:200]}"
    metric = result["metric"]["name"]
    value = result[config.judged].get(metric)
    status = result["status"]
    score = status if value is None else f"{metric} {value:.3f}"
    said = result["note"] if not (config.tuning and status == "at chance") else ""
    note = f" ({said})" if status == "finished" else f" ({status}: {said})"
    return f"{what}: {result['n_params']:,} parameters, {config.judged} {score}{note if said else ''}"


@dataclass
class Progress:
    """The number of runs of a sweep that have ended, of how many, and the time that is left at the pace so far.

    ``total`` counts runs that wait for a rate too; it grows only where a grid of rates is extended.
    """

    total: int = 0
    _before: int = 0
    _since: float = 0.0

    def begin(self, before: int) -> None:
        """Start the clock; ``before`` runs had ended by then."""
        self._before, self._since = before, time.monotonic()

    def after(self, done: int) -> str:
        """Return the state after ``done`` runs since the start, such as "3/12, about 4 min left"."""
        ended = self._before + done
        seconds = (time.monotonic() - self._since) / done * (self.total - ended)
        return f"{ended}/{self.total}" + (f", about {duration_text(seconds)} left" if self.total > ended else "")


def setting_lines(sweep: Sweep, slots: Slots) -> Iterator[str]:
    """Yield what a plan says of precision, of the data of each task, and of what cannot be measured."""
    seen = (data_text(sweep, task) for task in sweep.spec.task)
    yield from filter(None, (precision_text(sweep.spec, slots), *seen, *measure_lines(sweep)))


def measure_lines(sweep: Sweep) -> Iterator[str]:
    """Fetch what is measured of models besides their score; yield a line for what cannot be."""
    tasks = sweep.tasks.values()
    for name, measure in {name: measure for task in tasks for name, measure in task.measures.items()}.items():
        try:
            measure.prepare()
        except TensorAdaptError as error:
            yield f"{name} will not be measured: {error}"


def data_text(sweep: Sweep, task: str) -> str:
    """Return a line about a task of own data, or one that leaves out long examples; "" for others.

    It has the parts and classes, what was removed, and texts that are too long.
    """
    spec, chosen = sweep.spec, sweep.tasks[task]
    record = spec.own.get(task, {})
    length = max(sweep.data(method, task).max_length for method in spec.methods)
    if not record and not chosen.by_length:
        return ""
    try:
        data = chosen.load(spec.model if chosen.by_length else None, DataSpec(max_length=length))
    except TensorAdaptError as error:
        if record:
            raise
        # each run will say so; the plan is worth having where the data is elsewhere
        return f"task {task} cannot be loaded here: {error}"
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    counts = ", ".join(f"{len(split):,} {part}" for part, split in parts.items())
    classes = _classes(record.get("labels", ()))
    texts = isinstance(chosen, Classification) and data.test.texts is not None
    encoded = [chosen.encode(split, spec.model, length + 1) for split in parts.values()] if texts else []
    over = sum(len(example) > length for examples in encoded for example in examples)
    n = sum(map(len, parts.values()))
    cut = f"{over:,} of {n:,} texts have more than {length} tokens and are cut (max_length)" if over else ""
    seen, taken = chosen.described(spec.model), _taken(spec, parts)
    return f"task {task}: " + "; ".join(part for part in (counts, taken, classes, *data.notes, cut, seen) if part)


def _classes(names: Sequence[str]) -> str:
    """Return the first five names of classes and how many more there are; "" without classes."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"classes {', '.join(names[:5])}{more}" if names else ""


def _taken(spec: SweepSpec, parts: Mapping[str, Sized]) -> str:
    """Say how many examples of each part a run takes, where all methods ask for the same smaller number."""
    asked = {name: {getattr(method.data, f"n_{name}") for method in spec.methods} for name in parts}
    fewer = [f"{n:,} {name}" for name, (n, *more) in asked.items() if n and not more and n < len(parts[name])]
    return f"each run takes {', '.join(fewer)} of these" if fewer else ""

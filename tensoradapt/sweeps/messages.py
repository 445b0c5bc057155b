"""The lines that a sweep prints: its plan, and each run that ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tensoradapt.runs.config import RunConfig
from tensoradapt.sweeps.cells import Cell, Due
from tensoradapt.sweeps.spec import Method, Search, SweepSpec
from tensoradapt.text import align, size_text


def plan_text(spec: SweepSpec, cells: Sequence[Cell], now: Due, todo: int) -> str:
    """The plan of a sweep: its cells with their parameters, rates and runs; empty cells with the reason."""
    filled = sum(not cell.empty for cell in cells)
    head = (
        f"sweep {spec.id}: {spec.model} on {', '.join(spec.tasks)}; {len(spec.methods)} methods, {filled} cells, seeds "
        f"{' '.join(map(str, spec.seeds))}: {now.total} runs, {todo} of them to do"
    )
    rows = [("method", "size", "parameters", "of budget"), *map(_row, cells)]
    empty = [f"empty: {cell.method}, {size_text(**cell.size)}: {cell.empty}" for cell in cells if cell.empty]
    return "\n".join([head, *align(rows), *empty, *(_search(spec, spec.search) if spec.search else _rates(spec))])


def _row(cell: Cell) -> tuple[str, str, str, str]:
    if cell.empty:
        return cell.method, size_text(**cell.size), "empty", ""
    count = "the whole model" if cell.n_params is None else f"{cell.n_params:,}"
    budget = cell.size.get("budget")
    return cell.method, size_text(**cell.size), count, f"{100 * (cell.n_params or 0) / budget:.1f} %" if budget else ""


def _rates(spec: SweepSpec) -> Iterator[str]:
    """One line for the methods that have the same rates."""
    grids: dict[tuple[float, ...], list[Method]] = {}
    for method in spec.methods:
        grids.setdefault(method.learning_rates, []).append(method)
    for grid, methods in grids.items():
        how = "" if len(grid) == 1 else f"; each method's is chosen on validation with seed {spec.tuning_seed}"
        named = "" if len(grids) == 1 else f" of {', '.join(method.name for method in methods)}"
        yield f"learning rate{'s' if len(grid) > 1 else ''}{named}: {' '.join(f'{lr:g}' for lr in grid)}{how}"


def _search(spec: SweepSpec, search: Search) -> Iterator[str]:
    at_once = f", {search.parallel} at once" if search.parallel > 1 else ""
    yield (
        f"search of each method on each task, by Optuna with seed {spec.tuning_seed}: {search.trials} trials{at_once}; "
        "the best on validation is run with every seed"
    )
    yield from (f"  {name} {_axis_text(axis)}" for name, axis in search.space.items())


def _axis_text(axis: Any) -> str:
    if not isinstance(axis, Mapping):
        return "of " + " ".join(map(str, axis))
    return f"from {axis['low']:g} to {axis['high']:g}" + ("" if axis["log"] else ", not by its logarithm")


def ended_text(config: RunConfig, result: Mapping[str, Any] | None, error: Mapping[str, Any] | None) -> str:
    """One line for a run that ended."""
    what = f"{config.title} on {config.task}" + (f", tuning lr {config.lr:g}" if config.tuning else "")
    if result is None:
        return f"{what}: FAILED ({(error or {}).get('kind')}): {str((error or {}).get('error'))[:200]}"
    value = result["test"].get(result["metric"])
    status = {"collapsed": "at chance"}.get(result["status"], result["status"])
    score = status if value is None else f"{result['metric']} {value:.3f}"
    note = "" if status == "finished" else f" ({status}: {result['note']})"
    return f"{what}: {result['n_params']:,} parameters, test {score}{note}"

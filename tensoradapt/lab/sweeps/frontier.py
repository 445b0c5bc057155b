"""The sweep that ``tensoradapt frontier`` runs: its sizes (the files of ``frontier/``), rates, figure and table."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tensoradapt.checks import one_of
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.execute import load_data
from tensoradapt.lab.runs.store import Run, check_writable, is_finished, read_run
from tensoradapt.lab.sweeps import record as recorded
from tensoradapt.lab.sweeps.due import due
from tensoradapt.lab.sweeps.executors.catalogue import cores, slots_for
from tensoradapt.lab.sweeps.run_sweep import SweepResult, sweep, sweep_of
from tensoradapt.lab.sweeps.spec import SIZES, SweepSpec, read_spec
from tensoradapt.lab.tasks.rates import ENCODER, HEAD_RATES, shares
from tensoradapt.lab.tasks.registry import resolve
from tensoradapt.published import registry

WORKERS = 4  # at most by default, on CPUs: each has a model of its own
REDRAW_SECONDS = 15.0  # between two drawings of the figure, each of which takes one or two
PRESETS = ("quick", "default", "full")


@cache
def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((files("tensoradapt.lab.sweeps") / "frontier" / f"{name}.toml").read_text())


def preset(name: str) -> dict[str, Any]:
    """Return a size of a frontier, one of ``PRESETS``, as the table of a specification without model and task."""
    return dict(_read(one_of(PRESETS, name, "size")))


def rates() -> dict[str, float]:
    """Return AdamW's tuned learning rates.

    These are by parameterization, of full fine-tuning ("full"), and of the head on a text encoder for classes ("head").
    """
    return {"head": HEAD_RATES[ENCODER, "classification"], **_read("rates")["lr"]}


FRONTIER = tuple(name for name in _read("rates")["lr"] if name != "full")  # whose rates for AdamW are tuned


def rate(kind: str) -> float:
    """Return a method's tuned learning rate; without one LoRA's, which suits the matched scale."""
    return rates().get(kind, rates()["lora"])


def frontier_spec(size: str = "default", *, model: str, task: Any, **given: Any) -> SweepSpec:
    """Return the specification of a frontier: each method at each of its sizes, and both references.

    Args:
        size: quick, default or full.
        model: a built-in model, a folder, or a name on the hub.
        task: a task's name, a file of own data, a folder of pictures, a ``datasets`` folder or name on the hub, or a
            table of settings as ``tensoradapt.register_task`` takes them.
        given: other keys of a specification, which replace those of the size and of its methods. Without lr adapters
            have the size's, with ``optimizer="adamw"`` the tuned one of each, less on models that are no text encoder
            (``tasks.rates``); a method without a rank has that of the size.

    Raises:
        TensorAdaptError: for what no specification can have, and for several rates of one method.
    """
    resolved, record = resolve(task)
    given = {key: _once(item) for key, item in given.items() if item is not None}
    table = {**preset(size), **given, "model": model, "task": resolved.name}
    if "budget" in given:
        table.pop("rank")
    usual, usual_full = shares(resolved, model)
    table["method"] = _adapters(table, given, preset(size), usual)
    rows = _references(table, given, usual_full)
    if rows := [row for row in rows if "reference" in given or row["reference"] in resolved.references]:
        table["reference"] = rows
    else:
        table.pop("reference")
    table["lr"] = given["lr"] if "lr" in given else _part(usual, table["lr"])
    spec = read_spec(table, own={resolved.name: record} if record else {})
    if several := [method for method in spec.methods if len(method.lr) > 1]:
        raise TensorAdaptError(
            f"lr of {several[0].name} has {len(several[0].lr)} values; expected one, as a frontier tunes nothing; "
            "`tensoradapt sweep` does"
        )
    return spec


def _once(item: Any) -> Any:
    """Return a list without the repeats in it."""
    return [each for i, each in enumerate(item) if each not in item[:i]] if isinstance(item, list | tuple) else item


def _adapters(
    table: Mapping[str, Any], given: Mapping[str, Any], usual: Mapping[str, Any], share: float
) -> list[dict[str, Any]]:
    """Return the tables of methods: the size's own for a name that it has, without the keys that were given."""
    named = {row["method"]: row for row in usual["method"]}
    asked = table["method"] if isinstance(table["method"], list | tuple) else [table["method"]]
    replaced = {*given, *(SIZES if set(SIZES) & given.keys() else ())} - {"method"}
    rows: dict[str, dict[str, Any]] = {}
    for i, row in enumerate(asked):
        own = row if isinstance(row, Mapping) and "method" in given else {}
        name = row.get("method") if isinstance(row, Mapping) else row
        found = registry.find(str(name), bool(own.get("paper", table.get("paper", False)))).name
        kept = {key: item for key, item in named.get(found, {}).items() if key not in replaced}
        tuned = {"lr": _part(share, rate(found))} if table.get("optimizer") == "adamw" and "lr" not in given else {}
        rows.setdefault(found if not own else str(i), {**kept, **tuned, "method": found, **own})
    return list(rows.values())


def _references(table: Mapping[str, Any], given: Mapping[str, Any], share: float) -> list[Any]:
    """Return the references; full fine-tuning has the rate that was given, the size's or the tuned one."""
    asked = table["reference"] if isinstance(table["reference"], list | tuple) else [table["reference"]]
    rows: list[Any] = []
    for row in asked:
        own = dict(row) if isinstance(row, Mapping) else {"reference": row}
        if own.get("reference") == "full" and not ("lr" in own and "reference" in given):
            own["lr"] = _part(share, own.get("lr", rate("full")))
        rows.append(own)
    return rows


def _part(share: float, lr: float) -> float:
    """Return a share of a learning rate, to three digits."""
    return float(f"{share * lr:.3g}")


def with_precision(spec: SweepSpec, out: Path) -> SweepSpec:
    """Return a frontier for which no precision was given with the one that is usual in a folder of runs.

    A new folder has "auto". One that has runs goes on with what it was begun with, on any machine, so that their ids
    stay the same.
    """
    begun: list[SweepSpec] = []
    for path in recorded.paths(out):
        with suppress(TensorAdaptError):  # a damaged record says nothing
            begun.append(recorded.read(path).spec)
    used = {method.training.get("precision") for one in begun for method in one.methods}
    if "auto" in used or not begun:
        auto = [
            [replace(one, training={**one.training, "precision": "auto"}) for one in part]
            for part in (spec.method, spec.reference)
        ]
        return replace(spec, method=tuple(auto[0]), reference=tuple(auto[1]))
    return spec


def run_frontier(
    spec: SweepSpec,
    out: Path,
    *,
    device: str = "auto",
    workers: int | None = None,
    dry_run: bool = False,
    say: Callable[[str], None] = print,
) -> tuple[SweepResult, list[Run]]:
    """Run a frontier; leave frontier.png, .pdf, .csv and .txt beside its runs, also when it is interrupted.

    ``workers``: how many processes compute at once, 1 for this one; default what ``sweep`` finds on a GPU, or each core
    up to four. ``dry_run``: whether to print the plan and stop.

    Returns how the sweep ended, and its finished runs. Raises TensorAdaptError before the first run for a device,
    model, task, plan or folder that cannot be used.
    """
    if not dry_run:
        check_writable(out)
    planned = sweep_of(spec, out)
    if refused := [cell.empty for cell in planned.cells if cell.empty and cell.n_params is None]:
        raise TensorAdaptError(refused[0])
    configs = due(planned).configs
    first = configs[0]
    load_data(first).task.model(spec.model)
    gpus = slots_for("local", None, device, {}).gpus  # the sweep decides how many processes share one
    # runs of one thread side by side take less time than one after the other on all cores
    n = workers or (None if gpus else min(cores(), WORKERS))
    drawn = 0.0

    def say_and_draw(text: str) -> None:
        nonlocal drawn
        say(text)
        if not dry_run and time.monotonic() - drawn > REDRAW_SECONDS:
            draw(configs, out)
            drawn = time.monotonic()

    try:
        how: Any = {"executor": "inline"} if n == 1 else {"executor": "local", "workers": n}
        ended = sweep(planned, out, device=device, retry_failed=True, dry_run=dry_run, say=say_and_draw, **how)
    except KeyboardInterrupt:
        draw(configs, out)
        raise
    return ended, [] if dry_run else draw(configs, out)


def draw(configs: Sequence[RunConfig], out: Path) -> list[Run]:
    """Draw the runs that are finished, as soon as they allow it; return them."""
    from tensoradapt.lab.analysis import plots  # slow, as it loads pandas and matplotlib

    runs = [read_run(out / config.id) for config in configs if is_finished(out, config.id)]
    if any(run.row["kind"] == "adapter" for run in runs):
        plots.save(runs, "frontier", out, formats=("png", "pdf"))
    return runs

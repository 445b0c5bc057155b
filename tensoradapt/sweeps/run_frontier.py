"""The frontier job: run what is missing, keep the figure and the table up to date, stop and go on at any time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tensoradapt.analysis.figures.captions import TUNED
from tensoradapt.analysis.figures.frontier_plot import save_frontier
from tensoradapt.analysis.tables.frontier import table, write_csv
from tensoradapt.data import models, tasks
from tensoradapt.errors import TensorAdaptError, missing_extra
from tensoradapt.runs.config import RunConfig
from tensoradapt.runs.execute import execute, head_of, load_data
from tensoradapt.runs.plan_run import plan_of
from tensoradapt.runs.provenance import provenance
from tensoradapt.runs.store import Run, check_writable, is_finished, read_run, write_run
from tensoradapt.runs.work_folder import claim
from tensoradapt.training.options import TrainingOptions

REDRAW_SECONDS = 15.0  # drawing takes one to two; a short sweep must not spend its time on it
WIDE = 200  # columns of a file or pipe, which has no width to keep to


@dataclass(frozen=True)
class Outcome:
    """The runs of a frontier that are finished, of how many, and how many another process is computing."""

    runs: tuple[Run, ...]
    total: int
    elsewhere: int


def run_frontier(
    configs: Sequence[RunConfig], out: Path, device: str, say: Callable[[str], None], rates: str = TUNED
) -> Outcome:
    """Runs every config that has no finished folder in ``out``; leaves frontier.csv, .png and .pdf beside them.

    ``rates`` says in the figure's caption how the learning rates were chosen.

    Raises TensorAdaptError before the first run for a device, model, task, plan or folder that will not do.
    """
    device = _device(device)
    check_writable(out)
    _check(configs)
    pending = [config for config in configs if not is_finished(out, config.name)]
    if len(pending) < len(configs):
        say(f"{len(configs) - len(pending)} of {len(configs)} runs are there already; going on with the rest")
    drawn, elsewhere = 0.0, 0
    with _progress(sum(config.steps for config in pending)) as bar:
        for config in pending:
            with claim(out, config.name) as ours:
                elsewhere += not ours
                if not ours or is_finished(out, config.name):
                    bar.skip(config)
                    continue
                bar.start(config)
                parts = execute(config, device, bar.step)
                arrays = parts.pop("arrays")
                write_run(out, config.name, **parts, provenance=provenance(), arrays=arrays)
                bar.done(config, parts["result"])
            if time.monotonic() - drawn > REDRAW_SECONDS:
                draw(configs, out, rates)
                drawn = time.monotonic()
    return Outcome(tuple(draw(configs, out, rates)), len(configs), elsewhere)


def finished(configs: Sequence[RunConfig], out: Path) -> list[Run]:
    """The finished runs of these configs."""
    return [read_run(out / config.name) for config in configs if is_finished(out, config.name)]


def draw(configs: Sequence[RunConfig], out: Path, rates: str = TUNED) -> list[Run]:
    """Writes the figure and the table of what is finished; returns the runs."""
    runs = finished(configs, out)
    if runs:
        save_frontier(runs, out / "frontier", total=len(configs), rates=rates)
        write_csv(runs, out / "frontier.csv")
    return runs


def rows(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """The printed table: one row per configuration and reference, best-founded figures only."""
    made: list[tuple[str, ...]] = [
        ("method", "rank", "parameters", "test", "95 % interval", "over frozen base", "lost", "P(frontier)", "lr")
    ]
    for row in table(runs):
        lost = (row["n_collapsed"] or 0) + (row["n_diverged"] or 0)
        made.append(
            (
                row["label"],
                str(row["rank"] or ""),
                f"{row['n_params']:,}",
                f"{row['mean']:.3f}",
                _interval(row["low"], row["high"]),
                _difference(row),
                f"{lost} of {row['n_seeds']}" if lost else "",
                _number(row["p_frontier"], ".2f"),
                _number(row["lr"], "g"),
            )
        )
    return made


def _number(value: Any, spec: str) -> str:
    return "" if value is None else format(value, spec)


def _interval(low: Any, high: Any) -> str:
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _difference(row: dict[str, Any]) -> str:
    if row["diff_head"] is None:
        return ""
    return f"{row['diff_head']:+.3f} ({_interval(row['diff_head_low'], row['diff_head_high']) or 'no interval'})"


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise TensorAdaptError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]}); expected auto, cpu or cuda"
        ) from None
    return name


def _check(configs: Sequence[RunConfig]) -> None:
    """Everything that would fail in a run fails here: task and model are fetched, every configuration is planned."""
    for config in configs:
        TrainingOptions(config.lr, config.steps, config.head_lr)
        if not 0 <= config.seed < 2**31:
            raise TensorAdaptError(f"seed is {config.seed}; expected a whole number from 0 up to 2**31 - 1")
    first = configs[0]
    task = tasks.get(first.task)
    planned = models.load(first.model, task)
    load_data(first.task, first.model, first.n_train, first.n_test, first.seed)
    kinds = {(c.parameterization, repr(c.rank), c.budget, c.layout): c for c in configs if c.kind == "adapter"}
    for config in kinds.values():
        plan_of(config, planned, head_of(planned))


class _Bar:
    """Progress of a frontier: steps done and time left of what is still to run, and a line per finished run."""

    def __init__(self, progress: Any, task: Any) -> None:
        self.progress, self.task = progress, task

    def start(self, config: RunConfig) -> None:
        self.progress.update(self.task, description=config.title)

    def step(self, _step: int, _loss: float) -> None:
        self.progress.advance(self.task)

    def skip(self, config: RunConfig) -> None:
        self.progress.advance(self.task, config.steps)

    def done(self, config: RunConfig, result: Mapping[str, Any]) -> None:
        value = result["test"].get(result["metric"])
        text = f"{result['metric']} {value:.3f}" if value is not None else result["status"]
        lost = f" ({result['status']}: {result['note']})" if result["status"] != "finished" else ""
        self.progress.console.print(
            f"{config.title:44s} {result['n_params']:>12,} parameters  test {text}{lost}", highlight=False
        )


@contextmanager
def _progress(steps: int) -> Iterator[_Bar]:
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
    except ImportError:
        raise missing_extra("rich", "demo", "tensoradapt frontier") from None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    with Progress(*columns, console=console, speed_estimate_period=300) as progress:
        yield _Bar(progress, progress.add_task("starting", total=steps))

"""The sweep that ``tensoradapt frontier`` runs: its sizes, its tuned learning rates, its figure and its table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from tensoradapt import parameterizations as factorings
from tensoradapt.analysis.figures.captions import TUNED
from tensoradapt.analysis.figures.frontier_plot import save_frontier
from tensoradapt.analysis.tables.frontier import write_csv
from tensoradapt.checks import number, whole
from tensoradapt.data import models, tasks
from tensoradapt.errors import TensorAdaptError
from tensoradapt.runs.config import REFERENCES, RunConfig
from tensoradapt.runs.execute import load_data
from tensoradapt.runs.plan_run import layouts_for
from tensoradapt.runs.store import Run, check_writable, is_finished, read_run
from tensoradapt.sweeps.cells import cells, due
from tensoradapt.sweeps.run_sweep import SweepResult, sweep
from tensoradapt.sweeps.spec import Method, Size, SweepSpec

REDRAW_SECONDS = 15.0  # between two drawings of the figure, each of which takes one or two


@dataclass(frozen=True)
class FrontierSize:
    """How much a frontier runs; with ``budgets`` (numbers of parameters) the ranks are not used."""

    ranks: tuple[int, ...]
    seeds: tuple[int, ...]
    steps: int
    n_train: int
    n_validation: int
    n_test: int
    budgets: tuple[int, ...] = ()

    def sizes(self) -> tuple[Size, ...]:
        """The sizes of each method; a rank or budget that is named twice is one."""
        key, values = ("budget", self.budgets) if self.budgets else ("rank", self.ranks)
        return tuple({key: value} for value in dict.fromkeys(values))


SIZES: Mapping[str, FrontierSize] = {
    "quick": FrontierSize((8,), (0,), 24, 1000, 200, 400),
    "default": FrontierSize((1, 8), (0, 1, 2), 30, 2000, 100, 500),
    "full": FrontierSize((1, 4, 16, 64), (0, 1, 2), 100, 4000, 300, 1500),
}
FRONTIER = ("lora", "cp", "tucker", "tensor_train", "vera")


@lru_cache(maxsize=1)
def rates() -> dict[str, float]:
    """Learning rates by parameterization ("head", "full" too), chosen on validation by benchmarks/tune_rates.py."""
    return json.loads((files("tensoradapt.sweeps") / "rates.json").read_text())["lr"]


def rate(kind: str) -> float:
    """The tuned learning rate; LoRA's for a parameterization that was not tuned, which suits the matched scale."""
    return rates().get(kind, rates()["lora"])


def frontier_spec(
    size: FrontierSize,
    *,
    model: str,
    task: str,
    parameterizations: Sequence[str] = FRONTIER,
    layout: Sequence[str] | None = None,
    projections: Sequence[str] = ("attention",),
    lr: float | None = None,
) -> SweepSpec:
    """The specification of a frontier: each parameterization at each size, and both references.

    Args:
        size: one of ``SIZES``, or other ranks or budgets, seeds, steps and numbers of examples.
        model: a built-in model, a folder, or a name on the hub.
        task: one of ``tasks.names()``.
        parameterizations: their names.
        layout: for all of them; default each one's usual layout.
        projections: "attention", "mlp", "all", or names such as "q" and "v".
        lr: learning rate of all adapters; default the tuned one of each.

    Raises:
        TensorAdaptError: for an unknown task or parameterization, and for seeds, steps or a rate out of range.
    """
    rate_given = None if lr is None else number(lr, "lr")

    def reference(kind: str) -> Method:
        # with the projections that the ids of references have always been made with
        return Method(REFERENCES[kind], kind, ({},), (rate(kind),), projections=("attention",))

    def adapter(name: str) -> Method:
        return Method(
            name=getattr(factorings.get(name), "label", name),
            kind="adapter",
            sizes=size.sizes(),
            learning_rates=(rate_given or rate(name),),
            parameterization=name,
            layout=tuple(layout or layouts_for(name, projections)),
            projections=tuple(projections),
        )

    counts = {key: whole(getattr(size, key), key) for key in ("steps", "n_train", "n_validation", "n_test")}
    # a run without a method's name is taken to have a tuned rate, and is labelled by its parameterization
    tuned = {"method": None} if lr is None else {}
    return SweepSpec(
        model=model,
        tasks=(tasks.get(task).name,),
        methods=(reference("head"), *map(adapter, dict.fromkeys(parameterizations)), reference("full")),
        seeds=tuple(whole(seed, "seed", least=0) for seed in dict.fromkeys(size.seeds)),
        tuning_seeds=(0,),  # nothing is tuned: each method has one rate
        runs={**counts, "head_lr": rate("head"), **tuned},
    )


def run_frontier(
    spec: SweepSpec, out: Path, *, device: str = "auto", say: Callable[[str], None] = print
) -> tuple[SweepResult, list[Run]]:
    """Run a frontier in this process; leave frontier.csv, .png and .pdf beside its runs, also when it is interrupted.

    Returns how the sweep ended, and its finished runs. Raises TensorAdaptError before the first run for a device,
    model, task, plan or folder that cannot be used.
    """
    check_writable(out)
    planned = cells(spec, models.config(spec.model))
    if refused := [cell.empty for cell in planned if cell.empty and cell.n_params is None]:
        raise TensorAdaptError(refused[0])
    configs = due(spec, planned, out).configs
    first = configs[0]
    models.load(spec.model, tasks.get(first.task))
    load_data(first.task, first.model, first.n_train, first.n_test, first.seed)
    _adopt(configs, out, say)
    drawn = 0.0

    def say_and_draw(text: str) -> None:
        nonlocal drawn
        say(text)
        if time.monotonic() - drawn > REDRAW_SECONDS:
            draw(configs, out)
            drawn = time.monotonic()

    try:
        ended = sweep(spec, out, executor="inline", device=device, retry_failed=True, say=say_and_draw)
    except KeyboardInterrupt:
        draw(configs, out)
        raise
    return ended, draw(configs, out)


def _adopt(configs: Sequence[RunConfig], out: Path, say: Callable[[str], None]) -> None:
    """Rename the folders of runs that earlier versions made, which named a frontier's folders otherwise."""
    former = [config for config in configs if is_finished(out, config.name)]
    for config in former:
        if (out / config.id).exists():
            raise TensorAdaptError(
                f"{out / config.name} and {out / config.id} are the same run; expected one folder: delete the first"
            )
    for config in former:
        (out / config.name).rename(out / config.id)
    if former:
        say(f"the folders of {len(former)} runs of an earlier version are renamed to the ids of these runs")


def draw(configs: Sequence[RunConfig], out: Path) -> list[Run]:
    """Write the figure and the table of the runs that are finished; return these."""
    runs = [read_run(out / config.id) for config in configs if is_finished(out, config.id)]
    if runs:
        how = "as given" if any(config.method for config in configs) else TUNED
        save_frontier(runs, out / "frontier", total=len(configs), rates=how)
        write_csv(runs, out / "frontier.csv")
    return runs

"""The sweep that ``tensoradapt frontier`` runs: its sizes, its tuned learning rates, its figure and its table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tensoradapt import parameterizations as factorings
from tensoradapt import published as papers
from tensoradapt.analysis.figures.frontier_plot import save_frontier
from tensoradapt.analysis.tables.frontier import write_csv
from tensoradapt.checks import number, one_of, whole
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.runs.config import REFERENCES, RunConfig
from tensoradapt.runs.execute import load_data
from tensoradapt.runs.store import Run, check_writable, is_finished, read_run
from tensoradapt.sweeps.cells import base_of, cells, due, with_head_rates
from tensoradapt.sweeps.executors.catalogue import cores, slots_for
from tensoradapt.sweeps.read_spec import method_of
from tensoradapt.sweeps.run_sweep import SweepResult, sweep
from tensoradapt.sweeps.spec import OPTIMIZER, Method, SweepSpec, trained_by
from tensoradapt.tasks.rates import ENCODER, HEAD_RATES, shares
from tensoradapt.tasks.registry import resolve
from tensoradapt.training.options import OPTIMIZERS, PRECISIONS

WORKERS = 4  # at most by default, on CPUs: each has a model of its own
REDRAW_SECONDS = 15.0  # between two drawings of the figure, each of which takes one or two


@dataclass(frozen=True)
class FrontierSize:
    """How much a frontier runs.

    ``ranks``: of each method, or of all; with ``budgets`` (numbers of parameters) they are not used. ``lr``: of all
    adapters, which take equal steps. ``full_lr``: of full fine-tuning; default the tuned one. ``head_lr``: of the
    head; default by kind of model and task (``tasks.rates``).
    """

    ranks: Mapping[str, tuple[int, ...]] | tuple[int, ...]
    seeds: tuple[int, ...]
    steps: int
    lr: float
    n_train: int
    n_validation: int
    n_test: int
    batch: int = 16
    budgets: tuple[int, ...] = ()
    full_lr: float | None = None
    head_lr: float | None = None

    def sizes(self, method: str) -> dict[str, list[int]]:
        """The ranks or budgets of a method; one that is named twice is one."""
        ranks = self.ranks.get(method, RANKS) if isinstance(self.ranks, Mapping) else self.ranks
        key, values = ("budgets", self.budgets) if self.budgets else ("ranks", ranks)
        return {key: list(dict.fromkeys(values))}


FRONTIER = ("lora", "cp", "tucker", "tensor_train", "vera")  # whose rates for AdamW are tuned
RANKS = (4, 16)  # the ranks of a method that a size does not name
QUICK = {"lora": (1, 8), "cp": (16,), "tucker": (8,), "tensor_train": (16,), "vera": (64,)}
DEFAULT = {"lora": (1, 8), "cp": (4, 64), "tucker": (4, 16), "tensor_train": (4, 32), "vera": (64,)}
FULL = {
    "lora": (1, 2, 8, 32),
    "cp": (1, 4, 16, 64, 256),
    "tucker": (2, 4, 8, 16),
    "tensor_train": (2, 8, 32, 64),
    "lotr": (1, 4, 16, 64),
    "vera": (1, 64, 256),
}
SIZES: Mapping[str, FrontierSize] = {
    "quick": FrontierSize(QUICK, (0,), 60, 2e-3, 2000, 100, 800),
    "default": FrontierSize(DEFAULT, (0, 1, 2), 100, 1.5e-3, 4000, 100, 1000),
    "full": FrontierSize(FULL, (0, 1, 2, 3, 4), 300, 1.5e-3, 4000, 300, 1500, full_lr=1e-4),
}


@lru_cache(maxsize=1)
def rates() -> dict[str, float]:
    """AdamW's learning rates by parameterization and of full fine-tuning, from benchmarks/tune_rates.py; and the head's
    on a text encoder for classes.
    """
    tuned = json.loads((files("tensoradapt.sweeps") / "rates.json").read_text())["lr"]
    return {"head": HEAD_RATES[ENCODER, "classification"], **tuned}


def rate(kind: str) -> float:
    """The tuned learning rate; LoRA's for a parameterization that was not tuned, which suits the matched scale."""
    return rates().get(kind, rates()["lora"])


def frontier_spec(
    size: FrontierSize,
    *,
    model: str,
    task: str | Mapping[str, Any],
    methods: Sequence[str] | None = None,
    layout: Sequence[str] | None = None,
    projections: Sequence[str] = ("attention",),
    lr: float | None = None,
    optimizer: str = OPTIMIZER,
    precision: str = "fp32",
) -> SweepSpec:
    """The specification of a frontier: each method at each of its sizes, and both references.

    Args:
        size: one of ``SIZES``, or other ranks or budgets, seeds, steps and numbers of examples.
        model: a built-in model, a folder, or a name on the hub.
        task: a task's name, a file of own data, a folder of pictures, a ``datasets`` folder or name on the hub, or a
            table of settings as ``tensoradapt.register_task`` takes them.
        methods: names of parameterizations and published adapters; default those of the size.
        layout: of all parameterizations; default each one's usual layout.
        projections: "attention", "mlp", "all", or names such as "q" and "v".
        lr: learning rate of all adapters; default the size's, with "adamw" the tuned one of each, less for models that
            are no text encoder (``tasks.rates``).
        optimizer: "equal_steps" or "adamw".
        precision: "fp32" or "bf16", of the model's arithmetic.

    Raises:
        TensorAdaptError: for an unknown task, model or method, and for seeds, steps or a rate out of range.
    """
    resolved, record = resolve(task)
    given = None if lr is None else number(lr, "lr")
    usual, usual_full = shares(resolved, model)
    named = tuple(dict.fromkeys(methods or (size.ranks if isinstance(size.ranks, Mapping) else DEFAULT)))

    def adapter(name: str) -> Method:
        rates = [given or _part(usual, rate(name) if optimizer == "adamw" else size.lr)]
        return _adapter(name, layout, projections=list(projections), learning_rates=rates, **size.sizes(name))

    counts = {key: whole(getattr(size, key), key) for key in ("steps", "n_train", "n_validation", "n_test", "batch")}
    options = {"precision": one_of(PRECISIONS, precision, "precision")}
    training = trained_by(one_of(OPTIMIZERS, optimizer, "optimizer"), options)
    head_lr = None if size.head_lr is None else number(size.head_lr, "head_lr")
    chosen = {key: value for key, value in (("head_lr", head_lr), ("training", training)) if value}
    spec = SweepSpec(
        model=model,
        tasks=(resolved.name,),
        data={resolved.name: record} if record else {},
        methods=(
            _reference("head", size.lr, own_rates=False),
            *map(adapter, named),
            _reference("full", _part(usual_full, size.full_lr or rate("full"))),
        ),
        seeds=tuple(whole(seed, "seed", least=0) for seed in dict.fromkeys(size.seeds)),
        tuning_seeds=(0,),  # nothing is tuned: each method has one rate
        runs={**counts, **chosen},
    )
    return with_head_rates(spec)


def _part(share: float, lr: float) -> float:
    """A share of a learning rate, to three digits."""
    return float(f"{share * lr:.3g}")


def _reference(kind: str, lr: float, own_rates: bool = True) -> Method:
    return Method(REFERENCES[kind], kind, ({},), (lr,), own_rates=own_rates)


def _adapter(name: str, layout: Sequence[str] | None, **given: Any) -> Method:
    """A parameterization by its label, or a published adapter, as a sweep reads it."""
    if name in factorings.names():
        label = getattr(factorings.get(name), "label", name)
        return method_of({"parameterization": name, "name": label, "layout": layout, **given}, {})
    if name not in papers.names():
        raise TensorAdaptError(f"unknown method {name!r}{did_you_mean(name, (*factorings.names(), *papers.names()))}")
    return method_of({"published": name, **given}, {})


def run_frontier(
    spec: SweepSpec,
    out: Path,
    *,
    device: str = "auto",
    workers: int | None = None,
    say: Callable[[str], None] = print,
) -> tuple[SweepResult, list[Run]]:
    """Run a frontier; leave frontier.csv, .png and .pdf beside its runs, also when it is interrupted.

    ``workers``: how many runs at once, 1 in this process; default one for each GPU, or each core up to four.

    Returns how the sweep ended, and its finished runs. Raises TensorAdaptError before the first run for a device,
    model, task, plan or folder that cannot be used.
    """
    check_writable(out)
    planned = cells(spec, base_of(spec))
    if refused := [cell.empty for cell in planned if cell.empty and cell.n_params is None]:
        raise TensorAdaptError(refused[0])
    configs = due(spec, planned, out).configs
    first = configs[0]
    load_data(first).task.model(spec.model)
    # runs of one thread side by side take less time than one after the other on all cores
    n = workers or len(slots_for("local", None, device, {}).gpus) or min(cores(), WORKERS)
    drawn = 0.0

    def say_and_draw(text: str) -> None:
        nonlocal drawn
        say(text)
        if time.monotonic() - drawn > REDRAW_SECONDS:
            draw(configs, out)
            drawn = time.monotonic()

    try:
        how: Any = {"executor": "local", "workers": n} if n > 1 else {"executor": "inline"}
        ended = sweep(spec, out, device=device, retry_failed=True, say=say_and_draw, **how)
    except KeyboardInterrupt:
        draw(configs, out)
        raise
    return ended, draw(configs, out)


def draw(configs: Sequence[RunConfig], out: Path) -> list[Run]:
    """Write the figure and the table of the runs that are finished; return these."""
    runs = [read_run(out / config.id) for config in configs if is_finished(out, config.id)]
    if runs:
        save_frontier(runs, out / "frontier", total=len(configs))
        write_csv(runs, out / "frontier.csv")
    return runs

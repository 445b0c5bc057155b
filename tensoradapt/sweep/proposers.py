"""Proposers: which configurations of a method are tried, and which of them is then run on the reported seeds.

A grid is every learning rate at once. A search is an Optuna study, which keeps nothing: it is made again from its seed
and the store, by asking for the same trials in the same order and telling it what their runs gave.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tensoradapt.errors import missing_extra
from tensoradapt.sweep.spec import RunConfig
from tensoradapt.sweep.store import is_finished, read_run
from tensoradapt.sweep.toml_spec import Method, Size, SweepSpec

DIGITS = 4  # of a number that is proposed: it can be written down, and the last bits of a logarithm do not matter
STARTUP = 5  # trials at random; Optuna's 10 would be most of a search that trains a model in each
Scored = tuple[float, RunConfig]


@dataclass(frozen=True)
class Case:
    """A method on a task, at the sizes that it can have, over a folder of runs.

    ``settled``: whether the run with an id has a result or a failure.
    """

    spec: SweepSpec
    method: Method
    task: str
    sizes: Sequence[Size]
    root: Path
    settled: Callable[[str], bool]

    @property
    def middle(self) -> Size:
        """The size that rates are tuned at."""
        return self.sizes[(len(self.sizes) - 1) // 2]


@dataclass(frozen=True)
class Tuning:
    """The runs that tune a method on a task, as far as they can be named, and how many there will be at most.

    Once they have ended, ``reported`` is what is run with each seed, or ``lost`` says why there is nothing to run.
    """

    runs: tuple[RunConfig, ...]
    total: int
    reported: tuple[RunConfig, ...] = ()
    lost: str = ""


def propose(case: Case) -> Tuning:
    """The tuning of a method on a task; it follows from the specification and the runs that have ended."""
    return _search(case) if case.spec.search else _grid(case)


def config_of(spec: SweepSpec, method: Method, task: str, size: Size, lr: float) -> RunConfig:
    """A run that tunes a method."""
    return RunConfig(
        kind=method.kind,
        seed=spec.tuning_seed,
        model=spec.model,
        task=task,
        lr=lr,
        parameterization=method.parameterization,
        layout=method.layout,
        projections=method.projections,
        scale=method.scale,
        published=method.published,
        plan=dict(method.plan or {}),
        tuning=True,
        method=method.name,
        **size,
        **spec.runs,
    )


def _grid(case: Case) -> Tuning:
    """One run for each rate of a method, at its middle size; none where there is one rate."""
    rates = case.method.learning_rates
    runs = tuple(config_of(case.spec, case.method, case.task, case.middle, lr) for lr in rates)
    if len(runs) == 1:
        return Tuning((), 0, _at_sizes(runs[0], case.sizes))
    if not all(case.settled(config.id) for config in runs):
        return Tuning(runs, len(runs))
    found = [(score, config) for config in runs if (score := _validation(config, case.root)) is not None]
    best = _best(found)
    if best is None:
        return Tuning(runs, len(runs), lost="no learning rate gave a result")
    return Tuning(runs, len(runs), _at_sizes(best, case.sizes))


def _at_sizes(config: RunConfig, sizes: Sequence[Size]) -> tuple[RunConfig, ...]:
    return tuple(replace(config, rank=size.get("rank"), budget=size.get("budget")) for size in sizes)


def _best(found: Sequence[Scored]) -> RunConfig | None:
    """The best score on validation, the lower rate of two that are equal; None of none."""
    return min(found, key=lambda one: (-one[0], one[1].lr))[1] if found else None


def _validation(config: RunConfig, root: Path) -> float | None:
    """The score of a run on validation; None where it has none."""
    if not is_finished(root, config.id):
        return None
    result = read_run(root / config.id).result
    return result["validation"].get(result["metric"])


def _search(case: Case) -> Tuning:
    """The trials of a study: as many as have been told, and ``parallel`` more, so that which trials there are does not
    depend on which run ends first.
    """
    search = case.spec.search
    assert search is not None
    study, axes = _study(case.spec.tuning_seed), _axes(case)
    asked: list[tuple[Any, RunConfig]] = []
    found: list[Scored] = []
    told = 0
    while told < search.trials:
        while len(asked) < min(told + search.parallel, search.trials):
            trial = study.ask()
            asked.append((trial, _proposed(case, {name: _suggested(trial, name, axes[name]) for name in axes})))
        trial, config = asked[told]
        if not case.settled(config.id):
            break
        if (score := _told(study, trial, config, case.root)) is not None:
            found.append((score, config))
        told += 1
    runs = tuple({config.id: config for _, config in asked}.values())
    if told < search.trials:
        return Tuning(runs, int(min(len(runs) + search.trials - len(asked), _count(axes))))
    best = _best(found)
    if best is None:
        return Tuning(runs, len(runs), lost="no trial gave a result")
    return Tuning(runs, len(runs), (best,) if search.size else _at_sizes(best, case.sizes))


def _study(seed: int) -> Any:
    """A study that maximises, in memory. Its sampler takes trials that are asked for and not told as bad ones, so those
    that run at once differ.
    """
    try:
        import optuna
    except ImportError:
        raise missing_extra("optuna", "optuna", 'proposer = "optuna"') from None
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a new study is no news
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of constant_liar, before 5.0
            sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=STARTUP)
        return optuna.create_study(direction="maximize", sampler=sampler)
    finally:
        optuna.logging.set_verbosity(level)


def _axes(case: Case) -> dict[str, Any]:
    """What is searched of a method: a frozen base has one rate and no scale, and only adapters have sizes."""
    assert case.spec.search is not None
    own = {"learning_rate"} if case.method.kind == "head" else {"learning_rate", "head_learning_rate"}
    if case.method.kind == "adapter":
        own.add("scale")
    axes = {name: axis for name, axis in case.spec.search.space.items() if name in own}
    return {**axes, "size": tuple(case.sizes)} if case.spec.search.size else axes


def _count(axes: Mapping[str, Any]) -> float:
    """How many configurations there are."""
    return math.prod(math.inf if isinstance(axis, Mapping) else len(axis) for axis in axes.values())


def _suggested(trial: Any, name: str, axis: Any) -> Any:
    if not isinstance(axis, Mapping):
        return axis[trial.suggest_categorical(name, range(len(axis)))]
    value = float(f"{trial.suggest_float(name, axis['low'], axis['high'], log=axis['log']):.{DIGITS}g}")
    return min(max(value, axis["low"]), axis["high"])


def _proposed(case: Case, values: Mapping[str, Any]) -> RunConfig:
    config = config_of(case.spec, case.method, case.task, values.get("size", case.middle), values["learning_rate"])
    renamed = {"head_learning_rate": "head_lr", "scale": "scale"}
    return replace(config, **{field: values[name] for name, field in renamed.items() if name in values})


def _told(study: Any, trial: Any, config: RunConfig, root: Path) -> float | None:
    """Tells how a trial's run ended; returns its score, None where there is none.

    A run that failed says nothing about its configuration. One that diverged does: it counts as pruned, among the bad.
    """
    from optuna.trial import TrialState

    if not is_finished(root, config.id):
        study.tell(trial, state=TrialState.FAIL)
        return None
    score = None if read_run(root / config.id).result["status"] == "diverged" else _validation(config, root)
    study.tell(trial, score, state=TrialState.PRUNED if score is None else TrialState.COMPLETE)
    return score

"""Tuning: which configurations of a method are tried, and which of them is then run with the reported seeds.

A grid tries every learning rate at once. A search is an Optuna study, kept in memory alone: it is asked for the same
trials again and told the results that are stored. Trial i is asked for when trials up to i - ``parallel`` have been
told, in their order, so the trials do not depend on which run ends first.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tensoradapt.errors import missing_extra
from tensoradapt.runs.config import RunConfig
from tensoradapt.runs.store import is_finished, read_run
from tensoradapt.sweeps.spec import Method, Size, SweepSpec

DIGITS = 4  # of a proposed number, so that it can be written down, and platforms agree on it
STARTUP = 5  # random trials; Optuna's 10 would be most of a search that trains a model in each
Outcome = tuple[str, float | None]  # the name of one of Optuna's states, and the score


@dataclass(frozen=True)
class Case:
    """A method on a task, its sizes from the smallest up, and a folder of runs.

    ``settled``: whether the run of an id has a result or a failure.
    """

    spec: SweepSpec
    method: Method
    task: str
    sizes: Sequence[Size]
    root: Path
    settled: Callable[[str], bool]

    @property
    def middle(self) -> Size:
        """The size at which rates are tuned."""
        return self.sizes[(len(self.sizes) - 1) // 2]


@dataclass(frozen=True)
class Tuning:
    """The runs that tune a method on a task and can be named now, and how many there will be at most.

    Once they have ended, ``reported`` are the configurations to run with each seed, or ``failure`` says why none is.
    """

    runs: tuple[RunConfig, ...]
    total: int
    reported: tuple[RunConfig, ...] = ()
    failure: str = ""


def propose(case: Case) -> Tuning:
    """The tuning of a method on a task; it depends on the specification and the runs that have ended alone."""
    return _search(case) if case.spec.search else _grid(case)


def config_of(spec: SweepSpec, method: Method, task: str, size: Size, lr: float) -> RunConfig:
    """A tuning run of a method."""
    settings: dict[str, Any] = {"method": method.name, **size, **spec.runs}
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
        **settings,
    )


def _grid(case: Case) -> Tuning:
    """Try each rate of a method at its middle size; a single rate is not tuned."""
    args = case.spec, case.method, case.task, case.middle
    runs = tuple(config_of(*args, lr) for lr in case.method.learning_rates)
    if len(runs) == 1:
        return Tuning((), 0, _at_sizes(runs[0], case.sizes))
    if not all(case.settled(config.id) for config in runs):
        return Tuning(runs, len(runs))
    best = _best([(config, _outcome(config, case.root)[1]) for config in runs])
    if best is None:
        return Tuning(runs, len(runs), failure="no learning rate gave a result")
    return Tuning(runs, len(runs), _at_sizes(best, case.sizes))


def _at_sizes(config: RunConfig, sizes: Sequence[Size]) -> tuple[RunConfig, ...]:
    return tuple(replace(config, rank=size.get("rank"), budget=size.get("budget")) for size in sizes)


def _best(scores: Sequence[tuple[RunConfig, float | None]]) -> RunConfig | None:
    """The run with the best score on validation, of equal ones that with the lowest rate; None without scores."""
    ranked = [(-score, config.lr, i) for i, (config, score) in enumerate(scores) if score is not None]
    return scores[min(ranked)[2]][0] if ranked else None


def _search(case: Case) -> Tuning:
    """The trials of a study that have been told, and ``parallel`` more."""
    search, axes = case.spec.search, _axes(case)
    assert search is not None
    how = (json.dumps(axes), case.spec.tuning_seed, search.trials, search.parallel)
    study = study_of(*how, str(case.root.absolute()), case.spec.id, case.method.name, case.task)
    ended: list[tuple[RunConfig, Outcome]] = []
    for i in range(search.trials):
        config = _proposed(case, study.values(i))
        if not case.settled(config.id):
            break
        ended.append((config, _outcome(config, case.root)))
        study.tell(i, ended[-1][1])
    asked = min(len(ended) + search.parallel, search.trials)
    configs = [_proposed(case, study.values(i)) for i in range(asked)]
    runs = tuple({config.id: config for config in configs}.values())
    if len(ended) < search.trials:
        distinct = math.prod(math.inf if isinstance(axis, Mapping) else len(axis) for axis in axes.values())
        return Tuning(runs, int(min(len(runs) + search.trials - asked, distinct)))
    best = _best([(config, score if state == "COMPLETE" else None) for config, (state, score) in ended])
    if best is None:
        return Tuning(runs, len(runs), failure="no trial gave a result")
    return Tuning(runs, len(runs), (best,) if search.size else _at_sizes(best, case.sizes))


def _outcome(config: RunConfig, root: Path) -> Outcome:
    """How a run ended, in Optuna's terms: one that diverged is pruned, which counts as bad; a failure does not."""
    if not is_finished(root, config.id):
        return "FAIL", None
    result = read_run(root / config.id).result
    score = result["validation"].get(result["metric"])
    return "PRUNED" if score is None or result["status"] == "diverged" else "COMPLETE", score


def _axes(case: Case) -> dict[str, Any]:
    """The search space of a method; a frozen base has one rate, and only adapters have a scale and sizes."""
    assert case.spec.search is not None
    unused = {"head": {"head_learning_rate", "scale"}, "full": {"scale"}}.get(case.method.kind, set())
    axes = {name: axis for name, axis in case.spec.search.space.items() if name not in {*unused, "rank", "budget"}}
    return {**axes, "size": tuple(case.sizes)} if case.spec.search.size else axes


def _proposed(case: Case, values: Mapping[str, Any]) -> RunConfig:
    config = config_of(case.spec, case.method, case.task, values.get("size", case.middle), values["learning_rate"])
    renamed = {"head_learning_rate": "head_lr", "scale": "scale"}
    return replace(config, **{field: values[name] for name, field in renamed.items() if name in values})


class Study:
    """An Optuna study over ``axes``: by name a range ({"low", "high", "log"}) or a list of choices."""

    def __init__(self, axes: Mapping[str, Any], seed: int, trials: int, parallel: int) -> None:
        self._axes, self._seed, self._trials, self._parallel = axes, seed, trials, parallel
        self._begin()

    def _begin(self) -> None:
        self._study = _maximising(self._seed)
        self._asked: list[tuple[Any, dict[str, Any]]] = []
        self._told: list[Outcome] = []

    def values(self, i: int) -> dict[str, Any]:
        """The values of trial ``i``, which may be asked for once trials up to i - ``parallel`` have been told."""
        self._ask()
        return self._asked[i][1]

    def tell(self, i: int, outcome: Outcome) -> None:
        """Tell how trial ``i`` ended; where that differs from what was told before, the study is rebuilt up to it."""
        from optuna.trial import TrialState

        if self._told[i : i + 1] == [outcome]:
            return
        if i < len(self._told):
            told = self._told[:i]
            self._begin()
            for k, earlier in enumerate(told):
                self.tell(k, earlier)
        self._ask()
        self._told.append(outcome)
        state, score = outcome
        self._study.tell(self._asked[i][0], score if state == "COMPLETE" else None, state=TrialState[state])

    def _ask(self) -> None:
        while len(self._asked) < min(len(self._told) + self._parallel, self._trials):
            trial = self._study.ask()
            self._asked.append((trial, {name: _suggested(trial, name, axis) for name, axis in self._axes.items()}))


@lru_cache(maxsize=1024)
def study_of(axes: str, seed: int, trials: int, parallel: int, *whose: str) -> Study:
    """The study of ``axes`` (JSON), kept in this process, so that it need not be replayed for each question.

    ``whose``: what else tells two studies apart.
    """
    return Study(json.loads(axes), seed, trials, parallel)


def _maximising(seed: int) -> Any:
    """A study whose sampler takes pending trials to be bad, so that trials which run at once differ."""
    try:
        import optuna
    except ImportError:
        raise missing_extra("optuna", "optuna", 'proposer = "optuna"') from None
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # silence Optuna's log of a new study
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of constant_liar, before 5.0
            sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=STARTUP)
        return optuna.create_study(direction="maximize", sampler=sampler)
    finally:
        optuna.logging.set_verbosity(level)


def _suggested(trial: Any, name: str, axis: Any) -> Any:
    if not isinstance(axis, Mapping):
        return axis[trial.suggest_categorical(name, range(len(axis)))]
    value = float(f"{trial.suggest_float(name, axis['low'], axis['high'], log=axis['log']):.{DIGITS}g}")
    return min(max(value, axis["low"]), axis["high"])

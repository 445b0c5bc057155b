"""Tuning: which configurations of a method are tried, and which of them is then run with the reported seeds.

A grid tries every learning rate at once, with each tuning seed. Where the best of them is at an end, the grid goes on
beyond it by its own step, one rate at a time; which rates these are follows from the runs that have ended.

A search is an Optuna study, kept in memory alone: it is asked for the same trials again and told the results that are
stored. Trial i is asked for when trials up to i - ``parallel`` have been told, in their order, so the trials do not
depend on which run ends first.
"""

from __future__ import annotations

import json
import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from tensoradapt.errors import missing_extra
from tensoradapt.runs.config import RunConfig
from tensoradapt.sweeps.case import Case, Outcome, Tuning, at_sizes, config_of, learned, outcome
from tensoradapt.sweeps.spec import Size
from tensoradapt.text import size_text

DIGITS = 4  # a proposed number has so many, so that it can be written down, and platforms agree on it
STARTUP = 5  # random trials; Optuna's 10 would be most of a search that trains a model in each


def propose(case: Case) -> Tuning:
    """The tuning of a method on a task; it depends on the specification and the runs that have ended alone."""
    return _search(case) if case.spec.search else _grids(case)


@dataclass(frozen=True)
class _Rate:
    """A rate that was tried: its run with the first tuning seed, how many of its runs failed or diverged, and the mean
    validation score of those that have one.
    """

    config: RunConfig
    bad: int
    mean: float


def _grids(case: Case) -> Tuning:
    """Tune a method at each of its sizes, or at its middle one for all; a single rate is not tuned."""
    spec, (first, *others) = case.spec, case.spec.rates_of(case.method, case.task)
    if not others:
        return Tuning((), 0, at_sizes(config_of(spec, case.method, case.task, case.middle, first), case.sizes))
    if spec.tune == "method":
        tuned = _grid(case, case.middle)
        return replace(tuned, reported=tuple(one for best in tuned.reported for one in at_sizes(best, case.sizes)))
    parts = [_grid(case, size) for size in case.sizes]
    return Tuning(
        tuple(run for part in parts for run in part.runs),
        sum(part.total for part in parts),
        tuple(run for part in parts for run in part.reported),
        tuple(text for part in parts for text in part.failures),
        sum(part.more for part in parts),
        tuple(one for part in parts for one in part.extended),
    )


def _grid(case: Case, size: Size) -> Tuning:
    """Try each rate with each tuning seed at one size and, while the best is at an end, one rate beyond it."""
    spec, grid = case.spec, sorted(case.spec.rates_of(case.method, case.task))
    added: tuple[float, ...] = ()
    while True:
        firsts = [config_of(spec, case.method, case.task, size, lr) for lr in sorted((*grid, *added))]
        runs = tuple(run for first in firsts for run in _seeded(case, first))
        found = Tuning(runs, len(runs), extended=((size, added),) if added else ())
        left = spec.extend - len(added)
        if not all(case.settled(run.id) for run in runs):
            return replace(found, more=left * len(spec.tuning_seeds))
        rates = [rate for first in firsts if (rate := _rate(case, first))]
        if not rates:
            return replace(found, failures=(f"no learning rate gave a result{_where(case, size)}",))
        best = min(rates, key=lambda rate: (rate.bad, -rate.mean, rate.config.training.lr))
        beyond = _beyond(grid, added, best.config.training.lr) if left and _stands_out(case, best, rates) else None
        if beyond is None:
            return replace(found, reported=(best.config,))
        added = (*added, beyond)


def _where(case: Case, size: Size) -> str:
    """The size in a message, where others are tuned apart from it."""
    return f" at {size_text(**size)}" if case.spec.tune == "size" and size else ""


def _rate(case: Case, first: RunConfig) -> _Rate | None:
    """A rate whose runs have ended, by the first of them; None where none has a score."""
    ends = [outcome(run, case.root) for run in _seeded(case, first)]
    scores = [score for _, score in ends if score is not None]
    bad = sum(state != "COMPLETE" for state, _ in ends)
    return _Rate(first, bad, statistics.fmean(scores)) if scores else None


def _seeded(case: Case, first: RunConfig) -> tuple[RunConfig, ...]:
    return tuple(replace(first, seed=seed) for seed in case.spec.tuning_seeds)


def _stands_out(case: Case, best: _Rate, rates: Sequence[_Rate]) -> bool:
    """Whether the best rate is better than every other, with runs that all learned something."""
    alone = all(rate.bad or rate.mean < best.mean for rate in rates if rate is not best)
    return alone and not best.bad and all(learned(run, case.root) for run in _seeded(case, best.config))


def _beyond(grid: Sequence[float], added: Sequence[float], best: float) -> float | None:
    """The rate that follows the best by the step of the grid's nearer end; None where the best is at no end.

    >>> _beyond([1e-3, 3e-3, 1e-2], (), 1e-2), _beyond([1e-3, 3e-3, 1e-2], (0.03333,), 0.03333)
    (0.03333, 0.1111)
    >>> _beyond([1e-3, 3e-3, 1e-2], (), 1e-3), _beyond([1e-3, 3e-3, 1e-2], (), 3e-3)
    (0.0003333, None)
    """
    lowest, highest = min(*grid, *added), max(*grid, *added)
    if best not in (lowest, highest):
        return None
    step = grid[0] / grid[1] if best == lowest else grid[-1] / grid[-2]
    rate = float(f"{best * step:.{DIGITS}g}")
    further = 0 < rate < lowest or highest < rate < math.inf  # no more where numbers end, or rounding eats the step
    return rate if further else None


def _search(case: Case) -> Tuning:
    """The trials of a study that have been told, and ``parallel`` more."""
    search, axes = case.spec.search, _axes(case)
    assert search is not None
    how = (json.dumps(axes), case.spec.tuning_seeds[0], search.trials, search.parallel)
    study = study_of(*how, str(case.root.absolute()), case.spec.id, case.method.name, case.task)
    ended: list[tuple[RunConfig, Outcome]] = []
    for i in range(search.trials):
        config = _proposed(case, study.values(i))
        if not case.settled(config.id):
            break
        ended.append((config, outcome(config, case.root)))
        study.tell(i, ended[-1][1])
    asked = min(len(ended) + search.parallel, search.trials)
    configs = [_proposed(case, study.values(i)) for i in range(asked)]
    runs = tuple({config.id: config for config in configs}.values())
    if len(ended) < search.trials:
        distinct = math.prod(math.inf if isinstance(axis, Mapping) else len(axis) for axis in axes.values())
        return Tuning(runs, int(min(len(runs) + search.trials - asked, distinct)))
    whole = [(config, score) for config, (state, score) in ended if score is not None and state == "COMPLETE"]
    if not whole:
        return Tuning(runs, len(runs), failures=("no trial gave a result",))
    best, _ = min(whole, key=lambda one: (-one[1], one[0].training.lr))
    return Tuning(runs, len(runs), (best,) if search.size else at_sizes(best, case.sizes))


def _axes(case: Case) -> dict[str, Any]:
    """The search space of a method; a frozen base has one rate, and only adapters have a scale and sizes."""
    assert case.spec.search is not None
    unused = {"head": {"head_learning_rate", "scale"}, "full": {"scale"}}.get(case.method.kind, set())
    axes = {name: axis for name, axis in case.spec.search.space.items() if name not in {*unused, "rank", "budget"}}
    return {**axes, "size": tuple(case.sizes)} if case.spec.search.size else axes


def _proposed(case: Case, values: Mapping[str, Any]) -> RunConfig:
    config = config_of(case.spec, case.method, case.task, values.get("size", case.middle), values["learning_rate"])
    if "head_learning_rate" in values:
        config = replace(config, training=replace(config.training, head_lr=values["head_learning_rate"]))
    if "scale" in values and config.adapter:
        config = replace(config, adapter=replace(config.adapter, scale=values["scale"]))
    return config


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
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # constant_liar warns, before 5.0
            sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=STARTUP)
        return optuna.create_study(direction="maximize", sampler=sampler)
    finally:
        optuna.logging.set_verbosity(level)


def _suggested(trial: Any, name: str, axis: Any) -> Any:
    if not isinstance(axis, Mapping):
        return axis[trial.suggest_categorical(name, range(len(axis)))]
    value = float(f"{trial.suggest_float(name, axis['low'], axis['high'], log=axis['log']):.{DIGITS}g}")
    return min(max(value, axis["low"]), axis["high"])

"""Searches: which trials of a method are run is an Optuna study, and the best of them is run with the reported seeds.

The study is kept in memory alone: it is asked for the same trials again and told the results that are stored. Trial i
is asked for when trials up to i - ``parallel`` have been told, in their order, so the trials do not depend on which run
ends first.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from tensoradapt.errors import of_extra
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.sweeps.tuning import DIGITS, Outcome, Proposed, TuningCase, at_sizes, outcome
from tensoradapt.planning.size import Size

STARTUP = 5  # random trials; Optuna's 10 would be most of a search that trains a model in each


def propose(case: TuningCase) -> Proposed:
    """Return the trials of a study that have been told how they ended, and ``parallel`` more."""
    search, axes = case.sweep.spec.search, _axes(case)
    assert search is not None
    how = (json.dumps(axes), case.sweep.spec.tuning.seed[0], search.trials, search.parallel)
    study = study_of(*how, str(case.sweep.folder.absolute()), case.sweep.spec.id, case.method.name, case.task)
    ended: list[tuple[RunConfig, Outcome]] = []
    for i in range(search.trials):
        config = _proposed(case, study.values(i))
        if not case.settled(config.id):
            break
        ended.append((config, outcome(config, case.sweep.folder)))
        study.tell(i, ended[-1][1])
    asked = min(len(ended) + search.parallel, search.trials)
    configs = [_proposed(case, study.values(i)) for i in range(asked)]
    runs = tuple({config.id: config for config in configs}.values())
    if len(ended) < search.trials:
        distinct = math.prod(math.inf if isinstance(axis, Mapping) else len(axis) for axis in axes.values())
        return Proposed(runs, int(min(len(runs) + search.trials - asked, distinct)))
    whole = [(config, score) for config, (state, score) in ended if score is not None and state == "COMPLETE"]
    if not whole:
        return Proposed(runs, len(runs), failures=("no trial gave a result",))
    best, _ = min(whole, key=lambda one: (-one[1], one[0].training.lr))
    return Proposed(runs, len(runs), (best,) if search.size else at_sizes(best, case.sizes))


def _axes(case: TuningCase) -> dict[str, Any]:
    """Return the search space of a method; a frozen base has one rate, and only adapters have a scale and sizes."""
    search = case.sweep.spec.search
    assert search is not None
    unused = {"adapter": set(), "head": {"head_lr", "scale"}}.get(case.method.kind, {"scale"})
    axes = {name: axis for name, axis in search.space.items() if name not in {*unused, "rank", "budget"}}
    return {**axes, "size": tuple(size.asked for size in case.sizes)} if search.size else axes


def _proposed(case: TuningCase, values: Mapping[str, Any]) -> RunConfig:
    size = Size(**values["size"]) if "size" in values else case.middle
    config = case.sweep.config(case.method, case.task, size, values["lr"])
    if "head_lr" in values:
        config = replace(config, training=replace(config.training, head_lr=values["head_lr"]))
    if "scale" in values and config.adapter:
        config = replace(config, adapter=replace(config.adapter, scale=values["scale"]))
    return config


class Study:
    """An Optuna study over ``axes``, which maps names to ranges ({"low", "high", "log"}) or lists of choices."""

    def __init__(self, axes: Mapping[str, Any], seed: int, trials: int, parallel: int) -> None:
        self._axes, self._seed, self._trials, self._parallel = axes, seed, trials, parallel
        self._begin()

    def _begin(self) -> None:
        self._study = _maximising(self._seed)
        self._asked: list[tuple[Any, dict[str, Any]]] = []
        self._told: list[Outcome] = []

    def values(self, i: int) -> dict[str, Any]:
        """Return the values of trial ``i``, to be asked for only once trials up to i - ``parallel`` have been told."""
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
    """Return the study of ``axes`` (JSON), kept in this process, so that it need not be replayed for each question.

    ``whose``: what else tells two studies apart.
    """
    return Study(json.loads(axes), seed, trials, parallel)


def _maximising(seed: int) -> Any:
    """Return a study whose sampler takes pending trials to be bad, so that trials which run at once differ."""
    optuna = of_extra("optuna", "optuna", "a table [search]")
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


PROPOSERS = {"search": propose}

"""An Optuna study that follows from its seed and from what it was told: nothing of it is kept but in memory.

Trial i is asked for when all but ``parallel`` of those before it have been told, in their order, so which trials there
are does not depend on which run ends first.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tensoradapt.errors import missing_extra

DIGITS = 4  # of a number that is proposed: it can be written down, and the last bits of a logarithm do not matter
STARTUP = 5  # trials at random; Optuna's 10 would be most of a search that trains a model in each
Outcome = tuple[str, float | None]  # the name of one of Optuna's states, and the score


class Study:
    """Proposals over ``axes``: each a range ({"low", "high", "log"}) or a list of choices, by name."""

    def __init__(self, axes: Mapping[str, Any], seed: int, trials: int, parallel: int) -> None:
        self._axes, self._seed, self._trials, self._parallel = axes, seed, trials, parallel
        self._begin()

    def _begin(self) -> None:
        self._study = _maximising(self._seed)
        self._asked: list[tuple[Any, dict[str, Any]]] = []
        self._told: list[Outcome] = []

    def values(self, i: int) -> dict[str, Any]:
        """The values of trial ``i``, which may be asked for when all but ``parallel`` of those before it are told."""
        self._ask()
        return self._asked[i][1]

    def tell(self, i: int, outcome: Outcome) -> None:
        """Tells how trial ``i`` ended. Told otherwise than before, the study is made again up to there."""
        if self._told[i : i + 1] == [outcome]:
            return
        if i < len(self._told):
            told = self._told[:i]
            self._begin()
            for k, one in enumerate(told):
                self.tell(k, one)
        self._ask()
        self._told.append(outcome)
        self._pass_on(self._asked[i][0], *outcome)

    def _pass_on(self, trial: Any, state: str, score: float | None) -> None:
        from optuna.trial import TrialState

        self._study.tell(trial, score if state == "COMPLETE" else None, state=TrialState[state])

    def _ask(self) -> None:
        while len(self._asked) < min(len(self._told) + self._parallel, self._trials):
            trial = self._study.ask()
            self._asked.append((trial, {name: _suggested(trial, name, axis) for name, axis in self._axes.items()}))


@lru_cache(maxsize=1024)
def study_of(axes: str, seed: int, trials: int, parallel: int, *whose: str) -> Study:
    """The study of ``axes``, in JSON, in this process: it is not asked from its first trial on every time. ``whose``
    keeps studies apart that are told different things.
    """
    return Study(json.loads(axes), seed, trials, parallel)


def _maximising(seed: int) -> Any:
    """Its sampler takes trials that are not told yet as bad ones, so those that run at once differ."""
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


def _suggested(trial: Any, name: str, axis: Any) -> Any:
    if not isinstance(axis, Mapping):
        return axis[trial.suggest_categorical(name, range(len(axis)))]
    value = float(f"{trial.suggest_float(name, axis['low'], axis['high'], log=axis['log']):.{DIGITS}g}")
    return min(max(value, axis["low"]), axis["high"])

"""The floor of a comparison: what a linear head reaches on the frozen base, fitted and not trained in steps.

A head that a few hundred steps have not brought to its end makes every adapter look better than it is. Logistic
regression, or ridge regression where labels are numbers, has its optimum in seconds; its strength is chosen on
validation.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tensoradapt.errors import TensorAdaptError, of_extra
from tensoradapt.lab.runs.batches import predict
from tensoradapt.lab.tasks import Data, Task
from tensoradapt.training.fit import autocast

STRENGTHS = tuple(float(10**e) for e in np.arange(-5, 2.5, 0.5))  # C of standardised features; 1 / alpha of ridge
LEAST = 1e-12  # the least probability of a class; that of one that no training example has


@dataclass(frozen=True)
class FittedHead:
    """Its predictions by part, (n, n_labels), as a task stores them; a note on it; and how many numbers it has."""

    predictions: Mapping[str, np.ndarray]
    note: str
    n_params: int


class Features:
    """The task, with the features that a model's head reads as its predictions."""

    def __init__(self, task: Task, head: nn.Module) -> None:
        self._task, self._read = task, list[Tensor]()
        self.handle = head.register_forward_pre_hook(lambda _, given: self._read.append(given[0]))

    def collate(self, *arguments: Any) -> Mapping[str, Tensor]:
        return self._task.collate(*arguments)

    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the features of a batch, (batch, width).

        Where a head gets those of all tokens, it reads the last of a causal model's, and the first of any other's.
        """
        self._task.predict(model, batch)
        found = self._read.pop()
        if found.ndim == 2:
            return found
        causal = hasattr(model, "score")
        at = batch["attention_mask"].sum(1) - 1 if causal else torch.zeros(len(found), dtype=torch.int64)
        return found[torch.arange(len(found), device=found.device), at.to(found.device)]


def fit_head(
    model: nn.Module, data: Data, parts: Mapping[str, Sequence[Sized]], precision: str, device: str
) -> FittedHead:
    """Fit a linear head on the frozen features of a classifier.

    Args:
        model: with a head, whose own weights are not used.
        data: the splits that ``parts`` encode.
        parts: the encoded examples of "train", of "validation", which is not empty, and of "test" where that counts.
        precision, device: as of a run.

    Raises:
        TensorAdaptError: where all training examples have one class, and without scikit-learn.
    """
    task: Any = data.task
    labels = data.train.labels
    if task.kind == "classification" and len(set(labels.tolist())) < 2:
        raise TensorAdaptError(
            f"all {len(labels)} training examples of task {task.name!r} have class {labels[0]}, of which no head can "
            "be fitted; expected two classes or more: raise n_train, or leave the reference out"
        )
    features = _features(model.eval(), task, parts, precision, device)
    tried = {strength: _predicted(task, features, labels, strength) for strength in STRENGTHS}
    scores = {strength: task.metric.score(found["validation"], data.validation) for strength, found in tried.items()}
    best = max(STRENGTHS, key=lambda strength: np.nan_to_num(scores[strength], nan=-np.inf))  # the least of equal ones
    note = f"fitted on frozen features, C = {best:.2g} by validation"
    return FittedHead(tried[best], note, (features["train"].shape[1] + 1) * task.n_labels)


def _features(
    model: nn.Module, task: Any, parts: Mapping[str, Sequence[Sized]], precision: str, device: str
) -> dict[str, np.ndarray]:
    reader: Any = Features(task, model.get_submodule(task.heads(model)[0]))
    try:
        with autocast(precision, device):
            return {name: predict(reader, model, part, device) for name, part in parts.items() if len(part)}
    finally:
        reader.handle.remove()


def _predicted(
    task: Any, features: Mapping[str, np.ndarray], labels: np.ndarray, strength: float
) -> dict[str, np.ndarray]:
    linear = of_extra("sklearn.linear_model", "demo", "fitting a head", "scikit-learn")
    mean, spread = features["train"].mean(0), features["train"].std(0) + 1e-8
    x = {name: (values - mean) / spread for name, values in features.items()}
    others = [name for name in x if name != "train"]
    if task.kind == "regression":
        ridge = linear.Ridge(alpha=1 / strength).fit(x["train"], labels)
        return {name: ridge.predict(x[name])[:, None] for name in others}
    with warnings.catch_warnings():  # a fit may not converge; validation chooses among the strengths
        warnings.simplefilter("ignore")
        made = linear.LogisticRegression(C=strength, max_iter=1000).fit(x["train"], labels)
    found = {name: np.full((len(x[name]), task.n_labels), np.log(LEAST)) for name in others}
    for name in others:
        found[name][:, made.classes_.astype(int)] = np.log(made.predict_proba(x[name]).clip(min=LEAST))
    return found

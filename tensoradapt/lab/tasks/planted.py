"""Random token rows, labelled by a teacher with a known weight change: nothing to download."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tensoradapt.checks import check_whole
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.tasks.classification import Classification, padded
from tensoradapt.lab.tasks.splits import UNLABELLED, DataSpec, Split, Splits
from tensoradapt.lab.tasks.task import EVERYTHING, Data
from tensoradapt.planning.build_plan import plan

VOCABULARY, LENGTH = 64, 12
PAD, CLS = 0, 2
_FIRST_TOKEN = 3
_N_TRAIN, _N_VALIDATION, _N_TEST = 512, 256, 256
_BATCH = 64
_MOST = 1_000_000  # rows of a part
_NOTES = ("labels are -1 and chance is nan until tasks.planted.label sets them",)


@dataclass(frozen=True)
class Planted(Classification):
    """A task of classes by a teacher: the model of the run with a known change of its weights."""

    def load(self, model: str | None = None, data: DataSpec = EVERYTHING, seed: int = 0) -> Data:
        """Return unlabelled rows without a model, else rows labelled by the model as teacher.

        Labelled training rows are one set for all seeds, as the teacher's threshold, and so the test labels, depend on
        them.
        """
        return label(super().load(None, data), _teacher(model)) if model else super().load(None, data, seed)


def load_splits(n_train: int | None = None, n_test: int | None = None) -> Splits:
    """Return unlabelled train, validation and test: 512, 256 and 256 rows, or more with the same first rows."""
    train = _draw("train", 0, max(n_train or 0, _N_TRAIN))
    validation = _draw("validation", 1, _N_VALIDATION)
    return train, validation, _draw("test", 2, max(n_test or 0, _N_TEST)), _NOTES


def label(data: Data, logits_of: Callable[[np.ndarray], np.ndarray]) -> Data:
    """Label the planted data: 1 where the teacher's margin is above its median on train, so that train is balanced.

    `logits_of` maps tokens (n, 12) to logits (n, 2). Raises TensorAdaptError for a teacher that gives every row of
    train the same margin, or none that is finite.
    """
    tokens = [split.tokens for split in data.parts if split.tokens is not None]
    margins = [np.diff(logits_of(rows).astype(np.float64), axis=1)[:, 0] for rows in tokens]
    if not np.ptp(margins[0]) > 0:
        raise TensorAdaptError(
            f"the teacher gives all {len(data.train)} train rows the same margin {margins[0][0]:.6g}, "
            "expected margins that differ: plant a larger delta"
        )
    middle = np.median(margins[0])
    train, validation, test = (
        replace(split, labels=(margin > middle).astype(np.int64))
        for split, margin in zip(data.parts, margins, strict=True)
    )
    notes = tuple(note for note in data.notes if note not in _NOTES)
    return Data(data.task, train, validation, test, chance=data.task.chance(test), notes=notes)


def _draw(name: str, stream: int, n: int) -> Split:
    check_whole(f"n_{name} of the planted task", n, 1, _MOST)
    tokens = np.random.default_rng([stream, LENGTH]).integers(_FIRST_TOKEN, VOCABULARY, size=(n, LENGTH))
    tokens[:, 0] = CLS
    ids = tuple(f"{name}-{row}" for row in range(n))
    return Split(texts=None, labels=np.full(n, UNLABELLED, dtype=np.int64), ids=ids, tokens=tokens.astype(np.int64))


def _teacher(model_name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function for the logits of the base model with a known rank-2 CP delta, which an adapter can learn."""
    import torch

    from tensoradapt.surgery.attach import attach

    torch.manual_seed(0)
    model = TASK.model(model_name)
    adapter = attach(model, plan(model, "cp", rank=2), seed=1)
    for tensor in adapter.tensors:
        torch.nn.init.normal_(tensor.trained[tensor.network.zero.name])  # type: ignore[union-attr, index]
    model.eval()

    def logits_of(tokens: np.ndarray) -> np.ndarray:
        rows = tokens.tolist()
        with torch.no_grad():
            parts = [model(**padded(rows[at : at + _BATCH], "cpu")).logits for at in range(0, len(rows), _BATCH)]
        return torch.cat(parts).float().numpy()

    return logits_of


TASK = Planted(
    name="planted",
    n_labels=2,
    metrics="accuracy",
    source="drawn here; labelled by the caller's teacher model",
    licence="none needed: synthetic",
    load_splits=load_splits,
)
TASKS = {TASK.name: TASK}

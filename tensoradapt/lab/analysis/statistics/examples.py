"""Scores of test examples, which runs store, as pairs of two methods on the same seeds and examples."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.statistics.intervals import Floats
from tensoradapt.lab.runs.store import read_array

ARRAYS = ("scores", "labels")


def paired_scores(pairs: Sequence[tuple[Path, Path]]) -> tuple[Floats, Floats] | None:
    """Return each test example's contribution to the scores of both runs of each pair, (seeds, n_test) of either side.

    Args:
        pairs: for each seed the folders of two runs.

    Returns:
        The scores of the first and of the second runs; None where a run stored none.

    Raises:
        TensorAdaptError: for runs of other test labels, and for scores that are damaged.
    """
    folders = [folder for pair in pairs for folder in pair]
    if not all((folder / f"{name}.npy").is_file() for folder in folders for name in ARRAYS):
        return None
    scores, labels = zip(*map(_examples, folders), strict=True)
    for folder, own, truth in zip(folders, scores, labels, strict=True):
        if not np.array_equal(truth, labels[0]):
            raise TensorAdaptError(
                f"runs {folders[0].name} and {folder.name} have different test labels; expected one test set: "
                "analyse runs of different data apart"
            )
        if own.shape != (len(truth),) or own.dtype.kind != "f":
            raise TensorAdaptError(
                f"run {folder.name} has scores of shape {own.shape} and type {own.dtype}; expected a number for each "
                f"of {len(truth)} test examples: delete the folder {folder} to run it again"
            )
    return np.array(scores[0::2]), np.array(scores[1::2])


def _examples(folder: Path) -> tuple[Floats, np.ndarray]:
    """Return the score of each test example, and the labels, (n_test,) each."""
    return _read(folder, tuple((folder / f"{name}.npy").stat().st_mtime_ns for name in ARRAYS))


@lru_cache(maxsize=1024)  # a reference is asked for with every method
def _read(folder: Path, written: tuple[int, ...]) -> tuple[Floats, np.ndarray]:
    return read_array(folder, "scores"), read_array(folder, "labels")

"""Sentiment of film review sentences, two classes from a mean human rating; needs one small download."""

from pathlib import Path

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import assets
from tensoradapt.lab.tasks.classification import Classification
from tensoradapt.lab.tasks.splits import Split, Splits, carve

_FILE = "movieReviewSnippets_GroundTruth.txt"
_MIN_RATING = 0.5
N_TEST, N_VALIDATION = 1500, 1000
_NOTES = (
    f"sentences whose mean rating is within {_MIN_RATING} of neutral are left out",
    "the examples are sentences of reviews and the file does not say which review: "
    "two sentences of one review can be in different splits",
)


def load_splits(n_train: int | None = None, n_test: int | None = None) -> Splits:
    """Return train, validation and test with notes; fetches the asset on first use.

    Raises TensorAdaptError when the asset cannot be fetched or a line cannot be read.
    """
    split = read(assets.fetch("vader-snippets") / _FILE)
    test, validation, train = carve(split, N_TEST, N_VALIDATION)
    return train, validation, test, _NOTES


def read(path: Path) -> Split:
    """Return all clearly rated sentences of the file, in its order."""
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    rows = [_row(path, number, line.rstrip("\r")) for number, line in enumerate(lines, 1)]
    kept = [row for row in rows if abs(row[1]) >= _MIN_RATING]
    return Split(
        texts=tuple((text,) for _, _, text in kept),
        labels=np.array([rating > 0 for _, rating, _ in kept], dtype=np.int64),
        ids=tuple(name for name, _, _ in kept),
    )


def _row(path: Path, number: int, line: str) -> tuple[str, float, str]:
    try:
        name, rating, text = line.split("\t")
        return name, float(rating), text
    except ValueError:
        raise TensorAdaptError(
            f"{path}, line {number}: found {line[:80]!r}, expected the three columns id, rating, text: "
            "delete its folder to have it fetched again"
        ) from None


TASK = Classification(
    name="snippets",
    n_labels=2,
    metrics="accuracy",
    source="movieReviewSnippets_GroundTruth.txt of vaderSentiment 2.5; label 1 where the mean rating is positive",
    licence=assets.ASSETS["vader-snippets"].licence,
    load_splits=load_splits,
    classes=("negative", "positive"),
)
TASKS = {TASK.name: TASK}

"""Polyreactivity of antibodies from their heavy chain: trained on Boughter's, tested on Jain's or Shehata's.

``python -m tensoradapt_paper.protein.polyreactivity`` prints what a logistic regression on counts of amino acids
reaches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensoradapt.lab.tasks.classification import Classification, Row
from tensoradapt.lab.tasks.splits import Split, Splits, joined
from tensoradapt_paper.antiberty import RESIDUES
from tensoradapt_paper.protein import sequences

METRICS = ("roc_auc", "average_precision", "accuracy", "matthews")


@dataclass(frozen=True)
class Polyreactivity(Classification):
    """Whether an antibody binds what it should not, 1, or its antigen alone, 0."""

    def encode(self, split: Split, model: str, max_length: int) -> list[Row]:
        """The token ids of each sequence, whole, with its label; raises TensorAdaptError for one that is too long."""
        rows = sequences.encode(split, model, max_length)
        return [Row(ids, label) for ids, label in zip(rows, split.labels.tolist(), strict=True)]


def counts(split: Split) -> np.ndarray:
    """How often each of the twenty amino acids is in each sequence, (n, 20)."""
    return np.array([[text.count(residue) for residue in RESIDUES] for (text,) in split.texts or ()], dtype=np.float64)


def regression(features: Callable[[Split], np.ndarray], train: Split, test: Split) -> dict[str, float]:
    """The metrics on ``test`` of a logistic regression on standardised features (n, d) of ``train``."""
    fitted = _regression().fit(features(train), train.labels)
    margins = fitted.decision_function(features(test))
    return POLYREACTIVITY.evaluate(np.stack([np.zeros_like(margins), margins], 1), test)


def ten_folds(features: Callable[[Split], np.ndarray], split: Split) -> float:
    """The mean accuracy of the same regression in ten folds of a split of distinct sequences."""
    selection = _sklearn().model_selection
    folds = selection.StratifiedKFold(10, shuffle=True, random_state=0)
    return float(selection.cross_val_score(_regression(), features(split), split.labels, cv=folds).mean())


def _regression() -> Any:
    found = _sklearn()
    return found.pipeline.make_pipeline(
        found.preprocessing.StandardScaler(), found.linear_model.LogisticRegression(max_iter=1000)
    )


def _sklearn() -> Any:
    import sklearn
    import sklearn.linear_model
    import sklearn.model_selection
    import sklearn.pipeline
    import sklearn.preprocessing

    return sklearn


def _task(name: str, test: str, title: str) -> Polyreactivity:
    def splits(n_train: int | None, n_test: int | None) -> Splits:
        found = sequences.load()
        return found.train, found.validation, getattr(found, test), found.notes

    source = sequences.SOURCE.format(test=title)
    content = f"Boughter et al. 2020; {title}"
    return Polyreactivity(name, 2, METRICS, False, source, sequences.LICENCE, splits, content)


POLYREACTIVITY = _task("polyreactivity", "jain", "Jain et al. 2017 (test)")
POLYREACTIVITY_SHEHATA = _task("polyreactivity-shehata", "shehata", "Shehata et al. 2019 (test, 7 positives)")


def main() -> None:
    """Print the baseline of amino-acid counts, and what the sequences' notes say."""
    found = sequences.load()
    print(*found.notes, sep="\n")
    print(f"train {len(found.train)}, validation {len(found.validation)}")
    boughter = joined(found.train, found.validation)
    print(f"Boughter, ten folds of {len(boughter)}: accuracy {ten_folds(counts, boughter):.3f}")
    for name in ("validation", "jain", "shehata"):
        scored = regression(counts, found.train, getattr(found, name))
        print(f"{name}: " + ", ".join(f"{metric} {value:.3f}" for metric, value in scored.items()))


if __name__ == "__main__":
    main()

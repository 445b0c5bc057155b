"""The rated sentences again, with a test of 3,000 that no run before December 2026 was scored on.

All of them were training examples of the task "snippets". Left in training are those that were scored under another
name, as sentences of SST-2's validation or test, or with a part there: ``scored_elsewhere.txt`` has their ids, as
``python -m tensoradapt_paper.fresh`` prints them. The former test is trained on, and validation is the former one.
"""

from __future__ import annotations

import re
import sys
from importlib.resources import files

import numpy as np

from tensoradapt.lab.data import assets
from tensoradapt.lab.tasks import glue, snippets
from tensoradapt.lab.tasks.classification import Classification
from tensoradapt.lab.tasks.splits import Split, Splits, carve, joined, take

SCORED = "scored_elsewhere.txt"
N_TEST, LONG = 3_000, 30


def load_splits(n_train: int | None = None, n_test: int | None = None) -> Splits:
    """Return train, validation and test with notes; raises TensorAdaptError as the task "snippets" does."""
    train, validation, former, notes = snippets.load_splits()
    scored = set(files("tensoradapt_paper").joinpath(SCORED).read_text().split())
    unseen = np.array([name not in scored for name in train.ids])
    test, rest = carve(take(train, np.flatnonzero(unseen)), N_TEST)
    return joined(joined(rest, take(train, np.flatnonzero(~unseen))), former), validation, test, notes


FRESH = Classification(
    "snippets-fresh",
    2,
    "accuracy",
    source=f"{snippets.TASK.source}; test: {N_TEST:,} that were never scored",
    licence=assets.ASSETS["vader-snippets"].licence,
    load_splits=load_splits,
    content="rated sentences, 3,000 former training examples as test",
)


def scored_elsewhere() -> list[str]:
    """Return the ids of the training sentences of "snippets" of which SST-2's validation or test has all or a part.

    A phrase of fewer letters than ``LONG`` is no part, as many sentences have it.
    """
    train = snippets.load_splits()[0]
    _, *others, _ = glue.load_splits("sst2")
    known = {_letters(text) for split in others for text in _texts(split)}
    long = [text for text in known if len(text) >= LONG]
    rows = zip(train.ids, map(_letters, _texts(train)), strict=True)
    return [name for name, text in rows if text in known or any(part in text for part in long)]


def _texts(split: Split) -> list[str]:
    return [text for (text,) in split.texts or ()]


def _letters(text: str) -> str:
    """Return the letters and digits of a text, as the two corpora write signs and accents differently."""
    return re.sub(r"-[lr]rb-|[^a-z0-9]", "", text.lower())


if __name__ == "__main__":
    sys.stdout.write("\n".join(scored_elsewhere()) + "\n")

"""Antibody sequences with labels: read and checked, without repeats, and as token ids of one letter each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import models
from tensoradapt.lab.tasks import data_folder
from tensoradapt.lab.tasks.splits import Split, divide, take
from tensoradapt.lab.tasks.tables import Table, read_file
from tensoradapt_paper.antiberty import RESIDUES, first_odd

FOLDER = "protein/antibody_polyreactivity"
FILES = {  # and the column of the heavy chain's variable domain
    "boughter": ("boughter_VH_train_914.csv", "sequence"),
    "jain": ("jain_VH_86.csv", "vh_sequence"),
    "shehata": ("shehata_VH.csv", "sequence"),
}
SOURCE = "heavy chains of Boughter et al. 2020 (train), {test}; the folder named by TENSORADAPT_DATA"
LICENCE = "data of the cited papers' supplements (Boughter: CC BY 4.0); files of a repository under Apache-2.0"
VALIDATION = 0.2  # the share of Boughter's distinct sequences
ENDS = 2  # tokens around a sequence


@dataclass(frozen=True, eq=False)
class Antibodies:
    """Boughter's heavy chains in two parts, those of Jain and of Shehata, and what was left out."""

    train: Split
    validation: Split
    jain: Split
    shehata: Split
    notes: tuple[str, ...]


def load() -> Antibodies:
    """The sequences in the folder that ``TENSORADAPT_DATA`` names; raises TensorAdaptError where they are not there."""
    folder = data_folder.local(FOLDER)
    missing = [file for file, _ in FILES.values() if folder and not (folder / file).is_file()]
    if not folder or missing:
        found = f"{folder} lacks {', '.join(missing)}" if folder else data_folder.UNSET
        raise TensorAdaptError(
            f"the antibody sequences are not there ({found}); expected a folder with {FOLDER}/ and its files: "
            "docs/guides/protein.md says where they come from"
        )
    return _loaded(folder)


@lru_cache(maxsize=2)
def _loaded(folder: Path) -> Antibodies:
    splits, notes = {}, []
    for name, (file, column) in FILES.items():
        splits[name], said = read(folder / file, column)
        notes += said
    tested = {text for name in ("jain", "shehata") for text in splits[name].texts or ()}
    known = [row for row, text in enumerate(splits["boughter"].texts or ()) if text not in tested]
    if away := len(splits["boughter"]) - len(known):
        notes.append(f"{away} sequences removed from train: they are also in a test set")
    kept = take(splits["boughter"], np.array(known, dtype=np.int64))
    validation, train = divide(kept, [int(len(kept) * VALIDATION)], 0)
    return Antibodies(train, validation, splits["jain"], splits["shehata"], tuple(notes))


def read(path: Path, column: str) -> tuple[Split, list[str]]:
    """The distinct sequences of a file with their labels, 0 or 1, and notes on what was counted and left out.

    Of rows with one sequence the first stays, or none if their labels differ. Raises TensorAdaptError, naming the row,
    for a missing sequence, characters that are no capital letters, and a label that is missing or neither 0 nor 1.
    """
    table = read_file(path)
    texts = [_sequence(table, row, value) for row, value in enumerate(table.column(column))]
    labels = [_label(table, row, value) for row, value in enumerate(table.column("label"))]
    ids = tuple(f"{path.stem}-{table.at(row).rpartition(' ')[2]}" for row in range(len(table)))
    split = Split(tuple((text,) for text in texts), np.array(labels, dtype=np.int64), ids)
    return _distinct(split, path.stem)


def _distinct(split: Split, name: str) -> tuple[Split, list[str]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, (text,) in enumerate(split.texts or ()):
        rows[text].append(row)
    agreed = [same for same in rows.values() if len(set(split.labels[same].tolist())) == 1]
    kept = take(split, np.array([same[0] for same in agreed], dtype=np.int64))
    unsure = sum(map(len, rows.values())) - sum(map(len, agreed))
    repeats, unknown = sum(map(len, agreed)) - len(agreed), [*map(unknown_residues, kept.texts or ())]
    counted = {
        f"{unsure} rows removed, as equal sequences have both labels": unsure,
        f"{repeats} rows removed, as an earlier one has their sequence": repeats,
        f"{sum(unknown)} unknown residues in {sum(map(bool, unknown))} sequences": sum(unknown),
    }
    return kept, [f"{name}: {note}" for note, n in counted.items() if n]


def unknown_residues(text: Sequence[str]) -> int:
    """Letters of a sequence that stand for none of the twenty amino acids."""
    return sum(letter not in RESIDUES for letter in text[0])


def _sequence(table: Table, row: int, value: Any) -> str:
    text = value.strip() if isinstance(value, str) else ""
    if not text or first_odd(text):
        found = f"the character {first_odd(text)!r}" if text else "no sequence"
        raise TensorAdaptError(
            f"{table.at(row)}: found {found}; expected a sequence of capital letters, one a residue, X for unknown "
            "ones: correct the row, or remove it"
        )
    return text


def _label(table: Table, row: int, value: Any) -> int:
    try:
        return {0.0: 0, 1.0: 1}[float(value)]
    except (TypeError, ValueError, KeyError):
        raise TensorAdaptError(
            f"{table.at(row)}: the label is {shown(value) if value else 'missing'}; expected 0 (specific) or 1 "
            "(polyreactive): label the row, or remove it"
        ) from None


def encode(split: Split, model: str, max_length: int) -> list[list[int]]:
    """Token ids of each sequence: one for each letter, and one at each end.

    Raises TensorAdaptError, naming the row, for a sequence that is longer than ``max_length`` or than the model takes,
    and for a model whose tokens are not letters.
    """
    most = min(max_length, getattr(models.config(model), "max_position_embeddings", max_length))
    texts = [text for (text,) in split.texts or ()]
    for text, name in zip(texts, split.ids, strict=True):
        if len(text) + ENDS > most:
            advice = f"set max_length to that ({max_length})" if max_length == most else "leave the row out"
            raise TensorAdaptError(
                f"{name}: {len(text)} residues with {ENDS} ends are more than the {most} tokens that {model} is given; "
                f"sequences are not cut: {advice}"
            )
    rows = models.encoder(model)([(text,) for text in texts], most)
    if bad := [i for i, row in enumerate(rows) if len(row) != len(texts[i]) + ENDS]:
        n, residues = len(rows[bad[0]]), len(texts[bad[0]])
        raise TensorAdaptError(
            f"the tokenizer of {model} makes {n} tokens of {residues} residues ({split.ids[bad[0]]}); expected one "
            f"for each and {ENDS} ends, as of antiberty or an ESM-2: give such a model"
        )
    return rows

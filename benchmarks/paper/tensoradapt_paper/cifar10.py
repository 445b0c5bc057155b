"""CIFAR-10: a part of it from an archive in a local folder (TENSORADAPT_DATA) or else online, and the whole online."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tensoradapt.errors import TensorAdaptError, did_you_mean, few
from tensoradapt.files import reason
from tensoradapt.lab.tasks import data_folder
from tensoradapt.lab.tasks.splits import Split, Splits, carve, take
from tensoradapt.lab.tasks.vision.pictures import IGNORED, SUFFIXES, Picture, read
from tensoradapt.lab.tasks.vision.task import Pictures

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ARCHIVE = "vision/cifar10_subset.zip"  # in TENSORADAPT_DATA
FIRST = {"train": 300, "test": 100}  # pictures of each class in the archive
MOST_FILES, MOST_BYTES = 100_000, 2**20  # in an archive, and in a file of it
LICENCE = "research use, no explicit licence"
_HUB = "uoft-cs/cifar10"
_CARVED = 0.1
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)

Rows = Iterable[tuple[str, int, Picture]]  # id, class and picture


def load_part(n_train: int | None = None, n_test: int | None = None) -> Splits:
    """300 pictures of each class to train on, a tenth of them for validation, and 100 to test.

    Raises TensorAdaptError for an archive that is damaged or holds something else, naming the file in it. When the
    pictures are neither local nor online, the error names both ways to provide them.
    """
    path = data_folder.local(ARCHIVE)
    if path and path.is_file():
        stamp = path.stat()
        return _from_archive(path, stamp.st_mtime_ns, stamp.st_size)
    return _online("cifar10", data_folder.missing(path), FIRST)


def load_all(n_train: int | None = None, n_test: int | None = None) -> Splits:
    """All 50,000 pictures to train on, a tenth of them for validation, and 10,000 to test, from the hub."""
    return _online("cifar10_full", "it is never read from TENSORADAPT_DATA", None)


CIFAR10 = Pictures(
    "cifar10",
    len(CLASSES),
    "accuracy",
    source=f"CIFAR-10: 300 and 100 of each class, {ARCHIVE} of TENSORADAPT_DATA, or {_HUB} online",
    licence=LICENCE,
    load_splits=load_part,
    content="CIFAR-10, the first 300 and 100 of each class",
)
CIFAR10_FULL = Pictures(
    "cifar10_full",
    len(CLASSES),
    "accuracy",
    source=f"CIFAR-10: {_HUB} online",
    licence=LICENCE,
    load_splits=load_all,
    content="CIFAR-10",
)


@lru_cache(maxsize=1)
def _from_archive(path: Path, written: int, size: int) -> Splits:
    """The splits of an archive, decoded once in a process while the file stays what it is."""
    rows: dict[str, list[tuple[str, int, Picture]]] = {part: [] for part in FIRST}
    others: list[str] = []
    for name, data in _members(path):
        if PurePosixPath(name).suffix.lower() in SUFFIXES:
            part, kind = _place(path, name)
            rows[part].append((name, kind, read(path / name, data)))
        else:
            others.append(name)
    for part, found in rows.items():
        counts = Counter(kind for _, kind, _ in found)
        if lacking := [kind for i, kind in enumerate(CLASSES) if not counts[i]]:
            raise TensorAdaptError(f"{path} has no pictures in {part}/{lacking[0]}; expected some: replace the file")
    left = (f"left out, as they are no pictures: {len(others)} files ({few(others)})",) if others else ()
    return _splits(rows["train"], rows["test"], (f"from {path.name}; validation is a tenth of its train", *left))


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The names and contents of the files in an archive, in order of their names; those of systems are passed over."""
    hint = "expected an archive with train/CLASS and test/CLASS: replace the file"
    at = ""
    try:
        with zipfile.ZipFile(path) as archive:
            files = [info for info in archive.infolist() if not info.is_dir()]
            if len(files) > MOST_FILES:
                raise TensorAdaptError(f"{path} holds {len(files):,} files; expected at most {MOST_FILES:,}")
            for info in sorted(files, key=lambda info: info.filename):
                at = info.filename
                _check(path, info)
                if not _of_a_system(at):
                    yield at, archive.read(info)
    except TensorAdaptError:
        raise
    except _UNREADABLE as error:
        where = f"{path / at}" if at else f"{path}"
        raise TensorAdaptError(f"{where} cannot be read ({reason(error)}); {hint}") from None


def _check(path: Path, info: zipfile.ZipInfo) -> None:
    name = PurePosixPath(info.filename.replace("\\", "/"))
    out = name.is_absolute() or ".." in name.parts or re.match(r"[A-Za-z]:", info.filename)
    if out or not info.filename.isprintable():
        raise TensorAdaptError(
            f"{path} holds {info.filename!r}, {'which leads out of it' if out else 'whose name does not print'}; "
            "expected train/CLASS/NAME and test/CLASS/NAME: do not use the file"
        )
    if info.file_size > MOST_BYTES:
        raise TensorAdaptError(
            f"{path / info.filename} has {info.file_size:,} bytes; expected a picture of at most {MOST_BYTES:,}"
        )


def _of_a_system(name: str) -> bool:
    return any(part.startswith(".") or part.lower() in IGNORED for part in PurePosixPath(name).parts)


def _place(path: Path, name: str) -> tuple[str, int]:
    """The part and the class of a picture by its folders."""
    parts = PurePosixPath(name).parts
    if len(parts) != 3 or parts[0] not in FIRST:
        raise TensorAdaptError(f"{path} holds {name!r}; expected train/CLASS/NAME or test/CLASS/NAME: move it there")
    if parts[1] not in CLASSES:
        raise TensorAdaptError(f"{path / name} is of class {parts[1]!r}{did_you_mean(parts[1], CLASSES)}")
    return parts[0], CLASSES.index(parts[1])


def _splits(train: Rows, test: Rows, notes: tuple[str, ...]) -> Splits:
    """Train, a tenth of it for validation, and test, each without repeated pictures."""
    (whole, said), (tested, more) = _without_repeats(_split(train), "train"), _without_repeats(_split(test), "test")
    validation, rest = carve(whole, int(len(whole) * _CARVED))
    return rest, validation, tested, (*notes, *said, *more)


def _split(rows: Rows) -> Split:
    ids, labels, pictures = zip(*rows, strict=True)
    return Split(None, np.array(labels, dtype=np.int64), ids, pictures=pictures)


def _without_repeats(split: Split, part: str) -> tuple[Split, tuple[str, ...]]:
    """A split with the first of equal pictures, and a note on how many others there were."""
    first = {digest: row for row, digest in reversed(list(enumerate(split.contents)))}
    kept = take(split, np.array(sorted(first.values()), dtype=np.int64))
    n = len(split) - len(kept)
    return kept, (f"{n} {part} examples removed: their picture is there before",) if n else ()


def _online(name: str, where: str, first: dict[str, int] | None) -> Splits:
    holding = ARCHIVE if name == "cifar10" else ""
    parts = data_folder.online(lambda: data_folder.from_hub(name, _HUB), name, where, holding)
    from datasets import Image

    encoded = {part: parts[part].cast_column("img", Image(decode=False)) for part in FIRST}
    if (found := tuple(encoded["train"].features["label"].names)) != CLASSES:
        raise TensorAdaptError(f"{_HUB} has the classes {few(list(found))}; expected {few(list(CLASSES))}")
    train, test = (_rows(part, rows, first[part] if first else None) for part, rows in encoded.items())
    which = "the first of each class" if first else "all"
    return _splits(train, test, (f"from {_HUB} online, {which}; validation is a tenth of train",))


def _rows(part: str, rows: Any, first: int | None) -> Iterator[tuple[str, int, Picture]]:
    taken: Counter[int] = Counter()
    for i, row in enumerate(rows):
        taken[row["label"]] += 1
        if first is None or taken[row["label"]] <= first:
            yield f"{part}-{i}", row["label"], read(Path(row["img"]["path"] or f"{part}-{i}"), row["img"]["bytes"])

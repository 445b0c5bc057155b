"""Folders of pictures: a folder for each class, or one for each part that has a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tensoradapt.checks import text
from tensoradapt.errors import TensorAdaptError, few
from tensoradapt.files import reason
from tensoradapt.lab.tasks.tables import PARTS, Table
from tensoradapt.lab.tasks.vision.pictures import IGNORED, SUFFIXES

PICTURE, CLASS = "picture", "class"  # the columns of a table of pictures
NAMED = {"training": "train", "val": "validation", "valid": "validation", "dev": "validation", "testing": "test"}
NAMED |= {part: part for part in PARTS}


def tables_of(folders: Mapping[str, str]) -> dict[str, Table]:
    """Return a table of paths and classes for each part: the given folders, or those within the one of train.

    Raises TensorAdaptError, naming the folder, where it has no classes, or a class no pictures.
    """
    given = {part: Path(folder) for part, folder in folders.items()}
    if files := [path for path in given.values() if not path.is_dir()]:
        raise TensorAdaptError(f"{files[0]} is no folder; expected one with a folder of pictures for each class")
    try:
        inside = _parts(given["train"])
        if twice := [part for part in given if part in inside and part != "train"]:
            raise TensorAdaptError(
                f"{twice[0]} is both {given[twice[0]]} and {inside[twice[0]]}; expected one: name {inside['train']} as "
                "train"
            )
        return {part: _table(folder) for part, folder in {**given, **inside}.items()}
    except OSError as error:
        raise TensorAdaptError(
            f"{error.filename or given['train']} cannot be read ({reason(error)}); expected a folder of pictures"
        ) from None


def _parts(folder: Path) -> dict[str, Path]:
    """Return the folders of train, validation and test within a folder, empty if it has classes in their place."""
    inner = _folders(folder)
    named = [child for child in inner if child.name.lower() in NAMED and _folders(child)]
    named = [child for child in named if not any(map(_is_picture, _files_in(child)))]
    if not named:
        return {}
    parts = {NAMED[child.name.lower()]: child for child in named}
    odd = [child for child in inner if child not in parts.values()]
    if odd or "train" not in parts:
        beside = parts.get(NAMED.get(odd[0].name.lower(), "train"), named[0]) if odd else None
        found = f"{odd[0]} is beside {beside}" if odd else f"{folder} has {named[0].name} and no train"
        raise TensorAdaptError(
            f"{found}; expected folders train, validation (or val) and test, each with a folder for each class"
        )
    return parts


def _table(folder: Path) -> Table:
    classes = _folders(folder)
    if not classes:
        raise TensorAdaptError(
            f"{folder} has no folders; expected a folder of pictures for each class, as in {folder / 'cat' / '1.png'}; "
            "of texts, a file or a folder written by save_to_disk"
        )
    paths, names = list[Path](), list[str]()
    others = [*_files_in(folder)]
    empty = (kind for kind in classes if not any(map(_is_picture, _files_below(kind))))  # before all are listed
    if (kind := next(empty, None)) is not None:
        raise TensorAdaptError(
            f"{kind} has no pictures; expected some ({' '.join(SUFFIXES)}): add them, or remove the folder"
        )
    for kind in classes:
        files = sorted(_files_below(kind))
        found = list(filter(_is_picture, files))
        others += [path for path in files if not _is_picture(path)]
        paths += found
        names += [text(kind.name, f"the name of a class in {folder}")] * len(found)
    notes = (f"left out, as they are no pictures of a class: {_counted(others, folder)}",) if others else ()
    return Table(str(folder), {PICTURE: paths, CLASS: names}, lambda row: str(paths[row]), notes)


def _counted(others: Sequence[Path], folder: Path) -> str:
    named = few([str(path.relative_to(folder)) for path in others[:3]])
    return f"{len(others)} file{'s' * (len(others) > 1)} ({named}{', ...' * (len(others) > 3)})"


def _is_seen(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in IGNORED


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and _is_seen(path.name))


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.is_dir() and _is_seen(path.name))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and of folders within it; links to folders are not followed there."""

    def refused(error: OSError) -> None:
        raise error

    for below, inner, files in os.walk(folder, onerror=refused):
        inner[:] = filter(_is_seen, inner)
        yield from (Path(below, name) for name in files if _is_seen(name))

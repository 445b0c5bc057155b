"""The run store: one folder for each run, written whole or not at all, read without torch.

A folder holds ``config.json`` (what was asked), ``result.json`` (what follows from the config alone),
``measurements.json`` (times and memory of the machine), ``provenance.json`` (versions, machine), arrays as ``.npy`` and
``checksums.json``, by which a file that was changed later is noticed. A run that failed has ``error.json`` alone.
The folder exists exactly if the run is done, so there is no half-written state to repair.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.lib import format as npy

from tensoradapt.checks import as_path
from tensoradapt.errors import TensorAdaptError, located
from tensoradapt.files import explained, open_bytes, parse_json, read_bounded, sync_folder, write_synced
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.row import AGAIN, Row, failed_row, reached, row_of, shown_cells
from tensoradapt.records import finite, finite_or_null, plain
from tensoradapt.text import cut, displayed, screen

FILES = ("config", "result", "measurements", "provenance")
SWEEPS = "sweeps"  # the folder beside the runs with a record of each specification that was run into it
ADAPTERS = "adapters"  # the folder beside the runs with the adapters that they kept
SUMS = "checksums.json"  # the checksums of the other files of a run


@dataclass(frozen=True)
class Run:
    """One finished run: its row in tables, the four JSON files of its folder, and its arrays, read on request.

    A run of somebody's DataFrame has no more than its row.
    """

    name: str
    path: Path
    row: Row
    config: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    measurements: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def array(self, name: str) -> np.ndarray:
        """Return an array, read from disk: predictions (n_test, n_labels) and labels (n_test,) of the test set, losses.

        Raises TensorAdaptError if it is missing or damaged.
        """
        return read_array(self.path, name)

    def __repr__(self) -> str:
        _, _, method, size, seed, status, _, score = shown_cells(self.row)
        ended = status if status != "finished" else ""
        said = (self.name, f"{method} {size}".strip(), f"seed {seed}" if seed else "", ended, score)
        return cut(f"Run({', '.join(filter(None, said))})")

    def _repr_html_(self) -> str:
        return displayed(self)


class Runs(list[Run]):
    """A list of runs that shows itself as a screen of lines, and in a notebook as a table."""

    def __repr__(self) -> str:
        return screen("[" + ",\n ".join(map(repr, self)) + "]", "run")

    def _repr_html_(self) -> str:
        return displayed(self)


@dataclass(frozen=True)
class Failure:
    """A run that failed: its row in tables and its ``error.json`` (kind, error, traceback, config, provenance)."""

    name: str
    path: Path
    row: Row
    error: dict[str, Any]


def read_json(path: Path, sums: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the object in a run's JSON file; raises TensorAdaptError where it is missing, damaged or changed.

    ``sums``: the checksums of the run's files, where they have been read.
    """
    again = f"expected a JSON object written by write_run: delete the folder {path.parent} to run it again"
    with explained("read", path, again):
        data = read_bytes(path, sums)
    document = parse_json(data, path, again)
    if not isinstance(document, dict):
        raise TensorAdaptError(f"{path} cannot be read (a {type(document).__name__} at its top); {again}")
    return document


def read_bytes(path: Path, sums: Mapping[str, Any] | None = None) -> bytes:
    """Return the bytes of a run's file; raises TensorAdaptError where they are not those that were written."""
    data = read_bounded(path, "and no file of a run has as many; delete the folder to run it again")
    return data if path.name == SUMS else _as_written(path, data, sums)


def _as_written(path: Path, data: bytes, sums: Mapping[str, Any] | None = None) -> bytes:
    known = read_json(path.parent / SUMS) if sums is None else sums
    if known.get(path.name) not in (None, hashlib.sha256(data).hexdigest()):
        raise TensorAdaptError(
            f"{path} was changed after its run ended: its checksum is not that of {SUMS}. Put it back as it was, or "
            f"delete the folder {path.parent} to run it again"
        )
    return data


def read_array(folder: Path, name: str) -> np.ndarray:
    """Return an array of a run's folder; raises TensorAdaptError if it is missing or damaged."""
    path = folder / f"{name}.npy"
    hint = f"expected an array written by write_run: delete the folder {folder} to run it again"
    with explained("read", path, hint, Exception):  # numpy parses the header as Python, which raises many kinds
        return np.load(io.BytesIO(_as_written(path, _read_npy(path))), allow_pickle=False)


def _read_npy(path: Path) -> bytes:
    """Read a file of an array, if its size is that which its header states; raises ValueError for another size."""
    with open_bytes(path) as file:
        if (version := npy.read_magic(file)) != (1, 0):
            raise ValueError(f"its npy version is {version}, and write_run writes (1, 0)")
        shape, _, dtype = npy.read_array_header_1_0(file)
        stated, size = file.tell() + math.prod(shape) * dtype.itemsize, os.fstat(file.fileno()).st_size
        if size != stated:
            raise ValueError(f"it has {size:,} bytes, and its header states {stated:,}")
        file.seek(0)
        return file.read(size)


def write_run(
    root: Path,
    name: str,
    *,
    config: Mapping[str, Any],
    result: Mapping[str, Any],
    measurements: Mapping[str, Any],
    provenance: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    extra: Mapping[str, bytes] | None = None,
) -> Path:
    """Write the folder ``root/name`` in one step and return its path.

    If another process was first, its run is kept and this one dropped. ``extra`` are further files, by name. Numbers
    that are not finite become ``null``, as a diverged run is a result too. Raises TensorAdaptError for one in
    ``config``, for a full disk, an array of objects, and a folder in the way that is not a finished run. The order is
    write, fsync, rename, fsync: the rename is atomic on POSIX, and the fsyncs make it survive a power cut.
    """
    contents = _contents((config, result, measurements, provenance), arrays) | dict(extra or {})
    return _write_folder(Path(root), name, contents)


def write_failure(root: Path, name: str, error: Mapping[str, Any], extra: Mapping[str, bytes] | None = None) -> Path:
    """Write the folder ``root/name`` of a run that failed, with ``error.json`` in it, in one step; returns its path."""
    contents = _with_sums({"error.json": _document(error, "error", finite_or_null)})
    return _write_folder(Path(root), name, contents | dict(extra or {}))


def _write_folder(root: Path, name: str, contents: Mapping[str, bytes]) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9_][\w.=+,-]*", name):
        raise TensorAdaptError(f"run name {name!r} cannot be a folder; expected letters, digits and any of _.=+,- only")
    # a pid alone can repeat: containers that share a disk each count their own
    temp = root / f".{name}.{os.getpid()}.{os.urandom(3).hex()}.tmp"
    hint = "expected a writable folder with free space: free or choose another, then run it again"
    try:
        with explained(f"written to {root}", f"run {name}", hint):
            root.mkdir(parents=True, exist_ok=True)
            temp.mkdir()
            for file, data in contents.items():
                write_synced(temp / file, data)
            sync_folder(temp)
            _publish(temp, root / name)
            sync_folder(root)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    return root / name


def check_writable(root: Path) -> None:
    """Create ``root`` if it is missing; raise TensorAdaptError if no run can be written there. Leaves no file."""
    root = Path(root)
    hint = "choose another path, or remove what is in the way or change its permissions"
    with explained("written", root, f"expected a folder for runs: {hint}"):
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(suffix=".tmp", prefix=".probe.", dir=root, ignore_cleanup_errors=True) as probe:
            write_synced(Path(probe) / "probe", b"probe")


def check_free(root: Path, name: str) -> None:
    """Raise TensorAdaptError if something that is no run is at the path of one, before the run is computed."""
    # in this order, as another process may publish the run in between
    if (Path(root) / name).exists() and not is_finished(root, name) and not is_failed(root, name):
        raise _in_the_way(Path(root) / name)


def _in_the_way(path: Path) -> TensorAdaptError:
    return TensorAdaptError(
        f"{path} is in the way and is not a finished run; expected no such path: delete it to run it again"
    )


def is_finished(root: Path, name: str) -> bool:
    """Return whether ``root/name`` holds a finished run."""
    return (Path(root) / name / "result.json").is_file()


def is_failed(root: Path, name: str) -> bool:
    """Return whether ``root/name`` holds a run that failed, and no result."""
    return (Path(root) / name / "error.json").is_file() and not is_finished(root, name)


def remove_failure(root: Path, name: str) -> None:
    """Remove the folder of a run that failed, so that the run is due again."""
    if is_failed(root, name):
        shutil.rmtree(Path(root) / name)


def load_failures(root: Path) -> dict[str, Failure]:
    """Return the runs in ``root`` that failed, by name."""
    names = sorted(path.parent.name for path in Path(root).glob("[!.]*/error.json"))
    return {name: read_failure(Path(root) / name) for name in names if is_failed(root, name)}


def read_failure(path: Path) -> Failure:
    """Read the failed run in the folder ``path``; raise TensorAdaptError for a missing, damaged or foreign file."""
    error = read_json(path / "error.json")
    with located(f"{path / 'error.json'}: {AGAIN}"):
        config = RunConfig.from_dict(error.get("config", {}))
    return Failure(path.name, path, failed_row(path, config, error), error)


def load_runs(root: Path) -> list[Run]:
    """Read all runs in a folder; folders that hold no run are passed over (docs/guides/sweeps/results.md).

    Args:
        root: the folder of a sweep or a frontier.

    Returns:
        A list of the finished runs, sorted by name; their arrays are read when asked for.

    Raises:
        TensorAdaptError: for a missing root or a damaged run.

    >>> import tempfile
    >>> import tensoradapt as ta
    >>> spec = {"model": "tiny-random-bert", "task": "planted", "method": "cp", "rank": 2}
    >>> spec |= {"lr": 1e-3, "seed": 0, "steps": 3}
    >>> folder = tempfile.mkdtemp()
    >>> done = ta.sweep(spec, folder, executor="inline", probe=False, say=lambda line: None)
    >>> [(run.row["method"], run.config["task"]) for run in ta.load_runs(folder)]
    [('cp', 'planted')]
    """
    root = as_path(root, "root")
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise TensorAdaptError(f"{root} {found}; expected a folder of runs: run a sweep into it first")
    folders = [path for path in sorted(root.iterdir()) if _holds_run(path)]
    if not folders:
        _refuse_other(root)
    return Runs(map(read_run, folders))


def _refuse_other(root: Path) -> None:
    """Raise TensorAdaptError for a folder without runs that holds what is not a sweep."""
    if _holds_run(root):
        raise TensorAdaptError(f"{root} is the folder of one run; expected the folder of its sweep: {root.parent}")
    readers = {"adapter.json": "ta.load(model, folder)", "adapter_config.json": "ta.compress(folder, ...)"}
    for name, reader in readers.items():
        if (root / name).is_file():
            raise TensorAdaptError(f"{root} holds a saved adapter ({name}), which {reader} reads, and no runs")


def read_run(path: Path) -> Run:
    """Read the run in the folder ``path``; raise TensorAdaptError for a missing, damaged or foreign file."""
    path = Path(path)
    documents = read_documents(path, FILES)
    with located(f"{path / 'config.json'}: {AGAIN}"):
        config = RunConfig.from_dict(documents["config"])
    _check_id(path, config)
    return Run(path.name, path, row_of(path, config, documents["result"], documents["measurements"]), **documents)


def read_documents(path: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the objects of some of a run's JSON files, by name; raises TensorAdaptError as ``read_json`` does."""
    sums = read_json(path / SUMS)
    return {name: read_json(path / f"{name}.json", sums) for name in names}


def read_reached(path: Path) -> Row:
    """Return what the result of the run in the folder ``path`` says, of its row; the other files are left unread."""
    result = read_documents(path, ("result",))["result"]
    with located(f"{path / 'result.json'}: {AGAIN}"):
        return reached(result)


def _check_id(path: Path, config: RunConfig) -> None:
    """Raise TensorAdaptError where a folder named by an id holds the config of another run."""
    if re.fullmatch("[0-9a-f]{16}", path.name) and config.id != path.name:
        raise TensorAdaptError(
            f"{path / 'config.json'} is not the config that its folder is named by, but that of {config.id}. Put it "
            "back as it was, or delete the folder to run it again"
        )


def _contents(documents: tuple[Mapping[str, Any], ...], arrays: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Return the files of a run as bytes by name, built before anything is written, so that bad input leaves none."""
    contents = {}
    for name, document in zip(FILES, documents, strict=True):
        contents[f"{name}.json"] = _document(document, name, finite if name == "config" else finite_or_null)
    for name, array in arrays.items():
        if not name.isidentifier():
            raise TensorAdaptError(f"array name {name!r} cannot be a file; expected a plain name such as predictions")
        if np.asarray(array).dtype.hasobject:
            raise TensorAdaptError(f"array {name!r} holds objects; expected numbers or text: convert it first")
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(array), allow_pickle=False)
        contents[f"{name}.npy"] = buffer.getvalue()
    return _with_sums(contents)


def _with_sums(contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return files by name, with the file of their checksums."""
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    return {**contents, SUMS: _document(sums, SUMS, finite)}


def _document(document: Mapping[str, Any], name: str, number: Callable[[float, str], Any]) -> bytes:
    return (json.dumps(plain(document, name, number), sort_keys=True, indent=2, allow_nan=False) + "\n").encode()


def _publish(temp: Path, final: Path) -> None:
    try:
        temp.rename(final)
    except OSError as error:
        if is_finished(final.parent, final.name):
            return
        if not final.exists():
            raise
        raise _in_the_way(final) from error


def _holds_run(path: Path) -> bool:
    if path.name.startswith(".") or path.name.endswith(".tmp") or not path.is_dir():
        return False
    return any((path / f"{name}.json").is_file() for name in ("config", "result"))

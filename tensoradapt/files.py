"""Write files atomically, read them up to a limit, and parse JSON strictly. Nothing is unpickled."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from tensoradapt.errors import TensorAdaptError
from tensoradapt.text import plain

LARGEST = 64 * 2**20  # the most bytes of a JSON file or a safetensors header: some hundred thousand tensors
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}
NEVER = "a pickle, which can run code when it is read and is never unpickled here"
FORMULA = ("=", "+", "-", "@")  # begin a formula, in a spreadsheet that opens a CSV
FORMER = ".old.tmp"  # ends the name of a link to an old file, while new ones are renamed to their paths
DEPTH = 32  # the deepest JSON that is read: our files need ten, and deeper values could overflow the stack when shown

T = TypeVar("T")


def replace_file(path: Path, data: bytes) -> Path:
    """Write ``data`` to ``path`` so that a reader sees the old or the new file, never a part. Returns ``path``."""
    replace_files({path: data})
    return Path(path)


def replace_files(contents: Mapping[str | Path, bytes]) -> None:
    """Write several files, in this order, once all of them are whole on disk: a full disk leaves every old file."""
    temps: dict[Path, Path] = {}
    path = Path()
    try:
        for path, data in ((Path(path), data) for path, data in contents.items()):
            if not path.name:  # "." or "/"
                raise TensorAdaptError(f"{path} is a folder; expected a place for a file: add a name to it")
            if path.exists() and not path.is_file() and not path.is_dir():  # a rename would take a device's place
                raise TensorAdaptError(f"{path} is a device or pipe; expected a place for a file: choose another path")
            temps[path] = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(3).hex()}.tmp")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_synced(temps[path], data)
        _swap(temps)
        for folder in dict.fromkeys(path.parent for path in temps):
            sync_folder(folder)
    except TensorAdaptError:
        raise
    except (OSError, ValueError) as error:  # the latter for a name with a null byte
        raise TensorAdaptError(
            f"{path} cannot be written ({reason(error)}); expected a place for a file: choose another path"
        ) from error
    finally:
        for temp in temps.values():
            with contextlib.suppress(OSError):
                temp.unlink()


def _swap(temps: Mapping[Path, Path]) -> None:
    """Rename each new file to its path, or none: where one cannot be renamed, the old ones come back from links."""
    links: dict[Path, Path | None] = {}
    try:
        for path, temp in temps.items():
            links[path] = _link(path, temp) if len(temps) > 1 else None
            temp.replace(path)
    except BaseException:
        for path, link in links.items():
            if link is not None:
                with contextlib.suppress(OSError):
                    link.replace(path) if link.exists() else path.unlink()
        raise
    finally:
        for link in filter(None, links.values()):
            with contextlib.suppress(OSError):
                link.unlink()


def _link(path: Path, temp: Path) -> Path | None:
    """Link an old file under another name, and return that; None where the file system has no links.

    Where there is no old file, nothing has the name that is returned.
    """
    link = temp.with_name(f"{temp.name}{FORMER}")
    try:
        os.link(path, link, follow_symlinks=False)
    except FileNotFoundError:
        return link
    except OSError:
        return None
    return link


def read_or_former(path: Path, read: Callable[[Path], T]) -> T:
    """Read a file by ``read``, or if that refuses it, the old file that a killed save left."""
    try:
        return read(path)
    except TensorAdaptError:
        for link in sorted(path.parent.glob(f".{path.name}.*{FORMER}")):
            with contextlib.suppress(TensorAdaptError):
                return read(link)
        raise


def csv_bytes(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Write a table as CSV in UTF-8 with a header and lines that end with "\\n"; None and NaN are empty fields.

    A text that a spreadsheet would run as a formula has an apostrophe before it; control characters are written out.
    """
    text = io.StringIO(newline="")
    names = list(columns)
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writerow({name: _cell(name) for name in names})
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        text = plain(value, keep="\n")
        return f"'{text}" if text.startswith(FORMULA) else text
    return None if value != value else value


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and wait until its data are on disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until a folder's entries are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reason(error: Exception) -> str:
    """Return the operating system's message, without the path."""
    return str(getattr(error, "strerror", None) or error).strip()


@contextlib.contextmanager
def explained(verb: str, path: Path | str, hint: str, *kinds: type[Exception]) -> Iterator[None]:
    """Let an OSError, or an error of ``kinds``, say that a path cannot be "read" or "written", and what to do.

    It becomes a TensorAdaptError; one that is raised inside is left as it is.
    """
    caught: tuple[type[Exception], ...] = (OSError, *kinds)
    try:
        yield
    except TensorAdaptError:
        raise
    except caught as error:
        raise TensorAdaptError(f"{path} cannot be {verb} ({reason(error)}); {hint}") from error


def open_bytes(path: Path) -> BinaryIO:
    """Open a file to read. A named pipe, which would block until a writer comes, reads as empty."""
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))


def read_bounded(path: Path, instead: str) -> bytes:
    """Read at most ``LARGEST`` bytes; raise TensorAdaptError for a larger file."""
    try:  # the caller catches an OSError
        with open_bytes(path) as file:
            data = file.read(LARGEST + 1)
    except ValueError as error:  # a path with a null byte
        raise OSError(str(error)) from None
    if len(data) > LARGEST:
        raise TensorAdaptError(f"{path} has more than {LARGEST:,} bytes, {instead}")
    return data


def read_safetensors(path: Path, n_bytes: Callable[[bytes], int], says: str, wanted: str) -> bytes:
    """Read a safetensors file, if its size is that of its header and of its ``n_bytes(header)`` of tensors.

    Messages name ``says``, where that size is stated, and ``wanted``, what was expected instead of a pickle. Raises
    TensorAdaptError for a pickle and for another size; an OSError is left to the caller.
    """
    with open_bytes(path) as file:
        start, size = file.read(8), os.fstat(file.fileno()).st_size
        header = int.from_bytes(start, "little")
        if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and header > LARGEST):
            raise TensorAdaptError(f"{path} is {NEVER}; expected {wanted}")
        if header > LARGEST:
            raise TensorAdaptError(
                f"{path} says that its header has {header:,} bytes, and at most {LARGEST:,} are read; it is damaged, "
                "copy or save the adapter again"
            )
        text = file.read(header)
        whole = len(start) == 8 and len(text) == header
        tensors = n_bytes(text) if whole else 0
        if whole and size == 8 + header + tensors:
            return start + text + file.read(tensors)
    raise TensorAdaptError(
        f"{path} has {size:,} bytes; expected {8 + header + tensors:,}, 8 and a header of {header:,} and tensors of "
        f"{tensors:,} as {says} says. It is truncated or of another save: copy or save the adapter again"
    )


def parse_json(data: bytes, path: Path | str, hint: str, strict: bool = True) -> Any:
    """Parse an untrusted file's JSON, in UTF-8 and at most ``DEPTH`` deep."""
    # strict JSON has no key twice and no number that is not finite
    try:
        text = data.decode()
        if (depth := _depth(text)) > DEPTH:
            raise ValueError(f"it is nested {depth} deep, and at most {DEPTH} are read")
        if not strict:
            return json.loads(text)
        return json.loads(text, object_pairs_hook=_once, parse_constant=_finite, parse_float=_finite)
    except ValueError as error:
        raise TensorAdaptError(f"{path} is not JSON ({str(error)[:300]}); {hint}") from None


def _depth(text: str) -> int:
    """Return how deep brackets are nested, outside strings."""
    brackets = re.finditer(r"[\[\]{}]", re.sub(r'"(?:[^"\\]|\\.)*"', "", text))
    return max(accumulate(1 if match[0] in "[{" else -1 for match in brackets), default=0)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError(f"key {Counter(key for key, _ in pairs).most_common(1)[0][0]!r} stands twice")
    return values


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return value


def is_folder(name: str) -> bool:
    """Return whether a name is that of a folder; one that no path can have is none."""
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):
        return False

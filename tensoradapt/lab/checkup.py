"""What is broken in an installation, a machine or a folder of runs, and the remedy: what ``doctor`` prints."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from tensoradapt import doors
from tensoradapt.errors import few
from tensoradapt.files import reason
from tensoradapt.lab.data.asset_table import ROWS
from tensoradapt.lab.data.assets import cache_dir, fault
from tensoradapt.lab.runs.provenance import Requirement, requirements

OK, NOTE, BROKEN = "ok", "note", "broken"
PROBE, LITTLE = 2**16, 2**30  # bytes that must find room; bytes of free space below which one is told


class Finding(NamedTuple):
    """A line of the report: whether something is well, what it is, and what was found, with the remedy."""

    state: str
    what: str
    text: str


def examine(deep: bool, folders: Iterable[Path]) -> list[Finding]:
    """Return what is found in the installation, the machine, the caches and folders of runs.

    ``deep``: whether fetched models and data are compared with their archives.
    """
    runs = (finding for folder in folders for finding in _runs(folder))
    return [*_versions(), *_extras(), *_rooms(), *_devices(), *_disk(), *_caches(deep), *runs]


def _versions() -> Iterator[Finding]:
    yield Finding(OK, "python", platform.python_version())
    try:
        core = [requirement for requirement in requirements() if not requirement.extra]
    except metadata.PackageNotFoundError:
        yield Finding(BROKEN, "tensoradapt", "is not installed, only on the path: run pip install -e . in its folder")
        return
    for one in core:
        said = f"{one.installed or 'not installed'}; expected {one.least} or later"
        mend = f': run pip install "{one.package}>={one.least}"'
        yield Finding(OK, one.package, said) if one.met else Finding(BROKEN, one.package, said + mend)


def _extras() -> Iterator[Finding]:
    try:
        asked = sorted((one for one in requirements() if one.extra), key=lambda one: one.extra)
    except metadata.PackageNotFoundError:
        return
    for extra, packages in groupby(asked, lambda one: one.extra):
        mend = f'{few([_lacking(one) for one in packages if not one.met])}: run pip install "tensoradapt[{extra}]"'
        yield Finding(OK, f"[{extra}]", "installed") if mend.startswith(":") else Finding(NOTE, f"[{extra}]", mend)


def _rooms() -> Iterator[Finding]:
    """Yield a line for all rooms of ``tensoradapt/extras``, or one for each that cannot be imported."""
    faults = {room: fault for room in doors.rooms() if (fault := doors.fault(room))}
    for room, fault in faults.items():
        yield Finding(BROKEN, "extras", f"{doors.path(room)} cannot be imported ({fault}): mend or delete it")
    if not faults:
        yield Finding(OK, "extras", f"{len(doors.rooms())} of {len(doors.listed())} rooms are there")


def _lacking(one: Requirement) -> str:
    return f"{one.package} is {one.installed}" if one.installed else f"no {one.package}"


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding(BROKEN, "device", f"torch cannot be loaded ({reason(error)[:200]}): run pip install torch again")
        return
    for i in range(torch.cuda.device_count()):
        bf16 = "bf16" if torch.cuda.get_device_capability(i) >= (8, 0) else "no bf16: use precision fp32"
        yield Finding(OK, f"cuda:{i}", f"{torch.cuda.get_device_name(i)}, {bf16}")
    if torch.version.cuda and not torch.cuda.is_available():
        yield Finding(NOTE, "cuda", "torch is made for CUDA and sees no device: look at nvidia-smi")
    bf16 = "in hardware" if _bf16_cpu() else "works, and is slower than fp32"
    yield Finding(OK, "cpu", f"{_cores()} cores, bf16 {bf16}")
    yield _threads(torch.get_num_threads())


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bf16_cpu() -> bool:
    """Return whether the processor multiplies in bf16, as far as the system says."""
    try:
        return bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", Path("/proc/cpuinfo").read_text()))
    except OSError:
        return False


def _threads(used: int) -> Finding:
    given = ", ".join(f"{key}={os.environ[key]}" for key in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY") if key in os.environ)
    said = f"torch uses {used} ({given})"
    if used > _cores():
        return Finding(NOTE, "threads", f"{said} on {_cores()} cores: set OMP_NUM_THREADS={_cores()} or less")
    return Finding(OK, "threads", said)


def _disk() -> Iterator[Finding]:
    for what, folder in (("cache", cache_dir()), ("here", Path())):
        there = next(p for p in (folder, *folder.absolute().parents) if p.is_dir())
        free, yet = shutil.disk_usage(there).free, "" if there == folder else " is made when it is needed,"
        said = f"{folder.absolute()}{yet} {free / 1e9:,.1f} GB free"
        if wrong := _unwritable(there):
            mend = "free space there" if "space" in wrong else "change its permissions"
            mend += ", or set TENSORADAPT_CACHE to another folder" if what == "cache" else ", or work in another folder"
            yield Finding(BROKEN, what, f"{said}, cannot be written ({wrong}): {mend}")
        elif free < LITTLE:
            yield Finding(NOTE, what, f"{said}: free some, a model takes about 1 GB")
        else:
            yield Finding(OK, what, said)


def _unwritable(folder: Path) -> str:
    """Return why no file can be written to a folder, or "" where one can; no file is left."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return reason(error)
    return ""


def _caches(deep: bool) -> Iterator[Finding]:
    folder = cache_dir()
    if not folder.is_dir():
        return
    faults = {asset.name: wrong for asset in ROWS if (wrong := fault(asset, deep=deep))}
    fetched = [asset.name for asset in ROWS if (folder / f"{asset.name}-{asset.version}").is_dir()]
    size = sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())
    yield Finding(OK, "assets", f"{len(fetched)} of {len(ROWS)} fetched, {size / 1e6:,.0f} MB in the cache")
    for name, wrong in faults.items():
        yield Finding(BROKEN, name, wrong)
    if left := list(folder.glob(".fetch-*")):
        yield Finding(NOTE, "cache", f"{len(left)} downloads were killed: delete {folder}/.fetch-* if none runs now")


def _runs(root: Path) -> Iterator[Finding]:
    from tensoradapt.lab.runs.work_folder import in_hand  # it needs numpy, which may be what is missing

    held, left = in_hand(root)
    yield Finding(OK, "locks", f"{root}: {len(held)} runs are computed now")
    if left:
        yield Finding(
            NOTE, "locks", f"{root}: {few(left)} were left: run the sweep again to continue, or delete {root}/.work"
        )
    torn = list(root.glob(".*.tmp"))
    if torn and not held:
        yield Finding(NOTE, "locks", f"{root}: {len(torn)} half-written folders: delete {root}/.*.tmp")

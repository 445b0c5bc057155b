"""The command ``doctor``: it says what is broken in an installation, a machine or a folder of runs, and the remedy."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from tensoradapt import __version__, doors
from tensoradapt.errors import TensorAdaptError, few
from tensoradapt.files import reason
from tensoradapt.lab.cli.options import newest_runs, path
from tensoradapt.lab.cli.output import show, show_json, show_text, width
from tensoradapt.lab.cli.parser import add_command
from tensoradapt.lab.data.asset_table import ROWS
from tensoradapt.lab.data.assets import cache_dir, fault
from tensoradapt.lab.runs.provenance import Requirement, requirements
from tensoradapt.text import align

OK, NOTE, BROKEN = "ok", "note", "broken"
HEAD = ("state", "check", "found")
PROBE, LITTLE = 2**16, 2**30  # bytes that must find room; bytes of free space below which one is told
EXTRAS = {
    "demo": "pretrained models and their tokenizers; the command frontier",
    "hub": "data sets of the hub",
    "peft": "the PEFT plug-in",
    "benchmarks": "the benchmarks against PEFT and LyCORIS",
    "quantised": "layers in 4 and 8 bits",
    "slurm": "sweeps on SLURM",
    "ray": "sweeps on Ray",
    "data": "Parquet files and scorers of scikit-learn",
    "vision": "tasks of pictures",
    "optuna": "learning rates by Optuna",
    "tensorboard": "losses in TensorBoard",
    "trackio": "losses in Trackio",
    "wandb": "losses in Weights & Biases",
    "notebooks": "the notebooks",
    "docs": "the documentation site",
    "dev": "tests and checks of this repository",
}


class Finding(NamedTuple):
    """A line of the report: whether something is well, what it is, and what was found, with the remedy."""

    state: str
    what: str
    text: str


def add_parsers(commands: Any) -> None:
    """Add the command to those of a parser (``add_subparsers``)."""
    p = add_command(
        commands,
        "doctor",
        doctor,
        "check versions, device, threads, disk, locks and caches, and say what mends each problem",
        "[RUNS ...] [options]",
        "Prints a line for each thing that is checked. Exit code 0: nothing is broken; 1: something is.",
    )
    p.add_argument(
        "runs",
        nargs="*",
        type=path,
        metavar="RUNS",
        help="folders of runs, to look for runs left behind (default: the newest in ./runs)",
    )
    p.add_argument_group("what is checked").add_argument(
        "--deep", action="store_true", help="also compare fetched models and data with their archives"
    )


def doctor(args: argparse.Namespace) -> int:
    """Print what was found and return the exit code."""
    if missing := [folder for folder in args.runs if not folder.is_dir()]:
        raise TensorAdaptError(
            f"{missing[0]} is no folder; expected a folder of runs: leave it out or run a sweep first"
        )
    found = [*_versions(), *_extras(), *_rooms(), *_devices(), *_disk(), *_caches(args.deep)]
    folders = args.runs or [folder for folder in (newest_runs(),) if folder]
    found += [finding for folder in folders for finding in _runs(folder)]
    broken = sum(finding.state == BROKEN for finding in found)
    if args.json:
        package = {"version": __version__, "folder": Path(__file__).parents[2]}
        show_json({**package, "broken": broken, "checks": [finding._asdict() for finding in found]})
        return 1 if broken else 0
    end = f"{broken} of {len(found)} checks found something broken" if broken else "nothing is broken"
    show_text(f"tensoradapt {__version__} in {Path(__file__).parents[2]}")
    show(*align([HEAD, *found], width()), end)
    return 1 if broken else 0


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
        unmet, purpose = [one for one in packages if not one.met], EXTRAS.get(extra, "")
        mend = f'{few(list(map(_lacking, unmet)))}: run pip install "tensoradapt[{extra}]"'
        yield Finding(NOTE, f"[{extra}]", f"{purpose}; {mend}") if unmet else Finding(OK, f"[{extra}]", purpose)


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

"""Provenance: the versions, processor, source commit and command line that a run was made with."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    *("tensoradapt", "torch", "transformers", "tokenizers", "datasets", "peft", "safetensors"),
    *("tensorly", "opt_einsum", "numpy", "scipy", "matplotlib"),
)


@dataclass(frozen=True)
class Requirement:
    """A package that this one asks for: its least version, the extra that asks (empty: the core), what is installed."""

    package: str
    least: str
    extra: str
    installed: str | None

    @property
    def met(self) -> bool:
        """Whether the package is installed in a version that is not too old."""
        return self.installed is not None and _release(self.installed) >= _release(self.least)


def requirements() -> list[Requirement]:
    """Return what the installed package asks for in its metadata; nothing is imported for it.

    Raises PackageNotFoundError where the package is not installed but found on the path.
    """
    form = re.compile(r"([\w.-]+)>=([\w.]+)(?:; extra == '([\w-]+)')?")
    found = filter(None, map(form.fullmatch, metadata.requires("tensoradapt") or ()))
    return [Requirement(name, least, extra or "", version(name)) for name, least, extra in map(re.Match.groups, found)]


def version(package: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version without the zeros at its end: 2.6.0a0+cpu and 2.6 are (2, 6)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, re.sub(r"(\.0+)+$", "", match[0]).split("."))) if match else ()


def provenance() -> dict[str, Any]:
    """Return versions, processor, source commit and command line; this imports nothing and names no host or user."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "packages": {name: found for name in PACKAGES if (found := version(name)) is not None},
        "commit": commit_of(Path(__file__).parents[3]),
        # absolute paths are cut to their last name; URLs stay
        "argv": [re.sub(r"(^|[=,]|:(?!//))(?:[A-Za-z]:)?[/\\](?:[^=,:]*[/\\])?", r"\1", text) for text in sys.argv],
    }


def reset_peak_memory() -> None:
    """Reset the peak of resident memory on Linux, so that each run of a process has its own."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Return the peak of resident memory in bytes, since the last reset or the start of the process."""
    with contextlib.suppress(OSError):
        if match := re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE):
            return int(match[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        if match := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return match[1].strip()
    return platform.processor() or platform.machine()


def commit_of(root: Path) -> str | None:
    """Return the commit of a checkout at ``root``, with ``-dirty`` if files differ from it."""
    if not (root / ".git").exists():
        return None
    command = ["git", "--no-optional-locks", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        done = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None

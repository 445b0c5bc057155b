"""Provenance: the versions, processor, source commit and command line that a run was made with."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    *("tensoradapt", "torch", "transformers", "tokenizers", "datasets", "peft", "safetensors"),
    *("tensorly", "opt_einsum", "numpy", "scipy", "matplotlib"),
)


def provenance() -> dict[str, Any]:
    """Versions, processor, source commit and command line; nothing is imported for it, no host or user is named."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "packages": dict(_versions()),
        "commit": commit_of(Path(__file__).parents[2]),
        # absolute paths are cut to their last name; URLs stay
        "argv": [re.sub(r"(^|[=,]|:(?!//))(?:[A-Za-z]:)?[/\\](?:[^=,:]*[/\\])?", r"\1", text) for text in sys.argv],
    }


def reset_peak_memory() -> None:
    """Reset the peak of resident memory on Linux, so that each run of a process has its own."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """The peak of resident memory in bytes, since the last reset or the start of the process."""
    with contextlib.suppress(OSError):
        if match := re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE):
            return int(match[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            yield package, metadata.version(package)


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        if match := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return match[1].strip()
    return platform.processor() or platform.machine()


def commit_of(root: Path) -> str | None:
    """The commit of a checkout at ``root``, with ``-dirty`` if files differ from it."""
    if not (root / ".git").exists():
        return None
    command = ["git", "--no-optional-locks", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        done = subprocess.run([*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None

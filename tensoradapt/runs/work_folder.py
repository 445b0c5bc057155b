"""Work in progress: what a run needs while it is computed, apart from the folders of runs that are done.

``.work/<id>/`` holds the run's config, the attempts so far and the state of its training. It goes when the run is done;
the attempts go into the run's folder.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import reason, replace_file
from tensoradapt.runs.config import RunConfig
from tensoradapt.runs.locks import claim
from tensoradapt.runs.provenance import provenance
from tensoradapt.runs.store import is_failed, is_finished

WORK, ATTEMPTS = ".work", "attempts.jsonl"
versions = lru_cache(maxsize=1)(provenance)  # asks git, once in a process


@dataclass(frozen=True)
class Work:
    """The work folder of one run."""

    root: Path
    name: str

    @property
    def path(self) -> Path:
        return Path(self.root) / WORK / self.name

    def prepare(self, config: RunConfig, checkpoint_every: int, track: Sequence[str] = ()) -> None:
        """Writes what a worker needs to know; the first of two sweeps that do so is enough."""
        if not (self.path / "config.json").is_file():
            record = {"config": config.as_dict(), "checkpoint_every": checkpoint_every, "track": list(track)}
            replace_file(self.path / "config.json", json.dumps(record).encode())

    def config(self) -> tuple[RunConfig, int, list[str]]:
        """The run's config, after how many steps its state is kept, and the names of its trackers."""
        record = json.loads((self.path / "config.json").read_text())
        return RunConfig.from_dict(record["config"]), record["checkpoint_every"], record.get("track", [])

    def note(self, event: str, **more: Any) -> None:
        """A line in the run's attempts, on disk before the attempt goes on."""
        line = {"event": event, "time": round(time.time(), 3), "pid": os.getpid(), **more}
        try:
            with (self.path / ATTEMPTS).open("ab+") as file:
                file.write(b"\n" * _torn(file) + json.dumps(line).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise TensorAdaptError(
                f"{self.path / ATTEMPTS} cannot be written ({reason(error)}); free space, then run the sweep again"
            ) from error

    def attempts(self) -> bytes:
        """The run's attempts so far, a JSON object on each line."""
        return (self.path / ATTEMPTS).read_bytes()

    def clear(self) -> None:
        """Removes the folder, and what attempts that were killed left beside the run's."""
        shutil.rmtree(self.path, ignore_errors=True)
        for left in Path(self.root).glob(f".{self.name}.*.tmp"):
            shutil.rmtree(left, ignore_errors=True)


def _torn(file: BinaryIO) -> bool:
    """Whether the last line was cut off, as by a full disk: the next one is then a line of its own all the same."""
    if not file.tell():
        return False
    file.seek(-1, os.SEEK_END)
    return file.read() != b"\n"


def tidy(root: Path) -> None:
    """Removes work and locks of runs that have ended: a process can be killed after it has written its result."""
    folder = Path(root) / WORK
    if not folder.is_dir():
        return
    names = {path.name.removeprefix(".").removesuffix(".lock") for path in folder.iterdir()}
    for name in names:
        if is_finished(root, name) or is_failed(root, name):
            with claim(folder, name) as ours:
                if ours:
                    Work(root, name).clear()


def state_key(name: str) -> Mapping[str, str]:
    """What a training's state must agree in to be gone on from: the run, versions and source commit."""
    found = versions()
    packages = {package: found["packages"].get(package, "") for package in ("torch", "transformers", "tensoradapt")}
    return {"run": name, "commit": str(found["commit"]), **packages}

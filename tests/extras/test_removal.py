"""Each extra can be deleted: in a copy of the repository without it, the fast tests of the rest pass."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tensoradapt.extras import ROOMS

ROOT = Path(__file__).parents[2]
# what shows or names all that there is, and so is no test of the rest
OF_ALL = ("gallery", "public_imports", "readme", "reference", "repository", "site")
STARTS = ("corda", "eva", "lora_sb", "mica", "milora", "olora")
OWN = {"factor_maps": ("factor_map",), **dict.fromkeys(STARTS, ("data_starts", "peft_starts"))}  # others: test_ROOM
SECONDS = 3000  # alone a run takes five minutes on two cores


def copied(folder: Path) -> Path:
    """A copy of the repository's files."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def delete(folder: Path, room: str) -> None:
    """Delete a room and its own tests, which are those in ``tests/extras`` that import it."""
    path = folder / "tensoradapt" / "extras" / room
    shutil.rmtree(path) if path.is_dir() else path.with_suffix(".py").unlink()
    imports = re.compile(rf"from tensoradapt\.extras(\.{room}\b| import .*\b{room}\b)")
    own = {f"test_{name}" for name in (*OWN.get(room, (room,)), "doors", "removal")}
    for test in (folder / "tests" / "extras").glob("test_*.py"):
        if test.stem in own or imports.search(test.read_text()):
            test.unlink()


def rest(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the fast tests of a copy."""
    left_out = [f"--ignore=tests/test_{name}.py" for name in OF_ALL]
    command = [sys.executable, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider", *left_out, "tests", "tensoradapt"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS)


@pytest.mark.slow
def test_the_rest_works_without_any_extra(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    for room in ROOMS:
        delete(folder, room)
    ended = rest(folder)
    assert ended.returncode == 0, ended.stdout[-3000:]


@pytest.mark.nightly
@pytest.mark.parametrize("room", ROOMS)
def test_the_rest_works_without(room: str, tmp_path: Path) -> None:
    delete(copied(tmp_path), room)
    ended = rest(tmp_path)
    assert ended.returncode == 0, ended.stdout[-3000:]

"""Extras can be deleted: the rest works without one that is missing or broken, and says which it was."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tensoradapt import doors
from tensoradapt.extras import ROOMS

ROOT = Path(doors.__file__).parent
FOLDER = ROOT / "extras"
ASKED = {
    "starts": 'ta.plan("tiny-random-bert", "lora", rank=2, start={name!r})',
    "rows": 'ta.plan("tiny-random-bert", {name!r}, rank=2)',
    "maps": 'ta.plan("tiny-random-bert", "lora", rank=2, map={{{name!r}: 4}})',
    "steps": "ta.fit(torch.nn.Linear(2, 2), [], lr=0.1, steps=1, orthonormal={name!r})",
    "executors": 'ta.sweep({{**SPEC, "lr": 1e-3}}, "runs", executor={name!r}, dry_run=True)',
    "proposers": 'ta.sweep({{**SPEC, "search": {{"lr": [1e-3, 1e-2], "trials": 2}}}}, "runs", dry_run=True)',
    "trackers": 'ta.sweep({{**SPEC, "lr": 1e-3}}, "runs", track=[{name!r}], dry_run=True)',
    "tasks": 'ta.load_task({{"train": "own.csv", "kind": {name!r}}})',
    "names": "ta.{name}",
}
SCRIPT = """
import torch
import tensoradapt as ta
SPEC = {{"model": "tiny-random-bert", "task": "snippets", "method": "lora", "rank": [1], "seed": [0], "steps": 2}}
assert ta.plan("tiny-random-bert", "cp", rank=2).n_params and len(ta.methods()) > 40
try:
    {call}
except (ta.TensorAdaptError, AttributeError) as error:
    print(error)
"""


def copy(folder: Path) -> Path:
    """A copy of the package, whose extras may be changed."""
    shutil.copytree(ROOT, folder / "tensoradapt", ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "tensoradapt" / "extras"


def said(folder: Path, call: str) -> str:
    """What a copy of the package answers to a call."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(call=call)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert not ended.returncode, ended.stderr
    return ended.stdout


def delete(path: Path) -> None:
    """Delete a room, which is a file or a folder."""
    shutil.rmtree(path) if path.is_dir() else path.with_suffix(".py").unlink()


def test_what_is_no_name_is_in_no_room() -> None:
    assert doors.missing("starts", np.array([1, 2])) == doors.missing("starts", {}) == ""


def test_every_file_is_a_room_and_every_room_has_what_it_lists() -> None:
    there = {path.stem for path in FOLDER.iterdir() if not path.name.startswith("__")}
    assert there == set(ROOMS) and not [room for room in ROOMS if doors.fault(room)]
    for door in {door for named in ROOMS.values() for door in named}:
        assert set(doors.table(door)) == set(doors.names(door))


@pytest.mark.parametrize("name", list(ASKED))
@pytest.mark.thorough
def test_a_room_that_is_missing_is_named_in_one_line(name: str, tmp_path: Path) -> None:
    room, names = next((room, named[name]) for room, named in ROOMS.items() if name in named)
    delete(copy(tmp_path) / room)
    found = said(tmp_path, ASKED[name].format(name=names[0]))
    assert f"{names[0]!r} is in tensoradapt/extras/{room}, which is not there" in found


@pytest.mark.thorough
def test_a_room_that_cannot_be_imported_is_named_by_doctor_and_the_rest_works(tmp_path: Path) -> None:
    (copy(tmp_path) / "eva.py").write_text("import nothing_of_that_name\n")
    wrong = "cannot be imported (ModuleNotFoundError: No module named 'nothing_of_that_name')"
    found = said(tmp_path, ASKED["rows"].format(name="eva"))
    assert f"'eva' is in tensoradapt/extras/eva, which {wrong}" in found
    assert said(tmp_path, ASKED["rows"].format(name="mica")) == ""
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    doctor = subprocess.run(
        [sys.executable, "-m", "tensoradapt", "doctor"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert doctor.returncode == 1 and f"tensoradapt/extras/eva {wrong}" in " ".join(doctor.stdout.split())


def naming() -> list[str]:
    """The files of the core and the lab that name a room; of the package's names only those for type checkers do."""
    rooms = re.compile(rf"extras[./](?:{'|'.join(ROOMS)})\b")
    rest = [path for path in ROOT.rglob("*.py") if not path.is_relative_to(FOLDER) and path != ROOT / "__init__.py"]
    return [str(path) for path in rest if rooms.search(path.read_text())]


def test_no_file_of_the_core_or_the_lab_names_a_room() -> None:
    assert naming() == []


@pytest.mark.thorough
def test_a_core_file_that_names_a_room_fails_without_it(tmp_path: Path) -> None:
    delete(copy(tmp_path) / "eva")
    spec = tmp_path / "tensoradapt" / "planning" / "spec.py"
    spec.write_text(spec.read_text() + "\n\nfrom tensoradapt.extras.eva import STARTS\n")
    with pytest.raises(AssertionError, match=r"No module named 'tensoradapt\.extras\.eva'"):
        said(tmp_path, "pass")

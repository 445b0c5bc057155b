"""The command doctor: one line for each problem, with what mends it; exit code 1 only where something is broken."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from harness import hostile_files
from harness.fuzz_cli import Ended, call

from tensoradapt.lab import checkup
from tensoradapt.lab.data import assets
from tensoradapt.lab.data.asset_table import Asset
from tensoradapt.lab.runs import provenance
from tensoradapt.lab.runs.work_folder import WORK, claim


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that does not exist, and a folder to work in."""
    monkeypatch.setenv("TENSORADAPT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "cache"


def lines(ended: Ended, *states: str) -> list[str]:
    return [line for line in ended.out.splitlines() if line.split(maxsplit=1)[0] in states]


def without(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Let packages be missing (None), or of another version."""
    real = metadata.version

    def version(package: str) -> str:
        found = versions.get(package, real(package) if package not in versions else None)
        if found is None:
            raise metadata.PackageNotFoundError(package)
        return found

    monkeypatch.setattr(provenance.metadata, "version", version)


def test_a_sound_machine_without_a_cache_folder_is_0_and_nothing_is_made(cache: Path) -> None:
    ended = call(["doctor"])
    assert ended.code == 0 and not ended.err and ended.out.endswith("\nnothing is broken\n")
    assert "is made when it is needed" in ended.out
    assert not cache.exists() and not list(Path().iterdir())


@pytest.mark.parametrize(
    ("version", "says"),
    [(None, "not installed; expected 0.9 or later: run pip install \"tensorly>=0.9\""), ("0.8.1", "0.8.1; expected")],
)  # fmt: skip
def test_a_core_package_that_is_missing_or_old_is_broken(
    version: str | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, tensorly=version)
    ended = call(["doctor"])
    (line,) = lines(ended, "broken")
    assert ended.code == 1 and says in line and ended.out.endswith("found something broken\n")


def test_a_missing_or_old_extra_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, peft=None, optuna="3.9")
    ended = call(["doctor"])
    notes = " ".join(lines(ended, "note"))
    assert ended.code == 0
    assert 'no peft: run pip install "tensoradapt[peft]"' in notes and "optuna is 3.9: run pip install" in notes


@pytest.mark.thorough
def test_it_runs_where_a_core_package_cannot_be_imported_and_the_other_commands_name_it(tmp_path: Path) -> None:
    """In a process of its own, with a numpy that is broken."""
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text("raise ImportError('numpy is torn')")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tensoradapt.lab.cli.main", *words]
        return subprocess.run(command, env=env, capture_output=True, text=True)

    sound, methods = run("doctor"), run("methods")
    assert sound.returncode == 1 and not sound.stderr
    assert "torch cannot be loaded (numpy is torn)" in sound.stdout and "\nok      here " in sound.stdout
    assert methods.returncode == 2 and not methods.stdout
    assert "(numpy is torn): run tensoradapt doctor" in " ".join(methods.stderr.split())


@pytest.mark.parametrize(
    ("code", "says"), [(errno.ENOSPC, "free space there, or set TENSORADAPT_CACHE"), (errno.EROFS, "change its perm")]
)
def test_a_cache_that_cannot_be_written_is_broken(
    code: int, says: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dir: Path) -> Any:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(checkup.tempfile, "TemporaryFile", refuse)
    ended = call(["doctor"])
    assert ended.code == 1 and len(lines(ended, "broken")) == 2 and says in ended.out


@pytest.fixture
def asset(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Asset:
    """An asset that was fetched, its archive beside it."""
    folder = cache / "toy-1"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("whole")
    archive = shutil.make_archive(str(cache / "downloads" / "toy"), "zip", folder)
    sha256 = hashlib.sha256(Path(archive).read_bytes()).hexdigest()
    row = Asset("toy", "toy", "1", "toy.zip", sha256, "none", "a text", (("a.txt", "a.txt"),))
    monkeypatch.setattr(checkup, "ROWS", (row,))
    return row


def test_damaged_assets_are_broken(asset: Asset, cache: Path) -> None:
    assert call(["doctor", "--deep"]).code == 0
    (cache / "toy-1" / "a.txt").write_text("edited")
    assert call(["doctor"]).code == 0
    assert "a.txt is not as in its archive: delete the folder" in " ".join(lines(call(["doctor", "--deep"]), "broken"))
    (cache / "toy-1" / "a.txt").unlink()
    assert "lacks a.txt: delete the folder" in " ".join(lines(call(["doctor"]), "broken"))
    shutil.rmtree(cache / "toy-1")
    (cache / "downloads" / "toy.zip").write_bytes(b"torn")
    assert "has sha256" in " ".join(lines(call(["doctor", "--deep"]), "broken"))
    assert assets.fault(asset) == ""


def test_runs_that_were_left_and_those_in_hand_are_told_apart(tmp_path: Path) -> None:
    runs = hostile_files.runs(tmp_path / "runs")
    (name,) = [path.name for path in (runs / WORK).iterdir()]
    (runs / f".{name}.1.abc.tmp").mkdir()
    ended = call(["doctor", str(runs)])
    assert ended.code == 0 and "0 runs are computed now" in ended.out
    assert f"{name} were left: run the sweep again" in ended.out and "1 half-written folders" in ended.out
    with claim(runs / WORK, name) as ours:
        ended = call(["doctor", str(runs)])
        assert ours and "1 runs are computed now" in ended.out and "were left" not in ended.out
    refused = call(["doctor", str(tmp_path / "none")])
    assert refused.code == 2 and "none is no folder" in " ".join(refused.err.split())

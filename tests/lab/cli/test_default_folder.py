"""Commands that read runs take the newest folder of runs in ./runs, and say which that is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.synthetic_runs import write_many

from tensoradapt.lab.cli.main import main

CURVES = {"cp": [(2, 300, 0.75)], "lora": [(1, 300, 0.75)]}
SAYS = "reading runs/new, the newest folder of runs in ./runs\n"


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ./runs, in which ``new`` was written last, but for folders that hold no runs."""
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("new", "old")):
        write_many(tmp_path / "runs" / name, CURVES)
        os.utime(tmp_path / "runs" / name, (1e9 - age, 1e9 - age))
    (tmp_path / "runs" / "logs").mkdir()
    return tmp_path


@pytest.mark.thorough
@pytest.mark.parametrize(
    "words", [["results"], ["results", "--means"], ["plot", "--format", "png"], ["report"], ["plot", "curves"]]
)
def test_every_command_that_reads_runs_takes_the_newest(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    shown = capsys.readouterr()
    assert shown.err == SAYS
    assert words[0] == "results" or "runs/new/" in shown.out


def test_a_folder_without_runs_is_answered_in_one_line(
    working_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["results", "runs/logs"], ["plot", "runs/logs"], ["report", "runs/logs"]):
        assert main(words) in (0, 2)
        shown = capsys.readouterr()
        assert "logs" in shown.out + shown.err and len((shown.out + shown.err).splitlines()) <= 2, words

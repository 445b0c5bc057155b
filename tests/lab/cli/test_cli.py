"""The command line: exit codes, one readable block per error, and the same figures as the library."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
from harness import fuzz_cli
from support.sweeping import write_spec

import tensoradapt as ta
from tensoradapt.lab.cli import main as cli
from tensoradapt.lab.cli.main import main
from tensoradapt.lab.data import models
from tensoradapt.lab.runs import perform
from tensoradapt.lab.runs.store import load_runs

TINY = ["frontier", "--quick", "--model", "tiny-random-bert", "--task", "planted", "--rank", "2", "--steps", "4"]


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"tensoradapt {ta.__version__}\n"


@pytest.mark.thorough
def test_frontier_prints_the_table_and_returns_zero(tmp_path, capsys):
    assert main([*TINY, "--workers", "1", "--method", "cp", "--lr", "0.01", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "CP" in shown and "planted: " in shown and "3 of 3 runs" in shown
    assert main(["plot", str(tmp_path)]) == 0
    assert "frontier.png" in capsys.readouterr().out


def test_the_plan_of_a_frontier_is_printed_and_nothing_is_left(tmp_path, capsys):
    assert main([*TINY, "--out", str(tmp_path / "runs"), "--workers", "1", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "runs are finished in" in printed and "of them to do" in printed and not any(tmp_path.iterdir())


def test_a_stop_says_how_to_go_on_and_returns_one(tmp_path, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(perform, "execute", stop)
    assert main([*TINY, "--workers", "1", "--out", str(tmp_path)]) == 1
    assert f"stopped; the same command goes on from what is in {tmp_path}" in capsys.readouterr().err


MIXED = "plan --model tiny-random-bert --method lotr --paper --projections q up --rank 1".split()


def test_plan_has_an_option_for_each_field_and_prints_what_python_does(capsys):
    words = "--method lotr --rank 2 --projections q v --scale 2.5 --start subtract --rates core=2 --train --dropout 0.1"
    assert main(["plan", "--model", "tiny-random-bert", *words.split()]) == 0
    given = {"projections": ("q", "v"), "scale": 2.5, "start": "subtract", "rates": {"core": 2}, "train": ()}
    made = ta.plan(models.config("tiny-random-bert"), "lotr", rank=2, dropout=0.1, **given)
    assert capsys.readouterr().out.rstrip() == str(made)
    assert main(["plan", "--help-all"]) == 0
    shown = capsys.readouterr().out
    options = {"--" + field.name.replace("_", "-") for field in fields(ta.AdapterSpec)}
    assert [option for option in sorted(options) if option not in shown] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([*TINY, "--method", "tuker"], 'did you mean "tucker"?'),
        (MIXED, "lotr with paper=True is not defined on these matrices: "),
        (["--json", "plan"], "unknown option --json before a command; expected tensoradapt COMMAND --json"),
        (["compress"], "FOLDER is missing; expected one: a folder with adapter_config.json"),
        (["plan", "--rank"], "--rank has no value; expected one: an upper bound"),
        (["plan", "--method", "cp", "--method", "lora"], "--method takes one value in plan; found several"),
        (["choose", "--budget", "abc"], "budget is 'abc'; expected a whole number, such as 18600"),
        (["plan", "--model", "tiny-random-bert", "--method", "cp"], "error: cp needs a size; give --rank or --budget"),
        (["plan", "--model", "tiny-random-bert"], "error: a method is missing; give --method, as in --method cp"),
        ([*TINY, "--lr", "1e-3", "1e-2"], "has 2 values; expected one, as a frontier tunes nothing"),
        (["plot", "no-such-folder"], "no-such-folder does not exist; expected a folder of runs"),
    ],
)
def test_bad_input_is_one_block_without_a_traceback_and_returns_two(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert says in " ".join(shown.split()) and shown.startswith("error: ") and "Traceback" not in shown


@pytest.mark.slow
def test_a_killed_frontier_goes_on_where_it_was(tmp_path):
    """Stopped twice, by a kill and by Ctrl-C, it has the results of one that was not stopped."""
    command = [sys.executable, "-m", "tensoradapt.lab.cli.main", *TINY[:-2], "--steps", "40", "--seed", "0", "--out"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    written = {}
    for end, n in ((signal.SIGKILL, 2), (signal.SIGINT, 4)):
        with subprocess.Popen([*command, str(tmp_path / "killed")], **quiet) as process:
            while len(done := list((tmp_path / "killed").glob("[!.]*/result.json"))) < n:  # a hidden one is not done
                assert process.poll() is None, "it ended before it could be killed"
                time.sleep(0.05)
            process.send_signal(end)
            process.wait(60)
        written |= {path: path.stat().st_mtime_ns for path in done if path not in written}
    for folder in ("killed", "whole"):
        assert main([*command[3:], str(tmp_path / folder), "--workers", "1"]) == 0
    assert {path: path.stat().st_mtime_ns for path in written} == written, "a finished run was run again"
    results = [
        {r.name: Path(r.path, "result.json").read_bytes() for r in load_runs(tmp_path / f)} for f in ("killed", "whole")
    ]
    assert len(results[0]) == 7 and results[0] == results[1]


@pytest.mark.parametrize("command", [["methods"], ["plan", "--model", "tiny-random-bert"], ["results", "runs"]])
def test_ctrl_c_in_any_command_is_one_word_and_code_one(command, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", lambda *_: stop)
    assert main(command) == 1 and capsys.readouterr().err == "stopped\n"


INLINE = ["--executor", "inline", "--device", "cpu"]


def command(tmp_path, *more, **changes):
    return ["sweep", str(write_spec(tmp_path, **changes)), "--out", str(tmp_path / "runs"), *INLINE, *more]


@pytest.mark.thorough
def test_a_sweep_prints_its_plan_then_each_run_and_returns_zero(tmp_path, capsys):
    assert main(command(tmp_path, "--dry-run")) == 0 and not (tmp_path / "runs").exists()
    planned = capsys.readouterr().out.splitlines()
    assert main(command(tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == planned[0] and lines[0].endswith("4 runs, 4 of them to do")
    assert sum(line.startswith("[") for line in lines) == 4
    end = next(lines[i:] for i, line in enumerate(lines) if line.startswith("4 of 4 runs are finished"))
    assert end[2].startswith("planted: ") and end[4].startswith("method")
    assert f"tensoradapt report {tmp_path / 'runs'}" in end[-2]
    assert main(command(tmp_path)) == 0
    assert capsys.readouterr().out.splitlines() == end


@pytest.mark.parametrize(
    ("changes", "more", "says"),
    [
        ({"modle": 1}, [], 'unknown key modle; did you mean "model"'),
        ({"model": "tiny-random-bart"}, [], "unknown model 'tiny-random-bart'"),
        ({"rank": 100}, [], "the adapter would have"),
        ({}, ["--stale", "never"], "stale is 'never'"),
    ],
)
def test_bad_input_is_one_block_before_anything_is_written_and_returns_two(changes, more, says, tmp_path, capsys):
    assert main(command(tmp_path, *more, **changes)) == 2
    assert says in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "runs").exists()


def shown(command: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(command.split()) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("command", ["", *fuzz_cli.names()])
@pytest.mark.parametrize("columns", [80, 40])
def test_help_fits_the_terminal_and_begins_with_examples(command, columns, monkeypatch, capsys):
    lines = shown(f"{command} --help", columns, monkeypatch, capsys)
    assert max(map(len, lines)) <= columns and "tensoradapt" in lines[0]


@pytest.mark.parametrize("command", fuzz_cli.names())
def test_help_has_what_is_common_and_help_all_every_option(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common, whole = (shown(f"{command} {flag}", 80, monkeypatch, capsys) for flag in ("--help", "--help-all"))
    assert len(common) <= 60 and set(common) <= set(whole)
    options = {argument.name for argument in fuzz_cli.arguments(command) if argument.index is None}
    assert not [option for option in options if f" {option} " not in " ".join(whole)]

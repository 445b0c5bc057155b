"""Help: every command's fits 80 columns, is in groups, and says what the command does and how it is called."""

from __future__ import annotations

import pytest
from harness import fuzz_cli

from tensoradapt.lab.cli.main import main

SHARED = "options of every command:"


def shown(command: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("command", ["", *fuzz_cli.names()])
def test_help_fits_80_columns(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(command, 80, monkeypatch, capsys)
    assert max(map(len, lines)) <= 80 and len(lines[0]) < 80, "the usage is one line"
    assert shown(command, 40, monkeypatch, capsys)[0].startswith("usage: tensoradapt ")


@pytest.mark.parametrize("command", fuzz_cli.names())
def test_options_are_in_groups_of_at_most_a_screen(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = shown(command, 80, monkeypatch, capsys)
    titles = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert titles[-1] == SHARED and "options:" not in titles
    n_options = sum(line.startswith("  -") for line in lines)
    assert n_options <= 10 or len(titles) >= 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--method cp lora --rank 2", "--method takes one value in plan; found 'cp' and 'lora'"),
        ("--method cp --budget 500 900", "--budget takes one value in plan; found '500' and '900'"),
        ("--method cp --rank 2 --scale paper 2", "--scale takes one value in plan; found 'paper' and '2'"),
    ],
)
def test_plan_takes_one_value_where_a_sweep_takes_several(words, says, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["plan", *words.split()])
    assert stop.value.code == 2 and says in capsys.readouterr().err


def test_the_help_of_plan_shows_one_value_and_that_of_frontier_several(capsys):
    shown = {}
    for command in ("plan", "frontier"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown[command] = " ".join(capsys.readouterr().out.split())
    for name in ("method", "budget", "scale"):
        several = f"--{name} {name.upper()} [{name.upper()} ...]"
        assert (
            several in shown["frontier"]
            and several not in shown["plan"]
            and f"--{name} {name.upper()} " in shown["plan"]
        )
    assert "--rank RANK [MODE=RANK ...]" in shown["plan"] and "--split MODE=PARTS [MODE=PARTS ...]" in shown["plan"]


def test_a_rank_of_several_numbers_is_refused_by_plan(capsys):
    assert main(["plan", "--method", "cp", "--rank", "2", "4"]) == 2
    assert "rank is [2, 4]; expected one whole number" in capsys.readouterr().err

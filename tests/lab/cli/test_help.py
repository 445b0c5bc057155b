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

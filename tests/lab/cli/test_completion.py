"""The command line at a shell: completion, and what one types by intuition."""

from __future__ import annotations

import subprocess
import sys

import pytest
from harness import fuzz_cli

from tensoradapt.lab.cli.completion import SHELLS
from tensoradapt.lab.cli.main import main


@pytest.fixture(name="scripts", scope="module")
def printed_scripts() -> dict[str, str]:
    """The script of each shell."""
    ended = {shell: fuzz_cli.call(["completion", shell]) for shell in SHELLS}
    assert not [one for one in ended.values() if one.code or one.err]
    return {shell: one.out for shell, one in ended.items()}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_names_commands_options_and_methods(shell: str, scripts: dict[str, str]) -> None:
    words = {*fuzz_cli.names(), "exports-as-lora", "dry-run", "lorta", "all-minilm-l6-v2", "snippets"}
    assert not [word for word in words if word not in scripts[shell]]


def said(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that is bad input prints, on one line."""
    try:
        code = main(words.split())
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else -1
    shown = capsys.readouterr()
    assert code == 2 and not shown.out and "Traceback" not in shown.err
    return " ".join(shown.err.split())


def test_the_bare_command_prints_help_and_returns_zero(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([])
    shown = capsys.readouterr()
    assert stop.value.code == 0 and shown.out.startswith("usage: tensoradapt COMMAND") and not shown.err
    assert all(f"\n  {name} " in shown.out for name in fuzz_cli.names())


@pytest.mark.parametrize("name", fuzz_cli.names())
def test_a_command_with_one_letter_wrong_is_recognised(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for typed in (name[0] + name[2] + name[1] + name[3:], name[:-1], name + "x"):
        assert f"error: unknown command '{typed}'; did you mean \"{name}\"?" in said(typed, capsys)


@pytest.mark.thorough
@pytest.mark.parametrize("words", [["--help"], ["plan", "--help"], ["methods"], ["methods", "--json"]])
def test_a_pipe_that_closes_early_is_no_error(words: list[str]) -> None:
    command = [sys.executable, "-m", "tensoradapt", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(120) in (0, 1)

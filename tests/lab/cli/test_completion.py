"""The command line at a shell: completion, and what one types by intuition."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from harness import fuzz_cli

from tensoradapt.lab.cli.catalogue import SHELLS
from tensoradapt.lab.cli.main import main


@pytest.fixture(name="scripts", scope="module")
def printed_scripts() -> dict[str, str]:
    """The script of each shell."""
    ended = {shell: fuzz_cli.call(["completion", shell]) for shell in SHELLS}
    assert not [one for one in ended.values() if one.code or one.err]
    return {shell: one.out for shell, one in ended.items()}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_names_commands_and_options(shell: str, scripts: dict[str, str]) -> None:
    words = {*fuzz_cli.names(), "exports-as-lora", "dry-run", "rank"}
    assert not [word for word in words if word not in scripts[shell]]


TYPED = {
    "tensoradapt pl": {"plan", "plot"},
    "tensoradapt plan --rat": {"--rates"},
    "tensoradapt plan --method tuc": {"tucker"},
    "tensoradapt frontier --task plan": {"planted"},
    "tensoradapt choose --purpose ": {"smallest", "served", "many", "rank"},
}


@pytest.mark.thorough
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("typed", TYPED)
def test_bash_completes_commands_options_and_names(typed: str, scripts: dict[str, str]) -> None:
    words = typed.split(" ")
    line = f"COMP_WORDS=({' '.join(map(repr, words))}); COMP_CWORD={len(words) - 1}"
    ask = f"{line}; _tensoradapt; echo ${{COMPREPLY[*]}}"
    ended = subprocess.run(["bash", "-c", f"{scripts['bash']}\n{ask}"], capture_output=True, text=True, check=True)
    assert set(ended.stdout.split()) == TYPED[typed] and not ended.stderr


def said(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that is bad input prints, on one line."""
    code = main(words.split())
    shown = capsys.readouterr()
    assert code == 2 and not shown.out and "Traceback" not in shown.err
    return " ".join(shown.err.split())


def test_the_bare_command_prints_help_and_returns_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("tensoradapt frontier --quick ") and not shown.err, "it begins with examples"
    assert all(f" {name} " in shown.out for name in fuzz_cli.names())


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

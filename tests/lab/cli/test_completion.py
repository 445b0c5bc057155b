"""Completion in a shell: scripts name every command and its options, and bash completes with its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from harness import fuzz_cli

import tensoradapt as ta
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


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("pl", {"plot", "plan"}),
        ("methods --exp", {"--exports-as-lora"}),
        ("plan --method lort", {name for name in ta.published.names() if name.startswith("lort")}),
        ("plot here fron", {"frontier"}),
        ("results he", {"here"}),
        ("completion z", {"zsh"}),
    ],
)
def test_bash_completes(typed: str, offered: set[str], scripts: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "script").write_text(scripts["bash"])
    words = ["tensoradapt", *typed.split()]
    asked = f"source ./script; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
    function = "$(complete -p tensoradapt | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
    ended = subprocess.run(
        ["bash", "-c", f'{asked}{function}; printf "%s\\n" "${{COMPREPLY[@]}}"'],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert set(ended.stdout.split()) == offered, ended.stderr


def test_a_shell_that_is_not_known_is_told_which_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bahs"]) == 2
    assert 'did you mean "bash"? Valid: bash, zsh, fish' in capsys.readouterr().err

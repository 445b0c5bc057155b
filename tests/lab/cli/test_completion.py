"""Completion in a shell: scripts name every command and its options, and bash completes with its own."""

from __future__ import annotations

import pytest
from harness import fuzz_cli

from tensoradapt.lab.cli.completion import SHELLS


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

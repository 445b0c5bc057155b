"""Commands in terminals of other widths: no line is wider, and no number is cut or lost."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from harness import hostile_files
from support.terminals import BOLD, bare, screen

from tensoradapt.lab.cli.main import main
from tensoradapt.lab.cli.tables import cells_of

TINY = "tiny-random-bert"
COMMANDS = {
    "plan": ["plan", "--model", TINY, "--method", "lorta", "--rank", "2"],
    "plan of many": ["plan", "--model", TINY, "--method", "lora", "--rank", "2", "--projections", "all"],
    "doctor": ["doctor"],
    "methods": ["methods"],
    "methods within a budget": ["methods", "--budget", "30000"],
    "export": ["export", "{adapter}", "--model", "{model}", "--out", "{out}"],
    "compress": ["compress", "{lora}", "--model", "{model}", "--method", "cp", "--rank", "2"],
}
DIAGRAM = re.compile(r"\]-|-\[|^ *[|o-]+( *[|o-]+)*$|^ +(r\w*=\d+ *)+$")


@pytest.fixture(scope="module", name="paths")
def adapter_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("folders")
    return {
        "model": hostile_files.model_folder(root / "model", architectures=["BertForSequenceClassification"]),
        "lora": hostile_files.lora_folder(root / "lora"),
        "adapter": hostile_files.adapter_folder(root / "adapter"),
        "out": root / "out",
    }


def printed(
    words: list[str], columns: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", str(columns))
    assert main(words) == 0
    return capsys.readouterr().out


def numbers(text: str) -> set[str]:
    """The counts in a text; paths, which may be folded, and measured times apart."""
    return set(re.findall(r"(?<![\w.,/-])\d{1,3}(?:,\d{3})+(?![\w,-])", text))


@pytest.mark.thorough
@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(
    name: str, paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(**paths) for word in COMMANDS[name]]
    whole = printed(words, None, monkeypatch, capsys)
    for columns in (40, 80):
        narrow = printed(words, columns, monkeypatch, capsys)
        assert max(map(cells_of, narrow.splitlines())) <= columns, columns
        assert numbers(whole) <= numbers(narrow), columns


def test_one_method_is_folded_around_its_diagram(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cp", "tucker", "lorta"):
        lines = printed(["methods", name, "--model", TINY, "--rank", "2"], 40, monkeypatch, capsys).splitlines()
        assert not [line for line in lines if len(line) > 40 and not DIAGRAM.search(line)]


@pytest.mark.thorough
def test_titles_are_bold_in_a_terminal_and_plain_without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "tensoradapt", "methods", "--kind", "published"]
    lines = screen(command, 60)
    assert BOLD in lines[0] and bare(lines[0]) == "Published adapters" and all(cells_of(bare(i)) <= 60 for i in lines)
    plain = screen(["env", "NO_COLOR=1", *command], 60)
    assert plain[0] == "Published adapters" and "\x1b" not in "".join(plain)

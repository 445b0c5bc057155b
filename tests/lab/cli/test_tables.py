"""Printed tables at several widths: what is shown is whole, and what is hidden is said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pandas import DataFrame
from support.synthetic_runs import write_many
from support.terminals import bare, screen

from tensoradapt.lab.analysis.tables import summarise
from tensoradapt.lab.cli.main import main
from tensoradapt.lab.cli.output import show_table
from tensoradapt.lab.cli.views import cells

CURVES = {
    "lora": [(1, 18_432, 0.79), (8, 147_456, 0.82)],
    "cp": [(4, 1_752, 0.75), (16, 7_008, 0.78)],
    "tucker": [({"layer": 2, "out": 4}, 15_764, 0.819)],
    "vera": [(64, 10_752, 0.5)],
}
LONG = "block term decomposition of everything with Übergröße and a-name-that-has-no-blank-in-its-middle"
GREY = "\x1b[90m"


@pytest.fixture(scope="module", name="root")
def stored_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of runs: with ten seeds, and with a method of a long name."""
    root = tmp_path_factory.mktemp("runs")
    write_many(root / "ten", CURVES, seeds=range(10), spread=0.002, at_chance=["vera"])
    write_many(root / "long", {LONG: [(4, 3_000_000, 0.75)], "lora": [(8, 147_456, 0.8)]}, spread=0.002)
    return root


@pytest.fixture(name="printed")
def printed_lines(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """A function that gives the lines that `results` prints, those of the answer apart; columns None is a pipe."""

    def lines(folder: str, columns: int | None, *options: str) -> tuple[list[str], list[str]]:
        if columns is None:
            monkeypatch.delenv("COLUMNS", raising=False)
        else:
            monkeypatch.setenv("COLUMNS", str(columns))
        assert main(["results", str(root / folder), *options]) == 0
        answer, _, table = capsys.readouterr().out.partition("\n\n")
        assert table, answer
        return answer.splitlines(), table.splitlines()

    return lines


@pytest.mark.thorough
@pytest.mark.parametrize("columns", [40, 60, 80, 100, 160])
@pytest.mark.parametrize("options", [[], ["--means"], ["--compare"], ["--runs"]])
def test_lines_fit_and_names_and_numbers_are_whole(printed, root: Path, columns: int, options: list[str]) -> None:
    answer, lines = printed("ten", columns, *options)
    assert answer[0].startswith("rte: ") and max(map(len, [*answer, *lines])) <= columns
    assert lines[0].startswith("method")
    scores = summarise(root / "ten")["mean"].map(lambda score: f"{score:.3f}")
    shown = " ".join(lines)
    assert all(name in shown for name in ("CP", "LoRA", "Tucker", "VeRA"))
    if options == ["--means"]:
        assert all(score in shown for score in scores)
    if not options:
        assert "worse" in shown and shown.count("not settled") == 2
    assert columns > 80 or " hidden (" in shown, "what there is no room for is named"


@pytest.mark.thorough
@pytest.mark.parametrize("options", [[], ["--means"], ["--runs"]])
def test_a_pipe_and_wide_have_every_column(printed, options: list[str]) -> None:
    _, piped = printed("long", None, *options)
    assert any(LONG in line for line in piped) and "hidden" not in " ".join(piped)
    assert printed("long", 80, "--wide", *options)[1] == piped


def test_no_word_is_broken_where_there_is_room_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    show_table(("method", "score", "note"), [("Block-term decomposition", "0.813", "a longer sentence on this")])
    assert capsys.readouterr().out.splitlines() == [
        "method           score  note",
        "Block-term       0.813  a longer",
        "decomposition           sentence on this",
    ]


@pytest.mark.thorough
@pytest.mark.parametrize("variable", ["", "NO_COLOR"])
def test_a_terminal_shows_verdicts_in_their_colours_unless_it_is_asked_not_to(
    root: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", "tensoradapt.lab.cli.main", "results", str(root / "ten")]
    lines = screen(["env", *([f"{variable}=1"] if variable else []), *command], 120)
    grey = [bare(line).split()[0] for line in lines if GREY in line]
    assert grey == ([] if variable else ["VeRA", "Tucker", "LoRA"]) and max(len(bare(line)) for line in lines) <= 120


def test_what_is_shown_to_lose_less_than_the_margin_is_green() -> None:
    table = DataFrame({"verdict": ["less than 1 point lost", "worse"], "outcome": ["kept", "worse"]})
    assert [text.style for text in cells(table, {"verdict": "verdict"})["verdict"]] == ["green", ""]

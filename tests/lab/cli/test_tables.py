"""Printed tables at several widths: what is shown is whole, method and score always are, and the best are marked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.synthetic_runs import write_many
from support.terminals import BOLD, bare, screen

from tensoradapt.lab.analysis.tables import summarise
from tensoradapt.lab.cli.main import main
from tensoradapt.lab.cli.tables import cells_of

CURVES = {
    "lora": [(1, 18_432, 0.79), (8, 147_456, 0.82)],
    "cp": [(4, 1_752, 0.75), (16, 7_008, 0.78)],
    "tucker": [({"layer": 2, "out": 4}, 15_764, 0.85)],
    "vera": [(64, 10_752, 0.5)],
}
LONG = "block term decomposition of everything with Übergröße and a-name-that-has-no-blank-in-its-middle"


@pytest.fixture(scope="module", name="root")
def stored_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of runs: with one seed, with three, and with a method of a long name."""
    root = tmp_path_factory.mktemp("runs")
    write_many(root / "one", CURVES, seeds=(0,))
    write_many(root / "three", CURVES, spread=0.002, at_chance=["vera"])
    write_many(root / "long", {LONG: [(4, 3_000_000, 0.75)], "lora": [(8, 147_456, 0.8)]}, spread=0.002)
    return root


@pytest.fixture(name="printed")
def printed_lines(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """A function that gives the lines that `results` prints, those of the verdict apart; columns None is a pipe."""

    def lines(folder: str, columns: int | None, *options: str) -> tuple[list[str], list[str]]:
        if columns is None:
            monkeypatch.delenv("COLUMNS", raising=False)
        else:
            monkeypatch.setenv("COLUMNS", str(columns))
        assert main(["results", str(root / folder), *options]) == 0
        verdict, _, table = capsys.readouterr().out.partition("\n\n")
        assert table, verdict
        return verdict.splitlines(), table.splitlines()

    return lines


@pytest.mark.thorough
@pytest.mark.parametrize("columns", [40, 60, 80, 100, 160])
@pytest.mark.parametrize("options", [[], ["--means"], ["--compare"]])
def test_lines_fit_and_method_and_score_are_whole(printed, root: Path, columns: int, options: list[str]) -> None:
    verdict, lines = printed("three", columns, *options)
    assert verdict[0].startswith("rte: ") and max(map(len, [*verdict, *lines])) <= columns
    assert lines[0].startswith("method")
    scores = summarise(root / "three")["mean"].map(lambda score: f"{score:.3f}")
    shown = " ".join(lines)
    assert all(name in shown for name in ("CP (LoRTA)", "LoRA", "Tucker", "VeRA"))
    if options == ["--means"]:
        assert all(score in shown for score in scores)


@pytest.mark.thorough
def test_a_pipe_gets_every_column_and_a_star_in_place_of_bold(printed, root: Path) -> None:
    _, lines = printed("long", None, "--means")
    assert LONG in lines[-2] + lines[-3] + lines[-4] and "no room" not in " ".join(lines)
    _, lines = printed("three", None, "--means")
    on = [line.endswith(" *") for line in lines[1:-1]]
    assert on == list(summarise(root / "three")["on_frontier"]) and lines[-1] == "*: on the frontier"
    assert len({len(line) for line in lines if line.endswith(" *")}) == 1, "stars are in one column"


@pytest.mark.thorough
def test_a_terminal_shows_the_best_bold_unless_it_is_asked_not_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "tensoradapt.lab.cli.main", "results", str(root / "three"), "--means"]
    lines = screen(command, 80)
    start, end = lines.index("") + 2, lines.index("bold: on the frontier")
    best = [BOLD in line for line in lines[start:end]]
    assert best == list(summarise(root / "three")["on_frontier"])
    assert all(cells_of(bare(line)) <= 80 for line in lines)

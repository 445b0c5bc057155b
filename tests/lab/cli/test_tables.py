"""Printed tables at several widths: what is shown is whole, method and score always are, and the best are marked."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas
import pytest
from support.synthetic_runs import write_many
from support.terminals import BOLD, bare, screen

from tensoradapt.lab.analysis.tables import summarise
from tensoradapt.lab.cli.main import main
from tensoradapt.lab.cli.tables import GAP, SHORTENED, SHORTEST, cells_of, fitted, print_table
from tensoradapt.lab.cli.views import COMPARED, COMPARED_ORDER, MEANS, MEANS_ORDER, RUNS, RUNS_ORDER

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


def cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.removesuffix(" *").strip())


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


def test_means_at_100_columns_are_these(printed) -> None:
    _, lines = printed("three", 100, "--means")
    assert cells(lines[0]) == ["method", "size", "parameters", "accuracy", "95 % interval", "seeds", "lost",
                               "validation", "lr"]  # fmt: skip
    assert cells(lines[5]) == ["Tucker", "r=2 4", "15,764", "0.850", "0.850 to 0.850", "3", "0.850", "0.001"]
    ends = {
        line.index(count) + len(count) for line, count in zip(lines[2:5], ("1,752", "7,008", "10,752"), strict=True)
    }
    assert len(ends) == 1, "numbers end in one column"


def test_what_has_no_room_is_said(printed) -> None:
    _, lines = printed("three", 60, "--means")
    left_out = " ".join(lines[lines.index("*: on the frontier") + 1 :])
    assert left_out == "no room for 95 % interval, seeds, validation, lr: a wider terminal shows them"


def test_what_one_seed_does_not_have_takes_no_room(printed) -> None:
    _, lines = printed("one", 80, "--means")
    assert cells(lines[0]) == ["method", "size", "parameters", "accuracy", "seeds", "validation", "lr"]


@pytest.mark.thorough
def test_a_pipe_gets_every_column_and_a_star_in_place_of_bold(printed, root: Path) -> None:
    _, lines = printed("long", None, "--means")
    assert LONG in lines[-2] + lines[-3] + lines[-4] and "no room" not in " ".join(lines)
    _, lines = printed("three", None, "--means")
    on = [line.endswith(" *") for line in lines[1:-1]]
    assert on == list(summarise(root / "three")["on_frontier"]) and lines[-1] == "*: on the frontier"
    assert len({len(line) for line in lines if line.endswith(" *")}) == 1, "stars are in one column"


@pytest.mark.parametrize("columns", [20, 40])
def test_a_long_name_is_folded_and_whole(printed, columns: int) -> None:
    _, lines = printed("long", columns, "--means")
    assert all(len(line) <= columns for line in lines)
    width = lines[0].index("size" if "size" in lines[0] else "accuracy") - GAP
    names = "".join(line[:width] for line in lines)
    assert LONG.replace(" ", "") in names.replace(" ", "") and "0.750" in " ".join(lines)


@pytest.mark.thorough
def test_a_terminal_shows_the_best_bold_unless_it_is_asked_not_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "tensoradapt.lab.cli.main", "results", str(root / "three"), "--means"]
    lines = screen(command, 80)
    start, end = lines.index("") + 2, lines.index("bold: on the frontier")
    best = [BOLD in line for line in lines[start:end]]
    assert best == list(summarise(root / "three")["on_frontier"])
    assert all(cells_of(bare(line)) <= 80 for line in lines)


@pytest.mark.parametrize(
    ("environment", "bold"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"NO_COLOR": ""}, True)],
)
def test_bold_is_for_terminals_that_have_it(
    environment: dict[str, str], bold: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in ({"TERM": "xterm", "COLUMNS": "80"} | environment).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    table = pandas.DataFrame({"method": ["a\x1b[31m", "b"], "mean": [0.5, 0.25]})
    print_table(table, MEANS, MEANS_ORDER, best=[True, False], said="best")
    shown = capsys.readouterr().out
    assert (BOLD in shown) is bold and "\x1b[31m" not in shown and r"\x1b[31m" in shown
    assert shown.splitlines()[-1] == ("bold: best" if bold else "*: best")


@pytest.mark.parametrize("order", [MEANS_ORDER, RUNS_ORDER, COMPARED_ORDER])
def test_columns_fit_at_every_width(order: Sequence[str]) -> None:
    widths = {key: 31 if key == "method" else 30 if key in ("size", "layout") else 9 for key in order}
    for room in range(20, 200):
        found = fitted(widths, order, room)
        assert sum(found.values()) + GAP * (len(found) - 1) <= room
        assert list(found)[:2] == list(order[:2]) and found[order[1]] == widths[order[1]]
        cut = [key for key in found if found[key] < widths[key] and key != "method"]
        assert all(key in SHORTENED and found[key] >= SHORTEST for key in cut)
    assert fitted(widths, order, 1000) == widths


def test_an_order_names_columns_that_there_are() -> None:
    for order, titles in ((MEANS_ORDER, MEANS), (RUNS_ORDER, RUNS), (COMPARED_ORDER, COMPARED)):
        assert set(order) <= set(titles)


def test_characters_of_two_cells_are_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_table(pandas.DataFrame({"method": ["低秩", "LoRA", "e\u0301"], "mean": [0.5, 0.25, 1]}), MEANS, MEANS_ORDER)
    first, *rows = capsys.readouterr().out.splitlines()
    assert {cells_of(line) for line in rows} == {cells_of(first)} == {13}

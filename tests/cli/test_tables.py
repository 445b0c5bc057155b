"""The printed table of a frontier in terminals of several widths: what is shown is whole, the score always is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.synthetic_runs import write_many
from support.terminals import BOLD, bare, screen

from tensoradapt.analysis.old_tables.frontier import table
from tensoradapt.cli.sweep import ORDER, TITLES, frontier_rows
from tensoradapt.cli.tables import FOLDED, GAP, MAIN, fitting
from tensoradapt.runs.store import load_runs

SCREENS = [("one", 80), ("one", 40), ("three", 100), ("three", 80), ("three", 50), ("three", 40)]
SCREENS += [("one", 0), ("one", 1), ("one", 7), ("long", 80), ("long", 40), ("long", 20)]
PRINT = """
import sys
from pathlib import Path
sys.path.append(sys.argv[1])
from support.terminals import resize
from tensoradapt.analysis.old_tables.frontier import table
from tensoradapt.cli.sweep import print_tables
from tensoradapt.runs.store import load_runs
names, widths = sys.argv[3::2], sys.argv[4::2]
stored = {name: load_runs(Path(sys.argv[2], name)) for name in names}
rows = {name: table(runs) for name, runs in stored.items()}
for name, columns in zip(names, widths):
    if sys.stdout.isatty():
        resize(1, int(columns))
    print_tables(rows[name], stored[name])
    print("end", name, columns, flush=True)
"""
CURVES = {
    "lora": [(1, 18_432, 0.79), (8, 147_456, 0.82)],
    "cp": [(4, 1_752, 0.75), (16, 7_008, 0.78)],
    "tucker": [(8, 15_764, 0.9)],
    "tt": [(16, 14_976, 0.77)],
    "vera": [(64, 10_752, 0.5)],
}
BONDS = {"tucker": [({"layer": 2, "out": 4}, 15_764, 0.9)]}
LONG = "block term decomposition of everything with Übergröße and a-name-that-has-no-blank-in-its-middle"
ROWS = 9


@pytest.fixture(scope="module", name="stored")
def stored_runs(tmp_path_factory):
    """Folders of runs by name: with one seed, with three, and with a method of a long name."""
    root = tmp_path_factory.mktemp("runs")
    write_many(root / "one", CURVES, seeds=(0,))
    write_many(root / "three", CURVES | BONDS, spread=0.002, at_chance=["vera"])
    write_many(root / "long", {LONG: [(4, 3_000_000, 0.75)], "lora": [(8, 147_456, 0.8)]}, spread=0.002)
    return root


def command(stored, *screens):
    support = Path(__file__).parents[1]
    return [sys.executable, "-c", PRINT, support, stored, *(str(word) for screen in screens for word in screen)]


@pytest.fixture(scope="module", name="shown")
def shown_in_terminals(stored):
    """For a folder and a width the lines of the first table, its titles first, and all lines; of one process."""
    lines, found = screen(command(stored, *SCREENS)), {}
    for name, columns in SCREENS:
        end = lines.index(f"end {name} {columns}")
        found[name, columns], lines = lines[:end], lines[end + 1 :]
    return lambda *which: (first_table(found[which]), found[which])


def first_table(lines):
    """The lines from the titles, which are above a rule, to the first empty one."""
    bares = [*map(bare, lines)]
    start = next(i for i, line in enumerate(bares) if line.strip("─ ") == "" != line) - 1
    return lines[start : start + bares[start:].index("")]


def cells(line):
    return re.split(r"\s{2,}", bare(line).strip())


def expected(folder, titles):
    """The rows of the table with some of its columns, without empty cells."""
    rows = [dict(zip(TITLES, row, strict=True)) for row in frontier_rows(table(load_runs(folder)))[1:]]
    return [[row[title] for title in TITLES if title in titles and row[title]] for row in rows]


@pytest.mark.parametrize("columns", [80, 100])
def test_nothing_that_is_shown_is_cut_and_the_main_columns_are_there(shown, stored, columns):
    lines, everything = shown("three", columns)
    titles = cells(lines[0])
    assert set(ORDER[:MAIN]) <= set(titles)
    assert [cells(line) for line in lines[2 : 2 + ROWS]] == expected(stored / "three", titles)
    assert all(len(bare(line)) <= columns for line in everything)
    assert "…" not in "".join(everything)
    left_out = ", ".join(title for title in ORDER if title not in titles)
    assert bare(" ".join(map(bare, lines[2 + ROWS :]))) == (
        f"bold: on the frontier no room for {left_out}: see frontier.csv"
    )


def test_rows_on_the_frontier_alone_are_bold(shown, stored):
    lines, _ = shown("three", 80)
    bold = [BOLD in line for line in lines[2 : 2 + ROWS]]
    assert bold == [bool(row["on_frontier"]) for row in table(load_runs(stored / "three"))]
    assert 0 < sum(bold) < ROWS


def test_what_one_seed_does_not_have_takes_no_room(shown, stored):
    lines, _ = shown("one", 80)
    titles = cells(lines[0])
    assert titles == ["method", "rank", "parameters", "test", "over frozen base", "lr"]
    assert [cells(line) for line in lines[2 : 2 + ROWS]] == expected(stored / "one", titles)
    assert "no room" not in "".join(lines)


@pytest.mark.parametrize("folder", ["one", "three"])
def test_method_and_score_remain_at_40_columns(shown, stored, folder):
    lines, everything = shown(folder, 40)
    titles = cells(lines[0])
    assert {"method", "test"} <= set(titles)
    assert [cells(line) for line in lines[2 : 2 + ROWS]] == expected(stored / folder, titles)
    assert all(len(bare(line)) <= 40 for line in everything if not line.startswith("Within a margin"))
    assert "…" not in "".join(everything)


@pytest.mark.parametrize(("columns", "main"), [(80, set(ORDER[:MAIN])), (40, {"method", "test"}), (20, {"test"})])
def test_a_long_name_is_folded_and_whole(shown, stored, columns, main):
    lines, everything = shown("long", columns)
    assert main <= set(cells(lines[0])) and all(len(bare(line)) <= columns for line in everything)
    assert all(any(row[-1] in line for line in lines) for row in expected(stored / "long", {"method", "test"}))
    # each line of a folded name begins at the left; numbers are to the right of it, by two blanks or more
    names = "".join(cells(line)[0].replace(" ", "") for line in lines[2:] if not bare(line).startswith(" "))
    assert LONG.replace(" ", "") in names


@pytest.mark.parametrize("columns", [0, 1, 7])
def test_a_terminal_of_hardly_any_columns_gets_whole_scores(shown, stored, columns):
    lines, _ = shown("one", columns)
    assert all(any(row[-1] in line for line in lines) for row in expected(stored / "one", {"method", "test"}))


def test_a_pipe_gets_every_column_and_no_styles(stored):
    printed = subprocess.run(command(stored, ("long", 0)), check=True, capture_output=True, encoding="utf-8")
    text = printed.stdout
    lines = text.splitlines()[1:]
    assert tuple(cells(lines[0])) == TITLES and "\x1b" not in text and "no room" not in text
    assert [cells(line) for line in lines[2:6]] == expected(stored / "long", TITLES)


def test_savings_are_whole_too(shown):
    _, lines = shown("three", 50)
    start = next(i for i, line in enumerate(lines) if line.startswith("Within a margin of LoRA "))
    titles, _, *rows = map(cells, first_table(lines[start:])[:4])
    assert titles == ["method", "margin", "parameters", "times fewer"]
    assert rows == [["Tucker", "0.01", "15,764", "9.35"], ["Tucker", "0.02", "15,764", "9.35"]]
    assert "no room for difference, size: use a wider terminal or a file" in " ".join(map(bare, lines[start:]))


def test_columns_fit_at_every_width():
    widths = {
        "method": 31,
        "test": 5,
        "95 % interval": 14,
        "rank": 30,
        "parameters": 11,
        "over frozen base": 24,
        "lr": 6,
    }
    for room in range(20, 160):
        found = fitting(widths, ORDER[:MAIN], room)
        assert sum(found.values()) + GAP * (len(found) - 1) <= room
        assert {"method", "test"} <= set(found)
        assert all(found[title] == widths[title] for title in found if title not in FOLDED)
        assert set(found) <= set(ORDER[:MAIN]) or all(found[title] == widths[title] for title in found)


@pytest.mark.slow
def test_a_quick_frontier_shows_its_scores_in_80_columns(tmp_path):
    quick = [sys.executable, "-m", "tensoradapt.cli.main", "frontier", "--quick", "--out", str(tmp_path)]
    quick += ["--model", "tiny-random-bert", "--task", "planted", "--steps", "4", "--rank", "2"]
    lines = first_table(screen(quick, 80))
    assert [cells(line) for line in lines[2:9]] == expected(tmp_path, cells(lines[0]))
    assert set(cells(lines[0])) >= {"method", "rank", "parameters", "test"} and "…" not in "".join(lines)

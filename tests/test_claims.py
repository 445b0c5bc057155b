"""The numbers of the front pages are those of the files they come from, computed again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.claim_table import CLAIMS, EXEMPT, INDEX, KNOWN, README, RESULTS, TABLES, WHICH
from support.margins_again import margins_again
from support.page_numbers import (
    ROOT,
    alike_at_one_size,
    beside_cp_of_small,
    default_rows,
    differences,
    ends_of_small,
    figure_rows,
    gaps,
    generated,
    row_of_headline,
    size,
    within,
)

from tensoradapt.analysis.edges import at_edges
from tensoradapt.planning import choose

NUMBER = re.compile(r"\d[\d,]*\.\d+|\d{1,3}(?:,\d{3})+|\d+(?= (?:%|times))")


def prose(page: str) -> str:
    """A page without code, generated tables and the targets of links, on one line."""
    text = re.sub(r"<!-- begin (\w+) -->.*?<!-- end \1 -->", "", (ROOT / page).read_text(), flags=re.DOTALL)
    text = re.sub(r"```.*?```|^    .*?$", "", text, flags=re.DOTALL | re.MULTILINE)
    return " ".join(re.sub(r"\]\([^)]*\)", "]", text).split())


def said(page: str) -> Iterator[str]:
    """What a page has to say, with the numbers of the files."""
    for where, text, numbers in CLAIMS:
        if where == page:
            yield text.format(*numbers())


@pytest.mark.parametrize(("page", "text", "numbers"), CLAIMS, ids=[f"{c[0]}: {c[1][:40]}" for c in CLAIMS])
def test_a_page_says_what_its_file_does(page: str, text: str, numbers: Callable[[], tuple[Any, ...]]) -> None:
    assert text.format(*numbers()) in prose(page)


@pytest.mark.parametrize("page", [README, INDEX, WHICH, RESULTS, TABLES, KNOWN])
def test_every_number_of_a_page_is_computed_again_or_exempt(page: str) -> None:
    text = prose(page)
    for known in (*said(page), *EXEMPT[page]):
        assert known in text, f"{page} no longer says {known!r}"
        text = text.replace(known, "")
    assert NUMBER.findall(re.sub(r"`[^`]*`|95 %", "", text)) == []


def test_what_choose_says_of_its_candidates_was_measured() -> None:
    alike_at_one_size()
    for one, method in ((choose.CP_LAYER, "CP"), (choose.TUCKER, "Tucker")):
        n = int(re.findall(r"with ([\d,]+) parameters within 0.01", one.why)[0].replace(",", ""))
        assert row_of_headline(method, n).endswith("| within 0.01 |")
    ends_of_small()  # the highest mean with 1,640 parameters is tensor-train's, which is not told apart from CP's
    beside_cp_of_small("Tensor-train")


RECORDS = sorted((ROOT / "docs" / "results").rglob("records.csv"))
PAGES = sorted(path for path in (ROOT / "docs" / "results").rglob("README.md") if path.parent.name != "figures")
TABLES_OF = [  # the folder and the name of each generated table, but for those over all families
    (page.parent.name, name)
    for page in PAGES
    if page.parent.name != "results"
    for name in re.findall(r"<!-- begin (.+?) -->", page.read_text())
]
INTERVAL = re.compile(r"(\d\.\d{4}),? \(?[-+]?(\d\.\d{4}) to [-+]?(\d\.\d{4})")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_interval_of_results_with_four_digits_is_a_row_of_differences(page: Path) -> None:
    rows = {tuple(sorted(abs(float(row[key])) for key in ("difference", "low", "high"))) for row in differences()}
    found = set(INTERVAL.findall(prose(page.relative_to(ROOT).as_posix())))
    assert not [span for span in found if tuple(sorted(map(float, span))) not in rows]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if (page.parent / "within.csv").is_file()], ids=lambda page: page.parent.name
)
def test_margins_are_decided_as_intervals_and_scores_by_seed_say(page: Path) -> None:
    """Scores of test examples are not committed; p values, decisions and seeds follow from what is."""
    there, again = pd.read_csv(page.parent / "within.csv"), margins_again(page.parent)
    for name in ("p_holm", "p_within_holm"):
        assert again[name].to_numpy() == pytest.approx(there[name].to_numpy(), rel=0.03, abs=2e-6)
    for name in ("decided", "within"):
        assert list(again[name]) == list(there[name])
    assert list(again["seeds_within"].fillna(0)) == list(there["seeds_within"].fillna(0))


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["tiles", "claim", "everything"])
def test_the_parts_over_all_families_are_those_of_the_files(name: str) -> None:
    there, made = generated(name, (ROOT / (RESULTS if name == "tiles" else TABLES)).read_text())
    assert there == made


@pytest.mark.parametrize(("family", "name"), TABLES_OF)
def test_the_tables_of_a_family_are_those_of_its_files(family: str, name: str) -> None:
    there, made = generated(name, (ROOT / "docs/results" / family / "README.md").read_text(), family)
    assert there == made


@pytest.mark.parametrize("file", RECORDS, ids=lambda file: file.parent.name)
def test_no_rate_that_was_chosen_is_at_an_end_of_those_tried(file: Path) -> None:
    for _, runs in pd.read_csv(file).groupby(["task", "steps"]):
        assert not runs["tuning"].any() or at_edges(runs) == []


@pytest.mark.parametrize("name", ["frontier", "frontier-all"])
def test_the_tables_of_figures_have_the_numbers_of_their_files(name: str) -> None:
    lines = (ROOT / "docs/results/figures/README.md").read_text().splitlines()
    for row in figure_rows(name):
        assert [line for line in lines if line.startswith(row)], row


def test_the_table_of_the_default_frontier_has_the_numbers_of_its_file() -> None:
    text = (ROOT / "docs/results/figures/README.md").read_text()
    assert [row for row in default_rows() if row not in text] == []


@pytest.mark.parametrize(("name", "alone", "held"), [("frontier", 18, 13), ("frontier-all", 15, 2)])
def test_the_page_of_figures_says_how_many_differences_hold(name: str, alone: int, held: int) -> None:
    found = list(gaps(name).values())
    out = sum(gap.low > 0 or gap.high < 0 for gap, _ in found)
    assert (len(found), out, sum(p < 0.05 for _, p in found)) == (23, alone, held)
    text = " ".join((ROOT / "docs/results/figures/README.md").read_text().split())
    assert (f"Alone {alone} of the 23" in text) and ("13 hold after" in text) and ("over the 23 two hold" in text)


def test_the_page_of_figures_says_what_is_within_a_margin() -> None:
    held = {(name, margin): [key for key, (_, held) in within(margin, name).items() if held]
            for name in ("frontier", "frontier-all") for margin in (0.01, 0.02)}  # fmt: skip
    assert held.pop(("frontier", 0.02)) == [("LoRA", "32")] and not any(held.values())
    text = (ROOT / "docs/results/figures/README.md").read_text()
    for name in ("frontier", "frontier-all"):
        for method in {key[0] for key in gaps(name)}:
            own = {key: gap for key, (gap, _) in gaps(name).items() if key[0] == method}
            nearest = max(own.values(), key=lambda gap: gap.low)
            assert f"{nearest.mean:+.4f} ({nearest.low:+.4f} to {nearest.high:+.4f}) |" in text, (name, method)
            inside = [key for key in own if within(0.02, name)[key][0]]
            small = min(inside, key=lambda key: size(key, name), default=None)
            assert small is None or f"| r={small[1]}, {size(small, name):,} (" in text, small

"""The numbers of guides and examples are those of the files they come from, computed again; rates are inside grids."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.claim_table import CLAIMS
from support.page_numbers import ROOT

from tensoradapt.lab.analysis.edges import at_edges

RECORDS = sorted((ROOT / "docs" / "results").rglob("records.csv"))


def prose(page: str) -> str:
    """A page without code and the targets of links, on one line."""
    text = re.sub(r"```.*?```|^    .*?$", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    return " ".join(re.sub(r"\]\([^)]*\)", "]", text).split())


@pytest.mark.parametrize(("page", "text", "numbers"), CLAIMS, ids=[f"{c[0]}: {c[1][:40]}" for c in CLAIMS])
def test_a_page_says_what_its_file_does(page: str, text: str, numbers: Callable[[], tuple[Any, ...]]) -> None:
    assert text.format(*numbers()) in prose(page)


@pytest.mark.parametrize("file", RECORDS, ids=lambda file: file.parent.name)
def test_no_rate_that_was_chosen_is_at_an_end_of_those_tried(file: Path) -> None:
    for _, runs in pd.read_csv(file).groupby(["task", "steps"]):
        assert not runs["tuning"].any() or at_edges(runs) == []

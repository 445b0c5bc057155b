"""Tables of pages between markers are those of the files that they are written from; rates are inside their grids."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tensoradapt.lab.analysis import plots
from tensoradapt.lab.analysis.rates import at_edges
from tensoradapt.lab.analysis.statistics.significance import holm

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "docs" / "make"), str(ROOT / "benchmarks" / "paper")]

import draw_figures  # noqa: E402
import markdown_tables  # noqa: E402
import number_tables  # noqa: E402
import write_numbers  # noqa: E402

VERDICTS = pd.read_csv(ROOT / "docs" / "results" / "verdicts.csv")
RUNS = sorted((ROOT / "docs" / "results").rglob("records.csv"))


def module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A README with a table of a CSV file, whose number is not that of the file."""
    monkeypatch.setattr(markdown_tables, "ROOT", tmp_path)
    (tmp_path / "runs.csv").write_text("method,score\nlora,0.5\n")
    path = tmp_path / "README.md"
    path.write_text("A.\n\n<!-- begin numbers runs -->\n| 0.4 |\n<!-- end numbers runs -->\n\nB.\n")
    return path


def tables(file: str = "runs.csv", template: str = "{score:.2f}") -> dict[str, Callable[[], str]]:
    return {"runs": markdown_tables.Table(file, {"": "{method}", "score:": template}).text}


def test_check_names_page_and_marker_and_writes_nothing(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = page.read_text()
    assert write_numbers.main(True, tables(), page.parent) == 1 and page.read_text() == before
    assert capsys.readouterr().out == ("README.md: would change runs; python docs/make/write_numbers.py writes them\n")
    assert write_numbers.main(False, tables(), page.parent) == 0
    assert "-->\n|  | score |\n|---|--:|\n| lora | 0.50 |\n<!-- end" in page.read_text()
    assert write_numbers.main(True, tables(), page.parent) == 0
    assert capsys.readouterr().out == "README.md: runs\n"


WRONG = [
    ("", tables(template="{scores}"), "the table 'runs': runs.csv has no 'scores'; it has method, score"),
    ("", tables("lost.csv"), "the table 'runs': lost.csv is missing"),
    ("", {"ran": str}, "number_tables.py has no table 'runs'; it has ran"),
    ("<!-- end numbers runs -->", tables(), "the table 'runs' has no end; expected <!-- end numbers runs --> below it"),
]


@pytest.mark.parametrize(("without", "given", "message"), WRONG, ids=["column", "file", "table", "end"])
@pytest.mark.parametrize("check", [True, False])
def test_what_is_wrong_is_one_line(
    page: Path, capsys: pytest.CaptureFixture[str], check: bool, without: str, given: Any, message: str
) -> None:
    page.write_text(before := page.read_text().replace(without, ""))
    assert write_numbers.main(check, given, page.parent) == 1 and page.read_text() == before
    assert capsys.readouterr().out == f"README.md: {message}\n"


def test_each_table_is_on_a_page() -> None:
    """That pages have what files say is a step of .ci/run: ``python docs/make/write_numbers.py --check``."""
    shown = {name for path in write_numbers.pages() for name in write_numbers.BEGIN.findall(path.read_text())}
    assert sorted(shown) == sorted(number_tables.TABLES)


@pytest.mark.parametrize("file", RUNS, ids=lambda file: file.parent.name)
def test_no_rate_that_was_chosen_is_at_an_end_of_those_tried(file: Path) -> None:
    for _, runs in pd.read_csv(file, low_memory=False).groupby(["task", "steps"]):
        assert not runs["tuning"].any() or at_edges(runs) == []


def test_verdicts_are_those_of_the_committed_runs() -> None:
    again = module(ROOT / "benchmarks" / "paper" / "verdicts.py").verdicts()
    assert list(again["verdict"]) == list(VERDICTS["verdict"])
    for name in ("p_holm", "p_0.01_holm", "validation", "share", "control_p_holm"):
        assert again[name].to_numpy() == pytest.approx(VERDICTS[name].to_numpy(), abs=1e-5, nan_ok=True)


def test_holms_correction_is_over_all_sizes_of_a_task_and_model() -> None:
    for _, own in VERDICTS.groupby("family"):
        assert (own["compared"] == len(own)).all()
        assert holm(own["p"].clip(upper=1)) == pytest.approx(own["p_holm"].to_numpy(), abs=1e-4)


def test_nothing_is_said_that_validation_contradicts() -> None:
    said = VERDICTS["verdict"]
    assert (VERDICTS.loc[said.str.contains("worse"), "validation"] < 0).all()
    for words, margin in (("less than 1 point", 0.01), ("less than 2 points", 0.02)):
        assert (VERDICTS.loc[said.str.contains(words), "validation"] > -margin).all() and said.str.contains(words).any()


def test_no_tensor_is_above_lora_of_as_many_parameters() -> None:
    """What front pages begin with; where this fails, they are to be written anew."""
    above = VERDICTS[(VERDICTS["control_difference"] > 0) & (VERDICTS["control_p_holm"] < 0.05)]
    assert above.empty and np.isfinite(VERDICTS["control_difference"]).sum() > 30


def test_the_picture_of_the_front_pages_says_their_sentence_and_has_the_verdicts_of_unseen_sentences() -> None:
    one = draw_figures.picture(ROOT / "docs", draw_figures.KEPT)
    verdicts = draw_figures.settled(one, one.runs())["verdicts"]
    unseen = VERDICTS[VERDICTS["family"] == number_tables.UNSEEN]
    assert sorted(verdicts["verdict"]) == sorted(unseen["verdict"])
    said = plots.frontier(one.runs(), verdicts=verdicts, headline=True, figsize=7).figure.get_suptitle()
    assert f"**{' '.join(said.split())}.**" == number_tables.unseen_answer()
    for page in ("README.md", "docs/index.md"):
        assert draw_figures.KEPT in (ROOT / page).read_text()

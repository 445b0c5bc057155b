"""Numbers of pages between markers are those of the files that they are written from."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tensoradapt.lab.analysis.statistics.significance import holm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks" / "paper"))


def module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


numbers = module(ROOT / "docs" / "make" / "page_numbers.py")
VERDICTS = pd.read_csv(ROOT / "docs" / "results" / "verdicts.csv")


@pytest.mark.parametrize("page", numbers.pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_has_the_numbers_of_its_files(page: Path) -> None:
    text = page.read_text()
    assert numbers.written(text) == text, "python docs/make/page_numbers.py writes them"


def test_a_changed_number_is_seen() -> None:
    page = ROOT / "docs" / "results" / "README.md"
    text = page.read_text()
    number = re.search(r"\| ([\d,]+) \|", text[text.index("<!-- begin numbers") :])
    assert number and numbers.written(text.replace(number[1], "1,234,567", 1)) == text


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
    for margin in (0.01, 0.02):
        assert (VERDICTS.loc[said.str.endswith(str(margin)), "validation"] > -margin).all()


def test_no_tensor_is_above_lora_of_as_many_parameters() -> None:
    """What front pages begin with; where this fails, they are to be written anew."""
    above = VERDICTS[(VERDICTS["control_difference"] > 0) & (VERDICTS["control_p_holm"] < 0.05)]
    assert above.empty and np.isfinite(VERDICTS["control_difference"]).sum() > 30

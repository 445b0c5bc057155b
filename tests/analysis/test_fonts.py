"""Characters that no font here has are named once, and all others are drawn."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tensoradapt.analysis.figures import canvas


def test_characters_that_no_font_has_are_named_once(tmp_path: Path) -> None:
    unassigned = "\u0378"  # no font has it
    ax = canvas.row_axes([f"cp {unassigned}", "lora"], 2, 1, 0.2)
    ax.set_yticks(range(2), [f"cp {unassigned}", "lora"])
    with pytest.warns(UserWarning) as found:
        png, pdf = canvas.write(ax.figure, tmp_path / "figure")  # type: ignore[arg-type]
    assert len(found) == 1 and str(found[0].message).startswith(f"the figure shows boxes for {unassigned} (U+0378)")
    assert png.stat().st_size and pdf.stat().st_size


def test_characters_that_a_font_has_are_drawn_without_a_word(tmp_path: Path) -> None:
    ax = canvas.new_axes(2, 1)
    ax.set_title("é ∑ α ≤ \\$")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        canvas.write(ax.figure, tmp_path / "figure")  # type: ignore[arg-type]

"""The heat map of layouts: its rows against the runs they are of, and its cells against its rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.colors import to_rgb
from support.synthetic_sweep import LAYOUTS, layouts, sweep

import tensoradapt as ta
from tensoradapt.analysis.figures.catalogue import figures
from tensoradapt.analysis.figures.difference_plots import layout_map
from tensoradapt.analysis.names import display
from tensoradapt.analysis.old_tables.contrasts import layout_rows
from tensoradapt.runs.store import Run

REFERENCE = f"cp over {LAYOUTS[-1]}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return layouts(tmp_path_factory.mktemp("layouts"))


def test_each_cell_is_a_mean_and_its_paired_difference_to_the_reference_at_its_size(runs: list[Run]) -> None:
    rows = layout_rows(runs, REFERENCE)
    assert len(rows) == 4 * 4 * 3 - 4 * 2 - 3 * 2  # LoRA and the first layout have one budget of three
    for row in rows:
        i, j = LAYOUTS.index(row["layout"]), ("lora", "cp", "tucker", "tensor_train").index(row["parameterization"])
        if row["reference"]:
            assert row["method"] == REFERENCE and row["difference"] is None
        else:
            assert row["difference"] == pytest.approx(0.01 * (i - 3) - 0.005 * (j - 1), abs=1e-3)
            assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert sum(row["reference"] for row in rows) == 3


def test_runs_of_one_layout_have_no_map_and_an_unknown_reference_is_refused(tmp_path: Path, runs: list[Run]) -> None:
    one = sweep(tmp_path, ("sst2",))
    assert layout_rows(one) == [] and not [f for f in figures(one) if f.kind == "layouts"]
    with pytest.raises(ta.TensorAdaptError, match="reference is 'cp over out'"):
        layout_rows(runs, "cp over out")
    with pytest.raises(ta.TensorAdaptError, match="expected runs over two layouts or more"):
        layout_map([])


def test_the_map_shows_every_row_once_and_marks_what_is_decided(runs: list[Run]) -> None:
    (figured,) = figures(runs, kinds=["layouts"], reference=REFERENCE)
    ax = figured.draw(figured.caption).axes[0]
    texts = [text.get_text() for text in ax.texts]
    for row in figured.rows:
        decided = row["difference"] is not None and (row["difference_low"] > 0 or row["difference_high"] < 0)
        gap = "" if row["difference"] is None else f"\n{row['difference']:+.3f}{'*' if decided else ''}"
        assert f"{row['mean']:.3f}{gap}" in texts
    assert len(texts) == len(figured.rows) + 3  # and the sizes above
    assert any("*" in text for text in texts) and not all("*" in text for text in texts)
    assert f"difference to {display(REFERENCE)} at the same size" in figured.caption
    cells = [patch for patch in ax.patches if patch.get_gid() == "cell"]
    assert len({to_rgb(cell.get_facecolor()) for cell in cells}) > 3


def test_without_a_reference_at_a_size_the_cell_has_its_mean_alone(runs: list[Run]) -> None:
    rows = layout_rows(runs, f"lora over {LAYOUTS[0]}")  # run at the largest budget alone
    assert {row["difference"] for row in rows if row["size"] != "n≤20,000"} == {None}
    texts = [text.get_text() for text in layout_map(rows).texts]
    assert sum("\n" in text for text in texts) == 4 * 4 - 1

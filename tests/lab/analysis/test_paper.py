"""Tables for papers: the numbers are those of the means, only what is decided is bold, and files are well formed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas
import pytest
from support.synthetic_runs import sweep, write_many, write_synthetic

import tensoradapt as ta
from tensoradapt.lab.analysis.comparisons import compare
from tensoradapt.lab.analysis.paper import paper, write
from tensoradapt.lab.analysis.results import table_of
from tensoradapt.lab.analysis.tables import summarise

CURVES = {"cp": [(2, 300, 0.75), (4, 600, 0.9)], "lora": [(1, 300, 0.75), (2, 600, 0.8)]}
TASK = "rte, accuracy (%)"


def test_the_public_function_gives_the_table_and_writes_it(tmp_path: Path) -> None:
    runs = table_of(write_many(tmp_path / "runs", CURVES))
    table = ta.paper_table(runs, tmp_path / "table.tex", caption="Ours.", label="tab:ours")
    pandas.testing.assert_frame_equal(table, paper(runs))
    assert (tmp_path / "table.tex").read_bytes() == write(
        table, tmp_path / "again.tex", caption="Ours.", label="tab:ours"
    ).read_bytes()


def test_a_cell_is_mean_and_interval_and_bold_only_where_it_is_decided(tmp_path: Path) -> None:
    runs = table_of(write_many(tmp_path, CURVES))
    table = paper(runs)
    assert list(table) == ["Method", "Size", "Parameters", "With the head", TASK]
    bold = table[table[TASK].str.startswith("**")]
    assert [*bold["Method"], *bold["Size"]] == ["CP (LoRTA)", "r=4"], "at 300 the better mean is not told apart"
    texts = {(row["Method"], row["Parameters"]): row[TASK].strip("*") for _, row in table.iterrows()}
    for _, row in summarise(runs).iterrows():
        half = 100 * (row["high"] - row["low"]) / 2
        assert texts[row["method"], row["n_params"]] == f"{100 * row['mean']:.1f} ± {half:.1f}"
    assert table.attrs["caption"].startswith(
        "Test scores of tiny-model: means over 3 seeds ± half of the 95 % t interval. Bold"
    )
    assert list(table["Method"][-2:]) == ["frozen base + head", "full fine-tuning"], "references come last"
    fewer = runs[(runs["seed"] != runs["seed"].max()) | (runs["method"] != runs["method"].iloc[0])]
    assert "means over 2 to 3 seeds ± half" in paper(fewer).attrs["caption"]


def test_the_best_is_better_than_each_of_the_others_of_its_group() -> None:
    rng = np.random.default_rng(0)
    levels = {("a", 100): 0.9, ("b", 110): 0.8, ("c", 120): 0.7, ("d", 900): 0.95}
    rows = [
        {"method": m, "n_params": n, "budget": 10 ** len(str(n)), "score": level + 1e-3 * rng.normal(), "seed": seed}
        for (m, n), level in levels.items()
        for seed in range(4)
    ]
    runs = pandas.DataFrame(rows)
    runs["budget"] = np.where(runs["n_params"] < 500, 200, 1000)
    (column,) = (name for name in paper(runs) if name not in ("Method", "Size", "Parameters"))
    bold = paper(runs)[lambda table: table[column].str.startswith("**")]
    assert list(bold["Method"]) == ["a"], "d is alone in its group"
    gaps = compare(runs[runs["budget"] == 200], "a")
    assert gaps["decided"].all() and (gaps["difference"] < 0).all()
    noisy = runs.assign(score=runs["score"] + rng.normal(0, 0.3, len(runs)))
    assert not paper(noisy)[column].str.startswith("**").any()


@pytest.mark.thorough
def test_latex_is_a_whole_table_and_markdown_has_the_same_numbers(tmp_path: Path) -> None:
    sweep(tmp_path / "runs")
    table = paper(tmp_path / "runs")
    tex, md = (tmp_path / f"t.{ending}" for ending in ("tex", "md"))
    lines = write(table, tex, caption="Mine & yours", label="tab:mine").read_text().splitlines()
    assert lines[0] == r"\begin{table}" and lines[-1] == r"\end{table}" and r"\caption{Mine \& yours}" in lines
    assert r"\label{tab:mine}" in lines and r"\begin{tabular}{llrrrr}" in lines
    assert [lines.count(rf"\{rule}") for rule in ("toprule", "midrule", "bottomrule")] == [1, 4, 1]
    body = [line for line in lines if line.endswith(r"\\")]
    assert len(body) == 14 and all(line.count(" & ") == 5 for line in body)
    marked = write(table, md).read_text().splitlines()
    numbers = [re.findall(r"\d\d\.\d", "".join(text)) for text in (body, marked[:15])]
    assert numbers[0] == numbers[1] and len(numbers[0]) == 26 and marked[1].startswith("| :-- | :-- | --: |")


def test_names_are_escaped_in_every_kind_of_file(tmp_path: Path) -> None:
    for seed, status in enumerate(("finished", "at chance")):
        write_synthetic(tmp_path / "runs", named="x_1 & 50 % | <b>", seed=seed, status=status, metric="matthews")
    table = paper(tmp_path / "runs")
    texts = {ending: write(table, tmp_path / f"t{ending}").read_text() for ending in (".tex", ".md", ".html", ".csv")}
    assert r"x\_1 \& 50 \% | $<$b$>$ & r=4 & 1,000 & " in texts[".tex"] and r"$^\dagger$ \\" in texts[".tex"]
    assert r"x\_1 & 50 % \| \<b\>" in texts[".md"] and "matthews (×100)" in texts[".md"]
    assert "x_1 &amp; 50 % | &lt;b&gt;" in texts[".html"] and "<b>x" not in texts[".html"]
    assert "\nx_1 & 50 % | <b>,r=4,1000," in texts[".csv"]
    assert "†: a run ended at chance or diverged." in texts[".md"]

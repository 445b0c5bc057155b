"""Tables for papers: the numbers are those of the means, only what is decided is bold, and files are well formed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
from support.refusals import refused
from support.synthetic_runs import write_many, write_synthetic
from support.synthetic_sweep import sweep

import tensoradapt as ta
from tensoradapt.lab.analysis.cells import cell_text
from tensoradapt.lab.analysis.paper import paper, write
from tensoradapt.lab.analysis.results import table_of
from tensoradapt.lab.analysis.tables import compare, summarise

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


def test_what_is_trained_with_the_head_is_counted_beside_the_adapter() -> None:
    rows = [
        {"method": "cp", "task": task, "n_params": 100, "n_trained": 100 + head, "score": 0.5, "seed": seed}
        for task, head in (("sst2", 770), ("stsb", 385))
        for seed in range(2)
    ]
    assert list(paper(pandas.DataFrame(rows))["With the head"]) == [870], "the largest of the tasks' heads"
    assert "With the head" not in paper(pandas.DataFrame(rows).drop(columns="n_trained"))


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


def test_two_configurations_of_one_name_are_refused() -> None:
    runs = pandas.DataFrame({"method": "CP", "rank": 4, "n_params": 10, "layout": ["a", "b"], "score": [0.1, 0.2]})
    refused(lambda: paper(runs), r"two configurations are CP r=4 with 10 parameters on one task; expected")
    refused(lambda: paper(runs.assign(tuning=True)), "there is no reported run; expected one or more")


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


def test_any_table_is_written_with_all_its_digits(tmp_path: Path) -> None:
    runs = table_of(write_many(tmp_path / "runs", CURVES)).assign(score=lambda table: table["score"] + 1 / 3)
    for table in (runs, summarise(runs), compare(runs)):
        back = pandas.read_csv(write(table, tmp_path / "t.csv"))
        assert list(back) == list(table) and len(back) == len(table)
        again = pandas.read_parquet(write(table, tmp_path / "t.parquet"))
        assert list(again) == list(table)
    again = pandas.read_csv(write(runs, tmp_path / "t.csv"), float_precision="round_trip")
    assert np.array_equal(again["score"], runs["score"])
    evil = pandas.DataFrame({"method": ["=1+1", "b"], "rank": [8, "layer=2 out=4"]})
    assert write(evil, tmp_path / "t.csv").read_text() == "method,rank\n'=1+1,8\nb,layer=2 out=4\n"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pandas.DataFrame({"a": [1]})
    path = write(table, tmp_path / "t.csv")
    valid = r"t\.xls ends with '\.xls'\. Valid: \.csv, \.parquet, \.md, \.tex, \.html"
    refused(lambda: write(table, tmp_path / "t.xls"), valid)
    refused(lambda: write([1], path), "the table is a list; expected a DataFrame")  # type: ignore[arg-type]
    (tmp_path / "folder.md").mkdir()
    refused(lambda: write(table, tmp_path / "folder.md"), "cannot be written")
    for name in ("pyarrow", "fastparquet"):
        monkeypatch.setitem(sys.modules, name, None)
    refused(lambda: write(table, tmp_path / "t.parquet"), r"needs `pyarrow`, which is not installed: .*\[data\]")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder.md", "t.csv"] and path.read_text() == "a\n1\n"


def test_cells_have_separators_and_four_digits() -> None:
    shown = [
        cell_text("", value) for value in (22_713_216, 0.123456, np.float64(3), np.bool_(True), pandas.NA, "a\x1b")
    ]
    assert shown == ["22,713,216", "0.1235", "3", "yes", "", "a\\x1b"]

"""Tables for papers: the numbers are those of the means, and only what is decided is bold."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from support.synthetic_runs import write_many, write_synthetic
from support.synthetic_sweep import sweep

from tensoradapt.analysis.old_tables.comparable import versus
from tensoradapt.analysis.old_tables.contrasts import decided_best
from tensoradapt.analysis.old_tables.frontier import points
from tensoradapt.analysis.statistics.intervals import t_interval
from tensoradapt.analysis.statistics.significance import holm
from tensoradapt.cli.main import main
from tensoradapt.errors import TensorAdaptError
from tensoradapt.runs.store import load_runs
from tensoradapt.sweeps.reports.paper_tables import paper_table, to_latex, to_markdown

CURVES = {"cp": [(2, 300, 0.75), (4, 600, 0.9)], "lora": [(1, 300, 0.75), (2, 600, 0.8)]}


def test_a_cell_is_mean_and_interval_and_bold_only_where_it_is_decided(tmp_path: Path) -> None:
    runs = write_many(tmp_path, CURVES)
    table = paper_table(runs)
    rows = {tuple(cell.text for cell in row[:2]): row for group in table.groups for row in group}
    bold = [key for key, row in rows.items() if any(cell.bold for cell in row)]
    assert bold == [("CP (LoRTA)", "r=4")], "at 300 the better mean is not told apart, and references are never bold"
    for point in points(runs):
        found = t_interval(point.scores)
        text = f"{100 * found.mean:.1f} ± {100 * (found.high - found.mean):.1f}"
        assert rows[point.method, f"r={point.rank}"][3].text == text
    assert table.head == ("Method", "Size", "Parameters", "rte, accuracy (%)")
    assert table.caption.startswith(
        "Test scores of tiny-model: means over 3 seeds ± half of the 95 % t interval. Bold:"
    )


def test_methods_have_the_names_of_their_papers_in_both_kinds_of_tables(tmp_path: Path) -> None:
    for name in ("lotr", "tensor_train", "rslora"):
        write_synthetic(tmp_path, parameterization=name)
    table = paper_table(load_runs(tmp_path))
    for text in (to_latex(table), to_markdown(table)):
        names = re.findall(r"^(?:\| )?([\w-]+) +[|&] r", text, re.MULTILINE)
        assert sorted(names) == ["LoTR", "Tensor-train", "rsLoRA"], text


def test_sizes_that_only_one_task_has_are_in_their_place(tmp_path: Path) -> None:
    for task, sizes in (("cola", (8, 64)), ("rte", (4, 8, 16, 64))):
        for rank in sizes:
            write_synthetic(tmp_path, task=task, rank=rank, n_params=10 * rank, budget=None)
        write_synthetic(tmp_path, task=task, kind="head", n_params=0)
    (rows, references) = paper_table(load_runs(tmp_path)).groups
    assert [row[1].text for row in rows] == ["r=4", "r=8", "r=16", "r=64"] and len(references) == 1


def test_the_best_is_decided_by_every_paired_difference(tmp_path: Path) -> None:
    write_many(tmp_path, {name: [(1, 100, level)] for name, level in (("a", 0.9), ("b", 0.8), ("c", 0.7))}, spread=0)
    runs = load_runs(tmp_path)
    by_name, found = {run.name: run for run in runs}, points(runs)
    best = decided_best(found, by_name)
    assert best is not None and best.method == "a"
    for other in (point for point in found if point is not best):
        assert versus([by_name[n] for n in best.runs], [by_name[n] for n in other.runs]).low > 0
    assert decided_best(found[:1], by_name) is None and decided_best([found[0], found[0]], by_name) is None
    write_synthetic(tmp_path, parameterization="d", rank=1, n_params=100, budget=100, seed=9, accuracy=0.6)
    runs = load_runs(tmp_path)
    assert decided_best(points(runs), {run.name: run for run in runs}) is None, "d shares no seed with the others"
    assert np.all(holm([0.01, 0.02]) == [0.02, 0.02])


def test_latex_is_a_whole_table_and_markdown_the_same(tmp_path: Path) -> None:
    sweep(tmp_path)
    table = paper_table(load_runs(tmp_path))
    lines = to_latex(table, "tab:mine", "Mine & yours").splitlines()
    assert lines[0] == r"\begin{table}" and lines[-1] == r"\end{table}" and r"\caption{Mine \& yours}" in lines
    assert r"\label{tab:mine}" in lines and r"\begin{tabular}{llrrr}" in lines
    assert [lines.count(rf"\{rule}") for rule in ("toprule", "midrule", "bottomrule")] == [1, 4, 1]
    body = [line for line in lines if line.endswith(r"\\")]
    assert len(body) == 14 and all(line.count(" & ") == 4 for line in body)
    marked = to_markdown(table).splitlines()
    assert len([line for line in marked if line.startswith("|")]) == 15
    numbers = [re.findall(r"\d\d\.\d", "".join(lines)) for lines in (body, marked[:15])]
    assert numbers[0] == numbers[1] and len(numbers[0]) == 26


def test_names_are_escaped_and_what_was_lost_is_marked(tmp_path: Path) -> None:
    for seed, status in enumerate(("finished", "at chance")):
        write_synthetic(tmp_path, named="x_1 & 50 % | y", seed=seed, status=status, metric="matthews", budget=None)
    table = paper_table(load_runs(tmp_path))
    assert r"x\_1 \& 50 \% | y & r=4 & 1,000 & " in to_latex(table) and r"$^\dagger$ \\" in to_latex(table)
    assert r"x\_1 & 50 % \| y" in to_markdown(table) and "matthews (×100)" in to_markdown(table)
    assert "†: a run ended at chance or diverged." in table.caption
    with pytest.raises(TensorAdaptError, match="there is no reported run"):
        paper_table([])


def test_the_command_writes_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_many(tmp_path / "runs", CURVES)
    tex, md = tmp_path / "t.tex", tmp_path / "t.md"
    how = ["--means", "--latex", str(tex), "--markdown", str(md), "--label", "tab:x", "--caption", "Ours."]
    assert main(["results", str(tmp_path / "runs"), *how]) == 0
    assert capsys.readouterr().out.split() == [str(tex), str(md)]
    assert r"\label{tab:x}" in tex.read_text() and r"\caption{Ours.}" in tex.read_text()
    assert md.read_text().endswith("Ours.\n") and r"\textbf{" in tex.read_text() and "**" in md.read_text()
    assert main(["results", str(tmp_path / "runs"), "--markdown", str(md)]) == 0
    lines = md.read_text().splitlines()
    assert lines[0].startswith("| id | status | task | method |") and len(lines) == 2 + 18

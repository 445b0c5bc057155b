"""What methods do not have in common is said: columns, captions, the plan of a sweep; and who chose their rates."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from support.synthetic_runs import write_synthetic
from support.synthetic_sweep import sweep

import tensoradapt as ta
from tensoradapt.analysis.figures.captions import caption
from tensoradapt.analysis.figures.catalogue import figures
from tensoradapt.analysis.old_tables import frontier
from tensoradapt.analysis.old_tables.setup import SETUP, setup, unequal
from tensoradapt.cli.main import main
from tensoradapt.runs.store import Run, load_runs

UNEQUAL = "Targets differ: attention of Tucker; q v of LoRA. Scales differ: matched of Tucker; paper of LoRA."


@pytest.fixture
def mixed(tmp_path: Path) -> list[Run]:
    """LoRA as published, Tucker over all of attention, and both references."""
    for seed in (0, 1):
        lora = {"paper": True, "projections": ["q", "v"], "scale": "paper", "layout": [": out : in"]}
        write_synthetic(tmp_path, parameterization="lora", n_params=900, budget=1000, seed=seed, **lora)
        tucker = {"scale": "matched", "n_params": 950, "budget": 1000}
        write_synthetic(tmp_path, parameterization="tucker", seed=seed, accuracy=0.7, **tucker)
        write_synthetic(tmp_path, kind="head", seed=seed)
    return load_runs(tmp_path)


def test_every_figure_of_methods_with_other_targets_and_scales_says_so(mixed: list[Run]) -> None:
    drawn = figures(mixed, kinds=["frontier", "contrasts", "grid"])
    assert [one.kind for one in drawn] == ["frontier", "contrasts", "grid"]
    assert all(UNEQUAL in one.caption for one in drawn)
    assert "Layouts differ: : out : in of LoRA; layer proj : head dim : model of Tucker." in drawn[0].caption
    alike = [run for run in mixed if run.row["method"] != "LoRA"]
    assert not unequal(alike) and "differ" not in caption(alike)


def test_tables_have_a_column_for_each(mixed: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = frontier.table(mixed)
    lora, head = ({key: row[key] for key in SETUP} for row in (rows[0], rows[-1]))
    assert lora == {"projections": "q v", "scale": "paper", "optimizer": "adamw", "layout": ": out : in"}
    assert head == {"projections": None, "scale": None, "optimizer": "adamw", "layout": None}
    out = tmp_path / "t.csv"
    assert main(["results", str(tmp_path), "--csv", str(out)]) == 0
    with out.open() as file:
        assert {row["projections"] for row in csv.DictReader(file)} == {"", "attention", "q v"}
    capsys.readouterr()
    assert main(["results", str(tmp_path), "--means"]) == 0
    assert capsys.readouterr().out.split()[:5] == ["task", "method", "projections", "scale", "layout"]


def test_settings_are_those_that_the_run_had(tmp_path: Path) -> None:
    write_synthetic(tmp_path, scale="matched", alpha=8.0, projections="all", layout=["a", "b"])
    write_synthetic(tmp_path, parameterization="of another version", scale=2.0, paper=True)
    write_synthetic(tmp_path, kind="full", optimizer="equal_steps")
    found = {run.row["method"]: setup(run) for run in load_runs(tmp_path)}
    assert found["CP (LoRTA)"] == {
        "projections": "all", "scale": "matched, alpha 8", "optimizer": "adamw", "layout": "a | b",
    }  # fmt: skip
    assert found["of another version"]["projections"] is None and found["of another version"]["scale"] == "2"
    assert found["full fine-tuning"] == {**dict.fromkeys(SETUP), "optimizer": "equal_steps"}


def test_many_setups_are_counted_not_listed(tmp_path: Path) -> None:
    for i, target in enumerate("qkvo"):
        write_synthetic(tmp_path, parameterization=f"m{i}", n_params=100 + i, projections=[target])
    assert "Targets differ between methods." in caption(load_runs(tmp_path))
    for i in range(9):
        write_synthetic(tmp_path / "two", parameterization=f"m{i}", n_params=9 + i, projections=["q" if i else "v"])
    assert "q of m1, m2, m3, m4, m5, m6, 2 others; v of m0." in caption(load_runs(tmp_path / "two"))


def test_rates_that_nobody_tuned_are_not_said_to_be_tuned(tmp_path: Path) -> None:
    write_synthetic(tmp_path)  # as of `tensoradapt frontier --parameterization mine`
    write_synthetic(tmp_path, parameterization="lora", n_params=9)
    assert "Learning rates as given: 0.001 for all." in caption(load_runs(tmp_path))


def test_python_counts_the_runs_that_the_command_line_counts(tmp_path: Path) -> None:
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    runs = sweep(tmp_path, ("sst2",))
    (drawn,) = figures(runs, kinds=["frontier"])
    figure = ta.plots.frontier(runs).get_figure(root=True)
    (note,) = [text for text in figure.texts if text.get_gid() == "caption"]
    assert "39 runs, none at chance" in drawn.caption and len(runs) == 51
    assert note.get_text().split() == drawn.caption.split()
    pyplot.close(figure)
    with pytest.raises(ta.TensorAdaptError, match="no run to plot"):
        ta.plots.frontier([run for run in runs if run.row["tuning"]])

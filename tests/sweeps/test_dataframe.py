"""``ta.results``: every run is a row, tuning runs are left out unless asked for, and the rest is as in the store."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.configs import config_of
from support.synthetic_runs import write_synthetic
from support.synthetic_sweep import sweep

import tensoradapt as ta
from tensoradapt.cli.main import main
from tensoradapt.runs.store import write_failure

pandas = pytest.importorskip("pandas", reason="an extra")


def test_a_row_is_a_run_and_tuning_runs_are_marked(tmp_path: Path) -> None:
    runs = sweep(tmp_path, ("sst2",))
    every, reported = ta.results(tmp_path, tuning=True), ta.results(runs)
    assert (len(every), len(reported)) == (51, 39) and every["tuning"].sum() == 12
    assert not reported["tuning"].any()
    by_id = {run.name: run for run in runs}
    for row in every.itertuples():
        run = by_id[row.id]
        assert (row.method, row.task, row.seed) == (run.row["method"], "sst2", run.row["seed"])
        assert (row.n_params, row.test, row.chance) == (run.row["n_params"], run.row["test"], 0.5)
        assert row.path == str(run.path)
    lora = ta.results(tmp_path, where=["method=lora", "n_params<20000"])
    assert len(lora) == 3 and ta.results(runs, where="method=lora").equals(ta.results(tmp_path, where="method=lora"))


def test_columns_have_the_types_of_their_values(tmp_path: Path) -> None:
    write_synthetic(tmp_path)
    config = config_of("m", "rte", "vera", named="VeRA", steps=3).as_dict()
    write_failure(tmp_path, "broken", {"kind": "out of memory", "error": "no room", "config": config})
    frame = ta.results(tmp_path)
    assert {str(frame[name].dtype) for name in ("n_params", "seed", "rank", "budget", "steps")} == {"Int64"}
    assert frame["test"].dtype == float and list(frame["status"]) == ["finished", "failed"]
    assert frame.groupby("method")["test"].mean().count() == 1
    write_synthetic(tmp_path, rank={"head": 2, "dim": 3}, n_params=5)
    assert set(ta.results(tmp_path)["rank"].dropna()) == {"4", "dim=3 head=2"}


def test_what_it_cannot_do_without_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ta.TensorAdaptError, match="runs is 3; expected a list"):
        ta.results(3)
    with pytest.raises(ta.TensorAdaptError, match="unknown column 'tsk'"):
        ta.results(tmp_path, where="tsk=rte")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ta.TensorAdaptError, match=r"needs `pandas`.*pip install \"tensoradapt\[results\]\""):
        ta.results(tmp_path)


def test_the_command_draws_files_for_a_paper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(tmp_path / "runs", ("sst2",))
    out = ["--out", str(tmp_path / "out"), "--format", "pdf, svg,png", "--width", "84mm", "--no-caption"]
    assert main(["plot", str(tmp_path / "runs"), "frontier", "grid", *out]) == 0
    names = [Path(line).name for line in capsys.readouterr().out.split()]
    assert names == [f"{kind}.{end}" for kind in ("frontier", "grid") for end in ("pdf", "svg", "png", "csv", "txt")]
    width = int.from_bytes((tmp_path / "out" / "frontier.png").read_bytes()[16:20])
    assert width == pytest.approx(84 / 25.4 * 200, abs=1)
    text = (tmp_path / "out" / "frontier.txt").read_text()
    assert text.startswith("tiny-model on sst2: test accuracy")
    again = [(tmp_path / "out" / f"frontier.{end}").read_bytes() for end in ("pdf", "svg", "png")]
    assert main(["plot", str(tmp_path / "runs"), *out]) == 0
    assert [(tmp_path / "out" / f"frontier.{end}").read_bytes() for end in ("pdf", "svg", "png")] == again
    for wrong, says in (
        (["--format", "gif"], "--format is 'gif'. Valid: png, pdf, svg"),
        (["--width", "3 feet"], "--width is '3 feet'; expected a length from 2in to 40in"),
        (["--style", "no-such"], "style is 'no-such'; expected a style sheet"),
    ):
        capsys.readouterr()
        assert main(["plot", str(tmp_path / "runs"), *wrong]) == 2
        assert says in capsys.readouterr().err

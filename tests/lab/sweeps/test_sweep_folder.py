"""What a folder of runs can hold besides whole runs, and what a sweep, or a dry run of one, makes of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.sweeping import TINY, attempts, results, started

import tensoradapt as ta
from tensoradapt.lab.analysis.tables import summarise
from tensoradapt.lab.runs import perform
from tensoradapt.lab.sweeps import run_sweep

ONE = {**TINY, "method": "lorta", "rank": 1}


def sweep(root, spec=TINY, **more):
    """What a sweep says, as one text, and how it ended."""
    said: list[str] = []
    swept = ta.sweep(spec, root, executor="inline", device="cpu", say=said.append, **more)
    return "\n".join(said), swept


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    sweep(root)
    return root


@pytest.fixture
def root(whole, tmp_path):
    """A finished sweep of four runs, to be damaged."""
    return shutil.copytree(whole, tmp_path / "runs")


@pytest.mark.thorough
def test_a_dry_run_plans_as_if_what_is_to_be_made_again_were_gone(root, monkeypatch):
    now = run_sweep.versions()
    monkeypatch.setattr(run_sweep, "versions", lambda: {**now, "python": "2.7"})
    before = results(root)
    said, _ = sweep(root, stale="rerun", dry_run=True)
    assert "they are set aside in .stale and run again" in said and "4 runs, 4 of them to do" in said
    assert "about" in said and results(root) == before and not (root / ".stale").exists()
    assert "4 runs, 0 of them to do" in sweep(root, stale="keep", dry_run=True)[0]


def test_what_is_in_the_way_of_a_run_is_found_before_it_is_computed(root, monkeypatch):
    name = next(iter(results(root)))
    for path in (root / name).iterdir():
        path.unlink()
    (root / name / "mine.txt").write_text("kept")
    computed: list[str] = []
    monkeypatch.setattr(perform, "execute", lambda config, *_: computed.append(config.id))
    with pytest.raises(ta.TensorAdaptError, match=f"{name} is in the way and is not a finished run; .*delete it"):
        sweep(root)
    assert (root / name / "mine.txt").read_text() == "kept" and not computed


def test_a_method_that_is_given_another_name_keeps_its_runs(tmp_path):
    """Its name is no part of what a run means; a table of one sweep has the names of that sweep."""
    sweep(tmp_path, ONE)
    renamed = {**ONE, "method": [{"name": "mine", "method": "lorta"}], "seed": [0, 1]}
    said, swept = sweep(tmp_path, renamed)
    assert swept.complete and set(started(tmp_path).values()) == {1} and len(results(tmp_path)) == 2
    assert "runs of 'mine' are stored as 'lorta': give results, plot and report --spec" in said
    assert set(ta.results(tmp_path)["method"]) == {"lorta", "mine"}
    (row,) = summarise(ta.results(tmp_path, spec=renamed)).itertuples()
    assert (row.method, row.n_seeds) == ("mine", 2)
    (run,) = ta.results(tmp_path, where="method=lorta", spec=ONE).itertuples()
    assert run.method == "lorta" and len(attempts(Path(run.path))) == 2

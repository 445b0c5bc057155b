"""What a folder of runs can hold besides whole runs, and what a sweep, or a dry run of one, makes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.checksums import sum_again
from support.configs import config_of
from support.sweeping import TINY, attempts, break_one, results, started

import tensoradapt as ta
from tensoradapt.lab.analysis.tables import summarise
from tensoradapt.lab.runs import execute, perform
from tensoradapt.lab.runs.work_folder import Work, claim
from tensoradapt.lab.sweeps import record, run_sweep
from tensoradapt.lab.sweeps.cost import STEPS
from tensoradapt.lab.sweeps.spec import read_spec

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


def test_a_dry_run_counts_the_failures_that_it_is_asked_to_try_again(tmp_path):
    bad = break_one(tmp_path, read_spec(TINY))
    sweep(tmp_path)
    assert "0 of them to do" in sweep(tmp_path, dry_run=True)[0]
    assert "1 of them to do" in sweep(tmp_path, retry_failed=True, dry_run=True)[0]
    assert (tmp_path / bad / "error.json").is_file(), "a dry run took it away"


@pytest.mark.parametrize("damage", ["", "{"])
def test_a_finished_sweep_that_is_not_on_record_is_put_there(root, damage):
    """As one whose runs another sweep made; the report and ``--spec`` need it."""
    (path,) = record.paths(root)
    path.unlink()
    if damage:
        path.write_text(damage)
    before = results(root)
    assert sweep(root)[1].complete and results(root) == before
    assert record.read(path).spec.id == read_spec(TINY).id


def test_a_probe_that_fails_stops_no_sweep(tmp_path, monkeypatch):
    def fail_in_the_probe(config, *arguments):
        if config.training.steps == STEPS:
            raise RuntimeError("no memory for three steps")
        return real(config, *arguments)

    real = execute.execute
    monkeypatch.setattr(execute, "execute", fail_in_the_probe)
    said, swept = sweep(tmp_path, ONE)
    assert "time and disk are not known: the probe of lorta r=1, seed 0 failed (RuntimeError: no memory" in said
    assert swept.complete


def test_attempts_that_were_cut_off_cost_no_later_line(tmp_path):
    work = Work(tmp_path, "x")
    work.path.mkdir(parents=True)
    work.note("started")
    with (work.path / "attempts.jsonl").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 5)
    work.note("started")
    work.note("finished")
    lines = work.attempts().splitlines()
    assert [json.loads(line)["event"] for line in lines[1:]] == ["started", "finished"] and len(lines) == 3


def test_a_sweep_that_goes_on_has_its_own_options_but_for_a_run_that_is_computed(tmp_path):
    config = config_of("tiny-random-bert", "planted", kind="head")
    work = Work(tmp_path, config.id)
    work.prepare(config, 25)
    with claim(tmp_path / ".work", config.id) as ours:
        work.prepare(config, 1, ["tensorboard"], "none")
        assert ours and work.config() == (config, 25, [], "none")
    work.prepare(config, 1, ["tensorboard"], "none")
    assert work.config() == (config, 1, ["tensorboard"], "none")
    work.prepare(config)
    assert work.config() == (config, 1, ["tensorboard"], "none"), "what is not asked for stays"


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


def test_locks_and_folders_that_cannot_be_made_are_said_in_one_line(root, monkeypatch):
    now = run_sweep.versions()
    (root / ".stale").write_text("in the way")
    with monkeypatch.context() as patch:
        patch.setattr(run_sweep, "versions", lambda: {**now, "python": "2.7"})
        with pytest.raises(ta.TensorAdaptError, match=r"cannot be set aside in .*stale .*go on with --stale keep"):
            sweep(root, stale="rerun")
    name = next(iter(results(root)))
    shutil.rmtree(root / name)
    (root / ".work" / f".{name}.lock").mkdir(parents=True)
    with pytest.raises(ta.TensorAdaptError, match=r"lock cannot be written \(Is a directory\); expected a file"):
        sweep(root)


def test_a_file_in_the_place_of_the_folder_is_found_before_anything_is_measured(tmp_path, monkeypatch):
    (tmp_path / "runs").write_text("mine")
    monkeypatch.setattr(execute, "execute", None)
    with pytest.raises(ta.TensorAdaptError, match=r"runs cannot be written \((File exists|Not a directory)\)"):
        sweep(tmp_path / "runs")
    with pytest.raises(ta.TensorAdaptError, match="checkpoint_every is -3; expected a whole number from 0"):
        sweep(tmp_path / "new", checkpoint_every=-3)


def test_a_result_without_what_it_should_say_is_named(root):
    name = next(iter(results(root)))
    (root / name / "result.json").write_text("{}")
    sum_again(root / name)
    with pytest.raises(ta.TensorAdaptError, match=rf"{name}/result.json: .*delete the folder .*: \w+ is missing"):
        ta.results(root)


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

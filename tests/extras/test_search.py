"""Searches: which trials there are follows from the specification and the runs that have ended, and nothing else."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

import pytest
from support.sweeping import TINY, done, kill, results, start, started, undisturbed, wait_for, workers, write_spec
from support.synthetic_runs import write_scored

import tensoradapt as ta
from tensoradapt.extras.search import study_of
from tensoradapt.lab.runs import perform
from tensoradapt.lab.runs.store import is_finished, write_failure
from tensoradapt.lab.sweeps.due import due
from tensoradapt.lab.sweeps.plan_sweep import plan_sweep
from tensoradapt.lab.sweeps.spec import read_spec

RATES = {"low": 1e-4, "high": 1e-1}
SEARCH = {
    **{key: value for key, value in TINY.items() if key != "lr"},
    "search": {"trials": 7, "lr": RATES},
}


def searched(changes):
    """The specification with a search, of which ``search`` and its fields are changed."""
    found = {**SEARCH, **changes}
    own = {key: found.pop(key) for key in ("trials", "parallel") if key in found}
    given = {**SEARCH["search"], **(found["search"] or {}), **own}
    found["search"] = {key: value for key, value in given.items() if value is not None}
    return {key: value for key, value in found.items() if value is not None}


def spec(**changes):
    return read_spec(searched(changes))


def score(config):
    """A peak of the learning rate, different for each method."""
    return 1 - (math.log10(config.training.lr) + (2 if config.method == "lora" else 3)) ** 2 / 10


def pretend(root, spec, seed=0, end=write_scored):
    """Ends the runs of a sweep in an order drawn from a seed until none is left; returns what was due at last."""
    planned, order = plan_sweep(spec, root), random.Random(seed)
    for _ in range(2 * due(planned).total):
        now = due(planned)
        left = [config for config in now.configs if not ended(root, config.id)]
        if not left:
            study_of.cache_clear()
            assert due(planned) == now, "another process finds other trials"
            assert {path.name for path in root.iterdir()} == {c.id for c in now.configs}, "a run was made for nothing"
            return now
        one = order.choice(left)
        end(root, one, score(one))
    raise AssertionError("there is always another trial")


def ended(root, name):
    return is_finished(root, name) or (root / name / "error.json").is_file()


@pytest.mark.thorough
def test_trials_are_the_same_however_their_runs_end(tmp_path):
    found = spec(parallel=3, trials=9)
    ends = {tuple(c.id for c in pretend(tmp_path / str(i), found, i).configs) for i in range(3)}
    assert len(ends) == 1 and len(ends.pop()) == found_total(found) == 2 * (9 + 2)


def found_total(found):
    return due(plan_sweep(found, Path("no-such-folder"))).total


@pytest.mark.thorough
def test_trials_follow_from_what_runs_gave(tmp_path):
    def other(root, config, _):
        write_scored(root, config, config.training.lr)

    first = {c.training.lr for c in pretend(tmp_path / "a", spec()).configs if c.tuning and c.adapter.method == "lora"}
    second = {
        c.training.lr
        for c in pretend(tmp_path / "b", spec(), end=other).configs
        if c.tuning and c.adapter.method == "lora"
    }
    assert len(first) == len(second) == 7 and 5 <= len(first & second) < 7, "the first five are drawn at random"
    assert all(1e-4 <= lr <= 1e-1 for lr in first | second)


@pytest.mark.thorough
def test_the_best_on_validation_is_run_at_every_size_with_every_seed(tmp_path):
    found = spec(seed=[0, 1])
    now = pretend(tmp_path, found)
    for method in ("lora", "lorta"):
        own = [c for c in now.configs if c.adapter.method == method]
        best = max((c for c in own if c.tuning), key=score)
        assert {(c.training.lr, c.adapter.rank, c.seed) for c in own if not c.tuning} == {
            (best.training.lr, rank, seed) for rank in (1, 2) for seed in (0, 1)
        }


@pytest.mark.thorough
def test_everything_that_can_be_searched_reaches_the_runs(tmp_path):
    space = {"lr": RATES, "head_lr": RATES, "scale": [0.5, "matched"], "rank": [1, 2, 3]}
    found = spec(rank=None, search=space, trials=8, reference=["head", "full"])
    now = pretend(tmp_path, found)
    assert [len([cell for cell in plan_sweep(found, Path()).cells if cell.method == "lora"])] == [3]
    tried = {c.id: c for c in now.configs if c.method == "lora" and c.tuning}.values()
    assert {c.adapter.rank for c in tried} == {1, 2, 3} and {c.adapter.scale for c in tried} == {0.5, "matched"}
    assert len({c.training.head_lr for c in tried}) == len(tried) == 8
    (reported,) = (c for c in now.configs if c.method == "lora" and not c.tuning)
    best = max(tried, key=score)
    assert (reported.training, reported.adapter) == (best.training, best.adapter)
    assert all(c.training.head_lr == c.training.lr for c in now.configs if c.kind == "head"), (
        "a frozen base has one rate"
    )
    assert None not in {c.training.head_lr for c in now.configs if c.kind == "full"}
    assert now.total == len(now.configs) == 4 * (8 + 1)


def test_what_failed_and_what_diverged_is_told_as_such_and_never_chosen(tmp_path, monkeypatch):
    import optuna

    states = []
    tell = optuna.study.Study.tell

    def spy(study, trial, values=None, state=None, **more):
        states.append(state.name)
        return tell(study, trial, values, state, **more)

    def end(root, config, found):
        if config.training.lr > 1e-2:
            write_scored(root, config, 2.0, "diverged")
        elif config.training.lr > 3e-3:
            write_failure(root, config.id, {"kind": "out of memory", "error": "", "config": config.as_dict()})
        else:
            write_scored(root, config, found)

    now = pretend(tmp_path, spec(method="lora"), end=end)
    study_of.cache_clear()
    monkeypatch.setattr(optuna.study.Study, "tell", spy)
    assert due(plan_sweep(spec(method="lora"), tmp_path)) == now
    tried = [c for c in now.configs if c.tuning]
    told = ["PRUNED" if c.training.lr > 1e-2 else "FAIL" if c.training.lr > 3e-3 else "COMPLETE" for c in tried]
    assert states == told and set(told) == {"PRUNED", "FAIL", "COMPLETE"}
    assert all(c.training.lr <= 3e-3 for c in now.configs if not c.tuning)


def sweep(out, said=None, **changes):
    say = (lambda _: None) if said is None else said.append
    made = searched({"trials": 4, "rank": 1, "method": "lora", **changes})
    return ta.sweep(made, out, executor="inline", device="cpu", say=say)


@pytest.mark.thorough
def test_a_search_that_is_stopped_anywhere_ends_with_the_same_trials_and_results(tmp_path, monkeypatch):
    assert sweep(tmp_path / "whole", parallel=2).total == 5
    for k in (0, 2, 4):
        calls, real = [], perform.execute

        def stop(*arguments, real=real, calls=calls, k=k, **options):
            calls.append(arguments)
            if len(calls) > k:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(perform, "execute", stop)
            with pytest.raises(KeyboardInterrupt):
                sweep(tmp_path / str(k), parallel=2)
        assert len(done(tmp_path / str(k))) == k
        assert sweep(tmp_path / str(k), parallel=2).complete
        assert results(tmp_path / str(k)) == results(tmp_path / "whole")
    assert not [path for path in (tmp_path / "whole").rglob("*") if "optuna" in path.name or "journal" in path.name]


@pytest.mark.slow
def test_a_search_whose_processes_are_killed_ends_with_the_same_trials_and_results(tmp_path):
    long = searched({"steps": 120, "parallel": 2, "trials": 4})
    two = ["--executor", "local", "--workers", "2", "--checkpoint-every", "10"]
    spec = write_spec(tmp_path, **long, lr=None)
    whole = undisturbed(spec, tmp_path / "whole")
    out = tmp_path / "killed"
    process = start(spec, out, *two)
    wait_for(lambda: len(done(out)) >= 3 and workers(out, "state.safetensors"))
    kill(process.pid)
    process.wait()
    assert undisturbed(spec, out) == whole and len(whole) == 2 * (4 + 2)
    assert sum(started(out).values()) > len(results(out)), "no run was in hand when the sweep was killed"


def test_without_optuna_a_search_is_refused_before_anything_is_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ta.TensorAdaptError, match=r"a table \[search\] needs `optuna`.*tensoradapt\[optuna\]"):
        sweep(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"trials": None}, "search: trials is missing; expected trials for each method on each task"),
        ({"search": {"lr": None, "rank": [1]}}, "search: lr is missing; expected a range such as"),
        ({"search": {"learning_rate": RATES}}, "search: unknown key learning_rate; it is called lr"),
        ({"search": {"lr": {"low": 1e-3}}}, "expected low and high, and low below high"),
        ({"search": {"rank": [1]}}, "rank and search.rank were given; expected one of them"),
        ({"lr": 1e-3}, "lr and search.lr were given"),
        ({"reference": [{"reference": "full", "lr": 1e-3}]}, r"reference\[0\]: lr and search.lr were given"),
    ],
)
def test_a_search_that_is_not_understood_is_refused_by_name(change, says):
    with pytest.raises(ta.TensorAdaptError, match=says):
        spec(**change)

"""Searches: which trials there are follows from the specification and the runs that have ended, and nothing else."""

from __future__ import annotations

import math
import random
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from support.sweeping import TINY, done, finish, kill, results, start, started, wait_for, workers, write_spec
from support.synthetic_runs import metric_document

import tensoradapt as ta
from tensoradapt.analysis.tables.frontier import points
from tensoradapt.data import models
from tensoradapt.runs import perform
from tensoradapt.runs.store import is_finished, load_runs, write_failure, write_run
from tensoradapt.sweeps.cells import cells, due
from tensoradapt.sweeps.read_spec import read_spec
from tensoradapt.sweeps.reports.watch import Watch
from tensoradapt.sweeps.tuning import study_of

RATES = {"low": 1e-4, "high": 1e-1}
SEARCH = {
    **{key: value for key, value in TINY.items() if key != "learning_rates"},
    "proposer": "optuna",
    "trials": 7,
    "search": {"learning_rate": RATES},
}


def spec(**changes):
    return read_spec({key: value for key, value in {**SEARCH, **changes}.items() if value is not None})


def put(root, config, score, status="finished"):
    """A run that was never trained, with a score on validation."""
    result = {"status": status, "metric": metric_document(), "validation": {"accuracy": score}}
    empty = {"measurements": {}, "provenance": {}, "arrays": {}}
    write_run(root, config.id, config=config.as_dict(), result=result, **empty)


def score(config):
    """A peak of the learning rate, different for each method."""
    return 1 - (math.log10(config.lr) + (2 if config.published == "lora" else 3)) ** 2 / 10


def pretend(root, spec, seed=0, end=put):
    """Ends the runs of a sweep in an order drawn from a seed until none is left; returns what was due at last."""
    planned, order = cells(spec, models.config(spec.model)), random.Random(seed)
    for _ in range(2 * due(spec, planned, root).total):
        now = due(spec, planned, root)
        left = [config for config in now.configs if not ended(root, config.id)]
        if not left:
            study_of.cache_clear()
            assert due(spec, planned, root) == now, "another process finds other trials"
            assert {path.name for path in root.iterdir()} == {c.id for c in now.configs}, "a run was made for nothing"
            return now
        one = order.choice(left)
        end(root, one, score(one))
    raise AssertionError("there is always another trial")


def ended(root, name):
    return is_finished(root, name) or (root / name / "error.json").is_file()


def test_trials_are_the_same_however_their_runs_end(tmp_path):
    found = spec(parallel=3, trials=9)
    ends = {tuple(c.id for c in pretend(tmp_path / str(i), found, i).configs) for i in range(3)}
    assert len(ends) == 1 and len(ends.pop()) == found_total(found) == 2 * (9 + 2)


def test_a_study_follows_what_the_store_holds_now(tmp_path):
    """Results that are set aside and made again, as by ``stale="rerun"``, may not be what they were."""
    found = spec(published=["lora"])
    planned, tried = cells(found, models.config(found.model)), pretend(tmp_path, found).configs
    best = max(tried[:5], key=score)
    k = tried.index(best) + 1
    for gives in (0.0, score(best)):
        shutil.rmtree(tmp_path / best.id)
        assert due(found, planned, tmp_path).configs == tried[:k]
        put(tmp_path, best, gives)
        now = due(found, planned, tmp_path)
        study_of.cache_clear()
        assert due(found, planned, tmp_path) == now and now.configs[:k] == tried[:k]
        assert (now.configs == tried) == (gives > 0)


def found_total(found):
    return due(found, cells(found, models.config(found.model)), Path("no-such-folder")).total


def test_trials_follow_from_what_runs_gave(tmp_path):
    def other(root, config, _):
        put(root, config, config.lr)

    first = {c.lr for c in pretend(tmp_path / "a", spec()).configs if c.tuning and c.published == "lora"}
    second = {c.lr for c in pretend(tmp_path / "b", spec(), end=other).configs if c.tuning and c.published == "lora"}
    assert len(first) == len(second) == 7 and 5 <= len(first & second) < 7, "the first five are drawn at random"
    assert all(1e-4 <= lr <= 1e-1 for lr in first | second)


def test_as_many_trials_are_due_as_are_asked_at_once(tmp_path):
    for parallel in (1, 3):
        found = spec(parallel=parallel)
        planned = cells(found, models.config(found.model))
        now = due(found, planned, tmp_path / str(parallel))
        assert Counter(c.published for c in now.configs) == {"lora": parallel, "lorta": parallel}
        assert all(c.tuning and c.seed == 1000 and c.rank == 1 for c in now.configs)
        assert now.total == 2 * (7 + 2)


def test_the_best_on_validation_is_run_at_every_size_with_every_seed(tmp_path):
    found = spec(seeds=[0, 1])
    now = pretend(tmp_path, found)
    for method in ("lora", "lorta"):
        own = [c for c in now.configs if c.published == method]
        best = max((c for c in own if c.tuning), key=score)
        assert {(c.lr, c.rank, c.seed) for c in own if not c.tuning} == {
            (best.lr, rank, seed) for rank in (1, 2) for seed in (0, 1)
        }


def test_everything_that_can_be_searched_reaches_the_runs(tmp_path):
    space = {"learning_rate": RATES, "head_learning_rate": RATES, "scale": [0.5, "matched"], "rank": [1, 2, 3]}
    found = spec(ranks=None, search=space, trials=8, references=["head", "full"])
    now = pretend(tmp_path, found)
    assert [len([cell for cell in cells(found, models.config(found.model)) if cell.method == "lora"])] == [3]
    tried = {c.id: c for c in now.configs if c.published == "lora" and c.tuning}.values()
    assert {c.rank for c in tried} == {1, 2, 3} and {c.scale for c in tried} == {0.5, "matched"}
    assert len({c.head_lr for c in tried}) == len(tried) == 8
    (reported,) = (c for c in now.configs if c.published == "lora" and not c.tuning)
    best = max(tried, key=score)
    same = ("lr", "head_lr", "scale", "rank")
    assert [getattr(reported, key) for key in same] == [getattr(best, key) for key in same]
    assert all(c.head_lr == c.lr for c in now.configs if c.kind == "head"), "a frozen base has one rate"
    assert None not in {c.head_lr for c in now.configs if c.kind == "full"}
    assert now.total == len(now.configs) == 4 * (8 + 1)


def test_a_configuration_that_is_asked_for_again_is_no_other_run(tmp_path):
    found = spec(search={"learning_rate": [1e-3, 1e-2]}, trials=20, ranks=[1])
    assert found_total(found) == 2 * (2 + 1)
    now = pretend(tmp_path, found)
    assert now.total == len(now.configs) == 2 * (2 + 1)


def test_what_failed_and_what_diverged_is_told_as_such_and_never_chosen(tmp_path, monkeypatch):
    import optuna

    states = []
    tell = optuna.study.Study.tell

    def spy(study, trial, values=None, state=None, **more):
        states.append(state.name)
        return tell(study, trial, values, state, **more)

    def end(root, config, found):
        if config.lr > 1e-2:
            put(root, config, 2.0, "diverged")
        elif config.lr > 3e-3:
            write_failure(root, config.id, {"kind": "out of memory", "error": "", "config": config.as_dict()})
        else:
            put(root, config, found)

    now = pretend(tmp_path, spec(published=["lora"]), end=end)
    study_of.cache_clear()
    monkeypatch.setattr(optuna.study.Study, "tell", spy)
    assert due(spec(published=["lora"]), cells(spec(published=["lora"]), models.config(TINY["model"])), tmp_path) == now
    tried = [c for c in now.configs if c.tuning]
    told = ["PRUNED" if c.lr > 1e-2 else "FAIL" if c.lr > 3e-3 else "COMPLETE" for c in tried]
    assert states == told and set(told) == {"PRUNED", "FAIL", "COMPLETE"}
    assert all(c.lr <= 3e-3 for c in now.configs if not c.tuning)


def test_a_method_without_a_score_is_blocked(tmp_path):
    def end(root, config, found):
        put(root, config, None if config.published == "lora" else found)

    now = pretend(tmp_path, spec(), end=end)
    assert now.blocked == ("LoRA on planted: no trial gave a result",)
    assert {c.published for c in now.configs if not c.tuning} == {"lorta"}


def sweep(out, said=None, **changes):
    say = (lambda _: None) if said is None else said.append
    made = {**SEARCH, "trials": 4, "ranks": [1], "published": ["lora"], **changes}
    return ta.sweep(made, out, executor="inline", device="cpu", say=say)


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
    long = {**SEARCH, "steps": 120, "parallel": 2, "trials": 6}
    two = ["--executor", "local", "--workers", "2", "--checkpoint-every", "10"]
    spec = write_search(tmp_path, long)
    finish(spec, tmp_path / "whole", *two)
    out = tmp_path / "killed"
    for count in (1, 5, 9):
        process = start(spec, out, *two)
        wait_for(lambda count=count: len(done(out)) >= count and workers(out, "state.safetensors"))
        kill(process.pid)
        process.wait()
    finish(spec, out, *two)
    assert results(out) == results(tmp_path / "whole") and len(results(out)) == 2 * (6 + 2)
    assert sum(started(out).values()) > len(results(out)), "no run was in hand when the sweep was killed"


def write_search(folder, found):
    rates = found["search"]["learning_rate"]
    rest = {key: value for key, value in found.items() if key != "search"}
    path = write_spec(folder, **rest)
    lines = [line for line in path.read_text().splitlines() if not line.startswith("learning_rates")]
    path.write_text(
        "\n".join([*lines, "[search]", f"learning_rate = {{low = {rates['low']}, high = {rates['high']}}}"])
    )
    return path


def test_the_plan_says_how_many_runs_and_what_is_searched(tmp_path):
    said = []
    made = {**SEARCH, "parallel": 2, "search": {"learning_rate": RATES, "scale": [0.5, "matched"]}}
    ta.sweep(made, tmp_path / "runs", executor="inline", device="cpu", say=said.append, dry_run=True)
    text = "\n".join(said)
    assert "2 methods, 4 cells, seed 0: 18 runs, 18 of them to do" in text
    assert "by Optuna with seed 1000: 7 trials, 2 at once; the best on validation is run with every seed" in text
    assert "  learning_rate from 0.0001 to 0.1\n  scale of 0.5 matched" in text
    assert not (tmp_path / "runs").exists()


def test_tuning_runs_of_a_search_are_in_no_mean_and_its_runs_can_be_watched(tmp_path):
    sweep(tmp_path)
    (row,) = Watch(tmp_path).frame().rows
    assert (row.method, row.finished, row.waiting) == ("lora", 5, 0)
    assert sum(run.config["tuning"] for run in load_runs(tmp_path)) == 4
    assert len(points(load_runs(tmp_path), compare=False)) == 1


def test_without_optuna_a_search_is_refused_before_anything_is_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ta.TensorAdaptError, match=r'proposer = "optuna" needs `optuna`.*tensoradapt\[optuna\]'):
        sweep(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"proposer": "optun"}, "proposer is 'optun'; did you mean \"optuna\""),
        ({"proposer": "grid"}, 'trials is given without a search|search is given without a search; .*"optuna"'),
        ({"trials": None}, "trials is missing; a search needs it"),
        ({"trials": 0}, "trials is 0; expected a whole number from 1"),
        ({"parallel": 0}, "parallel is 0; expected a whole number from 1"),
        ({"search": None}, "search is missing; a search needs it"),
        ({"search": {"rank": [1]}}, "search.learning_rate is missing"),
        ({"search": {"lr": RATES}}, "unknown key search.lr"),
        ({"search": {"learning_rate": {"low": 1e-3}}}, "expected low and high, and low below high"),
        ({"search": {"learning_rate": {"low": 1e-1, "high": 1e-3}}}, "low below high"),
        ({"search": {"learning_rate": {**RATES, "log": 1}}}, "search.learning_rate.log is 1; expected true or false"),
        ({"search": {"learning_rate": {**RATES, "step": 1}}}, "unknown key search.learning_rate.step"),
        ({"search": {"learning_rate": 1e-3}}, "search.learning_rate is 0.001; expected a list"),
        ({"search": {"learning_rate": RATES, "rank": [1]}}, "ranks and search.rank were given; expected one of them"),
        ({"learning_rates": [1e-3]}, "learning_rates and search.learning_rate were given"),
        (
            {"methods": [{"published": "cara", "learning_rates": [1e-3]}]},
            r"methods\[0\].learning_rates and search.learning_rate were given",
        ),
        (
            {"ranks": None, "search": {"learning_rate": RATES, "rank": [1], "budget": [300]}},
            "search.rank and search.budget were given",
        ),
    ],
)
def test_a_search_that_is_not_understood_is_refused_by_name(change, says):
    with pytest.raises(ta.TensorAdaptError, match=says):
        spec(**change)

"""Grids: which rates are tried, added and kept follows from the runs that have ended, at each size of each method."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from support.sweeping import TINY, done, results
from support.synthetic_runs import write_scored

import tensoradapt as ta
from tensoradapt.lab.runs import perform
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.store import is_failed, is_finished, write_failure
from tensoradapt.lab.sweeps.due import Due, due
from tensoradapt.lab.sweeps.plan_sweep import plan_sweep
from tensoradapt.lab.sweeps.report import report
from tensoradapt.lab.sweeps.spec import SweepSpec, read_spec
from tensoradapt.lab.sweeps.status import status

GRID = {**TINY, "lr": [1e-3, 3e-3, 1e-2]}
PAPER = {"paper": True}
PLAIN = {**PAPER, "optimizer": "adamw", "tuning": {"at": "method", "seed": 1000, "extend": 0}}
End = tuple[str, float | None]  # status, "failed" included, and score on validation
Ends = Callable[[RunConfig], End]


def spec(**changes: object) -> SweepSpec:
    return read_spec({key: value for key, value in {**GRID, **changes}.items() if value is not None})


def now(found: SweepSpec, root: Path) -> Due:
    return due(plan_sweep(found, root))


def put(root: Path, config: RunConfig, end: End) -> None:
    """A run that was never trained."""
    status, score = end
    if status == "failed":
        write_failure(root, config.id, {"kind": "", "error": "", "config": config.as_dict()})
    else:
        write_scored(root, config, score, status)


def pretend(root: Path, found: SweepSpec, ends: Ends, order: int = 0) -> Due:
    """Ends the runs of a sweep in an order drawn from a seed until none is left; returns what was due at last."""
    drawn, planned = random.Random(order), plan_sweep(found, root)
    before, limit = 0, math.inf
    while True:
        then = due(planned)
        assert before <= then.total <= then.total + then.more <= limit, "totals shrink, or grow beyond what was said"
        before, limit = then.total, then.total + then.more
        left = [one for one in then.configs if not is_finished(root, one.id) and not is_failed(root, one.id)]
        if not left:
            made = {path.name for path in root.iterdir()}
            assert made == {one.id for one in then.configs}, "a run was made for nothing"
            assert then.more == 0 and (then.blocked or then.total == len(then.configs))
            return then
        for one in drawn.sample(left, drawn.randint(1, len(left))):
            put(root, one, ends(one))


def peak(at: Callable[[RunConfig], float]) -> Ends:
    """Scores that are best at one rate of each method and size."""
    return lambda config: ("finished", 0.9 - abs(math.log10(config.training.lr / at(config))) / 100)


def tried(found: Due, *, size: int | None = None) -> list[float]:
    return sorted({c.training.lr for c in found.configs if c.tuning and size in (None, c.adapter.rank)})


def kept(found: Due) -> dict[int, float]:
    """The reported rate of each rank."""
    rates = {(c.adapter.rank, c.training.lr) for c in found.configs if not c.tuning}
    assert len(rates) == len(dict(rates))
    return dict(rates)


def lucky(seed: int) -> Ends:
    """Scores on few levels, so that some are equal, and runs that diverge or fail, as drawn for each run."""

    def end(config: RunConfig) -> End:
        drawn = random.Random(f"{seed} {config.id}")
        if drawn.random() < 0.15:
            return drawn.choice([("diverged", None), ("diverged", 0.9), ("failed", None)])
        return "finished", drawn.choice([0.5, 0.6, 0.7, 0.8])

    return end


def drawn_spec(seed: int) -> SweepSpec:
    drawn = random.Random(seed)
    rates = [float(f"{10 ** drawn.uniform(-4, -1):.3g}") for _ in range(drawn.randint(2, 4))]
    return spec(
        method=["lorta"],
        lr=list(dict.fromkeys(rates)),
        tuning={
            "at": drawn.choice(["size", "method"]),
            "seed": list(range(100, 100 + drawn.randint(1, 3))),
            "extend": drawn.randint(0, 4),
        },
    )


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(15))
def test_rates_are_the_same_in_whatever_order_runs_end_and_the_best_mean_is_kept(tmp_path: Path, seed: int) -> None:
    found, ends = drawn_spec(seed), lucky(seed)
    one, other = (pretend(tmp_path / str(i), found, ends, i) for i in range(2))
    assert one == other
    grid, rows = set(found.methods[0].lr), [c for c in one.configs if c.tuning]
    for size in {c.adapter.rank for c in rows}:
        own = [c for c in rows if c.adapter.rank == size]
        rates = sorted({c.training.lr for c in own})
        assert grid <= set(rates) and len(rates) - len(grid) <= found.tuning.extend
        assert {(c.training.lr, c.seed) for c in own} == {(lr, s) for lr in rates for s in found.tuning.seed}
        clean = {lr: [ends(c)[1] for c in own if c.training.lr == lr and ends(c)[0] == "finished"] for lr in rates}
        whole = {lr: statistics.fmean(v) for lr, v in clean.items() if len(v) == len(found.tuning.seed)}
        chosen = kept(one).get(size)
        if not whole:
            assert chosen is not None or one.blocked
            continue
        best = max(whole.values())
        assert chosen == min(lr for lr, mean in whole.items() if mean == best)
        better = len({*whole.values()}) > 1 and min(clean[chosen]) > 0.5
        if chosen in (rates[0], rates[-1]) and better:
            assert len(rates) == len(grid) + found.tuning.extend, "a better rate may lie beyond, and none was tried"


@pytest.mark.thorough
def test_each_size_is_tuned_and_goes_beyond_its_own_grid_by_its_step(tmp_path: Path) -> None:
    found = spec(method="lorta", seed=[0, 1])
    first = now(found, tmp_path)
    assert {(c.adapter.rank, c.training.lr, c.seed, c.training.steps, c.tuning) for c in first.configs} == {
        (rank, lr, seed, 4, True) for rank in (1, 2) for lr in (1e-3, 3e-3, 1e-2) for seed in (1000, 1001)
    }
    assert (first.total, first.tuning, first.more) == (12 + 4, 12, 2 * 3 * 2)
    then = pretend(tmp_path, found, peak(lambda config: 0.1 if config.adapter.rank == 1 else 3e-3))
    assert tried(then, size=1) == [1e-3, 3e-3, 1e-2, 0.03333, 0.1111, 0.3703] and tried(then, size=2) == [
        1e-3,
        3e-3,
        1e-2,
    ]
    assert kept(then) == {1: 0.1111, 2: 3e-3}
    assert then.extended == ("LoRTA r=1 on planted by 0.03333 0.1111 0.3703",)
    assert (then.total, then.tuning, then.more) == (18 + 4, 18, 0)


@pytest.mark.parametrize(
    ("grid", "at", "rates"),
    [
        ([1e-2, 1e-3, 3e-3], 1e-9, [3.701e-5, 1.111e-4, 3.333e-4]),  # each by 3, as the two lowest differ
        ([1e-3, 3e-3, 1e-2], 1e9, [0.03333, 0.1111, 0.3703]),
        ([1e-3, 1e-2], 1e-4, [1e-5, 1e-4]),
        ([1e-2, 2e-2, 2e-1], 1e9, [2.0, 20.0, 200.0]),
    ],
)
def test_the_step_is_that_of_the_outermost_rates_at_this_end(
    tmp_path: Path, grid: list[float], at: float, rates: list[float]
) -> None:
    found = spec(method="lorta", rank=1, lr=grid)
    then = pretend(tmp_path, found, peak(lambda _: at))
    assert sorted(set(tried(then)) - set(grid)) == pytest.approx(rates, rel=2e-3)


@pytest.mark.parametrize(
    ("ends", "rate"),
    [
        ({1e-3: 0.6, 3e-3: 0.7, 1e-2: 0.7}, 3e-3),  # the lower of equal ones
        ({1e-3: 0.7, 3e-3: 0.7, 1e-2: 0.7}, 1e-3),  # as a head with a rate of its own
        ({1e-3: 0.6, 3e-3: 0.7, 1e-2: "diverged"}, 3e-3),
        ({1e-3: 0.5, 3e-3: 0.4, 1e-2: 0.4}, 1e-3),  # no better than a constant answer
        ({1e-3: "diverged", 3e-3: "diverged", 1e-2: "failed"}, None),
    ],
)
def test_a_grid_is_not_extended_where_the_best_is_inside_or_no_rate_is_better_than_others(
    tmp_path: Path, ends: dict[float, float | str], rate: float | None
) -> None:
    def end(config: RunConfig) -> End:
        found = ends[config.training.lr]
        return (found, None) if isinstance(found, str) else ("finished", found)

    then = pretend(tmp_path, spec(method="lorta", rank=1), end)
    assert tried(then) == [1e-3, 3e-3, 1e-2] and not then.extended
    assert kept(then) == ({1: rate} if rate else {})
    assert then.blocked == (() if rate else ("LoRTA on planted: no learning rate gave a result at r=1",))


def test_the_mean_over_seeds_decides_and_not_the_best_run(tmp_path: Path) -> None:
    scores = {1000: {1e-3: 0.6, 3e-3: 0.7, 1e-2: 0.9}, 1001: {1e-3: 0.6, 3e-3: 0.75, 1e-2: 0.5}}

    def end(config: RunConfig) -> End:
        return "finished", scores.get(config.seed, scores[1000])[config.training.lr]

    assert kept(pretend(tmp_path / "two", spec(method="lorta", rank=1), end)) == {1: 3e-3}
    alone = spec(method="lorta", rank=1, tuning={"seed": 1000, "extend": 0})
    assert kept(pretend(tmp_path / "one", alone, end)) == {1: 1e-2}


def test_one_meaning_is_one_sweep_and_another_is_another() -> None:
    for change in ({"at": "none"}, {"at": "size"}, {"seed": [1000, 1001]}, {"seed": 1000}):
        assert read_spec({**TINY, "tuning": change}).id == read_spec(TINY).id, (
            "nothing is tuned, and the sweep is another"
        )
    ids = {spec(tuning=change).id for change in ({}, {"at": "method"}, {"extend": 0}, {"seed": 1000})}
    assert len({*ids, spec(**PLAIN).id}) == 5
    assert spec(tuning={"at": "size", "extend": 3, "seed": [1000, 1001]}).id == spec().id


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tuning": {"at": "sizes"}}, "tuning: at is 'sizes'; did you mean \"size\""),
        (
            {"tuning": {"at": "none"}},
            'tuning.at is "none", and lr of lora has 3 values; expected one for each method, or',
        ),
        ({"tuning": {"sed": 5}}, 'tuning: unknown key sed; did you mean "seed"'),
        ({"tuning": {"seed": [5, 0]}}, r"tuning.seed has 0, which is one of seed; .* such as seed = \[6\] under"),
        ({"tuning": {"extend": -1}}, "tuning: extend is -1; expected a whole number from 0"),
    ],
)
def test_tuning_that_is_not_understood_is_refused_by_name(change: dict[str, object], says: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=says):
        spec(**change)


def planted(monkeypatch: pytest.MonkeyPatch, stop: float = math.inf) -> list[RunConfig]:
    """Runs are computed, get scores on validation that rise with the rate, and are interrupted after so many."""
    real, calls = perform.execute, []

    def execute(config: RunConfig, *arguments: object, **more: object) -> dict[str, object]:
        if len(calls) >= stop:
            raise KeyboardInterrupt
        calls.append(config)
        computed = real(config, *arguments, **more)
        computed["result"]["validation"]["accuracy"] = 0.9 - abs(math.log10(config.training.lr) + 1) / 10
        computed["result"]["metric"]["chance"] = 0.5
        return computed

    monkeypatch.setattr(perform, "execute", execute)
    return calls


def sweep(out: Path, said: list[str] | None = None, **changes: object) -> object:
    made = {**GRID, "method": "lorta", "rank": 1, "lr": [1e-3, 1e-2], "tuning": {"extend": 2}, **changes}
    say = (lambda _: None) if said is None else said.append
    return ta.sweep(made, out, executor="inline", device="cpu", say=say)


@pytest.mark.thorough
def test_a_sweep_that_is_stopped_anywhere_tries_the_same_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with monkeypatch.context() as patched:
        planted(patched)
        whole = sweep(tmp_path / "whole", said)
    assert whole.complete and whole.total == 4 * 2 + 1
    text_ = "\n".join(said)
    assert (
        "LoRTA r=1 on planted by 0.1\n" in text_ and "best at the edge: extended LoRTA r=1 on planted by 0.1 1" in text_
    )
    for k in (2, 5, 8):
        with monkeypatch.context() as patched:
            planted(patched, k)
            with pytest.raises(KeyboardInterrupt):
                sweep(tmp_path / str(k))
        assert len(done(tmp_path / str(k))) == k
        states = status(tmp_path / str(k))
        assert states.attrs["more"] == {2: 4, 5: 2, 8: 0}[k] and states[["running", "waiting"]].any(axis=None)
        page = report(tmp_path / str(k), tmp_path / "page.html").read_text()
        assert {2: "2 of 5<", 5: "5 of 7<", 8: "8 of 9<"}[k] in page
        assert ("LoRTA r=1 on planted by 0.1" in page) == (k > 2)
        with monkeypatch.context() as patched:
            planted(patched)
            assert sweep(tmp_path / str(k)).complete
        assert results(tmp_path / str(k)) == results(tmp_path / "whole")
        assert not status(tmp_path / str(k))[["running", "waiting"]].any(axis=None)

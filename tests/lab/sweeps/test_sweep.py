"""The frontier job: what is run, once; what is left when it stops; and what is refused before it starts."""

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.configs import config_of

import tensoradapt as ta
from tensoradapt.lab import tasks
from tensoradapt.lab.analysis.tables import summarise
from tensoradapt.lab.runs import perform
from tensoradapt.lab.runs.execute import execute
from tensoradapt.lab.runs.store import load_runs
from tensoradapt.lab.runs.work_folder import WORK, claim
from tensoradapt.lab.sweeps.due import due
from tensoradapt.lab.sweeps.frontier import FRONTIER, PRESETS, frontier_spec, preset, run_frontier
from tensoradapt.lab.sweeps.plan_sweep import plan_sweep

# the runs of one rank with AdamW
GOLDEN_IDS = {
    "head": "29ae390e0a75b392",
    "lora": "ed17678fc63e2681",
    "cp": "0191087e253ac880",
    "tucker": "7190ea132fccafd9",
    "tensor_train": "3535e92ac4090bea",
    "vera": "6c6aa557af5cbc3e",
    "full": "39389c541bc3b5c8",
}
TINY = {"rank": 2, "seed": [0, 1], "steps": 4, "lr": 3e-3, "n_train": 64, "n_validation": 32, "n_test": 32}


def spec(size="quick", **more):
    options = {"model": "tiny-random-bert", "task": "planted", "method": ["cp", "lora"], **TINY, **more}
    return frontier_spec(size, **{key: value for key, value in options.items() if value is not None})


def configs(**more):
    found = spec(**more)
    return due(plan_sweep(found, Path("no-such-folder"))).configs


def run(root, say=print, device="cpu", **more):
    return run_frontier(spec(**more), root, device=device, workers=1, say=say)


def results(root):
    return {run.name: (root / run.name / "result.json").read_bytes() for run in load_runs(root)}


@pytest.mark.thorough
def test_a_frontier_leaves_a_folder_per_run_a_figure_and_a_table(tmp_path):
    ended, runs = run(tmp_path)
    assert len(runs) == ended.total == ended.finished == 2 * 4
    assert {run.name for run in runs} == {config.id for config in configs()}
    assert {path.name for path in tmp_path.iterdir() if not path.is_dir()} == {
        "frontier.csv",
        "frontier.png",
        "frontier.pdf",
        "frontier.txt",
    }
    for one in runs:
        accuracy = float((one.array("predictions").argmax(1) == one.array("labels")).mean())
        assert accuracy == pytest.approx(one.result["test"]["accuracy"])
        assert one.result["n_train"] == 64 and one.measurements["seconds"] > 0
    named = [line.split(",")[4] for line in (tmp_path / "frontier.csv").read_text().splitlines()]
    assert named == ["method", *summarise(runs)["method"]] and len(named) == 1 + 4


def test_the_runs_of_a_frontier_have_the_same_ids_on_every_machine():
    small = {"rank": 8, "seed": 0, "steps": 24, "lr": None, "n_train": 1000, "n_validation": 200, "n_test": 400}
    named = {"model": "all-minilm-l6-v2", "task": "snippets", "method": FRONTIER, "batch": 32}
    ids = {(c.method if c.adapter else c.kind): c.id for c in configs(optimizer="adamw", **small, **named)}
    assert ids == GOLDEN_IDS


@pytest.mark.thorough
def test_a_stopped_frontier_goes_on_and_ends_with_the_same_results(tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(whole)
    calls, real = [], perform.execute

    def interrupted(config, *arguments):
        calls.append(config.id)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(config, *arguments)

    monkeypatch.setattr(perform, "execute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(stopped)
    assert len(load_runs(stopped)) == 3 and (stopped / "frontier.png").exists()
    said = []
    run(stopped, said.append)
    assert "8 runs, 5 of them to do" in said[0]
    assert len(calls) == 4 + 5, "a finished run was run again, or one was left out"
    assert results(stopped) == results(whole)
    assert not list(stopped.glob(".*.tmp")) and not list((stopped / ".work").iterdir())


@pytest.mark.thorough
def test_a_run_that_another_process_computes_is_waited_for(tmp_path, monkeypatch):
    """And computed here once that process has let go of it without a result."""
    plan, order, real = configs(seed=0), [], perform.execute
    (tmp_path / WORK).mkdir()
    held = ExitStack()
    assert held.enter_context(claim(tmp_path / WORK, plan[1].id))

    def execute_and_let_go(config, *arguments):
        order.append(config.id)
        if len(order) == 3:
            held.close()
        return real(config, *arguments)

    monkeypatch.setattr(perform, "execute", execute_and_let_go)
    ended, _ = run(tmp_path, seed=0)
    assert ended.complete and len(order) == 4 and order[3] == plan[1].id


@pytest.mark.thorough
def test_a_run_that_failed_is_tried_again(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no luck")

    with monkeypatch.context() as patch:
        patch.setattr(perform, "execute", fail)
        assert len(run(tmp_path, seed=0)[0].failed) == 4
    assert run(tmp_path, seed=0)[0].complete


def test_the_name_of_a_run_follows_from_what_it_is():
    run = configs()[0]
    assert run.name == replace(run).name
    other = replace(run, training=replace(run.training, lr=0.5))
    assert run.name != other.name != replace(run, seed=7).name
    assert run.name.startswith("cp-r2-seed0-")


def test_every_size_runs_its_parameterizations_and_references_on_each_seed():
    for size, count, references in (
        ("quick", 8, {"head", "full"}),
        ("default", 18, {"head"}),
        ("full", 130, {"head", "full"}),
    ):
        own = dict.fromkeys((*TINY, "method"))
        plan = configs(size=size, **{**own, "model": "all-minilm-l6-v2", "task": "snippets"})
        assert len(plan) == len({run.id for run in plan}) == count
        named = {run.method if run.adapter else run.kind for run in plan}
        assert named == {*(row["method"] for row in preset(size)["method"]), *references}
        assert {run.training.lr for run in plan if run.adapter} == {preset(size)["lr"]}
        assert all(run.training.optimizer == ("equal_steps" if run.adapter else "adamw") for run in plan)
    assert PRESETS == ("quick", "default", "full")


def test_a_run_without_a_finite_loss_is_diverged_and_names_the_step():
    run = config_of("tiny-random-bert", "planted", "lora", layout=": out : in", rank=2, lr=1e30, steps=6)
    result = execute(run, "cpu")["result"]
    assert result["status"] == "diverged" and result["note"].startswith("step ")


def test_a_run_that_learns_nothing_is_at_chance_and_one_that_learns_is_not():
    run = config_of("tiny-random-bert", "planted", kind="head", lr=1e-9, steps=1)
    assert execute(run, "cpu")["result"]["status"] == "at chance"
    accuracy, matthews, test = tasks.get("planted").metric, tasks.get("cola").metric, range(100)
    assert accuracy.at_chance(0.55, 0.5, test) and not accuracy.at_chance(0.61, 0.5, test)
    assert matthews.at_chance(float("nan"), 0.0, test) and not matthews.at_chance(0.3, 0.0, test)


@pytest.mark.thorough
def test_the_planted_delta_can_be_learned_by_an_adapter_and_not_by_the_head():
    planted, shared = ("tiny-random-bert", "planted"), {"lr": 0.01, "steps": 150, "n_train": 1024}
    head = execute(config_of(*planted, kind="head", **shared), "cpu")["result"]["test"]["accuracy"]
    run = config_of(*planted, "cp", layout="layer proj : head dim : model", rank=4, **shared)
    cp = execute(run, "cpu")["result"]
    assert cp["test"]["accuracy"] > head + 0.05


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "all-minilm-l6"}, "unknown model 'all-minilm-l6'.*did you mean \"all-minilm-l6-v2\""),
        ({"method": "tuker"}, r"unknown method 'tuker'; did you mean \"tucker\""),
        ({"lr": [1e-3, 1e-2]}, "lr of cp has 2 values; expected one, as a frontier tunes nothing"),
        ({"size": "quik"}, "size is 'quik'; did you mean \"quick\""),
        ({"rank": None, "budget": 3}, "budget 3 is below the smallest possible"),
        ({"rank": [10**6]}, "the matrices? themselves have only|themselves have only"),
    ],
)
def test_what_will_not_do_is_refused_before_anything_is_run(tmp_path, options, says):
    with pytest.raises(ta.TensorAdaptError, match=says):
        run(tmp_path / "runs", **options)
    assert not list(tmp_path.glob("runs/*"))


def test_results_are_deterministic_and_times_are_kept_apart():
    run = configs()[1]
    first, second = execute(run, "cpu"), execute(run, "cpu")
    assert json.dumps(first["result"]) == json.dumps(second["result"])
    assert all(np.array_equal(first["arrays"][name], second["arrays"][name]) for name in first["arrays"])
    assert not set(first["result"]) & set(first["measurements"])

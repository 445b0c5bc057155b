"""The frontier job: what is run, once; what is left when it stops; and what is refused before it starts."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open

import tensoradapt as ta
from tensoradapt.runs.config import RunConfig
from tensoradapt.runs.execute import at_chance, collate, execute, prepare
from tensoradapt.runs.store import load_runs
from tensoradapt.runs.work_folder import claim
from tensoradapt.storage.card import adapter_of
from tensoradapt.sweeps import run_frontier
from tensoradapt.sweeps.presets import FRONTIER, SIZES, Size, frontier_configs, rates

TINY = Size((2,), (0, 1), 4, 64, 32, 32)


def configs(**more):
    options = {"model": "tiny-random-bert", "task": "planted", "families": ("cp", "lora"), **more}
    return frontier_configs(TINY, **options)


def results(root):
    return {run.name: (root / run.name / "result.json").read_bytes() for run in load_runs(root)}


def test_a_frontier_leaves_a_folder_per_run_a_figure_and_a_table(tmp_path):
    plan = configs()
    outcome = run_frontier.run_frontier(plan, tmp_path, "cpu", print)
    assert len(outcome.runs) == outcome.total == len(plan) == 2 * 4
    assert {path.name for path in tmp_path.iterdir() if not path.is_dir()} == {
        "frontier.csv",
        "frontier.png",
        "frontier.pdf",
    }
    for run in outcome.runs:
        accuracy = float((run.predictions().argmax(1) == run.labels()).mean())
        assert accuracy == pytest.approx(run.result["test"]["accuracy"])
        assert run.result["n_train"] == 64 and run.measurements["seconds"] > 0
    rows = run_frontier.rows(outcome.runs)
    assert [row[0] for row in rows] == ["method", "CP (LoRTA)", "LoRA", "frozen base, trained head", "full fine-tuning"]


def test_the_bytes_of_an_adapter_are_those_of_its_saved_tensors(tmp_path):
    config = next(one for one in configs(families=("vera",)) if one.kind == "adapter")
    model, _ = prepare(config)
    adapter_of(model).save(tmp_path)
    with safe_open(tmp_path / "adapter.safetensors", "pt") as file:
        stored = sum(file.get_tensor(name).nbytes for name in file.keys())
    assert execute(config, "cpu")["measurements"]["adapter_bytes"] == stored > 0


def test_a_stopped_frontier_goes_on_and_ends_with_the_same_results(tmp_path, monkeypatch):
    plan = configs()
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run_frontier.run_frontier(plan, whole, "cpu", print)
    calls = []

    def interrupted(config, device, on_step):
        calls.append(config.name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return execute(config, device, on_step)

    monkeypatch.setattr(run_frontier, "execute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_frontier.run_frontier(plan, stopped, "cpu", print)
    assert len(load_runs(stopped)) == 3 and (stopped / "frontier.png").exists()
    said = []
    run_frontier.run_frontier(plan, stopped, "cpu", said.append)
    assert said == ["3 of 8 runs are there already; going on with the rest"]
    assert len(calls) == 4 + 5, "a finished run was run again, or one was left out"
    assert results(stopped) == results(whole)
    assert not [path for path in stopped.iterdir() if path.name.startswith(".")]


def test_a_run_that_another_process_computes_is_left_to_it(tmp_path):
    plan = configs(seeds=[0])
    with claim(tmp_path, plan[1].name) as ours:
        assert ours
        outcome = run_frontier.run_frontier(plan, tmp_path, "cpu", print)
    assert (len(outcome.runs), outcome.total, outcome.elsewhere) == (3, 4, 1)
    assert plan[1].name not in results(tmp_path)


def test_the_name_of_a_run_follows_from_what_it_is():
    run = configs()[1]
    assert run.name == replace(run).name
    assert run.name != replace(run, lr=run.lr * 2).name != replace(run, seed=7).name
    assert run.name.startswith("cp-r2-seed0-")


def test_a_rank_or_seed_named_twice_is_one_run():
    assert len(configs(ranks=[2, 2], seeds=[0, 1, 0])) == len(configs(ranks=[2], seeds=[0, 1]))


def test_every_size_runs_all_parameterizations_and_both_references_on_each_seed():
    for size, count in (("quick", 7), ("default", 36), ("full", 66)):
        plan = frontier_configs(SIZES[size], model="all-minilm-l6-v2", task="snippets")
        assert len(plan) == len({run.name for run in plan}) == count
        assert {run.parameterization or run.kind for run in plan} == {*FRONTIER, "head", "full"}


def test_every_frontier_parameterization_has_a_tuned_rate():
    assert set(rates()) == {*FRONTIER, "head", "full"}


def test_a_run_without_a_finite_loss_is_diverged_and_names_the_step():
    run = RunConfig("adapter", 0, "tiny-random-bert", "planted", 1e30, 6, "lora", (": out : in",), rank=2)
    result = execute(run, "cpu")["result"]
    assert result["status"] == "diverged" and result["note"].startswith("step ")


def test_a_run_that_learns_nothing_is_collapsed_and_one_that_learns_is_not():
    run = RunConfig("head", 0, "tiny-random-bert", "planted", 1e-9, 1)
    assert execute(run, "cpu")["result"]["status"] == "collapsed"
    assert at_chance(0.55, 0.5, "accuracy", 100) and not at_chance(0.61, 0.5, "accuracy", 100)
    assert at_chance(float("nan"), 0.0, "matthews", 100) and not at_chance(0.3, 0.0, "matthews", 100)


def test_the_planted_delta_can_be_learned_by_an_adapter_and_not_by_the_head():
    shared = {"model": "tiny-random-bert", "task": "planted", "seed": 0, "lr": 0.01, "steps": 150, "n_train": 1024}
    head = execute(RunConfig("head", **shared), "cpu")["result"]["test"]["accuracy"]
    layout = ("layer proj : head dim : model",)
    cp = execute(RunConfig("adapter", parameterization="cp", layout=layout, rank=4, **shared), "cpu")["result"]
    assert cp["test"]["accuracy"] > head + 0.05


def test_padding_does_not_change_what_is_said_about_a_sentence():
    assert collate([[2, 5, 1], [2, 1]], "cpu")["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "all-minilm-l6"}, "unknown model 'all-minilm-l6'.*did you mean \"all-minilm-l6-v2\""),
        ({"task": "snippet"}, 'unknown task "snippet"; did you mean "snippets"'),
        ({"families": ["tuker"]}, "unknown parameterization 'tuker'; did you mean \"tucker\""),
        ({"lr": 0.0}, "lr is 0.0; expected a finite number above 0"),
        ({"steps": 0}, "steps is 0; expected a whole number of 1 or more"),
        ({"seeds": [-1]}, "seed is -1; expected a whole number from 0"),
        ({"ranks": [0]}, "rank is 0; expected a whole number of 1 or more"),
        ({"budgets": [3]}, "budget 3 is below the smallest possible"),
        ({"layout": ["layer : head dim : model : x"]}, "has 3 colons; expected exactly two"),
        ({"ranks": [10**6]}, "the matrices? themselves have only|themselves have only"),
    ],
)
def test_what_will_not_do_is_refused_before_anything_is_run(tmp_path, options, says):
    with pytest.raises(ta.TensorAdaptError, match=says):
        run_frontier.run_frontier(configs(**options), tmp_path / "runs", "cpu", print)
    assert not list(tmp_path.glob("runs/*"))


def test_a_device_and_a_folder_that_will_not_do_are_refused(tmp_path):
    with pytest.raises(ta.TensorAdaptError, match=r"device 'tpu' cannot be used .*expected auto, cpu or cuda"):
        run_frontier.run_frontier(configs(), tmp_path, "tpu", print)
    (tmp_path / "file").write_text("")
    with pytest.raises(ta.TensorAdaptError, match=r"cannot be written .*choose another path"):
        run_frontier.run_frontier(configs(), tmp_path / "file", "cpu", print)


def test_results_are_deterministic_and_times_are_kept_apart():
    run = configs()[1]
    first, second = execute(run, "cpu"), execute(run, "cpu")
    assert json.dumps(first["result"]) == json.dumps(second["result"])
    assert all(np.array_equal(first["arrays"][name], second["arrays"][name]) for name in first["arrays"])
    assert not set(first["result"]) & set(first["measurements"])

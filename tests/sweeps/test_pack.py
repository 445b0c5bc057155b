"""Runs that take turns in one process, over one base in memory: each is what it is alone, and ends by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.sweeping import (
    TINY,
    attempts,
    break_one,
    done,
    kill,
    results,
    start,
    undisturbed,
    wait_for,
    workers,
    write_spec,
)

import tensoradapt as ta
from tensoradapt.runs import execute, perform
from tensoradapt.runs.store import load_failures, load_runs
from tensoradapt.runs.work_folder import claim
from tensoradapt.sweeps import run_sweep
from tensoradapt.sweeps.spec import read_spec

MIX = {"method": ["lora", "lorta", "vera", "tucker", "tensor_train", "loha"], "rank": 2}
MIX |= {"reference": ["head", "bitfit"], "seed": [0, 1], "head_lr": 3e-3}


def sweep(folder, said=None, **changes):
    say = (lambda _: None) if said is None else said.append
    return ta.sweep({**TINY, **changes}, folder, executor="inline", device="cpu", say=say)


@pytest.fixture
def turns(monkeypatch):
    """The runs of each pack that is computed."""
    seen, real = [], perform.in_turns
    monkeypatch.setattr(perform, "in_turns", lambda works: seen.append(list(works)) or real(works))
    return seen


@pytest.mark.thorough
def test_packed_runs_have_the_ids_and_the_bytes_of_those_that_are_alone(tmp_path, turns):
    assert sweep(tmp_path / "alone", **MIX).complete and not turns
    assert sweep(tmp_path / "packed", pack=5, **MIX).complete
    assert [len(pack) for pack in turns] == [5, 5, 5]  # the last is alone
    assert results(tmp_path / "packed") == results(tmp_path / "alone") and len(done(tmp_path / "packed")) == 16
    for path in done(tmp_path / "packed"):
        assert [a["event"] for a in attempts(path.parent)] == ["started", "finished"]
    assert not list((tmp_path / "packed" / ".work").iterdir())


def test_a_pack_is_no_part_of_what_a_specification_means(tmp_path, turns):
    spec = {**TINY, "pack": 3}
    assert read_spec(spec).id == read_spec(TINY).id and read_spec(spec).pack == 3
    said = []
    sweep(tmp_path, said, pack=3)
    assert "up to 3 runs take turns in one process" in "\n".join(said)
    assert sweep(tmp_path).complete and len(turns) == 1
    assert len(list((tmp_path / "sweeps").iterdir())) == 1


@pytest.mark.thorough
def test_the_frozen_weights_of_a_pack_are_in_memory_once_and_heads_are_each_runs_own(tmp_path, monkeypatch):
    models, real = [], execute.prepare

    def prepare(*given):
        models.append(real(*given))
        return models[-1]

    monkeypatch.setattr(execute, "prepare", prepare)
    sweep(tmp_path, pack=4, seed=[0, 1], method="lora")
    del models[0]  # the probe's
    frozen = [{p.data_ptr() for p in model.parameters() if not p.requires_grad} for model, _ in models]
    heads = {model.classifier.weight.data_ptr() for model, _ in models}
    assert len(models) == 4 and all(one == frozen[0] for one in frozen) and len(heads) == 4


@pytest.mark.thorough
def test_a_run_that_fails_ends_alone(tmp_path, turns):
    alone, packed = tmp_path / "alone", tmp_path / "packed"
    sweep(alone)
    bad = break_one(packed, read_spec(TINY))
    swept = sweep(packed, pack=4)
    assert (swept.finished, swept.failed) == (3, (bad,)) and len(turns[0]) == 4
    assert "KeyError" in load_failures(packed)[bad].error["kind"]
    expected = results(alone)
    del expected[bad]
    assert results(packed) == expected


def test_a_run_that_diverges_is_a_result_and_the_others_go_on(tmp_path, turns):
    rates = {"lora": 1e30, "lorta": 1e-3}
    more = {"lr": rates, "optimizer": "adamw", "rank": 1}
    sweep(tmp_path / "alone", **more)
    sweep(tmp_path / "packed", pack=2, **more)
    assert len(turns) == 1 and results(tmp_path / "alone") == results(tmp_path / "packed")
    status = {run.row["method"]: run.row["status"] for run in load_runs(tmp_path / "packed")}
    assert status["lora"] == "diverged" != status["lorta"]


@pytest.mark.thorough
def test_a_run_without_memory_beside_the_others_is_tried_alone(tmp_path, turns, monkeypatch):
    real = execute.training
    seen = []

    def training(model, batches, options, **more):
        seen.append(options)
        if len(seen) == 3:  # the probe's is the first
            raise torch.OutOfMemoryError("no memory")
        return real(model, batches, options, **more)

    sweep(tmp_path / "alone")
    monkeypatch.setattr(execute, "training", training)
    assert sweep(tmp_path / "packed", pack=4).complete and len(turns) == 1 and len(seen) == 6
    assert results(tmp_path / "packed") == results(tmp_path / "alone")
    events = sorted(len(attempts(path.parent)) for path in done(tmp_path / "packed"))
    assert events == [2, 2, 2, 4]


def test_a_run_that_another_process_computes_is_left_out_of_the_pack(tmp_path, turns):
    spec = read_spec(TINY)
    name = break_one(tmp_path, spec)
    work = tmp_path / ".work"
    others = [n for n in (path.name for path in work.iterdir()) if n != name]
    with claim(work, name) as ours:
        assert ours and perform.perform_all(tmp_path, [name, "unknown"], "cpu") == ["elsewhere", "elsewhere"]
    assert not others and not turns


@pytest.mark.thorough
def test_packs_leave_no_worker_without_a_run(tmp_path, monkeypatch):
    packs = []

    class Noted(run_sweep.EXECUTORS["local"]):
        def submit(self, names, together=1):
            super().submit(names, together)
            packs.append((len(names), together))

    monkeypatch.setattr(run_sweep, "EXECUTORS", {"local": Noted})
    more = {"executor": "local", "workers": 2, "device": "cpu", "say": [].append}
    assert ta.sweep({**TINY, "pack": 10}, tmp_path, **more).complete
    assert packs == [(4, 2), (0, 1)]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pack": 0}, "pack is 0; expected a whole number from 1 up to 1,000"),
        ({"pack": True}, "pack is True; expected a whole number"),
        ({"pack": 2, "method": None, "reference": "full"}, "pack is 2, and every method is full fine-tuning"),
    ],
)
def test_a_pack_that_cannot_be_is_refused(changes, says):
    with pytest.raises(ta.TensorAdaptError, match=says):
        read_spec({key: value for key, value in {**TINY, **changes}.items() if value is not None})


@pytest.mark.slow
def test_a_killed_pack_goes_on_from_the_state_of_each_run(tmp_path):
    long = {"steps": 120, "rank": [1, 2, 3], "pack": 3}
    whole = write_spec(tmp_path, **{**long, "pack": 1})
    expected = undisturbed(whole, tmp_path / "whole")
    spec, out = write_spec(tmp_path, **long), tmp_path / "runs"
    process = start(spec, out, "--workers", "2", "--checkpoint-every", "10")
    kill(wait_for(lambda: workers(out, "state.safetensors"))[0])
    assert process.wait(120) == 0
    assert results(out) == expected
    last = [attempts(path.parent)[-1] for path in done(out)]
    assert any(a["resumed_at_step"] >= 10 for a in last)


@pytest.mark.slow
def test_on_real_texts_a_pack_is_what_its_runs_are_alone(tmp_path):
    """all-MiniLM-L6-v2 on sentences of film reviews."""
    real = {"model": "all-minilm-l6-v2", "task": "snippets", "steps": 12, "batch": 8, "n_train": 200, "n_test": 200}
    real |= {"method": ["lora", "lorta", "tucker"], "rank": 4}
    alone, packed = (undisturbed(write_spec(tmp_path, **real, pack=k), tmp_path / f"pack{k}") for k in (1, 3))
    assert len(alone) == 3 and alone == packed
    assert all(np.isfinite(run.array("losses")).all() for run in load_runs(tmp_path / "pack3"))

"""Several trainings in one process: each is, to the bit, what it is alone, and none sees another."""

from __future__ import annotations

import copy

import pytest
import torch
from support.families import planned

import tensoradapt as ta
from tensoradapt import tasks
from tensoradapt.data import models
from tensoradapt.training.fit import fit
from tensoradapt.training.state import TrainingState

# name: parameterization, rank, further arguments of the plan, and of the run
MIX = {
    "lora": ("lora", 3, {}, {"lr": 1e-2, "seed": 4}),
    "cp": ("cp", 5, {}, {"lr": 3e-3, "optimizer": "equal_steps"}),
    "tucker": ("tucker", 2, {"rule": "dora"}, {"lr": 1e-2, "seed": 1, "weight_decay": 0.1}),
    "tensor_train": ("tensor_train", 4, {}, {"lr": 1e-3, "precondition": 1e-4}),
    "vera": ("vera", 7, {}, {"lr": 3e-2, "steps": 5}),
    "loha": ("loha", 2, {"start": "subtract"}, {"lr": 1e-2, "clip": 0.1, "warmup": 0.5}),
    "lora_xs": ("lora_xs", 2, {}, {"lr": 1e-2, "precision": "bf16"}),
    "smaller": ("cp", 4, {}, {"lr": 1e-2, "reduce": {4: 2}}),
}


def batches(seed, n=8, samples=4, tokens=6):
    """Each run has its own data, of another shape than the others'."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n):
        ids = torch.randint(3, 64, (samples, tokens), generator=generator)
        yield {"input_ids": ids, "labels": ids[:, 1] % 2}


def base() -> torch.nn.Module:
    """A tiny model, whose base has dropout."""
    torch.manual_seed(0)
    return models.load("tiny-random-bert", tasks.get("planted"))


def attach(model, name):
    parameterization, rank, more, _ = MIX[name]
    more = {"train": ("classifier",), "dropout": 0.2, **more}
    plan = planned(ta.find_sites(model, "attention"), parameterization, rank=rank, **more)
    return ta.attach(model, plan, seed=len(name), name=name)


def run(name, data=None):
    k = list(MIX).index(name)
    own = batches(k if data is None else data, samples=3 + k % 3, tokens=5 + k)
    return {"batches": own, "steps": 8, "heads": ("classifier",), "head_lr": 2e-3, **MIX[name][3]}


def alone(model, name):
    attach(model, name)
    settings = run(name)
    torch.manual_seed(settings.pop("seed", 0))
    result = fit(model, settings.pop("batches"), **settings)
    return result, numbers(model, name)


def numbers(model, name):
    """The adapter and the head as they would be saved."""
    ta.use(model, name)
    return {key: p.detach().clone() for key, p in model.named_parameters() if p.requires_grad}


def together(names, data=None):
    model = base()
    for name in names:
        attach(model, name)
    frozen = {key: p.clone() for key, p in model.named_parameters() if not key.startswith("tensoradapt")}
    results = ta.fit_many(model, {name: run(name, (data or {}).get(name)) for name in names})
    found = {name: (results[name], numbers(model, name)) for name in names}
    ta.use(model, names[0])
    for key, p in model.named_parameters():
        assert key not in frozen or "classifier" in key or torch.equal(p, frozen[key]), key
    return found


def assert_same(one, other):
    (result, values), (result2, values2) = one, other
    assert (result.status, result.note, result.losses) == (result2.status, result2.note, result2.losses)
    assert values.keys() == values2.keys()
    assert all(torch.equal(values[key], values2[key]) for key in values)


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def dtype(request):
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


@pytest.mark.thorough
def test_each_run_is_to_the_bit_what_it_is_alone_with_dropout_and_data_of_any_shape(dtype):
    found = together(list(MIX))
    assert next(iter(found["cp"][1].values())).dtype == dtype
    for name in MIX:
        assert_same(found[name], alone(base(), name))
    assert len(found["vera"][0].losses) == 5 and len(found["cp"][0].losses) == 8


@pytest.mark.thorough
def test_other_data_of_one_run_change_no_bit_of_the_others():
    names = ["lora", "cp", "tucker"]
    one, other = together(names), together(names, {"cp": 99})
    assert_same(one["lora"], other["lora"])
    assert_same(one["tucker"], other["tucker"])
    assert one["cp"][0].losses != other["cp"][0].losses


@pytest.mark.thorough
@pytest.mark.parametrize("bad", ["lora", "cp"])
def test_a_run_that_diverges_ends_alone(bad):
    names, model = ["lora", "cp", "tucker"], base()
    for name in names:
        attach(model, name)

    def loss(m, batch):
        return m(**batch).loss * (float("nan") if len(seen) == 3 else 1.0)

    seen: list[int] = []
    runs = {name: run(name) for name in names}
    runs[bad] |= {"loss": loss, "on_step": lambda step, _: seen.append(step)}
    results = ta.fit_many(model, runs)
    assert (results[bad].status, results[bad].note) == ("diverged", "step 4: the loss is nan")
    for name in names:
        if name != bad:
            assert_same((results[name], numbers(model, name)), alone(base(), name))


def test_the_model_is_left_as_it_was_used_with_all_adapters_trained():
    model = base()
    for name in ("lora", "cp"):
        attach(model, name)
    ta.use(model, "lora")
    flags = {key: p.requires_grad for key, p in model.named_parameters()}
    state, ids = torch.get_rng_state(), {key: id(p) for key, p in model.named_parameters()}
    before = numbers(copy.deepcopy(model), "lora")
    ta.fit_many(model, {name: run(name) for name in ("lora", "cp")})
    assert {key: p.requires_grad for key, p in model.named_parameters()} == flags
    assert {key: id(p) for key, p in model.named_parameters()} == ids
    assert torch.equal(torch.get_rng_state(), state) and not model.training
    assert not any(
        torch.equal(before[key], value) for key, value in numbers(model, "lora").items() if "scale" not in key
    )


@pytest.mark.thorough
def test_a_run_goes_on_from_its_own_checkpoint(tmp_path):
    class Stopped(Exception):
        pass

    def stop(step, _):
        if step == 6:
            raise Stopped

    names = ["lora", "cp"]
    whole = together(names)
    for stopping in (stop, None):
        model = base()
        for name in names:
            attach(model, name)
        kept = {name: TrainingState(tmp_path / name, 2) for name in names}
        runs = {name: {**run(name), "checkpoint": kept[name]} for name in names}
        if stopping:
            with pytest.raises(Stopped):
                ta.fit_many(model, {**runs, "cp": {**runs["cp"], "on_step": stopping}})
    found = ta.fit_many(model, runs)
    assert {state.resumed for state in kept.values()} <= {4, 6}
    for name in names:
        assert_same((found[name], numbers(model, name)), whole[name])


def test_memory_holds_one_base():
    model = base()
    for name in ("lora", "cp"):
        attach(model, name)
    seen = {}

    def loss(m, batch):
        seen.setdefault(id(m), {p.data_ptr() for p in m.parameters() if not p.requires_grad})
        return m(**batch).loss

    ta.fit_many(model, {name: {**run(name), "loss": loss} for name in ("lora", "cp")})
    one, other = seen.values()
    assert one == other <= {p.data_ptr() for p in model.parameters()}


def test_what_cannot_be_trained_together_is_refused_before_a_step():
    model = base()
    for name in ("lora", "cp"):
        attach(model, name)
    before = numbers(model, "cp")
    ta.use(model, "cp")
    shared = batches(0)
    refused = {
        "runs is {}; expected a table with at least one key": {},
        "the model has no adapter named 'lore'; did you mean \"lora\"": {"lore": run("lora")},
        "run cp: lr is missing; fit needs it": {"lora": run("lora"), "cp": {"batches": [], "steps": 2}},
        "run cp: unknown key rate": {"cp": {**run("cp"), "rate": 1}},
        "run cp: lr is -1; expected a finite number above 0": {"cp": {**run("cp"), "lr": -1}},
        "run cp: heads names 'clasifier'": {"lora": run("lora"), "cp": {**run("cp"), "heads": ("clasifier",)}},
        "runs 'lora' and 'cp' have the same batches, of which each needs its own": {
            name: {**run(name), "batches": shared} for name in ("lora", "cp")
        },
        "runs is 3": 3,
    }
    for text, runs in refused.items():
        with pytest.raises(ta.TensorAdaptError) as caught:
            ta.fit_many(model, runs)
        assert text in str(caught.value)
    ta.merge(model)
    with pytest.raises(ta.TensorAdaptError, match=r"merged into the weights; call unmerge\(model\) first"):
        ta.fit_many(model, {"cp": run("cp")})
    ta.unmerge(model)
    with pytest.raises(ta.TensorAdaptError, match="has no adapter attached"):
        ta.fit_many(base(), {"cp": run("cp")})
    assert all(torch.equal(before[key], value) for key, value in numbers(model, "cp").items())

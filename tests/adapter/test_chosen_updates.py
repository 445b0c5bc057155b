"""An adapter refuses tasks, sites and positions that it does not have; a task is chosen for all samples or for each."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.models import inputs, make, perturb
from torch import nn

import tensoradapt as ta
from tensoradapt.testing.laws import float64

TIED = "layer proj : head dim : model"
SCENES = "env layer scene : out : in"


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs("bert")).logits


def tasked(**changes: Any) -> tuple[nn.Module, ta.Adapter]:
    model = make("bert")
    plan = ta.plan(model, method="metatt-4+1d", paper=True, rank=2, tasks=("rte", "cola", "sst2"), **changes)
    with float64():
        adapter = ta.attach(model, plan)
    perturb(adapter)
    return model, adapter


def test_a_task_is_chosen_for_all_or_for_each_sample() -> None:
    model, adapter = tasked()
    alone = {}
    for task in adapter.plan.spec.tasks:
        adapter.select(task=task)
        alone[task] = logits(model)
    assert not torch.allclose(alone["rte"], alone["cola"])
    adapter.select(task=["sst2", "rte"])
    mixed = logits(model)
    torch.testing.assert_close(mixed, torch.stack([alone["sst2"][0], alone["rte"][1]]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (1, "cola"),
        ([2, 0], ["sst2", "rte"]),
        (torch.tensor([2, 0]), ["sst2", "rte"]),
        ([np.int64(2), torch.tensor(0)], ["sst2", "rte"]),
        (("sst2", 0), ["sst2", "rte"]),
    ],
)
def test_a_tasks_index_chooses_as_its_name_does(index: Any, name: Any) -> None:
    model, adapter = tasked()
    adapter.select(task=name)
    expected = logits(model)
    adapter.select(task="rte")
    adapter.select(task=index)
    assert torch.equal(logits(model), expected)


def test_a_tasks_delta_is_its_slice_of_the_train() -> None:
    _, adapter = tasked()
    adapter.select(task="cola")
    [tensor] = adapter.factored
    f = {name: value.detach() for name, value in tensor.factors.items()}
    site = adapter.plan.sites[0]
    row = f["in"] @ f["layer"][:, 0] @ f["proj"][:, 0] @ f["task"][:, 1] @ f["out"]
    torch.testing.assert_close(adapter.delta(site).detach(), tensor.scale * row.T)


def rooms(**changes: Any) -> tuple[nn.Module, ta.Adapter]:
    model, names = make("bert"), {"scene": ("kitchen", "hall"), "env": ("day", "night", "rain")}
    plan = ta.plan(model, "tucker", SCENES, 2, tasks=names, train=(), **changes)
    with float64():
        adapter = ta.attach(model, plan)
    perturb(adapter)
    return model, adapter


def test_an_update_of_two_modes_is_the_slice_of_its_tensor_at_both() -> None:
    _, adapter = rooms()
    group, tensor = adapter.plan.groups[0], adapter.factored[0]
    assert tensor.network.layout.shape[:3] == (3, 3, 2) and adapter.plan.spec.n_tasks == 6
    for (i, env), (j, scene) in itertools.product(enumerate(("day", "night", "rain")), enumerate(("kitchen", "hall"))):
        adapter.select(scene=scene, env=env)
        assert adapter.task() == {"scene": scene, "env": env}
        for member in group.members:
            torch.testing.assert_close(adapter.delta(member.site), tensor.full()[i, member.at["layer"], j])


def test_two_modes_are_chosen_for_all_or_for_each_sample_and_one_that_is_not_named_stays(tmp_path: Path) -> None:
    model, adapter = rooms()
    alone = {}
    for scene, env in itertools.product((0, 1), (0, 1, 2)):
        adapter.select(scene=scene, env=env)
        alone[scene, env] = logits(model)
    assert not any(torch.allclose(alone[a], alone[b]) for a, b in itertools.combinations(alone, 2))
    adapter.select(scene="hall", env=["rain", "day"])
    torch.testing.assert_close(logits(model), torch.stack([alone[1, 2][0], alone[1, 0][1]]), rtol=1e-10, atol=1e-10)
    adapter.select(scene=["kitchen", "hall"])
    torch.testing.assert_close(logits(model), torch.stack([alone[0, 2][0], alone[1, 0][1]]), rtol=1e-10, atol=1e-10)
    adapter.save(tmp_path / "rooms")
    loaded = ta.load(again := make("bert"), tmp_path / "rooms")
    assert loaded.plan.spec.tasks == adapter.plan.spec.tasks
    loaded.select(env="night", scene="hall")
    assert torch.equal(logits(again), alone[1, 1])


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        (
            {"scene": "hall"},
            r"no env is selected; give one of day, night, rain too, as in select\(scene='kitchen'",
        ),
        ({"task": "hall"}, "the adapter has no mode 'task' to select.*Valid: scene, env"),
        ({"scene": "hall", "env": "hail"}, "env 'hail' is not in this adapter.*Valid: day, night, rain.*0 to 2"),
        ({"scene": ["hall", 0, 1], "env": [0, 1]}, "3 scenes and 2 envs are selected; expected one of each for every"),
    ],
)
def test_a_choice_of_two_modes_that_does_not_fit_is_refused(chosen: dict[str, Any], says: str) -> None:
    model, adapter = rooms()
    with pytest.raises(ta.TensorAdaptError, match=says):
        adapter.select(**chosen)
    with pytest.raises(ta.TensorAdaptError, match=r"no scene and env is selected.*select\(scene=..., env=...\)"):
        logits(model)


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (lambda model, _: logits(model), r"no task is selected.*select\(task=...\) with one of rte, cola, sst2"),
        (lambda _, adapter: adapter.select(task="mnli"), "task 'mnli' is not in this adapter.*Valid: rte, cola, sst2"),
        (lambda _, adapter: adapter.select(task=["rte", "colla"]), 'did you mean "cola"'),
        (lambda _, adapter: adapter.select(task=3), "task 3 is not in this adapter.*rte, cola, sst2.*indices 0 to 2"),
        (lambda _, adapter: adapter.select(task=[0, -1]), "task -1 is not in this adapter.*indices 0 to 2"),
    ],
)
def test_an_unknown_or_missing_task_is_refused(run: Any, says: str) -> None:
    model, adapter = tasked()
    with pytest.raises(ta.TensorAdaptError, match=says):
        run(model, adapter)


@pytest.mark.parametrize(
    "task", [None, [], {"rte": 1}, {"rte"}, True, 1.0, ["rte", None], torch.tensor([0.0]), torch.ones(1, 2).long()]
)
def test_what_is_no_task_is_refused_and_the_choice_stays(task: Any) -> None:
    model, adapter = tasked()
    adapter.select(task="cola")
    before = logits(model)
    says = r"expected a name or index of rte, cola, sst2 \(0 to 2\), or a sequence with one for each sample"
    with pytest.raises(ta.TensorAdaptError, match=r"task is .*" + says):
        adapter.select(task=task)
    assert torch.equal(logits(model), before)


def test_a_task_of_an_adapter_without_tasks_is_refused() -> None:
    for task in ("rte", 0, []):
        with pytest.raises(ta.TensorAdaptError, match="the adapter was planned without tasks, so none can be selected"):
            ta.Adapter(ta.plan(make("bert"), TIED, "cp", rank=2)).select(task=task)


def test_a_batch_of_another_size_than_its_tasks_is_refused() -> None:
    model, adapter = tasked()
    adapter.select(task=["rte", "cola", "sst2"])
    with pytest.raises(ta.TensorAdaptError, match="was given 3 tasks and the batch has 2 samples"):
        logits(model)
    with pytest.raises(ta.TensorAdaptError, match="a task for each sample is selected"):
        adapter.delta(adapter.plan.sites[0])


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"layout": "layer task : out : in"}, "has the mode task; name the tasks, as in tasks=.'a', 'b'"),
        ({"layout": "layer : out : in", "tasks": ("a",)}, "tasks=.*'a'.* has no mode task"),
        ({"layout": "(layer task) : out : in", "tasks": ("a",)}, "merges layer task; task needs a mode of its own"),
        ({"layout": SCENES}, r"has the mode env; name the envs, as in tasks=\{'scene': \('a', 'b'\), 'env': .*\}"),
        ({"layout": SCENES, "tasks": {"env": ("day",), "scene": ()}}, "has the mode scene; name the scenes"),
        ({"layout": "task : out : in", "tasks": {"task": ("a",), "env": ("b",)}}, "tasks=.*'b'.* has no mode env"),
        ({"layout": SCENES, "tasks": {"scenes": ("a",)}}, "tasks has 'scenes'.*; did you mean \"scene\"?"),
        ({"layout": SCENES, "tasks": {"scene": "hall"}}, "tasks of scene='hall'; expected a sequence of distinct"),
        ({"layout": "layer task : out : in", "tasks": {"rte": 1}}, "tasks has 'rte'.* Valid: task, scene, env"),
        *(
            (
                {"layout": layout, "tasks": tasks},
                rf"tasks={re.escape(repr(tasks))}; expected a sequence of distinct, printable names",
            )
            for layout in ("layer task : out : in", "layer : out : in")
            for tasks in ("rte", (1, 2), (None, ""), ("rte", ""), ("rte", " "), ("a", "a"), None, 2)
        ),
    ],
)
def test_tasks_and_layouts_that_do_not_fit_are_refused_in_plan(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=says):
        ta.plan(make("bert"), method="cp", rank=2, **asked)


def tied() -> ta.Adapter:
    return ta.Adapter(ta.plan(make("bert"), "layer proj : head dim : model", "cp", rank=2))


def test_a_site_the_adapter_does_not_have_is_named_with_the_closest() -> None:
    adapter = tied()
    with pytest.raises(ta.TensorAdaptError, match=r"layer.0.attention.self.qery' is not in this adapter; did you mean"):
        adapter.delta("bert.encoder.layer.0.attention.self.qery")
    with pytest.raises(ta.TensorAdaptError, match=r"^site 0 is not in this adapter\. Valid: bert"):
        adapter.delta(0)


@pytest.mark.parametrize(
    "at",
    [
        {"layer": 3, "proj": 0},
        {"layer": -1, "proj": 0},
        {"layer": 1},
        {"layer": 1, "proj": 0, "head": 2},
        {"layer": 1, "proj": 0, "head": range(0, 6)},
        {"layer": 1, "proj": 0, "heads": range(2)},
    ],
)
def test_a_position_outside_the_layout_is_refused(at: dict[str, int | range]) -> None:
    tensor = tied().tensors[0]
    for ask in (tensor.delta, tensor.pair, lambda at: tensor.apply(torch.ones(30), at)):
        with pytest.raises(ta.TensorAdaptError, match=r"position .* layout 'layer proj : head dim : model'"):
            ask(at)

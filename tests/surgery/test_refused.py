"""What would be wrong in silence is refused: sums without a value, layers that compute more, states that exclude it."""

from __future__ import annotations

import math

import pytest
import torch
from harness.faulty_operations import state
from support.models import inputs, make, perturb
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import tensoradapt as ta
from tensoradapt.surgery.registry import Adapters

QUERY = "bert.encoder.layer.0.attention.self.query"


def lora(model: nn.Module, **more: object) -> ta.Plan:
    return ta.plan(model, ": out : in", "lora", 2, **more)


def attached(**more: object) -> tuple[nn.Module, ta.Adapter]:
    model = make("bert")
    adapter = ta.attach(model, lora(model, **more))
    perturb(adapter)
    return model, adapter


@pytest.mark.parametrize(
    "name", sorted({*vars(Adapters(nn.Module())), "named", "used", "keys", "forward"} - {"training"})
)
def test_a_name_that_the_registry_needs_is_refused(name: str) -> None:
    model = make("bert")
    before = state(model)
    with pytest.raises(ta.TensorAdaptError, match="expected one word"):
        ta.attach(model, lora(model), name=name)
    assert state(model) == before


def test_a_module_is_adapted_or_trained_by_all_adapters_together() -> None:
    model = make("bert")
    pooler = ta.plan(ta.find_sites(model, (), modules=("bert.pooler.dense",)), ": out : in", "lora", 2)
    for first, second in ((lora(model, train=("bert.pooler",)), pooler), (pooler, lora(model, train=("bert.pooler",)))):
        ta.attach(model, first, name="a")
        before = state(model)
        with pytest.raises(ta.TensorAdaptError, match="adapted or trained, not both"):
            ta.attach(model, second, name="b")
        assert state(model) == before
        ta.detach(model)


def test_a_site_that_is_given_twice_is_refused() -> None:
    sites = ta.find_sites(make("bert"))
    with pytest.raises(ta.TensorAdaptError, match="query is given 2 times"):
        ta.plan([*sites, sites[0]], ": out : in", "lora", 2)


def test_a_merge_that_is_refused_at_a_later_layer_leaves_the_earlier_ones() -> None:
    model = make("bert")
    one = ta.plan(ta.find_sites(model, layers=[0]), ": out : in", "lora", 2, train=())
    two = ta.plan(ta.find_sites(model, layers=[1]), "proj task : out : in", "cp", 2, tasks=["x", "y"], train=())
    for name, plan in (("a", one), ("t", two)):
        perturb(ta.attach(model, plan, name=name))
    ta.use(model, ["a", "t"])
    before = state(model)
    with pytest.raises(ta.TensorAdaptError, match="no task is selected"):
        ta.merge(model)
    assert state(model) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_sum_that_the_weights_cannot_hold_is_not_merged(dtype: torch.dtype) -> None:
    model, adapter = attached()
    model.to(dtype)
    adapter.double()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.mul_(math.sqrt(torch.finfo(dtype).max))
    before = state(model)
    for keep in (True, False):
        with pytest.raises(ta.TensorAdaptError, match=rf"nothing was: .*{dtype} holds up to|updates are not finite"):
            ta.merge(model, keep=keep)
        assert state(model) == before


def test_linear_layers_that_compute_more_than_their_product_are_not_merged() -> None:
    class Twice(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model = make("bert")
    plan, old = lora(model), model.get_submodule(QUERY)
    shape = {"in_features": old.in_features, "out_features": old.out_features, "dtype": torch.float64}
    for layer, says in (
        (Twice(**shape), "is a Twice, an nn.Linear with a forward of its own"),
        (weight_norm(nn.Linear(**shape)), "is a ParametrizedLinear, an nn.Linear with a weight that is computed"),
    ):
        model.set_submodule(QUERY, layer)
        perturb(ta.attach(model, plan))
        before = state(model)
        with pytest.raises(ta.TensorAdaptError, match=says):
            ta.merge(model)
        assert state(model) == before
        assert torch.isfinite(model(**inputs("bert")).logits).all()  # the update is added to whatever the layer gives
        ta.detach(model)


def test_weights_that_were_tied_after_the_plan_are_refused_where_they_are_attached_or_merged() -> None:
    model = make("bert")
    plan = lora(model)
    first, second = (model.bert.encoder.layer[i].attention.self.query for i in (0, 1))
    own = second.weight
    second.weight = first.weight
    with pytest.raises(ta.TensorAdaptError, match="tied weights are targeted"):
        ta.attach(model, plan)
    second.weight = own
    ta.attach(model, plan)
    second.weight = first.weight
    with pytest.raises(ta.TensorAdaptError, match="tied weights cannot be merged"):
        ta.merge(model)


def test_no_task_is_selected_while_one_is_merged() -> None:
    model = make("bert")
    adapter = ta.attach(model, ta.plan(model, "layer proj task : out : in", "cp", 2, tasks=["x", "y"]))
    adapter.select(task="x")
    ta.merge(model)
    with pytest.raises(ta.TensorAdaptError, match=r"merged into the weights with task 'x'; call unmerge\(model\)"):
        adapter.select(task="y")
    assert adapter.task() == "x"


def test_modes_of_torch_in_which_nothing_could_be_trained_are_refused() -> None:
    model = make("bert")
    plan, before = lora(model), state(model)
    with torch.inference_mode(), pytest.raises(ta.TensorAdaptError, match="inference_mode"):
        ta.attach(model, plan)
    with torch.device("meta"), pytest.raises(ta.TensorAdaptError, match='default device is "meta"'):
        ta.attach(model, plan)
    assert state(model) == before


def test_an_adapted_layer_that_was_replaced_is_not_left_out_of_a_training_or_a_merge() -> None:
    model, adapter = attached()
    path, _, last = QUERY.rpartition(".")
    attention, layer = model.get_submodule(path), model.get_submodule(QUERY)
    setattr(attention, last, nn.Linear(48, 48))
    found = rf"changes '{QUERY}', .* another module there now; 1 of {len(adapter.plan.sites)} adapted matrices"
    for call in (lambda: ta.merge(model), lambda: ta.parameter_groups(model, lr=1e-3)):
        with pytest.raises(ta.TensorAdaptError, match=found):
            call()
    setattr(attention, last, nn.Sequential(layer))  # as checkpointing and sharding put a layer inside another module
    assert ta.parameter_groups(model, lr=1e-3) and len(ta.merge(model).lost) == len(adapter.plan.sites)


def test_a_model_is_evaluated_without_the_head_that_was_trained() -> None:
    model, _ = attached(train="classifier")
    expected = model.eval()(**inputs("bert")).logits
    head, model.classifier = model.classifier, nn.Identity()
    assert torch.equal(head(model(**inputs("bert")).logits), expected)


@pytest.mark.parametrize("how", ["*embed_tokens", "*lm_head", "train"])
def test_a_vocabulary_that_is_adapted_or_trained_is_not_resized(how: str) -> None:
    model = make("llama")
    sites = ta.find_sites(model) if how == "train" else ta.find_sites(model, (), modules=how)
    ta.attach(model, ta.plan(sites, "lora", rank=2, train="lm_head" if how == "train" else ()))
    before, size = state(model), model.config.vocab_size
    for arguments in ((size + 6,), (size, 64), (None, 64)):
        with pytest.raises(
            ta.TensorAdaptError, match="the vocabulary of this LlamaForCausalLM, whose size would change"
        ):
            model.resize_token_embeddings(*arguments)
    model.resize_token_embeddings(size)  # as trainers do in any case
    assert model.resize_token_embeddings() is model.get_input_embeddings() and state(model) == before
    ta.detach(model)
    model.resize_token_embeddings(size + 6)
    assert model.lm_head.out_features == size + 6


def test_a_weight_that_is_an_expanded_view_is_merged_and_given_back() -> None:
    model = make("bert")
    layer = model.get_submodule(QUERY)
    row = torch.randn(layer.in_features, dtype=torch.float64)
    layer.weight = nn.Parameter(row.expand(layer.out_features, -1))
    adapter = ta.attach(model, lora(model))
    perturb(adapter)
    live = model(**inputs("bert")).logits
    ta.merge(model)
    assert torch.allclose(model(**inputs("bert")).logits, live, atol=1e-4)
    ta.unmerge(model)
    assert layer.weight.stride() == (0, 1) and torch.equal(layer.weight[3], row)

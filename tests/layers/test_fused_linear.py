"""One autograd node for a linear layer and its pair: every way gives the same numbers, and the cost model is right."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from support.families import PLANNED, planned
from support.models import checkpoint_layers, inputs, logits, make, perturb
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils import flop_counter
from torch.utils.flop_counter import FlopCounterMode

import tensoradapt as ta
from tensoradapt.layers import fused_linear as fused
from tensoradapt.layers.wrapper import Wrapped
from tensoradapt.planning.site_ways import PASSES, Way, cheapest, cost

WAYS = [Way(forms, dense) for forms in (False, True) for dense in (False, True)]
every_way = pytest.mark.parametrize("way", WAYS, ids=str)
IN_PLACE = {torch.ops.aten.addmm_: lambda *given, **_: flop_counter.addmm_flop(*given)}  # which torch's leaves out
PAIRS = [(True, True), (True, False), (False, True), (False, False)]
TOKENS, RANK, OUT, IN = 6, 3, 5, 4


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Callable[[Way], None]:
    """Makes every site take one way."""
    return lambda way: monkeypatch.setattr(fused, "cheapest", lambda *_: way)


def unfused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wrapped, "only_pair", lambda *_: None)


def numbers(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def frozen(bias: bool = True) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(IN, OUT, bias=bias, dtype=torch.float64).requires_grad_(False)


@every_way
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(IN,), (TOKENS, IN), (2, 3, IN)])
def test_output_and_gradients_to_the_second_order(way, bias, shape, chosen) -> None:
    chosen(way)
    base, (x, a, b) = frozen(bias), numbers(shape, (RANK, IN), (OUT, RANK))
    call = lambda x, a, b: fused.fused_linear(base, x, a, b)  # noqa: E731
    torch.testing.assert_close(call(x, a, b), base(x) + F.linear(F.linear(x, a), b))
    assert torch.autograd.gradcheck(call, (x, a, b)) and torch.autograd.gradgradcheck(call, (x, a, b))


@every_way
@pytest.mark.parametrize("needs", [(0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 0, 1), (0, 1, 1)])
def test_what_needs_no_gradient_gets_none(way, needs, chosen) -> None:
    chosen(way)
    given = [
        t.requires_grad_(bool(need)) for t, need in zip(numbers((2, IN), (RANK, IN), (OUT, RANK)), needs, strict=True)
    ]
    fused.fused_linear(frozen(), *given).square().sum().backward()
    x, a, b = twins = [t.detach().clone().requires_grad_(t.requires_grad) for t in given]
    (frozen()(x) + F.linear(F.linear(x, a), b)).square().sum().backward()
    for tensor, twin in zip(given, twins, strict=True):
        assert (tensor.grad is None) == (twin.grad is None)
        if twin.grad is not None:
            torch.testing.assert_close(tensor.grad, twin.grad)


@every_way
@pytest.mark.parametrize("trained", [*PAIRS, None])
@pytest.mark.parametrize(("tokens", "rank", "out", "in_"), [(64, 2, 8, 16), (7, 5, 24, 12), (40, 8, 8, 8)])
def test_costs_are_the_flops_that_torch_counts_above_the_frozen_layer(
    way, trained, tokens, rank, out, in_, chosen
) -> None:
    chosen(way)
    base, trains = nn.Linear(in_, out).requires_grad_(False), trained is not None
    x, a, b = torch.randn(tokens, in_, requires_grad=trains), torch.randn(rank, in_), torch.randn(out, rank)
    for factor, needs in zip((a, b), trained or (False, False), strict=True):
        factor.requires_grad_(needs)

    def flops(call: Callable[[], Tensor]) -> int:
        with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter, torch.set_grad_enabled(trains):
            y = call()
            if trains:
                y.sum().backward()
        return counter.get_total_flops()

    passes = way.forms_weight * (1 + trains) * PASSES["cpu"] * out * in_
    adapted = flops(lambda: fused.fused_linear(base, x, a, b))
    assert adapted - flops(lambda: base(x)) == cost(way, tokens, rank, (out, in_), trained) - passes


def test_few_tokens_go_through_the_pair_and_many_form_the_weight_once() -> None:
    assert cheapest(1, 8, (384, 384), trained=None) == Way()
    assert cheapest(64, 8, (384, 384)) == Way()
    assert cheapest(8192, 8, (384, 384)) == Way(forms_weight=True)
    assert cheapest(1024, 256, (384, 384)) == Way(forms_weight=True, dense_gradient=True)
    assert not cheapest(8192, 8, (384, 384), wide=False).forms_weight
    assert cheapest(64, 8, (384, 384), device="cuda") == Way()


@pytest.mark.parametrize("tokens", [1, 14, 40, 100])
def test_an_output_has_the_same_bits_with_gradients_and_without(tokens) -> None:
    base, x = nn.Linear(24, 34).requires_grad_(False), torch.randn(tokens, 24)
    a, b = torch.randn(3, 24), torch.randn(34, 3)
    outputs = [fused.fused_linear(base, x, a.requires_grad_(one), b.requires_grad_(two)) for one, two in PAIRS]
    with torch.no_grad():
        outputs.append(fused.fused_linear(base, x, a, b))
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_a_narrow_weight_is_never_formed_as_it_would_round_the_update_away() -> None:
    base, x = nn.Linear(64, 64, bias=False).bfloat16().requires_grad_(False), torch.randn(4096, 64).bfloat16()
    nn.init.ones_(base.weight)
    a, b = torch.full((1, 64), 1e-3), torch.full((64, 1), 1e-3)
    with torch.no_grad():
        change = fused.fused_linear(base, x * 0 + 1, a, b) - base(x * 0 + 1)
    assert (base.weight + (b @ a).bfloat16() == base.weight).all()  # which forming it would do
    exact = fused._forward(x * 0 + 1, base.weight * 0, None, a.bfloat16(), b.bfloat16(), Way())[0]
    torch.testing.assert_close(exact.float(), torch.full_like(exact, 64e-6).float(), rtol=0.02, atol=0)
    assert change.abs().max() <= 0.5  # bf16's step at 64


@pytest.fixture(params=["bert", "llama", "vit"])
def pair_of_models(request: pytest.FixtureRequest) -> tuple[str, nn.Module, ta.Adapter]:
    model = make(request.param)
    adapter = ta.attach(
        model, ta.plan(model, method="lora" if request.param == "llama" else "lorta", paper=True, rank=3)
    )
    adapter.double()
    perturb(adapter)
    return request.param, model, adapter


def step(name: str, model: nn.Module, adapter: ta.Adapter) -> list[Tensor]:
    """The output, and the gradients of a loss."""
    torch.manual_seed(0)  # dropout, in training
    output = logits(model(**inputs(name)))
    adapter.zero_grad()
    output.square().mean().backward()
    return [output.detach(), *(p.grad for p in adapter.parameters() if p.grad is not None)]


@every_way
def test_a_model_gives_what_it_gives_without_it(way, pair_of_models, chosen, monkeypatch) -> None:
    chosen(way)
    found = step(*pair_of_models)
    with monkeypatch.context() as patch:
        unfused(patch)
        expected = step(*pair_of_models)
    assert len(found) > 1
    for value, other in zip(found, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-11)


@every_way
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_every_way_on_every_device_is_near_what_doubles_give(device, dtype, way, chosen) -> None:
    if way.forms_weight and dtype == torch.bfloat16:
        way = Way(dense_gradient=way.dense_gradient)  # a narrow weight is not formed
    chosen(way)
    base, given = frozen(), numbers((2, 3, IN), (RANK, IN), (OUT, RANK))
    exact = gradients(given, lambda x, a, b: base(x) + F.linear(F.linear(x, a), b))
    near = copy.deepcopy(base).to(device, dtype)
    cast = [t.detach().to(device, dtype).requires_grad_() for t in given]
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.1}
    for value, other in zip(gradients(cast, partial(fused.fused_linear, near)), exact, strict=True):
        torch.testing.assert_close(value.double().cpu(), other, **tolerance)


def gradients(given: list[Tensor], call: Callable[..., Tensor]) -> list[Tensor]:
    """An output and the gradients of its sum, weighted."""
    output = call(*given)
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view(output.shape)
    return [output.detach(), *torch.autograd.grad((output * weights.to(output)).sum(), given)]


def looks_into(base: nn.Linear) -> dict[str, Callable[[], object]]:
    """Return changes of a layer that make it more than a plain product, by name."""

    class Doubles(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    def replace_forward() -> None:
        base.forward = lambda x: 2 * F.linear(x, base.weight)  # as accelerate's hooks do

    return {
        "a forward hook": lambda: base.register_forward_hook(lambda *_: 2 * _[2]),
        "a pre-hook": lambda: base.register_forward_pre_hook(lambda _, given: (2 * given[0],)),
        "another forward": replace_forward,
        "a parametrization": lambda: parametrize.register_parametrization(base, "weight", Doubles()),
        "a subclass": lambda: setattr(
            base, "__class__", type("Scaled", (nn.Linear,), {"forward": lambda s, x: 2 * x @ s.weight.T})
        ),
        "a trained weight": lambda: base.weight.requires_grad_(True),
        "a trained bias": lambda: base.bias.requires_grad_(True),
    }


@pytest.mark.parametrize("what", list(looks_into(frozen())))
def test_a_layer_that_is_more_than_a_product_is_called(what) -> None:
    base, x = frozen(), numbers((3, IN))[0]
    assert fused.fits(base, x)
    looks_into(base)[what]()
    assert not fused.fits(base, x)


@pytest.mark.parametrize("name", PLANNED)
def test_every_parameterization_trains_under_autocast_as_near_to_fp32_as_without_fusing(name, monkeypatch) -> None:
    model = make("bert", torch.float32)
    adapter = ta.attach(model, planned(ta.find_sites(model, ("q", "v")), name, rank=None if name == "quanta" else 2))
    perturb(adapter)

    def step(autocast: bool) -> Tensor:
        adapter.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = logits(model(**inputs("bert", torch.float32)))
        output.float().square().mean().backward()
        return torch.cat([p.grad.flatten() for p in adapter.parameters() if p.grad is not None])

    exact, fused_step = step(False), step(True)
    unfused(monkeypatch)
    other = step(True)
    assert (fused_step - exact).norm() <= 1.5 * (other - exact).norm() + 0.02 * exact.norm()


@pytest.mark.parametrize("rule", ["add", "hira", "dora"])
@pytest.mark.parametrize("name", ["lora", "cp", "tensor_train"])
def test_a_backward_pass_under_autocast_has_the_gradients_of_one_outside(name, rule) -> None:
    """After a forward pass outside: the adapter's own nodes compute in its dtypes, and torch's in autocast's."""
    model = make("bert", torch.float32)
    adapter = ta.attach(model, planned(ta.find_sites(model, ("q", "v")), name, rank=2, rule=rule))
    perturb(adapter)

    def gradients(autocast: bool) -> list[Tensor]:
        adapter.zero_grad()
        loss = logits(model(**inputs("bert", torch.float32))).square().mean()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss.backward()
        return [p.grad.clone() for p in adapter.parameters() if p.grad is not None]

    for outside, under in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(under, outside, rtol=0.05, atol=0.02 * float(outside.abs().max()))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("pair_of_models", ["bert", "llama"], indirect=True)
def test_checkpointed_layers_have_the_same_gradients(reentrant, pair_of_models) -> None:
    name, model, adapter = pair_of_models
    model.config.use_cache = False
    expected = step(name, model.train(), adapter)
    checkpoint_layers(model, reentrant)
    model.get_input_embeddings().register_forward_hook(lambda *given: given[2].requires_grad_(True))
    for value, other in zip(step(name, model, adapter), expected, strict=True):
        torch.testing.assert_close(value, other)


@pytest.mark.parametrize("reentrant", [True, False, None])
@pytest.mark.parametrize("pair_of_models", ["bert", "llama"], indirect=True)
def test_a_factor_whose_flag_is_flipped_after_attach_is_frozen_and_trained_again(reentrant, pair_of_models) -> None:
    """Whether layers are checkpointed or not: the other factors have the gradients that they had."""
    name, model, adapter = pair_of_models
    model.config.use_cache = False
    if reentrant is not None:
        checkpoint_layers(model.train(), reentrant)
        model.get_input_embeddings().register_forward_hook(lambda *given: given[2].requires_grad_(True))
    step(name, model, adapter)
    expected = {name: p.grad.clone() for name, p in adapter.named_parameters()}
    for flipped in adapter.tensors[0].factors:
        own = {name for name in expected if name.endswith(f".{flipped}")}
        for frozen in (own, set()):
            for one, parameter in adapter.named_parameters():
                parameter.requires_grad_(one not in frozen)
            adapter.zero_grad()
            step(name, model, adapter)
            found = {name: p.grad for name, p in adapter.named_parameters() if p.grad is not None}
            assert own and found.keys() == expected.keys() - frozen
            for one, gradient in found.items():
                torch.testing.assert_close(gradient, expected[one])


def test_a_factor_that_changes_between_forward_and_backward_is_refused(pair_of_models) -> None:
    name, model, adapter = pair_of_models
    loss = logits(model(**inputs(name))).square().mean()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()

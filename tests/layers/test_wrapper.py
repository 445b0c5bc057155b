"""Wrapped layers of every kind compute with W + delta: embeddings, convolutions, torch's attention, stacked experts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from support.models import assert_identical, perturb
from torch import Tensor, nn
from torch.func import functional_call

import tensoradapt as ta
from tensoradapt.sites.site import Site

pytestmark = pytest.mark.usefixtures("double")
RULES = ("add", "dora", "hira")


class Experts(nn.Module):
    """Mixtral's way: all experts in two parameters, each token through the one its first entry chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(3, 10, 6)), nn.Parameter(torch.randn(3, 6, 5))

    def forward(self, x: Tensor) -> Tensor:
        chosen = (x[..., 0].abs() * 7).long() % 3
        both = torch.einsum("...oi,...i->...o", self.up[chosen], x)
        gate, up = both.chunk(2, dim=-1)
        return torch.einsum("...oi,...i->...o", self.down[chosen], torch.tanh(gate) * up)


class Holder(nn.Module):
    """A root around one layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        found = self.layer(*args, **kwargs)
        return found[0] if isinstance(found, tuple) else found


@dataclass(frozen=True)
class Case:
    """A layer, its sites, and what it takes."""

    make: Callable[[], nn.Module]
    sites: tuple[Site, ...]
    inputs: Callable[[], tuple[Tensor, ...]]


def site(name: str, out: int, in_: int, **more: object) -> Site:
    return Site(name, "layer", (("layer", 0), ("proj", name)), out, in_, (), **more)


def in_proj(i: int) -> dict[str, object]:
    return {"parameter": "in_proj_weight", "rows": (8 * i, 8 * i + 8)}


def expert(i: int) -> tuple[Site, ...]:
    halves = (("gate", (0, 5)), ("up", (5, 10)))
    both = [site(f"{name}{i}", 5, 6, parameter="up", slot=i, rows=rows) for name, rows in halves]
    return (*both, site(f"down{i}", 6, 5, parameter="down", slot=i))


X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CASES = {
    "Embedding": Case(
        lambda: nn.Embedding(11, 8, padding_idx=1), (site("table", 8, 11),), lambda: (torch.arange(2, 10).view(2, 4),)
    ),
    "Conv2d": Case(
        lambda: nn.Conv2d(3, 4, (2, 3), stride=(2, 1), padding=1, padding_mode="circular"),
        (site("patches", 4, 18),),
        lambda: (torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(1)),),
    ),
    "Conv2d, dilated, channels last": Case(
        lambda: nn.Conv2d(3, 4, 3, dilation=2, bias=False).to(memory_format=torch.channels_last),
        (site("patches", 4, 27),),
        lambda: (torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(1)),),
    ),
    "interleaved rows": Case(
        lambda: nn.Linear(8, 24),
        tuple(site(name, 8, 8, rows=(4 * i, 4 * i + 4), period=12) for i, name in enumerate("qkv")),
        lambda: (X,),
    ),
    "blocks of columns": Case(
        lambda: nn.Linear(12, 10),
        (site("left", 10, 6, cols=(0, 6)), site("right", 10, 6, cols=(6, 12))),
        lambda: (torch.cat([X, X[..., :4].sin()], dim=-1),),
    ),
    "MultiheadAttention": Case(
        lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        (
            *(site(name, 8, 8, **in_proj(i)) for i, name in enumerate("qkv")),
            site("o", 8, 8, parameter="out_proj.weight"),
        ),
        lambda: (X, X, X),
    ),
    "MultiheadAttention, v alone": Case(
        lambda: nn.MultiheadAttention(8, 2, batch_first=True, bias=False),
        (site("v", 8, 8, **in_proj(2)),),
        lambda: (X, X, X),
    ),
    "MultiheadAttention, other keys": Case(
        lambda: nn.MultiheadAttention(8, 2, kdim=6, vdim=5, batch_first=True),
        (site("k", 8, 6, parameter="k_proj_weight"), site("v", 8, 5, parameter="v_proj_weight")),
        lambda: (X, X[..., :6], X[..., :5]),
    ),
    "experts": Case(Experts, (*expert(0), *expert(2)), lambda: (X[..., :6],)),
}
every_case = pytest.mark.parametrize("case", CASES)
every_case_and_rule = pytest.mark.parametrize(
    ("case", "rule"), [(c, r) for c in CASES for r in RULES if not (c.startswith("Embedding") and r == "hira")]
)


def adapted(case: str, rule: str) -> tuple[nn.Module, nn.Module, ta.Adapter, tuple[Tensor, ...]]:
    """The layer with an adapter, as it was, the adapter, and an input."""
    torch.manual_seed(0)
    base = Holder(CASES[case].make()).eval()
    model = copy.deepcopy(base)
    adapter = ta.attach(model, ta.plan(CASES[case].sites, ": out : in", "lora", rank=2, rule=rule))
    return model, base, adapter, CASES[case].inputs()


def weights(base: nn.Module, adapter: ta.Adapter) -> dict[str, Tensor]:
    """The base's parameters with the updates, or DoRA's rows, or HiRA's products with W over its root mean square."""
    whole = torch.contiguous_format  # so that the views below are written through
    found = {name: p.detach().clone(memory_format=whole) for name, p in base.named_parameters()}
    lengths = dict(zip(adapter.plan.row_blocks, adapter.magnitudes, strict=True))
    for one in adapter.plan.sites:
        at, stored = one.block, _logical(base, found[one.key], one)
        delta = adapter.delta(one).detach()
        if adapter.plan.spec.rule == "hira":
            whole = _logical(base, base.get_parameter(one.key).detach().contiguous(), one)
            delta = whole[at] * delta / whole.square().mean().sqrt()
        stored[at] += delta
    for row_block, length in lengths.items():
        stored = _logical(base, found[row_block.sites[0].key], row_block.sites[0])
        rows = stored[row_block.rows]
        stored[row_block.rows] = length.detach()[:, None] * rows / rows.square().sum(1, keepdim=True).sqrt()
    return found


def _logical(base: nn.Module, weight: Tensor, one: Site) -> Tensor:
    if one.slot is not None:
        return weight[one.slot]
    if isinstance(base.layer, nn.Embedding):
        return weight.T
    return weight.view(len(weight), -1)


def moved(adapter: ta.Adapter) -> None:
    lengths = [m.detach().clone() for m in adapter.magnitudes]
    perturb(adapter, 0.5)
    with torch.no_grad():
        for magnitude, length in zip(adapter.magnitudes, lengths, strict=True):
            magnitude.copy_(length * torch.linspace(0.5, 2, len(length)))


@every_case_and_rule
def test_a_layer_computes_with_w_plus_delta(case: str, rule: str) -> None:
    model, base, adapter, given = adapted(case, rule)
    start = base(*given)
    torch.testing.assert_close(model(*given), start, rtol=0, atol=1e-14)  # W + 0 is W, in another place of memory
    moved(adapter)
    expected = functional_call(base, weights(base, adapter), given)
    assert (expected - start).abs().max() > 1e-2
    torch.testing.assert_close(model(*given), expected, rtol=0, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(model(*given), expected, rtol=0, atol=1e-10)
    ta.merge(model)
    torch.testing.assert_close(model(*given), expected, rtol=0, atol=1e-10)
    ta.unmerge(model)
    ta.detach(model)
    assert_identical(model, base)


@pytest.mark.parametrize("case", ["Embedding", "Conv2d", "interleaved rows", "blocks of columns"])
def test_the_input_of_a_layer_is_given_by_name_too(case: str) -> None:
    model, _, adapter, (x,) = adapted(case, "add")
    ta.attach(model, adapter.plan, name="other", seed=1)
    for one in ta.adapters(model).values():
        moved(one)
    for chosen in ({"names": ["default", "other"]}, {"samples": ["default", "other"]}):
        ta.use(model, **chosen)
        assert torch.equal(model(input=x), model(x))


@every_case
def test_factors_get_the_gradient_that_the_weights_would_pass_on(case: str) -> None:
    model, base, adapter, given = adapted(case, "add")
    moved(adapter)
    model(*given).square().sum().backward()
    whole = {name: p.requires_grad_() for name, p in weights(base, adapter).items()}
    functional_call(base, whole, given).square().sum().backward()
    slopes = {one.name: _logical(base, whole[one.key].grad, one)[one.block] for one in adapter.plan.sites}
    found = [p.grad.clone() for p in adapter.parameters()]
    sum((adapter.delta(one) * slopes[one.name]).sum() for one in adapter.plan.sites).backward()
    for before, parameter in zip(found, adapter.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, 2 * before, rtol=1e-9, atol=1e-9)  # the same once more


@every_case
def test_an_adapter_on_a_layer_is_saved_and_loaded(case: str, tmp_path: Path) -> None:
    model, base, adapter, given = adapted(case, "add")
    moved(adapter)
    adapter.save(tmp_path)
    ta.load(base, tmp_path)
    assert torch.equal(model(*given), base(*given))


REFUSED = {
    "a convolution in groups": (nn.Conv2d(4, 4, 3, groups=2), site("x", 4, 18), "has 2 groups"),
    "an embedding that renormalises": (nn.Embedding(5, 4, max_norm=1.0), site("x", 4, 5), "max_norm"),
    "a layer of another kind": (nn.Conv1d(4, 4, 3), site("x", 4, 12), "is a Conv1d"),
    "an expert that is not there": (Experts(), site("x", 10, 6, parameter="up", slot=3), "an expert 3"),
    "a parameter that is not there": (Experts(), site("x", 10, 6, parameter="gate", slot=0), "has no gate"),
    "attention without separate keys": (
        nn.MultiheadAttention(8, 2),
        site("x", 8, 8, parameter="k_proj_weight"),
        "has no parameter 'k_proj_weight'",
    ),
    "rows past the end": (nn.Linear(8, 24), site("x", 8, 8, rows=(9, 13), period=12), "make the plan from this model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_layer_that_cannot_be_adapted_is_refused(case: str) -> None:
    layer, one, says = REFUSED[case]
    with pytest.raises(ta.TensorAdaptError, match=says):
        ta.attach(Holder(layer), ta.plan([one], ": out : in", "lora", rank=1))


def test_samples_of_a_batch_need_layers_that_take_each_by_itself() -> None:
    model, _, adapter, given = adapted("MultiheadAttention", "add")
    ta.attach(model, adapter.plan, name="other")
    ta.use(model, samples=["default", "other"])
    with pytest.raises(ta.TensorAdaptError, match="the same for the whole batch"):
        model(*given)

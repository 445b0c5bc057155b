"""A batch with an adapter for each sample: every adapter computes its own samples as it does alone, and no others."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from support.families import FIRST, PLANNED, parts
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

import tensoradapt as ta
from tensoradapt.layers import wrapper
from tensoradapt.sites.site import Site

pytestmark = pytest.mark.usefixtures("double")
MIXED = ("a", "b", None, "a", "c", "b")  # neither side by side nor all adapters, and the base
TIED = ("block_term", "cp", "tensor_ring", "tensor_train", "tucker")
LIMIT = {torch.float64: 1e-12, torch.float32: 1e-6}


def site(name: str, width: int = 24, **more: object) -> Site:
    return Site(name, "layer", (("layer", 0), ("proj", name)), 24, width, (), **more)


# a layer, its sites, and the shape of a sample that it takes
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[Site, ...], tuple[int, ...]]] = {
    "Linear": (lambda: nn.Linear(24, 24), (site("x"),), (5, 24)),
    "Conv1D": (lambda: Conv1D(24, 24), (site("x"),), (5, 24)),
    "Embedding": (lambda: nn.Embedding(24, 24), (site("x"),), ()),
    "Conv2d": (lambda: nn.Conv2d(6, 24, 2), (site("x"),), (6, 4, 5)),
    "q, k, v in one": (
        lambda: nn.Linear(24, 72),
        tuple(site(name, rows=(24 * i, 24 * i + 24)) for i, name in enumerate("qkv")),
        (24,),
    ),
    "interleaved rows": (
        lambda: nn.Linear(24, 72),
        tuple(site(name, rows=(4 * i, 4 * i + 4), period=12) for i, name in enumerate("qkv")),
        (3, 24),
    ),
    "blocks of columns": (
        lambda: nn.Linear(48, 24),
        (site("left", cols=(0, 24)), site("right", cols=(24, 48))),
        (5, 48),
    ),
}


class Holder(nn.Module):
    """A root around one layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def plan_of(sites: tuple[Site, ...], name: str, **more: object) -> ta.Plan:
    """Over the sites of a layer, tied where the parameterization ties, split where it splits."""
    layout = "layer proj : out : in" if name in TIED else ta.parameterizations.layouts_of(name)[0]
    n = 3 if name == "quanta" else 2
    split = {"out": parts(24, n), "in": parts(24, n)} if layout.endswith(("*", "2")) else {}
    return ta.plan(sites, layout, name, 2, split=split, **more)


def adapted(kind: str, name: str = "lora", names: str = "abcd", **more: object) -> tuple[nn.Module, Tensor]:
    """The layer with adapters of these names, whose numbers are moved, and a batch of six samples."""
    build, sites, shape = LAYERS[kind]
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = Holder(build()).eval()
    for i, one in enumerate(names):
        adapter = ta.attach(model, plan_of(sites, name, **more), name=one, seed=i)
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    x = torch.randn(6, *shape, generator=generator)
    return model, torch.randint(24, (6, 5), generator=generator) if kind == "Embedding" else x


def by_sample(model: nn.Module, x: Tensor, names: tuple[str | None, ...] = MIXED) -> Tensor:
    """Each sample through its adapter alone."""
    found = []
    for i, name in enumerate(names):
        if name is None:
            with ta.disabled(model):
                found.append(model(x[i : i + 1]))
        else:
            ta.use(model, name)
            found.append(model(x[i : i + 1]))
    return torch.cat(found)


IN_DTYPES = [
    pytest.param(name, dtype, marks=() if dtype == torch.float64 or name in FIRST else pytest.mark.nightly)
    for name in PLANNED
    for dtype in LIMIT
]


@pytest.mark.thorough
@pytest.mark.parametrize("rule", ["add", "dora"])
@pytest.mark.parametrize(("name", "dtype"), IN_DTYPES)
def test_a_sample_has_the_output_of_its_adapter_alone(name: str, dtype: torch.dtype, rule: str) -> None:
    torch.set_default_dtype(dtype)
    for kind in LAYERS:
        model, x = adapted(kind, name, rule=rule)
        with torch.no_grad():
            expected = by_sample(model, x)
            for names, order in ((MIXED, range(6)), (("a", "a", "b", "b", "c", None), (0, 3, 1, 5, 4, 2))):
                ta.use(model, samples=names)
                found, wanted = model(x[list(order)]), expected[list(order)]
                assert (found - wanted).abs().max() <= LIMIT[dtype] * wanted.abs().max(), kind
            with ta.disabled(model):
                base = model(x)
        assert (expected - base).abs().amax(dim=tuple(range(1, base.ndim))).gt(1e-4).tolist() == [
            name is not None for name in MIXED
        ]


@pytest.mark.parametrize("names", [tuple("abbacc"), ("b", None, "a", "a", None, "b"), tuple("aabbcc"), tuple("aaaaaa")])
@pytest.mark.parametrize("name", PLANNED)
def test_groups_of_one_size_are_computed_side_by_side(name: str, names: tuple[str | None, ...], monkeypatch) -> None:
    model, x = adapted("Linear", name)
    ta.use(model, samples=names)
    taken: list[int] = []
    whole = wrapper._side_by_side
    monkeypatch.setattr(wrapper, "_side_by_side", lambda *args: taken.append(len(args[1])) or whole(*args))
    steps = {}
    for how in ("side by side", "one after another"):
        if how == "one after another":
            monkeypatch.setattr(wrapper.Wrapped, "_alike", lambda *_: None)
        model.zero_grad()
        given = x.clone().requires_grad_()
        output = model(given)
        output.square().sum().backward()
        of_factors = [p.grad for n in dict.fromkeys(names) if n for p in ta.adapters(model)[n].parameters()]
        steps[how] = [output.detach(), given.grad, *(g.clone() for g in of_factors if g is not None)]
    assert taken == [len({*names} - {None})]
    for found, expected in zip(*steps.values(), strict=True):
        assert (found - expected).abs().max() <= 1e-12 * max(1, expected.abs().max())


def test_adapters_of_several_ranks_and_forms_share_a_batch() -> None:
    model, x = adapted("Linear", names="a")
    sites = LAYERS["Linear"][1]
    for i, (name, more) in enumerate({"b": {"rank": 3}, "c": {"method": "cp", "rank": 2}}.items()):
        plan = ta.plan(sites, **{"layout": ": out : in", "method": "lora", **more})
        ta.attach(model, plan, name=name, seed=i)
        with torch.no_grad():
            for parameter in ta.adapters(model)[name].parameters():
                parameter.add_(0.1)
    names = ("a", "b", "c", "a", "b", "c")
    with torch.no_grad():
        expected = by_sample(model, x, names)
        ta.use(model, samples=names)
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)


def test_every_way_of_choosing_computes_the_same_batch() -> None:
    model, x = adapted("q, k, v in one")
    ta.use(model, samples=MIXED)
    found = model(x)
    ta.use(model, samples=MIXED, every=True)
    torch.testing.assert_close(model(x), found, rtol=0, atol=1e-12)
    ta.use(model, samples=MIXED)
    torch.testing.assert_close(checkpoint(model, x, use_reentrant=False), found, rtol=0, atol=1e-12)
    torch.testing.assert_close(copy.deepcopy(model)(x), found, rtol=0, atol=0)
    with ta.disabled(model):
        assert torch.equal(model(x), model.layer.base(x))


def test_an_adapter_computes_its_own_samples_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = adapted("Linear")
    seen: dict[str, int] = {}
    whole = ta.Adapter.update

    def counted(self: ta.Adapter, x: Tensor, *more: object) -> Tensor:
        name = next(name for name, other in ta.adapters(model).items() if other is self)
        seen[name] = seen.get(name, 0) + len(x)
        return whole(self, x, *more)

    monkeypatch.setattr(ta.Adapter, "update", counted)
    ta.use(model, samples=MIXED)
    model(x)
    assert seen == {"a": 2, "b": 2, "c": 1}


def test_each_adapter_is_trained_by_its_own_samples() -> None:
    model, x = adapted("Linear")
    ta.use(model, samples=MIXED)
    model(x).square().sum().backward()
    found = {name: [p.grad for p in adapter.parameters()] for name, adapter in ta.adapters(model).items()}
    assert found.pop("d") == [None, None]
    for name, gradients in found.items():
        model.zero_grad()
        ta.use(model, name)
        model(x[[i for i, other in enumerate(MIXED) if other == name]]).square().sum().backward()
        for gradient, parameter in zip(gradients, ta.adapters(model)[name].parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad, rtol=0, atol=1e-12 * parameter.grad.abs().max())


def test_a_sample_has_its_own_adapter_and_its_own_task() -> None:
    torch.manual_seed(0)
    model = Holder(nn.Linear(24, 24))
    plan = ta.plan([site("x")], "task : out : in", "cp", 2, tasks=("one", "two"))
    for i, name in enumerate("ab"):
        for parameter in ta.attach(model, plan, name=name, seed=i).parameters():
            nn.init.normal_(parameter)
    x, names, tasks = torch.randn(4, 24), ("a", "b", "a", None), ("two", "one", "one", "one")
    expected = []
    for i, (name, task) in enumerate(zip(names, tasks, strict=True)):
        for adapter in ta.adapters(model).values():
            adapter.select(task=task)
        expected.append(by_sample(model, x[i : i + 1], (name,)))
    ta.use(model, samples=names)
    for adapter in ta.adapters(model).values():
        adapter.select(task=tasks)
    torch.testing.assert_close(model(x), torch.cat(expected), rtol=0, atol=1e-12)
    ta.adapters(model)["a"].select(task=tasks[:2])
    with pytest.raises(ta.TensorAdaptError, match="given 2 tasks and the batch has 4 samples"):
        model(x)


def test_generate_with_beams_says_that_names_are_to_be_repeated() -> None:
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, **sizes)).eval()
    sites = ta.find_sites(model)
    for name in "ab":
        ta.attach(model, ta.plan(sites, method="lora", rank=2), name=name)
    ta.use(model, samples=["a", "b"])
    ids = torch.randint(2, 50, (2, 4))
    plain = {"max_new_tokens": 2, "do_sample": False, "pad_token_id": 0}
    model.generate(ids, **plain)
    with pytest.raises(ta.TensorAdaptError, match=r"given 2 samples and the batch has 6.*num_beams"):
        model.generate(ids, **plain, num_beams=3)
    ta.use(model, samples=[name for name in "ab" for _ in range(3)])
    model.generate(ids, **plain, num_beams=3)


def test_a_base_that_is_trained_gets_the_gradient_of_every_sample() -> None:
    model, x = adapted("Linear")
    weight = model.layer.base.weight.requires_grad_()
    expected = torch.zeros_like(weight)
    by_sample(model, x).square().sum().backward()
    expected, weight.grad = weight.grad, None
    ta.use(model, samples=MIXED)
    model(x).square().sum().backward()
    torch.testing.assert_close(weight.grad, expected, rtol=0, atol=1e-11)

"""use: several adapters in one model, switched, summed, or one for each sample; each keeps its numbers and heads."""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path

import pytest
import torch
from support.families import planned
from support.models import assert_identical, inputs, make
from torch import Tensor, nn

import tensoradapt as ta

pytestmark = pytest.mark.usefixtures("double")
NAMES = ("a", "b")


def several(*names: str, head: bool = False, family: str = "bert") -> tuple[nn.Module, nn.Module]:
    """A model with perturbed adapters of different families, and the model as it was."""
    model = make(family)
    base = copy.deepcopy(model)
    sites = ta.find_sites(model, "all")
    for i, name in enumerate(names):
        plan = planned(sites, ("cp", "lora", "tucker")[i % 3], rank=2 + i, train=("classifier",) if head else ())
        adapter = ta.attach(model, plan, seed=i, name=name)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(10 + i)
            for parameter in (*adapter.parameters(), *adapter.attachment.head_parameters().values()):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model, base


@torch.no_grad()
def logits(model: nn.Module, rows: slice = slice(None), family: str = "bert") -> Tensor:
    return model(**{key: value[rows] for key, value in inputs(family).items()}).logits


def alone(model: nn.Module, name: str) -> Tensor:
    ta.use(model, name)
    return logits(model)


def test_one_of_several_computes_what_it_does_alone(tmp_path: Path) -> None:
    model, base = several(*NAMES, head=True)
    for name in NAMES:
        found = alone(model, name)
        ta.adapters(model)[name].save(tmp_path / name)
        again = copy.deepcopy(base)
        ta.load(again, tmp_path / name)
        assert torch.equal(found, logits(again))
        assert (found - logits(base)).abs().max() > 1e-3


def test_an_adapter_is_saved_with_its_own_head_while_another_is_in_use(tmp_path: Path) -> None:
    model, base = several(*NAMES, head=True)
    expected = alone(model, "a")
    ta.use(model, "b")
    ta.adapters(model)["a"].save(tmp_path)
    ta.load(base, tmp_path)
    assert torch.equal(logits(base), expected)


def test_saved_adapters_are_loaded_beside_one_another(tmp_path: Path) -> None:
    model, base = several(*NAMES, head=True)
    expected = {name: alone(model, name) for name in NAMES}
    for name in NAMES:
        ta.adapters(model)[name].save(tmp_path / name)
    for name in NAMES:
        ta.load(base, tmp_path / name, name=name)
        assert torch.equal(logits(base), expected[name])
    assert torch.equal(alone(base, "a"), expected["a"])


def test_adapters_in_use_are_summed_and_weighted() -> None:
    model, base = several(*NAMES)
    deltas = {name: {s.name: one.delta(s).detach() for s in one.plan.sites} for name, one in ta.adapters(model).items()}
    for shares in ({"a": 1.0, "b": 1.0}, {"a": 0.3, "b": -2.0}):
        ta.use(model, list(shares) if shares["a"] == 1 else shares)
        expected = copy.deepcopy(base)
        with torch.no_grad():
            for name, share in shares.items():
                for site in ta.adapters(model)[name].plan.sites:
                    expected.get_submodule(site.module).weight += share * deltas[name][site.name]
        torch.testing.assert_close(logits(model), logits(expected), rtol=0, atol=1e-10)
        before = logits(model)
        ta.merge(model)
        torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-10)
        ta.unmerge(model)
        assert torch.equal(logits(model), before)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_each_sample_has_the_adapter_that_was_named_for_it(family: str) -> None:
    model, base = several(*NAMES, family=family)
    rows = {"a": slice(0, 1), "b": slice(1, 2)}
    expected = []
    for name in NAMES:
        ta.use(model, name)
        expected.append(logits(model, rows[name], family))
    ta.use(model, samples=NAMES)
    torch.testing.assert_close(logits(model, family=family), torch.cat(expected), rtol=0, atol=1e-10)
    ta.use(model, samples=[None, "b"])
    first = logits(base, rows["a"], family)
    torch.testing.assert_close(logits(model, family=family), torch.cat([first, expected[1]]), rtol=0, atol=1e-10)


def test_only_what_is_used_is_trained() -> None:
    model, _ = several(*NAMES, head=True)
    for used in (["a"], ["b"]):
        ta.use(model, used)
        model.zero_grad(set_to_none=True)
        model(**inputs("bert")).logits.square().sum().backward()
        moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.count_nonzero()}
        assert {name.split(".")[1] for name in moved if name.startswith("tensoradapt.")} == set(used)
        assert {name for name in moved if not name.startswith("tensoradapt.")} == {
            "classifier.weight",
            "classifier.bias",
        }


def test_adapters_are_taken_out_in_any_order_and_leave_no_trace() -> None:
    for order in (NAMES, NAMES[::-1]):
        model, base = several(*NAMES, head=True)
        expected = alone(model, order[1])
        ta.detach(model, order[0])
        assert torch.equal(logits(model), expected)
        ta.detach(model)
        assert_identical(model, base)
        assert ta.adapters(model) == {}


def test_adapters_that_draw_the_same_matrices_hold_them_once() -> None:
    model = make("bert")
    plan = ta.plan(model, method="vera", paper=True, rank=4, train=())
    for name, seed in (("a", 0), ("b", 1), ("c", 0)):
        ta.attach(model, plan, name=name, seed=seed)
    a, b, c = ({k: v.data_ptr() for k, v in one.bases.named_buffers()} for one in ta.adapters(model).values())
    assert a == c and not set(a.values()) & set(b.values())
    kept = {name: value.clone() for name, value in ta.adapters(model)["c"].bases.named_buffers()}
    ta.adapters(model)["a"].to(torch.bfloat16)
    for name, value in ta.adapters(model)["c"].bases.named_buffers():
        assert torch.equal(value, kept[name])
    rounded = ta.adapters(model)["a"].to(torch.float64)  # the same dtype again, with other numbers
    last = ta.attach(model, plan, name="d", seed=0)
    for name, value in last.bases.named_buffers():
        assert torch.equal(value, kept[name]) and not torch.equal(value, rounded.bases.get_buffer(name))


REFUSED = {
    "a name that is taken": (lambda m: ta.attach(m, plan_of(m), name="a"), "already has an adapter attached as 'a'"),
    "a name of torch's": (lambda m: ta.attach(m, plan_of(m), name="keys"), "expected one word"),
    "an unknown name": (lambda m: ta.use(m, "c"), "no adapter named 'c'.*Valid: a, b"),
    "nothing": (lambda m: ta.use(m, []), "no adapter was named"),
    "neither names nor samples": (lambda m: ta.use(m), "samples is None"),
    "both names and samples": (lambda m: ta.use(m, "a", samples=NAMES), "one of them"),
    "a factor of nan": (lambda m: ta.use(m, {"a": float("nan")}), "the factor of 'a' is nan"),
    "two heads at once": (lambda m: ta.use(m, NAMES), "'a' and 'b' both trained 'classifier.weight'"),
    "no name among several": (lambda m: (ta.use(m, samples=[None, None]), ta.detach(m)), "of which 0 are in use"),
    "too few samples": (lambda m: (ta.use(m, samples=["a"]), logits(m)), "given 1 samples and the batch has 2"),
    "use while merged": (lambda m: (ta.merge(m), ta.use(m, "a")), "are merged into the weights; call unmerge"),
    "attach while merged": (lambda m: (ta.merge(m), ta.attach(m, plan_of(m), name="c")), "before attaching another"),
}


def plan_of(model: nn.Module) -> ta.Plan:
    return next(iter(ta.adapters(model).values())).plan


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_choice_raises_an_error_that_says_what_to_do(case: str) -> None:
    call, says = REFUSED[case]
    model, _ = several(*NAMES, head=True)
    ta.use(model, "b")
    before = logits(model)
    with pytest.raises(ta.TensorAdaptError) as error:
        call(model)
    assert re.search(says, str(error.value), re.DOTALL), str(error.value)
    if ta.adapters(model)["b"].gate.merged:
        ta.unmerge(model)
    ta.use(model, "b")
    assert torch.equal(logits(model), before)
    assert set(ta.adapters(model)) == set(NAMES)


def test_a_head_that_is_tied_to_an_embedding_is_trained_and_given_back() -> None:
    model = make("t5")
    base = copy.deepcopy(model)
    assert model.lm_head.weight is model.shared.weight
    adapter = ta.attach(model, ta.plan(ta.find_sites(model), method="cp", rank=2, train=("lm_head",)))
    with torch.no_grad():
        model.lm_head.weight += 1
    assert list(adapter.attachment.head_parameters()) == ["lm_head.weight"]
    ta.detach(model)
    assert_identical(model, base)


def test_the_second_adapter_says_that_the_first_is_at_rest_and_how_to_use_both() -> None:
    model = make("bert")
    ta.attach(model, "cp", rank=2, name="a", train=())
    with pytest.warns(UserWarning, match="adapter 'a' is at rest now, and 'b' computes and trains alone") as caught:
        ta.attach(model, "lora", rank=2, name="b", train=())
    eval(str(caught[0].message).rpartition("to use both: ")[2], {"ta": ta, "model": model})
    assert list(model.tensoradapt.used) == ["a", "b"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ta.attach(model, "lora", rank=2, name="c")

"""Pairs are contracted once in a forward pass, and no pass reads pairs of factors that have changed since."""

from __future__ import annotations

import copy
import pickle
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.models import inputs, logits, make, perturb
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.adapter import forward_pass
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.adapter.forward_pass import ForwardPass, contracted
from tensoradapt.layers.wrapper import wrapped

TASKS = ("a", "b")


class Tied:
    """A BERT with a tensor over all layers, and checks of its passes."""

    def __init__(self, name: str = "bert", **options: object) -> None:
        self.name, self.model = name, make(name)
        options = options or {"layout": "layer proj : head dim : model", "method": "tucker", "rank": 2}
        self.adapter = ta.attach(self.model, ta.plan(self.model, train=(), **options))
        self.adapter.double()
        perturb(self.adapter)

    def __call__(self) -> Tensor:
        return logits(self.model(**inputs(self.name)))

    def gradients(self) -> list[Tensor]:
        return [p.grad.clone() for p in self.adapter.parameters() if p.grad is not None]

    def step(self) -> list[Tensor]:
        self.adapter.zero_grad()
        output = self()
        output.square().mean().backward()
        return [output.detach(), *self.gradients()]

    @property
    def factor(self) -> nn.Parameter:
        return next(iter(self.adapter.tensors[0].trained.values()))


@pytest.fixture
def tied() -> Tied:
    return Tied()


def apart(call: Callable[[], list[Tensor]]) -> list[Tensor]:
    """Do a call in which each site contracts its own pair, at each use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ForwardPass, "once", lambda *_: None)
        return call()


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected) > 0
    for value, other in zip(found, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-10, atol=1e-12)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Count how often tensors were contracted, by the number of positions at once."""
    counts: Counter = Counter()
    before = FactoredTensor.pairs_of
    monkeypatch.setattr(FactoredTensor, "pairs_of", lambda t, at: counts.update([len(at)]) or before(t, at))
    return counts


def test_all_sites_of_a_tensor_are_contracted_together_once_a_pass(tied, counted) -> None:
    tied.step()
    assert counted == {12: 1}  # 3 layers of q, k, v, o
    with torch.no_grad():
        tied()
    assert counted == {12: 2}
    tied.adapter.pair(tied.adapter.plan.sites[0])  # outside a pass
    assert counted == {12: 2, 1: 1}


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5", "whisper-both", "mixtral", "torch-encoder", "clip"])
def test_every_model_gives_what_it_gives_with_each_pair_by_itself(name) -> None:
    tied = Tied(name, layout="layer : out : in", method="tensor_train", rank=2, on_mismatch="split")
    assert_same(tied.step(), apart(tied.step))


def changes(tied: Tied, folder: Path) -> dict[str, Callable[[], object]]:
    """What may happen to factors between two passes, by name."""

    @torch.no_grad()
    def write() -> None:
        tied.factor.mul_(2)

    def data() -> None:
        tied.factor.data.mul_(2)  # as some optimizers do: torch's version counter does not see it

    def storage() -> None:
        tied.factor.detach().numpy()[:] *= 2  # nor this

    def replaced() -> None:
        name = next(iter(tied.adapter.tensors[0].trained))
        tied.adapter.tensors[0].trained[name] = nn.Parameter(tied.factor.detach() * 2)

    def optimizer() -> None:
        tied().square().mean().backward()
        torch.optim.AdamW(tied.adapter.parameters(), lr=0.1).step()

    def restored() -> None:
        other = Tied()
        perturb(other.adapter, 0.7)
        other.adapter.save(folder / "other")
        ta.restore(tied.model, folder / "other")

    return {
        "written to": write,
        "written through .data": data,
        "written in its memory": storage,
        "replaced": replaced,
        "a step": optimizer,
        "restored": restored,
        "of lower rank": lambda: ta.reduce_rank(tied.model, rank=1),
        "in another type": lambda: tied.adapter.bfloat16().double(),
        "scaled by use": lambda: ta.use(tied.model, {"default": 0.5}),
        "disabled and enabled": lambda: tied.adapter.gate.__setattr__("enabled", not tied.adapter.gate.enabled),
    }


@pytest.mark.parametrize("grad", [True, False], ids=["training", "no_grad"])
@pytest.mark.parametrize("change", list(changes(None, Path())))  # type: ignore[arg-type]
def test_a_pass_after_a_change_has_the_changed_factors(change, grad, tied, tmp_path) -> None:
    with torch.set_grad_enabled(grad):
        before = tied().detach()
    changes(tied, tmp_path)[change]()
    with torch.set_grad_enabled(grad):
        found = tied().detach()
    assert_same([found], apart(lambda: [tied().detach()]))
    assert not torch.equal(found, before)


def test_a_factor_that_changes_in_the_middle_of_a_pass_is_read_by_the_layers_after(tied) -> None:
    layers = tied.model.bert.encoder.layer

    @torch.no_grad()
    def double(*_: object) -> None:
        tied.factor.mul_(2)

    hook = layers[1].register_forward_pre_hook(double)
    with torch.no_grad():
        found = tied()
        tied.factor.div_(2)
        assert_same([found], apart(lambda: [tied()]))
    hook.remove()


def test_tasks_for_each_sample_are_contracted_once_for_each_task(counted) -> None:
    tied = Tied(layout="task layer proj : out : in", method="cp", rank=2, tasks=TASKS)
    tied.adapter.select(task=["b", "a"])
    found = tied.step()
    assert counted == {12: 2}
    assert_same(found, apart(tied.step))
    tied.adapter.select(task="a")
    assert_same(tied.step(), apart(tied.step))


def test_two_forward_passes_then_two_backward_passes_accumulate(tied) -> None:
    expected = [2 * gradient for gradient in apart(tied.step)[1:]]
    tied.adapter.zero_grad()
    losses = [tied().square().mean() for _ in range(2)]
    for loss in losses:
        loss.backward()
    assert_same(tied.gradients(), expected)


def test_a_factor_written_to_between_the_passes_of_a_step_is_refused(tied) -> None:
    loss = tied().square().mean()
    with torch.no_grad():
        tied.factor.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_pass_that_fails_leaves_none_behind(tied, counted) -> None:
    def fail(*_: object) -> None:
        raise ValueError("stopped")

    hook = tied.model.bert.encoder.layer[2].register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="stopped"):
        tied()
    hook.remove()
    assert tied.adapter.forward_pass._of_thread == {}
    layer = next(wrapped(tied.model))[1]
    layer(torch.randn(1, 30, dtype=torch.float64))  # a layer by itself: no pass
    assert counted[1] == 1


def test_threads_have_passes_of_their_own(tied) -> None:
    expected, found = tied().detach(), []
    gate = threading.Barrier(4)

    def run() -> None:
        gate.wait()
        with torch.no_grad():
            found.extend(tied() for _ in range(5))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20 and tied.adapter.forward_pass._of_thread == {}
    assert all(torch.equal(value, found[0]) for value in found)
    torch.testing.assert_close(found[0], expected)


def test_copies_and_pickles_follow_their_own_passes(tied, counted) -> None:
    tied.model.bert.encoder.layer[1].register_forward_pre_hook(lambda *_: twins.append(copy.deepcopy(tied.adapter)))
    twins: list[ta.Adapter] = []
    expected = tied().detach()
    assert twins[0].forward_pass._of_thread == {}
    tied.model.bert.encoder.layer[1]._forward_pre_hooks.clear()
    for twin in (copy.deepcopy(tied.model), pickle.loads(pickle.dumps(tied.model))):
        perturb(tied.adapter, 0.7)
        counted.clear()
        torch.testing.assert_close(logits(twin(**inputs("bert"))), expected, rtol=0, atol=0)
        assert counted == {12: 1}


def test_detach_and_merge_and_unload_take_the_hooks_off() -> None:
    for end in (ta.detach, ta.merge_and_unload):
        model = make("bert")
        ta.attach(model, ta.plan(model, method="lora", paper=True, rank=2))
        ta.attach(model, ta.plan(model, method="lora", paper=True, rank=2), name="second")
        assert len(model._forward_pre_hooks) == len(model._forward_hooks) == 1
        if end is ta.detach:
            ta.detach(model, "second")
            assert len(model._forward_pre_hooks) == 1
        end(model)
        assert not model._forward_pre_hooks and not model._forward_hooks


def test_a_pass_under_autocast_and_one_without_have_pairs_of_their_own() -> None:
    model = make("bert", torch.float32)
    adapter = ta.attach(model, ta.plan(model, "layer proj : head dim : model", "tucker", 2, train=()))
    perturb(adapter)
    output = lambda: logits(model(**inputs("bert", torch.float32)))  # noqa: E731
    with torch.no_grad():
        wide = output()
        with torch.autocast("cpu", torch.bfloat16):
            narrow = output()
        assert torch.equal(output(), wide) and not torch.equal(narrow, wide)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(output(), narrow)


def test_passes_without_gradients_keep_no_more_pairs_than_there_is_room_for(counted, monkeypatch) -> None:
    tied = Tied(layout=": out : in", method="lora", rank=2)
    with torch.no_grad():
        tied(), tied()
        assert sum(counted.values()) == len(tied.adapter.plan.groups)
        counted.clear()
        of_one = sum(p.numel() for p in tied.adapter.tensors[0].parameters())
        monkeypatch.setattr(forward_pass, "MOST", 3 * 2 * of_one)
        tied.factor.mul_(2)  # so that the last pass has room for one more
        tied.adapter.forward_pass = ForwardPass()
        tied(), tied()
    assert sum(counted.values()) == 2 * len(tied.adapter.plan.groups) - 3


def test_what_is_saved_for_the_backward_pass_are_the_factors_alone() -> None:
    saved: list[Tensor] = []
    factors = [torch.randn(4, 3, requires_grad=True), torch.randn(3, 5, requires_grad=True)]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        product = contracted(lambda a, b: torch.tanh(a @ b), factors)
    assert saved == []
    product.sum().backward()
    twins = [f.detach().requires_grad_() for f in factors]
    torch.tanh(twins[0] @ twins[1]).sum().backward()
    assert_same([f.grad for f in factors], [f.grad for f in twins])


def test_a_frozen_factor_and_a_scale_that_are_set_between_two_passes_are_read() -> None:
    tied = Tied(layout="layer proj : head dim : model", method="tucker", rank=2, start="subtract")
    tensor = tied.adapter.tensors[0]
    for change in (
        lambda: next(tensor.initial.buffers()).mul_(2),
        lambda: next(tensor.initial.buffers()).data.mul_(2),
        lambda: setattr(tensor, "scale", 2 * tensor.scale),
    ):
        with torch.no_grad():
            before = tied()
            change()
            found = tied()
            assert_same([found], apart(lambda: [tied()]))
        assert not torch.equal(found, before)

"""restore puts saved numbers into the adapter that is attached; save refuses factors that are no longer whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import inputs, make, perturb
from torch import Tensor, nn
from transformers import BertForSequenceClassification

import tensoradapt as ta
from tensoradapt.storage.load import unattached

LAYOUT = "layer proj : head dim : model"


def attached(seed: int = 0, rank: int = 2, std: float = 0.3, **changes: Any) -> tuple[nn.Module, ta.Adapter]:
    model = make("bert")
    plan = ta.plan(model, LAYOUT, "cp", rank, train="classifier", **changes)
    adapter = ta.attach(model, plan, seed=seed)
    perturb(adapter, std)
    return model, adapter


def output(model: nn.Module) -> Tensor:
    return model(**inputs("bert")).logits.detach()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model, adapter = attached(scale=3.0)
    with torch.no_grad():
        model.classifier.weight.mul_(2)
    adapter.save(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_restored_adapter_gives_the_saved_one_s_output_and_keeps_its_parameters(saved: Path) -> None:
    expected_model = make("bert")
    ta.load(expected_model, saved)
    model, adapter = attached(std=0.1, scale=3.0)
    before = list(model.parameters())
    adapter.factored[0].scale = 1.0  # starts that are data, such as the first gradients, solve others
    assert not torch.equal(output(model), output(expected_model))
    ta.restore(model, saved)
    assert torch.equal(output(model), output(expected_model))
    assert all(one is other for one, other in zip(model.parameters(), before, strict=True))
    assert [tensor.scale for tensor in adapter.factored] == [3.0] * len(adapter.factored)


@pytest.mark.parametrize("other", [{"seed": 1}, {"rank": 3}, {"scale": 2.0}])
def test_an_adapter_of_another_plan_or_seed_is_refused_with_nothing_changed(saved: Path, other: dict[str, Any]) -> None:
    model, _ = attached(**{"scale": 3.0, **other})
    before = output(model)
    with pytest.raises(
        ta.TensorAdaptError, match=r"another plan or seed .* than the attached one .*load\(model, path\)"
    ):
        ta.restore(model, saved)
    assert torch.equal(output(model), before)


def test_a_merged_adapter_is_not_restored(saved: Path) -> None:
    model, _ = attached(scale=3.0)
    ta.merge(model)
    with pytest.raises(ta.TensorAdaptError, match=r"merged into the weights; call unmerge\(model\) before restoring"):
        ta.restore(model, saved)


def test_factors_that_another_library_has_emptied_are_not_saved(tmp_path: Path) -> None:
    _, adapter = attached()
    parameter = next(adapter.parameters())
    parameter.data = torch.empty(0, dtype=parameter.dtype)  # as ZeRO-3 and FSDP1 leave them
    with pytest.raises(ta.TensorAdaptError, match=r"is torch\.float\d+ \(0,\); expected floating point \(\d+, 2\)"):
        adapter.save(tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_an_adapter_whose_head_another_one_has_replaced_is_not_restored(saved: Path) -> None:
    model, _ = attached(scale=3.0)
    ta.attach(model, ta.plan(make("bert"), LAYOUT, "cp", 2, train="classifier"), name="other")
    before = output(model)
    with pytest.raises(
        ta.TensorAdaptError, match=r"other heads than those of this adapter; use\(model, name\) it first"
    ):
        ta.restore(model, saved, "default")
    assert torch.equal(output(model), before)
    ta.use(model, "default")
    ta.restore(model, saved, "default")
    loaded = make("bert")
    ta.load(loaded, saved)
    assert torch.equal(output(model), output(loaded))


@pytest.mark.parametrize("method", ["cp", "vera", "lotr"])
@pytest.mark.parametrize(
    ("of_base", "of_adapter"),
    [(torch.bfloat16, torch.bfloat16), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_an_adapter_is_loaded_in_the_dtype_that_it_was_saved_in(
    method: str, of_base: torch.dtype, of_adapter: torch.dtype, tmp_path: Path
) -> None:
    model, again = (make("bert", torch.float32).to(of_base) for _ in range(2))
    adapter = ta.attach(model, ta.plan(model, method=method, rank=2, train="classifier"))
    adapter.to(of_adapter)
    perturb(adapter)
    adapter.save(tmp_path)
    loaded, alone = ta.load(again, tmp_path), unattached(tmp_path)
    for (_, kept), (_, one), (_, other) in zip(adapter.stored(), loaded.stored(), alone.stored(), strict=True):
        assert one.dtype is other.dtype is of_adapter
        assert torch.equal(one, kept) and torch.equal(other, kept)
    assert torch.equal(output(model), output(again))


def test_a_head_of_another_number_of_labels_names_the_number_that_it_needs(saved: Path) -> None:
    config = make("bert").config
    width, config.num_labels = config.hidden_size, 5
    model = BertForSequenceClassification(config).double().eval()
    before = output(model)
    says = rf"adapter's classifier.weight is \(7, {width}\), and this model's is \(5, {width}\); .*with num_labels=7$"
    with pytest.raises(ta.TensorAdaptError, match=says):
        ta.load(model, saved)
    assert torch.equal(output(model), before)
    ta.attach(model, ta.plan(model, LAYOUT, "cp", 2, train="classifier", scale=3.0))
    with pytest.raises(ta.TensorAdaptError, match=r"with num_labels=7$"):
        ta.restore(model, saved)

"""Frozen factors that are drawn or set: functions of seed and names or patterns, in no file and no count."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.models import make, perturb

import tensoradapt as ta
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.adapter.rules import Computed, pattern
from tensoradapt.errors import NetworkError
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network
from tensoradapt.networks.varied import varied

WIDE = Layout.parse(": out : in", {"out": 6, "in": 64})
GOLDEN = [0.49637169797729563, 0.5259832787956441, 0.8124106765542699, -0.2184078029727369, 0, 1, 1, 0]
FROZEN: dict[str, dict[str, Any]] = {
    "lora": {"frozen": ["A"]},
    "as in the paper": {"frozen": ["A"], "scale": "paper"},
    "a number": {"frozen": ["A"], "scale": 0.5},
    "subtracted": {"frozen": ["A"], "start": "subtract"},
    "shared": {"layout": "layer : out : in", "frozen": ["A"], "shared": {"A": ["layer"]}},
    "ones": {"frozen": {"A": "ones"}},
}


@pytest.mark.thorough
@pytest.mark.parametrize("how", FROZEN)
def test_a_saved_adapter_has_the_frozen_factors_again(how: str, tmp_path: Path) -> None:
    model = make("bert")
    adapter = ta.attach(model, ta.plan(model, "lora", rank=2, **FROZEN[how]), seed=5)
    perturb(adapter)
    adapter.save(tmp_path)
    loaded = ta.load(make("bert"), tmp_path)
    assert all(torch.equal(loaded.delta(site), adapter.delta(site)) for site in adapter.plan.sites)
    assert {name.rpartition(".")[2] for name in adapter.state_dict()} == {"B"}
    twice = 2 if how == "subtracted" else 1
    assert adapter.n_bytes == 4 * twice * adapter.n_params and adapter.plan.n_base == 0
    first, second = (tensor.factors["A"] for tensor in adapter.factored[:2])
    assert torch.equal(first, second) == (how == "ones")


def test_an_adapter_that_was_attached_on_the_meta_device_draws_them_too() -> None:
    given = {"method": "lora", "rank": 2, "frozen": ["A"]}
    plain = make("bert", torch.float32)
    expected = ta.attach(plain, ta.plan(plain, **given), seed=5)
    with torch.device("meta"):
        model = make("bert", torch.float32).to("meta")
    adapter = ta.attach(model, ta.plan(model, **given), seed=5)
    model.to_empty(device="cpu")
    adapter.reset_parameters()
    for one, other in zip(adapter.factored, expected.factored, strict=True):
        assert torch.equal(one.factors["A"], other.factors["A"]) and one.scale == other.scale


def test_numbers_that_no_file_holds_are_the_same_in_every_version() -> None:
    numbers = Computed(3, "0/A")
    found = torch.cat([numbers.uniform((2,)), numbers.normal((2,)), numbers.bits((4,))])
    np.testing.assert_allclose(found.tolist(), GOLDEN, rtol=0, atol=1e-12)
    many = Computed(3, "0/A").normal((400, 500))
    assert float(many.mean()) == pytest.approx(0, abs=0.01) and float(many.var()) == pytest.approx(1, abs=0.01)
    assert float((many.abs() < 1).double().mean()) == pytest.approx(math.erf(math.sqrt(0.5)), abs=0.005)


@pytest.mark.parametrize("scale", ["matched", "paper"])
def test_a_frozen_factor_has_the_size_and_form_of_a_trained_one(scale: str) -> None:
    plain = ta.parameterizations.get("lora").build(WIDE, 4)
    trained, frozen = (FactoredTensor(each, scale=scale) for each in (plain, varied(plain, ["A"])))
    a, b = (tensor.factors["A"].double() for tensor in (trained, frozen))
    assert not torch.equal(a, b)
    if scale == "matched":  # orthogonal rows of the rule's size
        for rows in (a, b):
            torch.testing.assert_close(rows @ rows.T, torch.eye(4).double() / 3, rtol=0, atol=1e-6)
    else:  # uniform within 1 / sqrt(in)
        assert a.abs().max() <= 1 / 8 and 0.1 < b.abs().max() <= 1 / 8
    assert frozen.scale == pytest.approx(trained.scale, rel=1e-6)


def test_a_file_of_too_many_drawn_numbers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("bert")
    adapter = ta.attach(model, ta.plan(model, "lora", rank=2, frozen=["A"]))
    adapter.save(tmp_path)
    monkeypatch.setattr("tensoradapt.adapter.checkpoint.DRAWN", (1, 100))
    with pytest.raises(ta.TensorAdaptError, match="frozen factors of single tensors have 720 numbers; expected"):
        ta.load(make("bert"), tmp_path)


SPLIT = {"split": {"out": (5, 6), "in": (5, 6)}, "projections": ("q", "v")}
SMALL = Layout.parse(": out : in", {"out": 3, "in": 2})


def network(paper: Any, labels: tuple[str, ...] = ("out", "r"), trainable: bool = False) -> Network:
    fixed = Factor("A", labels, paper=paper, trainable=trainable, source="set")
    return Network(SMALL, (fixed, Factor("B", ("r", "in"), "zero")), {"r": 3})


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        ("constant", (2, 2), [[3.0, 3.0], [3.0, 3.0]]),
        ("identity", (2, 3), [[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]]),
        ("identity", (2, 1, 2), [[[3.0, 0.0]], [[0.0, 3.0]]]),
        ("shift", (3, 1, 3), [[[3.0, 0.0, 0.0]], [[0.0, 3.0, 0.0]], [[0.0, 0.0, 3.0]]]),
        ("shift", (2, 2, 2), [[[3.0, 0.0], [0.0, 3.0]], [[0.0, 3.0], [3.0, 0.0]]]),
    ],
)
def test_a_pattern_is_what_it_is_called(kind: str, shape: tuple[int, ...], expected: list[Any]) -> None:
    assert pattern(shape, kind, 3.0).tolist() == expected


def test_a_set_factor_is_not_scaled_counted_or_stored(tmp_path: Path) -> None:
    one, other = (FactoredTensor(network(("constant", value)), scale="paper") for value in (1.0, 5.0))
    assert one.scale == other.scale == 1
    assert torch.equal(5 * one.factors["A"], other.factors["A"])
    assert (one.network.n_params, one.network.n_base, one.held) == (6, 0, {})
    model = make("bert")
    adapter = ta.attach(model, ta.plan(model, method="block_circulant", rank=1, **SPLIT))
    perturb(adapter)
    adapter.save(tmp_path)
    assert adapter.plan.n_base == 0 and not [name for name in adapter.state_dict() if "S" in name.split(".")]
    again = make("bert")
    loaded = ta.load(again, tmp_path)
    assert all(torch.equal(loaded.delta(site), adapter.delta(site)) for site in adapter.plan.sites)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"paper": None}, "paper=None"),
        ({"paper": ("uniform", 1.0)}, r"'uniform'.*expected a frozen one.*'constant' of 1 axes or more"),
        ({"paper": ("shift", 1.0)}, r"axes \('out', 'r'\).*'shift' of 3 axes or more"),
        ({"paper": ("constant", 1.0), "trainable": True}, "trainable=True"),
    ],
)
def test_what_cannot_be_set_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(NetworkError, match=rf"factor 'A' with source='set'.*{says}|{says}"):
        network(**given)

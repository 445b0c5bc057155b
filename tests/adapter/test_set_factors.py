"""Frozen factors that are set: their patterns, held once for each shape, in no file and no count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import make, perturb

import tensoradapt as ta
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.adapter.rules import pattern
from tensoradapt.errors import NetworkError
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

SPLIT = {"split": {"out": (5, 6), "in": (5, 6)}, "projections": ("q", "v")}
WIDE = Layout.parse(": out : in", {"out": 3, "in": 2})


def network(paper: Any, labels: tuple[str, ...] = ("out", "r"), trainable: bool = False) -> Network:
    fixed = Factor("A", labels, paper=paper, trainable=trainable, source="set")
    return Network(WIDE, (fixed, Factor("B", ("r", "in"), "zero")), {"r": 3})


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

"""The matched scale: its probed first step in a corner and whole, what is exact, and factors with no first step."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tensoradapt import parameterizations
from tensoradapt.adapter import draws
from tensoradapt.adapter.frozen import Bases
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network
from tensoradapt.planning import scale
from tensoradapt.testing import cases

PARTS = {"out1": 16, "out2": 16, "in1": 16, "in2": 16}
CASES: dict[str, tuple[str, str, dict[str, int], dict[str, Any]]] = {
    "all cores of a train move": ("loretta", ": out1 out2 : in1 in2", PARTS, {"bottleneck": 4}),
    "both factors of a product of matrices move": ("loha", ": out : in", {"out": 192, "in": 256}, {}),
    "every factor of a tied tensor moves": ("tucker", "layer : out : in", {"layer": 6, "out": 64, "in": 96}, {}),
}


def built(name: str) -> Network:
    family, layout, sizes, options = CASES[name]
    return parameterizations.get(family).build(Layout.parse(layout, sizes), 4, **options)


@pytest.mark.parametrize("start", ["zero", "subtract"])
@pytest.mark.parametrize("name", CASES)
def test_a_corner_says_what_the_whole_tensor_says(name: str, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = built(name)
    drawn = [draws.draw(network, seed, "0", True, start) for seed in range(3)]
    whole = sum(scale.mean_square(network, factors) for factors in drawn)
    monkeypatch.setattr(scale, "ENTRIES", math.prod(network.layout.shape) // 8)
    corner = sum(scale.mean_square(network, factors) for factors in drawn)
    assert math.sqrt(corner / whole) == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("rank", [1, 8, 64])
def test_orthonormal_factors_leave_nothing_to_chance(rank: int) -> None:
    layout = Layout.parse("layer proj : head dim : model", {"layer": 12, "proj": 4, "head": 6, "dim": 16, "model": 96})
    network = parameterizations.get("cp").build(layout, rank)
    step = scale.mean_square(network, draws.draw(network, 0, "0", True))
    assert step == pytest.approx(rank / (3 * 96), rel=1e-12)


def test_columns_beyond_a_modes_entries_count_by_how_their_signs_agree() -> None:
    layout = Layout.parse("proj : out : in", {"proj": 1, "out": 32, "in": 48})
    network = parameterizations.get("tucker").build(layout, {"proj": 4, "out": 4, "in": 4}, zero="core")
    factors = draws.draw(network, 0, "0", True)
    alone = parameterizations.get("tucker").build(layout, {"proj": 1, "out": 4, "in": 4}, zero="core")
    one = scale.mean_square(alone, draws.draw(alone, 0, "0", True))
    # four columns of signs say one thing: their steps add up, and do not average out
    assert scale.mean_square(network, factors) == pytest.approx(16 * one, rel=1e-9)


@pytest.mark.parametrize("name", parameterizations.names())
@settings(max_examples=10, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_tensors_that_are_probed_together_have_the_step_of_each(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(name))
    network, values = case.network.given(case.values()), case.values()
    bases = Bases([network], case.seed)
    shared = {factor.name: bases.read(network, factor) for factor in network.frozen_draws}
    drawn = [{**draws.draw(network, case.seed, str(i), True), **values} for i in range(3)]
    found = scale.mean_squares_of_zero(network, shared, drawn)
    assert found == pytest.approx([formed(network, {**shared, **factors}) for factors in drawn], rel=1e-12, abs=0)
    assert found == pytest.approx([scale.mean_square(network, {**shared, **f}) for f in drawn], rel=1e-12, abs=0)


def formed(network: Network, factors: dict[str, torch.Tensor]) -> float:
    """The mean square of a zero factor's step that is formed, tensor by tensor."""
    reduced = scale.ReducedNetwork(network, factors, [network.zero])
    sizes = {**reduced.sizes, scale.PROBE: reduced.n_probes}
    gradient = scale._gradient(tuple(sizes[x] for x in (scale.PROBE, *reduced.modes)))
    signs = reduced.back(network.zero, gradient, sizes).sign()
    step = network.zero.rate * reduced.through(network.zero, signs, sizes)
    return float(step.square().sum()) / reduced.n_probes / reduced.numel


def test_matched_lora_is_the_reference_exactly() -> None:
    network = parameterizations.get("lora").build(Layout.parse(": out : in", {"out": 32, "in": 128}), 8)
    found = scale.matched_scale(network, draws.draw(network, 0, "0", True))
    assert found == pytest.approx(2.0, rel=1e-12)
    assert scale.matched_scale(network, draws.draw(network, 0, "0", True), alpha=8.0) == pytest.approx(1.0, rel=1e-12)
    assert math.isclose(scale.LORA_ALPHA / scale.LORA_RANK, 2.0)


@pytest.mark.slow
def test_a_corner_is_the_same_in_every_process() -> None:
    code = f"""
from tensoradapt import parameterizations
from tensoradapt.adapter import draws
from tensoradapt.planning import scale
from tensoradapt.networks.layout import Layout
scale.ENTRIES = 8192  # three of the four modes are halved
layout = Layout.parse(": out1 out2 : in1 in2", {PARTS})
network = parameterizations.get("loretta").build(layout, 4, bottleneck=4)
print(scale.mean_square(network, draws.draw(network, 0, "0", True, "subtract")))
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1

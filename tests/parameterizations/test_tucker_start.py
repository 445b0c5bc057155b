"""Which factor of Tucker starts at zero, and that most entries take most of a gradient."""

from __future__ import annotations

from typing import Any

import pytest

from tensoradapt.networks.layout import Layout
from tensoradapt.parameterizations import tucker

SIZES = {"layer": 3, "proj": 4, "head": 4, "dim": 5, "model": 20, "out": 20, "in": 16}


@pytest.mark.parametrize(
    ("layout", "rank", "options", "zero"),
    [
        (": out : in", 1, {}, "out"),
        (": out : in", 8, {}, "out"),
        (": out : in", 16, {}, "out"),  # 320 entries, and 256
        (": out : in", {"out": 20, "in": 16}, {}, "out"),  # 400 entries, and 320
        ("layer proj : head dim : model", 4, {}, "core"),
        ("layer proj : head dim : model", 1, {}, "dim"),
        ("layer : out : in", 4, {"only": ("in",)}, "core"),
        ("layer : out : in", 4, {"only": ("out", "in")}, "out"),
        ("layer : out : in", 4, {"zero": "core"}, "core"),
        ("layer : out : in", 4, {"zero": "in"}, "in"),
    ],
)
def test_the_larger_of_core_and_output_factor_starts_at_zero(
    layout: str, rank: Any, options: dict[str, Any], zero: str
) -> None:
    network = tucker.build(Layout.parse(layout, SIZES), rank, **options)
    assert network.zero.name == zero
    assert [f.name for f in network.factors if f.init == "zero"] == [zero]

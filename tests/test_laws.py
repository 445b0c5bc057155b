"""Every law holds for every parameterization that can be named, whatever the layout, sizes, ranks and seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
from families import FIRST
from hypothesis import given, settings
from hypothesis import strategies as st

from tensoradapt import parameterizations
from tensoradapt.modes import Layout
from tensoradapt.testing import LAWS, cases


def orders(layout: Layout) -> st.SearchStrategy[dict[str, Any]]:
    """The usual chain of a tensor-train, or any other."""
    return st.permutations(layout.names).map(lambda order: {"order": order}) | st.just({})


def some(layout: Layout) -> st.SearchStrategy[dict[str, Any]]:
    """Tucker's usual factors, or those of some modes."""
    return st.sets(st.sampled_from(layout.names)).map(lambda only: {"only": tuple(only)}) | st.just({})


@st.composite
def cores(draw: st.DrawFn, layout: Layout) -> dict[str, Any]:
    """LoRETTA's usual cores, or neighbouring modes and pieces of the bottleneck joined at random."""
    pieces = draw(st.sampled_from([(1,), (3,), (2, 2), (4,), (2, 3), (2, 2, 2)]))
    usual = {"bottleneck": math.prod(pieces)}
    if draw(st.booleans()):
        return usual
    rows, cols = ([m.size for m in modes] for modes in (layout.rows, layout.cols))
    joined = {}
    for side, sizes in (("in", [*cols, *pieces]), ("out", [*pieces, *rows])):
        ends = [i for i in range(1, len(sizes)) if draw(st.booleans())]
        joined[side] = tuple(math.prod(sizes[i:j]) for i, j in itertools.pairwise([0, *ends, len(sizes)]))
    return {**usual, "cores": joined}


def flags(name: str, *values: Any) -> Callable[[Layout], st.SearchStrategy[dict[str, Any]]]:
    return lambda layout: st.sampled_from(values).map(lambda value: {name: value})


OPTIONS: dict[str, Any] = {
    "cp": flags("weights", False, True),
    "tucker": some,
    "tensor_train": orders,
    "tensor_ring": orders,
    "block_term": flags("terms", 1, 2, 3),
    "kronecker": flags("full", False, True),
    "loretta": cores,
    "tinylora": flags("svd_rank", 1, 2, 3),
}


OTHERS = tuple(name for name in parameterizations.names() if name not in FIRST)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("parameterization", FIRST)
@given(data=st.data())
def test_the_law_holds(law: str, parameterization: str, data: st.DataObject) -> None:
    LAWS[law](data.draw(cases(parameterization, OPTIONS.get(parameterization))))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("parameterization", OTHERS)
@settings(max_examples=settings.default.max_examples // 2)  # they are many, and share the core with the first five
@given(data=st.data())
def test_the_law_holds_for_all_others(law: str, parameterization: str, data: st.DataObject) -> None:
    LAWS[law](data.draw(cases(parameterization, OPTIONS.get(parameterization))))

"""Every law holds for every parameterization that can be named, whatever the layout, sizes, ranks and seed."""

from __future__ import annotations

import importlib
import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.families import FIRST

from tensoradapt import parameterizations
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network
from tensoradapt.parameterizations import cp
from tensoradapt.testing import LAWS, cases, laws


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
    "loha": flags("second", None, 1, 3),
    "compacter": flags("terms", None, 1, 3),
    "loretta": cores,
    "vera": flags("trained", False, True),
    "tinylora": lambda layout: st.fixed_dictionaries({"svd_rank": st.integers(1, 3), "tied": st.booleans()}),
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


@settings(max_examples=300)
@given(case=cases("vera", OPTIONS["vera"]))
def test_no_case_is_a_sum_of_signs_which_may_cancel(case: Any) -> None:
    """With one entry, as draws are normalised, each of r terms is 1 or -1 times the same number."""
    layout = case.network.layout
    assert layout.out * layout.in_ > 1 or case.network.bonds == {"r": 1}


def mine(build: Callable[..., Any]) -> Any:
    """CP built in another way."""
    return SimpleNamespace(build=build, count=cp.count, oracle=cp.oracle, __name__="mine")


def refuses(layout: Layout, rank: Any) -> Any:
    raise TensorAdaptError(f"never over {len(layout.rows)} row modes")


def breaks(layout: Layout, rank: Any) -> Any:
    raise ValueError("boom") if len(layout.rows) > 1 else KeyError("bang")


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda layout, rank: 3, "'mine' builds no network over ': out : .*build returned 3; expected a Network"),
        (lambda layout, rank: None, "'mine' builds no network over .*build returned None; expected a Network"),
        (breaks, "'mine' builds no network over ': out : .*KeyError: 'bang'"),
    ],
)
def test_what_builds_no_network_is_one_failure_with_the_layout(build: Callable[..., Any], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        laws(mine(build), examples=20)


def test_what_refuses_every_layout_is_told_what_to_name() -> None:
    says = "'mine' refuses nearly every layout it is tried with, at last: never over . row modes.*`parts`.*`square`"
    with pytest.raises(TensorAdaptError, match=says):
        laws(mine(refuses), examples=5)


def two_zeros(layout: Layout, rank: int) -> Network:
    """CP, but for a second factor that is zero where there is an index mode."""
    network = cp.build(layout, rank)
    first, *rest = network.factors
    return replace(network, factors=(replace(first, init="zero"), *rest)) if layout.index else network


def test_a_network_that_no_plan_can_use_breaks_the_laws() -> None:
    with pytest.raises(
        AssertionError, match=r"'mine' builds a network over .* that no plan can use: factors that start"
    ):
        laws(mine(two_zeros), examples=20)


@pytest.mark.thorough
def test_laws_say_how_many_cases_there_were_and_what_was_refused() -> None:
    def not_over_tasks(layout: Layout, rank: Any) -> Any:
        if "task" in layout.names:
            raise TensorAdaptError("tasks are not for this one")
        return cp.build(layout, rank)

    assert repr(laws("cp", examples=2)) == f"{len(LAWS)} laws held on {2 * len(LAWS)} cases"
    found = laws(mine(not_over_tasks), examples=8)
    assert found.cases > 4 * len(LAWS) and set(found.refused) == {"tasks are not for this one"}
    assert repr(found).endswith("because tasks are not for this one")


def test_without_hypothesis_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tensoradapt.testing")
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(TensorAdaptError, match=r'tensoradapt.testing needs `hypothesis`.* "tensoradapt\[dev\]"'):
        importlib.import_module("tensoradapt.testing")

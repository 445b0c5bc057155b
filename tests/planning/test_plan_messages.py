"""What a split or a parameterization of one's own that fits no plan is told."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import tensoradapt as ta
from tensoradapt.networks.layout import Layout
from tensoradapt.parameterizations import cp

MODEL = "tiny-random-bert"  # 24 wide


@pytest.mark.parametrize(
    ("split", "says"),
    [
        (3, "split is 3; expected a mapping of modes to the sizes of their parts"),
        ({"left": (4, 6)}, "split names 'left', no row or column mode"),
        ({"out": 3}, "split out=3; expected the sizes of its parts"),
        ({"out": (0, 24)}, "has a part that is not a whole number of 1 or more"),
        ({"out": {99: (9, 11)}}, "split of out has no parts for the width 24 of site"),
        ({"out": (5, 5)}, "has the product 25, but out of site"),
    ],
)
def test_a_split_that_fits_no_matrix_is_refused(split: Any, says: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=says):
        ta.plan(MODEL, "cp", rank=2, layout=": out1 out2 : in", split=split)


def other_layout(layout: Layout, rank: Any) -> Any:
    return cp.build(Layout.parse(": out : in", {"out": 3, "in": 2}), 2)


def half_a_bond(layout: Layout, rank: Any) -> Any:
    return replace(cp.build(layout, 2), bonds={"r": 2.5})


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda layout, rank: 1 / 0, "rank 1 does not fit parameterization 'mine'.*ZeroDivisionError"),
        (lambda layout, rank: None, "build of parameterization 'mine' returned NoneType None; expected a Network"),
        (other_layout, r"returned a network over ': out : in' \(3, 2\); expected a Network over"),
        (half_a_bond, "in which bond 'r' would be 2.5; expected one whole number"),
    ],
)
def test_a_build_that_gives_no_network_is_refused(build: Any, says: str) -> None:
    mine = SimpleNamespace(__name__="x.mine", build=build, count=cp.count, oracle=cp.oracle)
    with pytest.raises(ta.TensorAdaptError, match=says):
        ta.plan(MODEL, mine, rank=1, layout=": out : in")

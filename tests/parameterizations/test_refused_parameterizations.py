"""What a parameterization refuses: what was found, what was expected, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.models import llama

import tensoradapt as ta
from tensoradapt.networks.layout import Layout

Call = Callable[[], Any]
SIZES = {"layer": 2, "out": 6, "in": 4, "head": 2, "dim": 3, "out1": 2, "out2": 3, "in1": 2, "in2": 2}


def build(name: str, text: str, rank: Any = 2, sizes: dict[str, int] | None = None, **options: Any) -> Call:
    layout = Layout.parse(text, sizes or SIZES)
    return lambda: ta.parameterizations.get(name).build(layout, rank, **options)


def decompose(name: str, shape: tuple[int, ...]) -> Call:
    module = ta.parameterizations.get(name)
    network = module.build(Layout.parse(": out : in", SIZES), 2)
    return lambda: module.decompose(network, np.zeros(shape))


def plan(name: str, **changes: Any) -> Call:
    return lambda: ta.plan(ta.find_sites(llama(), ("q", "o")), method=name, **changes)


FREE, TWO = ": out : in", ": out1 out2 : in1 in2"
REFUSED: dict[str, tuple[Call, list[str]]] = {
    "an order of the ring that is none": (
        build("tensor_ring", FREE, order=("out",)),
        ["order ('out',) is not a permutation", "('in', 'out')"],
    ),
    "ring ranks without one for the last mode": (
        build("tensor_ring", FREE, rank={"in": 2}),
        ["rank names in", "expects one for each of in, out"],
    ),
    "no terms": (build("block_term", FREE, terms=0), ["terms is 0", "whole number of 1 or more"]),
    "a Kronecker product of whole modes": (
        build("kronecker", FREE),
        ["two row and two column modes", "': out : in' has 1 and 1", '": out1 out2 : in1 in2"', "split={"],
    ),
    "a Kronecker product of three columns": (
        build("kronecker", ": out1 out2 : in1 in2 in3", sizes={**SIZES, "in3": 2}),
        ["has 2 and 3", '": out1 out2 : in1 in2"'],
    ),
    "more singular vectors than there are": (
        build("lora_xs", FREE, rank=5),
        ["rank 5 is above the 4 singular values of a 6 x 4 matrix of layout ': out : in'", "lora_xs", "give 4 or less"],
    ),
    "more of them in a plan": (
        plan("lora_xs", rank={"r": 25}),
        ["rank 25 is above the 24 singular values of a 48 x 24 matrix", "give 24 or less"],
    ),
    "svd_rank 0": (build("tinylora", FREE, svd_rank=0), ["svd_rank is 0", "whole number of 1 or more"]),
    "a TT-matrix of unpaired modes": (
        build("tt_matrix", ": head dim : in"),
        ["as many row as column modes", "': head dim : in' has 2 and 1", '": out1 out2 out3 : in1 in2 in3"'],
    ),
    "a TT-matrix with a rank too many": (
        build("tt_matrix", TWO, rank={"out1": 2, "out2": 2}),
        ["rank names out1, out2", "expects one for each of out1"],
    ),
    "gates over one axis": (
        build("quanta", ": out : in", sizes={"out": 6, "in": 6}),
        ["two or more row modes", "rows (6,) and columns (6,)", "split={"],
    ),
    "gates over unequal axes": (
        build("quanta", TWO),
        ["of the same sizes", "rows (2, 3) and columns (2, 2)", "adapt square matrices", "split={"],
    ),
    "a bottleneck of 0": (build("loretta", TWO, bottleneck=0), ["bottleneck is 0", "whole number of 1 or more"]),
    "cores of one side only": (
        build("loretta", TWO, bottleneck=4, cores={"in": (4, 4)}),
        ["cores of 'out' are not given", "the product 6 x 4", "cores={'out': (4, 2, 3)}"],
    ),
    "cores that cut a mode": (
        build("loretta", TWO, bottleneck=4, cores={"in": (2, 8), "out": (4, 3, 2)}),
        ["cores (4, 3, 2) of 'out' cut out2", "every mode has to lie inside one core", "use split={'out': (3, 2)}"],
    ),
    "cores that no split fits": (
        build(
            "loretta", ": out1 : in1", sizes={"out1": 2, "in1": 8}, bottleneck=6, cores={"in": (12, 4), "out": (6, 2)}
        ),
        ["cores (12, 4) of 'in' cut the bottleneck", "use other cores, or none given"],
    ),
    "blocks of whole modes": (
        build("block_low_rank", FREE),
        ["two row and two column modes", "': out : in' has 1 and 1", '": out1 out2 : in1 in2"', '"out": (2, 384)'],
    ),
    "circulant blocks whose pattern is too large": (
        build("block_circulant", TWO, sizes={"out1": 3, "out2": 256, "in1": 6, "in2": 256}),
        ["blocks of 256", "16,777,216 numbers", "at most 128", "split={'out': (6, 128), 'in': (12, 128)}"],
    ),
    "weights of another shape": (decompose("lora", (4, 6)), ["shape (4, 6)", "': out : in' expects (6, 4)"]),
    "a split layout without a split": (plan("tt_matrix", rank=2), ["out*"]),
    "a budget below RandLoRA's least": (
        plan("randlora", budget=100),
        ["budget 100 is below the smallest possible: rank 24 takes 288 parameters"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_says_what_was_found_and_what_to_do(case: str) -> None:
    call, fragments = REFUSED[case]
    with pytest.raises(ta.TensorAdaptError) as error:
        call()
    message = " ".join(str(error.value).split())
    assert [fragment for fragment in fragments if fragment not in message] == [], message


@pytest.mark.parametrize("side", ["in", "out"])
def test_the_split_that_a_refusal_names_is_taken(side: str) -> None:
    """The released cores of width 768 cut at 8, 8, 12, 8 on both sides: with the bottleneck at the other end."""
    parts = {"in": (8, 8, 12), "out": (8, 12, 8)}
    wrong = {**parts, side: (6, 16, 8)}
    cores = {"in": (8, 8, 12, 8), "out": (8, 8, 12, 8)}

    def sizes(split: dict[str, tuple[int, ...]]) -> dict[str, int]:
        return {f"{name}{k}": n for name, ns in split.items() for k, n in enumerate(ns, 1)}

    text = ": out1 out2 out3 : in1 in2 in3"
    with pytest.raises(ta.TensorAdaptError) as error:
        build("loretta", text, 5, sizes(wrong), cores=cores)()
    assert f"split={{{side!r}: {parts[side]}}}" in str(error.value)
    assert build("loretta", text, 5, sizes(parts), cores=cores)().n_params == 2 * 580


def test_a_whole_rank_above_the_singular_values_is_clipped_in_a_plan() -> None:
    sites = ta.find_sites(SimpleNamespace(**{**vars(llama()), "head_dim": 2}), ("q", "o"))
    groups = ta.plan(sites, method="lora_xs", rank=99).groups
    assert {(group.network.layout.shape, group.rank) for group in groups} == {((12, 24), 12), ((24, 12), 12)}

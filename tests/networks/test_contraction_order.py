"""The order of products is the one that opt_einsum's search of every order returns."""

from __future__ import annotations

from functools import reduce

import torch
from hypothesis import given, reject
from hypothesis import strategies as st
from opt_einsum.paths import optimal

from tensoradapt.networks.contraction import LETTERS, compile_program
from tensoradapt.networks.contraction_order import cheapest_order

LABELS = "abcdefg"


@given(st.data())
def test_the_order_is_the_one_that_a_search_of_all_orders_finds(data: st.DataObject) -> None:
    sizes = {label: data.draw(st.integers(1, 6)) for label in LABELS}
    some = st.lists(st.sampled_from(LABELS), min_size=1, max_size=4, unique=True).map(tuple)
    inputs = data.draw(st.lists(some, min_size=2, max_size=6))
    output = tuple(x for x in LABELS if any(x in labels for labels in inputs) and data.draw(st.booleans()))
    order = cheapest_order(inputs, output, sizes)
    if order is None:
        reject()
    expected = optimal([frozenset(labels) for labels in inputs], frozenset(output), sizes)
    assert [sorted(pair) for pair in order] == [sorted(pair) for pair in expected]


def test_products_that_differ_under_the_same_labels_are_left_to_opt_einsum() -> None:
    # {w, A} has the labels of {A}: opt_einsum mixes up their products with B
    assert cheapest_order([("r",), ("r", "a"), ("r", "b")], ("a", "b"), {"r": 2, "a": 3, "b": 4}) is None


def test_a_chain_of_more_axes_than_einsum_has_letters_is_contracted() -> None:
    n = LETTERS + 8
    inputs = [(f"x{i}", f"x{i + 1}") for i in range(n)]
    program = compile_program(inputs, ("x0", f"x{n}"), {f"x{i}": 2 for i in range(n + 1)})
    matrices = list(torch.randn(n, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert torch.allclose(program.run(matrices, torch.einsum), reduce(torch.matmul, matrices))

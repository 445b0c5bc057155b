"""Products along one axis are those of torch.einsum, whatever the order of axes in memory."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tensoradapt.training.distance import mode_products

SIZES = {"t": 2, "a": 3, "b": 4, "c": 5, "d": 6, "n": 7}


def values(labels: str, order: tuple[int, ...] | None = None) -> torch.Tensor:
    """An array with these axes, which lie in memory in another order."""
    order = order or tuple(range(len(labels)))
    made = torch.randn([SIZES[labels[i]] for i in order], dtype=torch.float64)
    return made.permute([order.index(i) for i in range(len(labels))])


@pytest.mark.parametrize("gone", "abcd")
@pytest.mark.parametrize("order", list(itertools.permutations(range(1, 5)))[::5])
@pytest.mark.parametrize("matrix", ["tgn", "tng"])
def test_a_product_with_a_matrix_is_that_of_einsum(gone: str, order: tuple[int, ...], matrix: str) -> None:
    large, small = values("tabcd", (0, *order)), values(matrix.replace("g", gone))
    equation = f"tabcd,{matrix.replace('g', gone)}->t{'abcd'.replace(gone, '')}n"
    expected = torch.einsum(equation, large, small)
    torch.testing.assert_close(mode_products.einsum(equation, large, small), expected, rtol=1e-13, atol=1e-13)
    first, rest = equation.split(",")
    second, output = rest.split("->")
    found = mode_products.einsum(f"{second},{first}->{output}", small, large)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    "equation", ["tabc,tcab->t", "tab,tab->t", "tabc,tbd->tacd", "tab,tbc->tac", "tab->tb", "ta,tb->tab"]
)
def test_other_equations_are_those_of_einsum(equation: str) -> None:
    operands = [values(labels) for labels in equation.split("->")[0].split(",")]
    expected = torch.einsum(equation, *operands)
    torch.testing.assert_close(mode_products.einsum(equation, *operands), expected, rtol=1e-13, atol=1e-13)


class Copies(TorchDispatchMode):
    """Counts what is copied."""

    entries = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket.__name__ in ("clone", "copy_", "_to_copy"):
            self.entries += args[0].numel()
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("gone", "abcd")
def test_a_product_along_any_axis_makes_no_copy(gone: str) -> None:
    large, small = values("tabcd")[:1], values(f"t{gone}n")[:1]
    equation = f"tabcd,t{gone}n->t{'abcd'.replace(gone, '')}n"
    with Copies() as copies:
        found = mode_products.einsum(equation, large, small)
        mode_products.einsum("tabcd,tabcd->t", found, found)
    assert copies.entries == 0

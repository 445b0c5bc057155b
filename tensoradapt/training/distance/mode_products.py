"""Contract a large array with matrices along single axes, in the order in which its axes lie in memory.

torch.einsum permutes an array before and after a product along a middle axis, which copies it twice. For the cores of
Tucker networks the copies take longer than the products.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor


def einsum(equation: str, *operands: Tensor) -> Tensor:
    """Apply an einsum; a product with a matrix, and the inner product of two arrays, take no copy on their way.

    All operands begin with the same axis, over which products are batched.
    """
    if len(operands) == 2:
        first, second, output = re.split(",|->", equation)
        if len(output) == 1 and set(first) == set(second):
            return _inner(first, second, *operands)
        for large, matrix, values in ((first, second, operands), (second, first, operands[::-1])):
            if (
                len(matrix) == 3
                and len(large) > 2
                and len(gone := set(large) - set(output)) == 1
                and gone < set(matrix)
            ):
                return _along(large, matrix, output, *values)
    return torch.einsum(equation, *operands)


def _along(labels: str, of_matrix: str, output: str, value: Tensor, matrix: Tensor) -> Tensor:
    """Multiply by a matrix along the axis that the product sums; return a view with the axes of the output."""
    gone, new = sorted(of_matrix[1:], key=output.find)
    if of_matrix[1] == gone:
        matrix = matrix.mT  # (batch, new, gone)
    labels, value = _in_memory(labels, value)
    at = labels.index(gone)
    shape = [*value.shape[:at], matrix.shape[1], *value.shape[at + 1 :]]
    if at == len(labels) - 1:
        product = value.flatten(1, -2) @ matrix.mT
    else:
        rows = value.flatten(at + 1).flatten(1, at - 1) if at > 1 else value.flatten(2).unsqueeze(1)
        product = matrix.unsqueeze(1) @ rows  # (batch, before, new, after)
    return _ordered(labels.replace(gone, new), output, product.reshape(shape))


def _inner(first: str, second: str, x: Tensor, y: Tensor) -> Tensor:  # (batch,)
    labels, x = _in_memory(first, x)
    y = _ordered(second, labels, y).contiguous()
    return torch.linalg.vecdot(x.flatten(1), y.flatten(1))


def _in_memory(labels: str, value: Tensor) -> tuple[str, Tensor]:
    """Return an array with its axes as they lie in memory, the first one first in any case."""
    strides = value.stride()
    order = [0, *sorted(range(1, value.dim()), key=lambda i: (-strides[i], i))]
    return "".join(labels[i] for i in order), value.permute(order).contiguous()


def _ordered(labels: str, wanted: Sequence[str], value: Tensor) -> Tensor:
    return value.permute([labels.index(label) for label in wanted])

"""Contract arrays whose entries are polynomials in one number; axis 0 has the coefficients from the constant up."""

from __future__ import annotations

import re
from string import ascii_letters

import torch
import torch.nn.functional as F
from torch import Tensor

LARGE = 2**20  # entries from which fewer copies are worth more than fewer calls


def einsum(equation: str, *operands: Tensor) -> Tensor:  # (powers, *output)
    """Apply an einsum of one or two operands to polynomials; the equation does not name their axes of powers."""
    p, q = [letter for letter in ascii_letters if letter not in equation][:2]
    if len(operands) == 1:
        return torch.einsum(f"{p}{equation.replace('->', f'->{p}')}", *operands)
    first, second, output = re.split(",|->", equation)
    return folded(torch.einsum(f"{p}{first},{q}{second}->{p}{q}{output}", *operands))


def folded(products: Tensor) -> Tensor:  # (p, q, *rest) -> (p + q - 1, *rest)
    """Sum the products of coefficients whose powers have the same sum."""
    p, q = products.shape[:2]
    if min(p, q) == 1:
        return products.flatten(0, 1)
    if p > q:
        return folded(products.transpose(0, 1))
    if products.numel() > LARGE:
        total = products.new_zeros(p + q - 1, *products.shape[2:])
        for i, row in enumerate(products):
            total[i : i + q] += row
        return total
    # rows of q and p zeros, read as rows of one entry less: each is one to the right of that above it
    padded = F.pad(products, [*[0, 0] * (products.dim() - 2), 0, p])
    return padded.flatten(0, 1)[:-p].unflatten(0, (p, p + q - 1)).sum(0)


def at(value: Tensor, x: float) -> Tensor:  # (powers, *rest) -> (*rest)
    """Evaluate a polynomial of degree 0 or 1."""
    return torch.add(*value, alpha=x) if len(value) == 2 else value[0]

"""Gram matrices contract a network with a copy of itself, over arrays of any library that has an ``einsum``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tensoradapt.networks.contraction import Labels, compile_program, size
from tensoradapt.networks.network import Factor, Network

Valued = tuple[Network, Mapping[str, Any]]  # a network, and arrays by factor name
Einsum = Callable[..., Any]


def product(one: Valued, two: Valued, output: Labels, einsum: Einsum) -> Any:
    """Contract two networks over one layout; bonds of the second are called ``bond'``.

    Factors without an array are left out.
    """
    first, second = ([f for f in network.factors if f.name in values] for network, values in (one, two))
    copies = [primed(two[0], f) for f in second]
    sizes = {**one[0].sizes, **{f"{bond}'": n for bond, n in two[0].bonds.items()}}
    operands = [*(one[1][f.name] for f in first), *(two[1][f.name] for f in second)]
    return compile_program([*(f.labels for f in first), *copies], output, sizes).run(operands, einsum)


def primed(network: Network, factor: Factor) -> Labels:
    """Return the labels of a factor of the second network, whose bonds have names of their own."""
    return tuple(f"{x}'" if x in network.bonds else x for x in factor.labels)


def normal_matrix(network: Network, values: Mapping[str, Any], of: Factor, einsum: Einsum) -> Any:
    """Return H = J^T J for the Jacobian J of the dense tensor in one factor: (*shared modes, bonds, bonds).

    For CP this is the Hadamard product of the other factors' Gram matrices. Axes that an ``einsum`` puts before those
    of its equation stay where they are.
    """
    shared, _, bonds = axes(network, of)
    others = {f.name: values[f.name] for f in network.factors if f is not of}
    output = (*shared, *bonds, *(f"{bond}'" for bond in bonds))
    n = size(bonds, network.sizes)
    gram = product((network, others), (network, others), output, einsum)
    return gram.reshape(*gram.shape[: len(gram.shape) - 2 * len(bonds)], n, n)


def unfold(network: Network, of: Factor, value: Any) -> Any:  # (*stack, *shape) -> (*stack, *shared, alone, bonds)
    """Return a factor's values or gradients as matrices that its normal matrix divides from the right."""
    shared, alone, bonds = axes(network, of)
    stack = value.ndim - len(of.labels)
    order = [*range(stack), *(stack + of.labels.index(label) for label in (*shared, *alone, *bonds))]
    turned = value.permute(order)
    return turned.reshape(*turned.shape[: stack + len(shared)], -1, size(bonds, network.sizes))


def fold(network: Network, of: Factor, matrices: Any) -> Any:  # (*stack, *shared, alone, bonds) -> (*stack, *shape)
    """Undo ``unfold``."""
    shared, alone, bonds = axes(network, of)
    stack = matrices.shape[: matrices.ndim - 2 - len(shared)]
    labels = (*shared, *alone, *bonds)
    order = [*range(len(stack)), *(len(stack) + labels.index(label) for label in of.labels)]
    return matrices.reshape(*stack, *(network.sizes[label] for label in labels)).permute(order)


def axes(network: Network, of: Factor) -> tuple[Labels, Labels, Labels]:
    """Return a factor's modes that other factors have too, the modes it has alone, and its bonds."""
    others = {label for factor in network.factors if factor is not of for label in factor.labels}
    modes = [label for label in of.labels if label not in network.bonds]
    bonds = tuple(label for label in of.labels if label in network.bonds)
    return tuple(m for m in modes if m in others), tuple(m for m in modes if m not in others), bonds

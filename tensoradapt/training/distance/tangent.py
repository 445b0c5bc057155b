"""How far changes of factors move an adapter's updates to first order: the Gram matrix of the Jacobian, never formed.

J v is how the matrices of a tensor's sites change with a change v of its trained factors. ``<J v, J w>`` is a network
contracted with a copy of itself, so J^T J v costs a few such contractions, and no matrix of a site is formed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor
from torch.func import grad, jvp

from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.networks.contraction import compile_program, size
from tensoradapt.networks.gram import axes, fold, normal_matrix, primed, unfold
from tensoradapt.networks.network import Factor
from tensoradapt.planning.plan import Group, Plan
from tensoradapt.training.distance.blocks import Block, blocks_of, index_modes, squares_of

Values = dict[str, Tensor]
RELATIVE = 1e-5  # the residual at which a projection ends, over the gradient, which is often of float32
MOST = 200  # products with J^T J that a projection takes at most
LARGE = 512  # rows from which a normal matrix is not taken apart
SINGULAR = 1e-12  # eigenvalues of a normal matrix, over the largest, that count as zero at least
MOST_DAMPED = 1e-2  # the most that a dtype makes them: more would count resolved directions in part
DAMPING = 1e-10  # added to the whitened J^T J at least, whose diagonal blocks are the identity


class Tangent:
    """The tangent space of one tensor's updates at its factors, in float64."""

    def __init__(self, tensor: FactoredTensor, group: Group, plan: Plan) -> None:
        squares = squares_of(plan, group)
        largest = max(squares)  # a part of the scale, by which whitening and damping have the size of J^T J
        self.network, self.scale = tensor.network, tensor.scale * largest**0.5
        self.blocks = blocks_of(tensor.network, group.members, [square / largest for square in squares])
        values = {name: value.detach().double() for name, value in tensor.factors.items()}
        trained = {factor.name for factor in tensor.network.factors if factor.trainable}
        self.moving = {name: value for name, value in values.items() if name in trained}
        self.still = {name: value for name, value in values.items() if name not in trained}

    def gram(self, change: Mapping[str, Tensor]) -> Values:
        """Return J^T J v for a change v of trained factors; those that are left out do not change."""
        every = {name: change.get(name, torch.zeros_like(value)) for name, value in self.moving.items()}
        return jvp(lambda other: grad(self._inner)(self.moving, other), (self.moving,), (every,))[1]

    def length(self, change: Mapping[str, Tensor]) -> float:
        """Return ``|J v|``, the norm over all entries of the sites' matrices."""
        back = self.gram(change)
        return max(0.0, sum(float((value * back[name]).sum()) for name, value in change.items())) ** 0.5

    def projected(self, gradient: Mapping[str, Tensor]) -> float:
        """Return the norm of the projection of G on the range of J from ``J^T G``; factors left out do not change.

        It is ``sqrt(g^T (J^T J)^+ g)``, by conjugate gradients in variables that are whitened factor by factor, in
        which the diagonal blocks of J^T J are the identity. Directions that the gradient's rounding does not resolve
        count in part or not at all.
        """
        eps = max((torch.finfo(value.dtype).eps for value in gradient.values()), default=0.0)
        singular, damping = max(SINGULAR, min(10 * eps, MOST_DAMPED)), max(DAMPING, min(1000 * eps, MOST_DAMPED))
        roots = {name: self._root(name, value.double(), singular) for name, value in gradient.items()}
        asked = {name: self._whitened(name, value.double(), roots) for name, value in gradient.items()}
        if not (right := _flat(asked)).any():
            return 0.0

        def product(x: np.ndarray) -> np.ndarray:
            back = self.gram({name: self._whitened(name, value, roots) for name, value in _unflat(x, asked).items()})
            return _flat({name: self._whitened(name, back[name], roots) for name in asked}) + damping * x

        operator = LinearOperator((len(right), len(right)), matvec=product, dtype=np.float64)
        found, _ = cg(operator, right, rtol=RELATIVE, maxiter=MOST)
        return float(max(0.0, right @ found)) ** 0.5

    def _whitened(self, name: str, part: Tensor, roots: Mapping[str, Tensor | float]) -> Tensor:
        root, factor = roots[name], self._factors[name]
        if isinstance(root, float):
            return part * root
        return fold(self.network, factor, unfold(self.network, factor, part) @ root)

    def _root(self, name: str, part: Tensor, singular: float) -> Tensor | float:  # (*shared, bonds, bonds)
        """Return the inverse root of a factor's normal matrix, or a number like it along a part where that is large."""
        factor = self._factors[name]
        if size(axes(self.network, factor)[2], self.network.sizes) <= LARGE:
            normal = normal_matrix(self.network, {**self.moving, **self.still}, factor, torch.einsum)
            return inverse_root(self.scale**2 * normal, singular)
        back = float((part * self.gram({name: part})[name]).sum())
        return (float(part.square().sum()) / back) ** 0.5 if back > 0 else 0.0

    @cached_property
    def _factors(self) -> dict[str, Factor]:
        return {factor.name: factor for factor in self.network.factors}

    def _inner(self, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Tensor:
        """Return ``<T, T'>`` over the entries of the sites' matrices, for two tensors with these trained factors."""
        return self.scale**2 * torch.stack([self._in_block(block, one, other) for block in self.blocks]).sum()

    def _in_block(self, block: Block, one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Tensor:
        sizes = {**self.network.sizes, **dict(block.ranges)}
        labels, operands = [], []
        for values, copy in ((one, False), (other, True)):
            for factor in self.network.factors:
                value = {**self.still, **values}[factor.name]
                for mode, n in block.ranges:
                    value = value.narrow(factor.labels.index(mode), 0, n) if mode in factor.labels else value
                labels.append(primed(self.network, factor) if copy else factor.labels)
                operands.append(value)
        if block.mask is not None:
            index = index_modes(self.network)
            labels.append(index)
            operands.append(operands[0].new_tensor(block.mask).reshape([sizes[mode] for mode in index]))
        sizes |= {f"{bond}'": n for bond, n in self.network.bonds.items()}
        return block.weight * compile_program(labels, (), sizes).run(operands, torch.einsum)


def inverse_root(matrix: Tensor, singular: float) -> Tensor:  # (*, n, n), symmetric
    """Return ``matrix^(-1/2)``, and zero in the directions of eigenvalues below ``singular`` times the largest."""
    values, vectors = torch.linalg.eigh(matrix)
    alive = values > singular * values[..., -1:]
    roots = torch.where(alive, values.clamp_min(torch.finfo(values.dtype).tiny).rsqrt(), 0)
    return (vectors * roots[..., None, :]) @ vectors.mT


def _flat(values: Mapping[str, Tensor]) -> np.ndarray:
    return torch.cat([value.flatten() for value in values.values()]).cpu().numpy()


def _unflat(x: np.ndarray, like: Mapping[str, Tensor]) -> Values:
    first = next(iter(like.values()))
    parts = torch.from_numpy(x).to(first.device).split([value.numel() for value in like.values()])
    return {name: part.reshape(value.shape) for (name, value), part in zip(like.items(), parts, strict=True)}

"""Which factors of a network can have orthonormal columns while it expresses the same tensors: its orthonormal form.

Where bonds join two factors each without a cycle, a factor hands the triangle of its QR to its neighbour, and so on to
one factor, which then holds the size: the core of Tucker (De Lathauwer et al., SIAM J. Matrix Anal. Appl. 21, 2000), an
end of a tensor-train (Oseledets, SIAM J. Sci. Comput. 33, 2011). Here it is the factor that starts at zero. Two
matrices with a weight for each component have the form too: the singular value decomposition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

from torch import Tensor

from tensoradapt.adapter import rules
from tensoradapt.networks.contraction import Labels, size
from tensoradapt.networks.network import Factor, Network
from tensoradapt.networks.tree import bonds_to_zero, is_tree


@dataclass(frozen=True)
class Unfolding:
    """A factor as matrices whose columns are its bond on the way to the factor that holds the size."""

    network: Network
    factor: Factor
    shared: Labels  # modes that the next factor has too: a matrix for each of their positions
    rows: Labels
    bond: str

    @cached_property
    def shape(self) -> tuple[int, int]:
        """The rows and columns of each matrix."""
        return size(self.rows, self.network.sizes), self.network.sizes[self.bond]

    @cached_property
    def _back(self) -> tuple[list[int], list[int]]:
        """The sizes in the order of ``unfold``, and the order back."""
        sizes = self.network.shape(self.factor)
        return [sizes[i] for i in self._order], [self._order.index(i) for i in range(len(sizes))]

    @cached_property
    def _order(self) -> list[int]:
        return [self.factor.labels.index(label) for label in (*self.shared, *self.rows, self.bond)]

    def unfold(self, value: Tensor) -> Tensor:  # the factor's shape -> (matrices, rows, columns)
        """Return the matrices of a factor's values or gradients."""
        return value.permute(self._order).reshape(-1, *self.shape)

    def fold(self, matrices: Tensor) -> Tensor:  # (matrices, rows, columns) -> the factor's shape
        """Undo ``unfold``."""
        sizes, order = self._back
        return matrices.reshape(sizes).permute(order)


@lru_cache(maxsize=4096)
def unfoldings(network: Network) -> tuple[Unfolding, ...]:
    """Return an unfolding of every factor but the one that holds the size; none without an orthonormal form."""
    if not (is_tree(network) or _is_svd(network)):
        return ()
    found = []
    for factor, (bond, parent) in bonds_to_zero(network).items():
        shared = tuple(x for x in factor.labels if x in parent.labels and x != bond)
        rows = tuple(x for x in factor.labels if x not in (*shared, bond))
        found.append(Unfolding(network, factor, shared, rows, bond))
    return tuple(found)


@lru_cache(maxsize=4096)
def radius(unfolding: Unfolding, matched: bool) -> float:
    """Return the length of the columns that a factor starts with, by the rule it is drawn by; 1 for orthonormal draws.

    A matched scale is solved for columns of this length, so they keep it.
    """
    rule = rules.matched if matched else rules.paper
    drawn = rule(unfolding.network, unfolding.factor, rules.Generated(0, unfolding.factor.name))
    return math.sqrt(float(drawn.square().mean()) * unfolding.shape[0])


def _is_svd(network: Network) -> bool:
    """Say whether it is two matrices, and weights of their components, which start at zero."""
    sides = [set(factor.labels) for factor in network.factors if factor is not network.zero]
    bonds = set(network.bonds)
    return len(bonds) == 1 and set(network.zero.labels) == bonds and len(sides) == 2 and sides[0] & sides[1] == bonds

"""Make the bonds of a network smaller and keep its tensor close.

Where every bond joins two factors and there is no cycle (LoRA, Tucker, tensor-trains), the tensor is a matrix product
at each bond, and its best approximation of rank k follows from the triangular factors of both sides (Oseledets, SIAM J.
Sci. Comput. 33, 2011, algorithm 2; for trees Grasedyck, SIAM J. Matrix Anal. Appl. 31, 2010). Every position of a mode
that both factors have is truncated by itself, to one rank. Where one bond joins all factors (CP), components are
dropped. A new factor is the old one times a matrix over each bond: P' = P x and Q' = Q y at the ends of one; as the
tensor holds P' Q'^T, the gradient in P' is that in P times y.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.contraction import Labels, compile_program
from tensoradapt.networks.gram import product
from tensoradapt.networks.network import Factor, Network
from tensoradapt.networks.tree import ends, is_tree

Values = Mapping[str, Tensor]
TINY = 1e-12  # relative ridge that keeps a rank-deficient side invertible


@dataclass(frozen=True)
class Change:
    """A bond's change of basis: for each factor a matrix for its values and one for its gradients."""

    labels: Labels  # (*shared, bond, new bond)
    matrices: Mapping[str, tuple[Tensor, Tensor]]


def check(network: Network) -> None:
    """Raise TensorAdaptError for frozen factors, derived bonds, cycles, and bonds of some of the factors only."""
    fixed = [factor.name for factor in network.factors if not factor.trainable]
    why = ""
    if not network.bonds:
        why = "it has no bond"
    elif fixed:
        why = f"factor {fixed[0]!r} is frozen"
    elif network.derived:
        why = f"bond {network.derived[0]!r} follows from the others"
    elif not is_tree(network) and not _is_sum(network):
        why = "its bonds have a cycle, or join some of the factors"
    if why:
        raise TensorAdaptError(
            f"the tensor {network.equation} cannot be reduced: {why}. Reducing takes bonds that each join two "
            "trained factors without a cycle (lora, tucker, tensor_train, tt_matrix), or one bond in all factors (cp)"
        )


def spectra(network: Network, values: Values) -> dict[str, Tensor]:
    """Return for each bond the squared error that dropping a direction adds once those after it are gone, falling.

    Each has the shape (size of the bond,). In a tree these are squared singular values, summed over the positions of
    shared modes; the total of a bond is the tensor's squared norm. The errors of several bonds add up to a bound of the
    whole error.
    """
    if not is_tree(network):
        bond = next(iter(network.bonds))
        _, added = _elimination(network, values)
        return {bond: added.flip(0).cummax(0).values.flip(0)}
    spectrum = {}
    for bond, size in network.bonds.items():
        left, right = _sides(network, values, bond)
        sigma = torch.linalg.svdvals(left @ right.mT).square().reshape(-1, min(left.shape[-2], right.shape[-2])).sum(0)
        spectrum[bond] = torch.cat([sigma, sigma.new_zeros(max(0, size - len(sigma)))])[:size]
    return spectrum


def changes(network: Network, values: Values, bonds: Mapping[str, int], sweeps: int = 1) -> dict[str, Change]:
    """Find the changes of basis to smaller ``bonds``; ``changed`` applies them to the values.

    Each bond in turn gets the best change given those before it, so the squared errors add up exactly. Further
    ``sweeps`` choose each bond again, given the others (for Tucker: higher-order orthogonal iteration).
    """
    smaller = [bond for bond, n in network.bonds.items() if bonds[bond] < n]
    if smaller and not is_tree(network):
        return {smaller[0]: _selection(network, values, smaller[0], bonds[smaller[0]])}
    by_bond: dict[str, Change] = {}
    for bond in smaller * (sweeps if len(smaller) > 1 else 1):
        others = {name: change for name, change in by_bond.items() if name != bond}
        small = replace(network, bonds={**network.bonds, **{name: bonds[name] for name in others}})
        by_bond[bond] = _truncation(small, changed(network, values, others), bond, bonds[bond])
    return by_bond


def changed(network: Network, values: Values, by_bond: Mapping[str, Change]) -> dict[str, Tensor]:
    """Return the factors after the changes of basis."""
    return {f.name: transported(f, values[f.name], by_bond) for f in network.factors}


def transported(
    factor: Factor,
    tensor: Tensor,  # the factor's values or gradients, in its shape
    by_bond: Mapping[str, Change],
    *,
    gradient: bool = False,
    square: bool = False,
) -> Tensor:
    """Return values or gradients in the new bases.

    With ``square`` they are squares of gradients, transformed as if the entries of gradients were independent.
    """
    for bond in (label for label in factor.labels if label in by_bond):
        matrix = by_bond[bond].matrices[factor.name][gradient]
        tensor = _over(factor.labels, tensor, by_bond[bond].labels, matrix.square() if square else matrix)
    return tensor


def inner(one: tuple[Network, Values], two: tuple[Network, Values]) -> float:
    """Return the inner product of two networks' tensors over one layout, from the factors alone."""
    return float(product(one, two, (), torch.einsum))


def relative_error(old: tuple[Network, Values], new: tuple[Network, Values]) -> float:
    """Return ``||T' - T|| / ||T||`` to 1e-7, as the root of a difference of inner products; 0 for a zero T."""
    norm = inner(old, old)
    lost = norm - 2 * inner(old, new) + inner(new, new)
    return max(0.0, lost / norm) ** 0.5 if norm > 0 else 0.0


def _is_sum(network: Network) -> bool:
    return len(network.bonds) == 1 and all(set(network.bonds) <= set(factor.labels) for factor in network.factors)


def _shared(network: Network, bond: str) -> Labels:
    """Return the modes that both factors of a bond hold."""
    left, right = ends(network, bond)
    return tuple(x for x in left.labels if x in right.labels and x != bond)


def _over(labels: Labels, tensor: Tensor, by: Labels, matrix: Tensor) -> Tensor:
    """Multiply a tensor's axis ``bond`` by a matrix (*shared, bond, new)."""
    *_, bond, new = by
    sizes = {**dict(zip(labels, tensor.shape, strict=True)), new: matrix.shape[-1]}
    output = tuple(new if x == bond else x for x in labels)
    return compile_program([labels, by], output, sizes).run([tensor, matrix], torch.einsum)


def _sides(network: Network, values: Values, bond: str) -> Iterator[Tensor]:  # two of (*shared, k, bond)
    return (_side(network, values, factor, bond) for factor in ends(network, bond))


def _side(network: Network, values: Values, factor: Factor, bond: str) -> Tensor:  # (*shared, k, bond)
    """Return the triangular factor of everything on one side of a bond, as matrices (modes, bond)."""
    labels, tensor = factor.labels, values[factor.name]
    for between in [x for x in factor.labels if x in network.bonds and x != bond]:
        other = next(f for f in ends(network, between) if f is not factor)
        behind = _side(network, values, other, between)
        tensor = _over(labels, tensor, (*_shared(network, between), between, f"{between}*"), behind.mT)
        labels = tuple(f"{between}*" if x == between else x for x in labels)
    shared = _shared(network, bond)
    order = [labels.index(x) for x in (*shared, *(x for x in labels if x not in (*shared, bond)), bond)]
    turned = tensor.permute(order)
    flat = turned.reshape(*turned.shape[: len(shared)], -1, turned.shape[-1])
    return torch.linalg.qr(flat, mode="r").R


def _truncation(network: Network, values: Values, bond: str, k: int) -> Change:
    first, second = ends(network, bond)
    left, right = _sides(network, values, bond)
    x, y = frames(left, right, k)
    labels = (*_shared(network, bond), bond, f"{bond}*")
    return Change(labels, {first.name: (x, y), second.name: (y, x)})


def frames(
    left: Tensor,  # (*shared, m, r)
    right: Tensor,  # (*shared, n, r)
    k: int,
) -> tuple[Tensor, Tensor]:  # two of (*shared, r, k)
    """Find x and y with y^T x = 1 for which ``left x y^T right^T`` is nearest to ``left right^T`` at rank k.

    Among all such pairs take the one of equal and smallest size nearest to k columns of the identity: factors keep
    their sizes, and with them the steps that Adam takes, and directions that one side does not use yet stay alive.
    """
    left, right = regular(left), regular(right)
    u, _, vt = torch.linalg.svd(left @ right.mT, full_matrices=False)
    x = torch.linalg.qr(right.mT @ vt.mT[..., :k]).Q
    y = torch.linalg.qr(left.mT @ u[..., :k]).Q
    e, cosines, ft = torch.linalg.svd(y.mT @ x)
    x, y = (x @ ft.mT) / cosines.sqrt()[..., None, :], (y @ e) / cosines.sqrt()[..., None, :]
    rows = torch.linalg.vector_norm(x + y, dim=-1).topk(k).indices.sort().values
    a, _, bt = torch.linalg.svd(torch.take_along_dim(x + y, rows[..., None], -2))
    turn = bt.mT @ a.mT
    return x @ turn, y @ turn


def regular(side: Tensor) -> Tensor:  # (*shared, m + r, r)
    """Append a tiny multiple of the identity, which gives the side full rank."""
    size = torch.linalg.matrix_norm(side, keepdim=True)
    small = TINY * torch.where(size > 0, size, torch.ones_like(size))
    eye = torch.eye(side.shape[-1], dtype=side.dtype, device=side.device)
    return torch.cat([side, small * eye], dim=-2)


def _selection(network: Network, values: Values, bond: str, k: int) -> Change:
    order, _ = _elimination(network, values)
    kept = torch.eye(network.bonds[bond], dtype=torch.float64, device=order.device)[:, order[:k].sort().values]
    return Change((bond, f"{bond}*"), {factor.name: (kept, kept) for factor in network.factors})


def _elimination(network: Network, values: Values) -> tuple[Tensor, Tensor]:  # both (r,), the last dropped first
    """Order components by what dropping them adds to the squared error.

    The next to go is the one that adds the least: its squared norm, and its inner products with those dropped before.
    """
    (bond,) = network.bonds
    gram = product((network, values), (network, values), (bond, f"{bond}'"), torch.einsum)
    cost, order, added = gram.diagonal().clone(), [], []
    for _ in range(len(cost)):
        i = int(cost.argmin())
        order.append(i)
        added.append(float(cost[i]))
        cost += 2 * gram[i]
        cost[order] = torch.inf
    return torch.tensor(order[::-1], device=gram.device), gram.new_tensor(added[::-1])

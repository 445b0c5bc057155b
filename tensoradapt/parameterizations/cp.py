"""CP: ``delta[m1, ..., mN] = sum_k F1[m1, k] ... FN[mN, k]``, one factor per mode (LoRTA).

Hounie et al., arXiv 2410.04060: over ``layer proj : head dim : model`` r (d + d/H + H + L + 4) parameters adapt every
attention matrix of a model. Choose it for the fewest parameters: all modes share r components.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import tensorly
from tensorly.decomposition import tucker

from tensoradapt.networks import least_squares
from tensoradapt.networks.decomposition import checked, tensorly_on_numpy, unit_columns
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

label = "CP"
look = ("#0072B2", "s")
aliases = ("cpd", "parafac", "candecomp")
RESTARTS = 4  # alternating least squares starts once from singular vectors, and else from random factors
DEAD = 1e-13  # relative to the largest component: a smaller one is noise


def build(layout: Layout, rank: int, weights: bool = False) -> Network:
    """Join one (mode, r) factor per mode at r; that of the last row mode starts at zero.

    ``weights`` adds a weight for each component (CaRA). The paper's multiplier is alpha / r, and its code draws the
    input factor uniformly within 1/sqrt(r) and the others within sqrt(6/r).
    """
    zero, wide = layout.rows[-1].name, {m.name for m in layout.cols}

    def factor(mode: str) -> Factor:
        if mode == zero:
            return Factor(mode, (mode, "r"), "zero")
        return Factor(mode, (mode, "r"), paper=("uniform", math.sqrt((1 if mode in wide else 6) / rank)))

    extra = (Factor("weights", ("r",), paper=("constant", 1.0)),) if weights else ()
    return Network(layout, (*map(factor, layout.names), *extra), {"r": rank}, alpha=16, divisor=rank)


def count(layout: Layout, rank: int, weights: bool = False) -> int:
    """Return r times the sum of the mode sizes; r more with weights."""
    return rank * (sum(layout.shape) + weights)


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return TensorLy's CP reconstruction."""
    return tensorly.cp_to_tensor((factors.get("weights"), [factors[m] for m in layout.names]))


def decompose(network: Network, tensor: np.ndarray, seed: int = 0, restarts: int = RESTARTS) -> dict[str, np.ndarray]:
    """Return factors with ``oracle(layout, factors)`` near ``tensor`` (layout.shape): the best of several starts.

    Alternating least squares runs on the tensor's Tucker core from each start, then from the best on the tensor itself.
    The factors of a component have equal norms. An unused component is zero in the network's zero factor alone, so that
    training can use it. A best approximation need not exist: see ``growth``.
    """
    tensor = checked(network, tensor)
    plain = Network(network.layout, network.factors[: tensor.ndim], network.bonds)
    factors = _fitted(plain, tensor, seed, restarts) if tensor.any() else least_squares.draw(plain, seed)
    return _balanced(network, factors, bool(tensor.any()), np.random.default_rng(seed))


def growth(factors: Mapping[str, np.ndarray], norm: float) -> float:
    """Return the largest component's norm over the tensor's; far above 1, components cancel in a degenerate fit."""
    return float(_norms(factors).max() / norm) if norm else 0.0


def _fitted(network: Network, tensor: np.ndarray, seed: int, restarts: int) -> dict[str, np.ndarray]:
    """Fit by least squares from several starts; TensorLy's parafac is slower, with a Python step per component."""
    names, rank, size = network.layout.names, network.bonds["r"], np.linalg.norm(tensor)
    with tensorly_on_numpy():
        # fits in the space of the leading singular vectors of each mode cost a fraction
        core, bases = tucker(tensor / size, [min(n, 2 * rank) for n in tensor.shape], n_iter_max=1)
    sizes = {" ".join(m.parts) or m.name: n for m, n in zip(network.layout.modes, core.shape, strict=True)}
    small = replace(network, layout=Layout.parse(str(network.layout), sizes))
    fits = []
    for i in range(restarts):
        start = least_squares.draw(small, seed + i)
        if i == 0:  # the singular vectors themselves, as far as there are some
            shapes = zip(names, core.shape, strict=True)
            start = {name: np.where(np.arange(rank) < n, np.eye(n, rank), start[name]) for name, n in shapes}
        factors, error = least_squares.fit(small, core, start)
        fits.append((error, i, factors))
    best = {name: basis @ min(fits)[2][name] for name, basis in zip(names, bases, strict=True)}
    factors, _ = least_squares.fit(network, tensor / size, best, sweeps=20)
    return {**factors, names[0]: factors[names[0]] * size}


def _norms(factors: Mapping[str, np.ndarray]) -> np.ndarray:  # (r,)
    return np.prod([np.linalg.norm(f, axis=0) if f.ndim > 1 else np.abs(f) for f in factors.values()], axis=0)


def _balanced(
    network: Network, factors: Mapping[str, np.ndarray], alive: bool, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    norms, n = _norms(factors), len(factors)
    dead = norms <= DEAD * norms.max() if alive else np.ones(len(norms), dtype=bool)
    level = np.where(dead, norms[~dead].mean() if not dead.all() else 1.0, norms) ** (1 / n)
    balanced = {}
    for name, values in factors.items():
        fill = unit_columns(len(values), values.shape[1], generator) * (name != network.zero.name)
        lengths = np.linalg.norm(values, axis=0)
        balanced[name] = np.where(dead, fill, values / np.where(lengths > 0, lengths, 1)) * level
    return balanced if len(network.factors) == n else {**balanced, "weights": np.ones(len(norms))}

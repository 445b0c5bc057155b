"""CP: ``delta[m1, ..., mN] = sum_k F1[m1, k] ... FN[mN, k]``, one factor per mode (LoRTA).

Hounie et al., arXiv 2410.04060: over ``layer proj : head dim : model`` r (d + d/H + H + L + 4) parameters adapt every
attention matrix of a model. Choose it for the fewest parameters; every mode shares the same r components.
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

label = "CP (LoRTA)"
RESTARTS = 4  # of alternating least squares: from the singular vectors, and at random
DEAD = 1e-13  # of the largest component: below it a component is noise


def build(layout: Layout, rank: int, weights: bool = False) -> Network:
    """One (mode, r) factor per mode; the last row mode's starts at zero. ``weights``: a weight for each component too
    (CaRA). Paper multiplier: alpha / r.

    The paper's code draws the input factor uniformly within 1/sqrt(r) and the others within sqrt(6/r).
    """
    zero, wide = layout.rows[-1].name, {m.name for m in layout.cols}

    def factor(mode: str) -> Factor:
        bound = math.sqrt(1 / rank) if mode in wide else math.sqrt(6 / rank)
        return Factor(
            mode, (mode, "r"), "zero" if mode == zero else "normal", None if mode == zero else ("uniform", bound)
        )

    own = (Factor("weights", ("r",), paper=("constant", 1.0)),) if weights else ()
    return Network(layout, (*map(factor, layout.names), *own), {"r": rank}, alpha=16, divisor=rank)


def count(layout: Layout, rank: int, weights: bool = False) -> int:
    """r times the sum of the mode sizes; r more with weights."""
    return rank * (sum(layout.shape) + weights)


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """TensorLy's CP reconstruction."""
    return tensorly.cp_to_tensor((factors.get("weights"), [factors[m] for m in layout.names]))


def decompose(network: Network, tensor: np.ndarray, seed: int = 0, restarts: int = RESTARTS) -> dict[str, np.ndarray]:
    """Factors with ``oracle(layout, factors)`` near ``tensor`` (layout.shape): the best of several starts.

    Alternating least squares on the tensor's Tucker core from each start, then from the best on the tensor itself. Each
    component's norm is shared equally by its factors. A component that the tensor has no use for is zero in the
    network's zero factor alone, so that training can use it. A best approximation need not exist: look at ``growth``.
    """
    tensor = checked(network, tensor)
    plain = Network(network.layout, network.factors[: tensor.ndim], network.bonds)
    found = _fitted(plain, tensor, seed, restarts) if tensor.any() else least_squares.draw(plain, seed)
    return _balanced(network, found, bool(tensor.any()), np.random.default_rng(seed))


def growth(factors: Mapping[str, np.ndarray], norm: float) -> float:
    """The largest component's norm over the tensor's: far above 1, components cancel and the fit is degenerate."""
    return float(_norms(factors).max() / norm) if norm else 0.0


def _fitted(network: Network, tensor: np.ndarray, seed: int, restarts: int) -> dict[str, np.ndarray]:
    """Our own least squares rather than TensorLy's parafac, which takes a Python step for each component."""
    names, rank, size = network.layout.names, network.bonds["r"], np.linalg.norm(tensor)
    with tensorly_on_numpy():
        # components live in the leading singular vectors of each mode: starts there cost a fraction
        core, bases = tucker(tensor / size, [min(n, 2 * rank) for n in tensor.shape], n_iter_max=1)
    sizes = {" ".join(m.parts) or m.name: n for m, n in zip(network.layout.modes, core.shape, strict=True)}
    small = replace(network, layout=Layout.parse(str(network.layout), sizes))
    fits = []
    for i in range(restarts):
        start = least_squares.draw(small, seed + i)
        if i == 0:  # the singular vectors themselves, as far as there are some
            start = {
                name: np.where(np.arange(rank) < n, np.eye(n, rank), start[name])
                for name, n in zip(names, core.shape, strict=True)
            }
        found, error = least_squares.fit(small, core, start)
        fits.append((error, i, found))
    best = {name: basis @ min(fits)[2][name] for name, basis in zip(names, bases, strict=True)}
    found, _ = least_squares.fit(network, tensor / size, best, sweeps=20)
    return {**found, names[0]: found[names[0]] * size}


def _norms(factors: Mapping[str, np.ndarray]) -> np.ndarray:  # (r,)
    return np.prod([np.linalg.norm(f, axis=0) if f.ndim > 1 else np.abs(f) for f in factors.values()], axis=0)


def _balanced(
    network: Network, factors: Mapping[str, np.ndarray], alive: bool, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    norms, n = _norms(factors), len(factors)
    dead = norms <= DEAD * norms.max() if alive else np.ones(len(norms), dtype=bool)
    level = np.where(dead, norms[~dead].mean() if not dead.all() else 1.0, norms) ** (1 / n)
    made = {}
    for name, values in factors.items():
        fill = unit_columns(len(values), values.shape[1], generator) * (name != network.zero.name)
        own = np.linalg.norm(values, axis=0)
        made[name] = np.where(dead, fill, values / np.where(own > 0, own, 1)) * level
    return made if len(network.factors) == n else {**made, "weights": np.ones(len(norms))}

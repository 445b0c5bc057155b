"""Tucker: ``delta = core x_1 F1 x_2 F2 ... x_N FN``, a core of one rank per mode and one factor per mode.

Over ``layer proj : head dim : model`` it is TensLoRA's att_qkv_depth (Marmoret et al., arXiv 2509.19391) with heads on
the right axis. Choose it when modes need different ranks.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import tensorly
from tensorly.decomposition import partial_tucker

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.networks.contraction import size
from tensoradapt.networks.decomposition import checked, tensorly_on_numpy, widened
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network

label = "Tucker"
look = ("#CC79A7", "D")


def build(
    layout: Layout, rank: int | Mapping[str, int], only: Sequence[str] | None = None, zero: str | None = None
) -> Network:
    """Join a factor (mode, r_mode) per mode to a core over all r_mode.

    The core starts at zero, or the factor of the last row mode where that has more entries, or the one that ``zero``
    names: the more entries start at zero, the more of the first gradient they take. The paper's multiplier is alpha.
    ``only`` names the modes with a factor; the core holds the others whole (Tucker-1; Tucker-2 as in LoTR).
    """
    compressed = _compressed(layout, only)
    ranks = per_mode(compressed, rank, layout)
    labels: dict[str, tuple[str, ...]] = {m: (m, f"r_{m}") for m in compressed}
    labels |= {"core": tuple(f"r_{m}" if m in compressed else m for m in layout.names)}
    sizes = {**layout.size_of, **{f"r_{m}": ranks[m] for m in compressed}}
    first = _zero(labels, layout, sizes, zero)

    def factor(name: str) -> Factor:
        if name == first:
            return Factor(name, labels[name], "zero")
        return Factor(name, labels[name], paper=None if name == "core" else ("orthogonal", 1.0))

    return Network(layout, tuple(map(factor, labels)), {f"r_{m}": ranks[m] for m in compressed})


def count(layout: Layout, rank: Mapping[str, int], only: Sequence[str] | None = None, zero: str | None = None) -> int:
    """Return the sum of n_m r_m over the modes with a factor, and the size of the core; ``zero`` changes nothing."""
    compressed = _compressed(layout, only)
    core = math.prod(rank[m] if m in compressed else n for m, n in layout.size_of.items())
    return sum(layout.size_of[m] * rank[m] for m in compressed) + core


def oracle(layout: Layout, factors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return TensorLy's Tucker reconstruction: a mode without a factor has the identity."""
    every = [factors[m] if m in factors else np.eye(n) for m, n in layout.size_of.items()]
    return tensorly.tucker_to_tensor((factors["core"], every))


def decompose(network: Network, tensor: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Return factors with ``oracle(layout, factors)`` near ``tensor`` (layout.shape).

    They are found by higher-order orthogonal iteration. Their columns are orthonormal, and the core holds the norm:
    it is exactly zero for a zero tensor.
    """
    tensor, names, small = checked(network, tensor), network.layout.names, network.clipped()
    modes = [factor.name for factor in network.factors if factor.name != "core"]
    ranks = [small.bonds[f"r_{mode}"] for mode in modes]
    norm = np.linalg.norm(tensor) or 1.0
    with tensorly_on_numpy(), np.errstate(invalid="ignore"):  # TensorLy divides by the norm of a zero tensor
        axes = [names.index(mode) for mode in modes]
        (_, factors), _ = partial_tucker(tensor / norm, ranks, modes=axes, n_iter_max=50, tol=1e-7, random_state=seed)
        core = tensorly.tenalg.multi_mode_dot(tensor, factors, modes=axes, transpose=True)
    return widened(network, small, {**dict(zip(modes, factors, strict=True)), "core": core}, seed)


def from_cp(network: Network, factors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return factors of exactly the CP tensor of ``factors`` (mode, r): orthonormal bases, and a core that is CP.

    The network's ranks are ``min(n, r)``, as a plan clips them.
    """
    bases = {mode: np.linalg.qr(factors[mode]) for mode in network.layout.names if f"r_{mode}" in network.bonds}
    inner = [bases[mode][1] if mode in bases else factors[mode] for mode in network.layout.names]
    return {**{mode: q for mode, (q, _) in bases.items()}, "core": tensorly.cp_to_tensor((None, inner))}


def _zero(labels: Mapping[str, tuple[str, ...]], layout: Layout, sizes: Mapping[str, int], asked: str | None) -> str:
    """Return the factor that starts at zero: the one asked for, else the larger of the core and the last row mode's."""
    if asked is not None and asked not in labels:
        raise TensorAdaptError(
            f"zero={asked!r} is no factor of Tucker over layout {str(layout)!r}{did_you_mean(asked, list(labels))}"
        )
    last = layout.rows[-1].name
    larger = last in labels and size(labels[last], sizes) > size(labels["core"], sizes)
    return asked or (last if larger else "core")


def _compressed(layout: Layout, only: Sequence[str] | None) -> tuple[str, ...]:
    if unknown := [name for name in only or () if name not in layout.names]:
        raise TensorAdaptError(
            f"only= names {unknown[0]!r}, which is no mode of layout {str(layout)!r}"
            f"{did_you_mean(unknown[0], layout.names)}"
        )
    return tuple(m for m in layout.names if only is None or m in only)


def per_mode(modes: tuple[str, ...], rank: int | Mapping[str, int], layout: Layout) -> dict[str, int]:
    """Return a rank for each of ``modes``, from one for all or from a mapping that names exactly these."""
    if not isinstance(rank, Mapping):
        return dict.fromkeys(modes, rank)
    if set(rank) != set(modes):
        raise TensorAdaptError(
            f"rank names {', '.join(sorted(rank)) or 'nothing'}; layout {str(layout)!r} expects one for each of "
            f"{', '.join(modes)} (or one whole number as an upper bound for all)"
        )
    return dict(rank)

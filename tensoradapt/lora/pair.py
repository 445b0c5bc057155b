"""Low-rank pairs in double precision: what is computed with them, and the pair of every module of an export.

A module's pair is A (R, in) and B (out, R), its update B A, which is never made dense. Each site of the module has rows
of A and columns of B of its own, in the site's block of the module.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from tensoradapt.adapter.adapter import Adapter, check_filled
from tensoradapt.checks import is_whole, shown
from tensoradapt.errors import TensorAdaptError, few
from tensoradapt.layers.kinds import CONV1D, LINEAR, STACKED
from tensoradapt.layers.stored_matrix import StoredMatrix
from tensoradapt.lora.experts import NAMES, Block, ExpertMatrix
from tensoradapt.networks.network import MADE
from tensoradapt.sites.site import Site

SAME = 64 * float(np.finfo(np.float64).eps)  # two directions that are this close differ by rounding alone
EXPERT_TARGETS = (
    f'target="peft" for PEFT 0.17 and later, or target="llama.cpp", which takes those of {few(list(NAMES))}'
)
ROUNDING = 1e-10  # relative to a pair's size: far above float64's rounding, far below float32's


@dataclass(frozen=True)
class LoraPair:
    """A low-rank update ``B A``, so that equations read ``pair.b @ pair.a``."""

    a: np.ndarray  # (R, in)
    b: np.ndarray  # (out, R)

    @property
    def rank(self) -> int:
        return len(self.a)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.b), self.a.shape[1]

    @property
    def T(self) -> LoraPair:
        return LoraPair(self.b.T, self.a.T)

    @cached_property
    def norm(self) -> float:
        """The Frobenius norm of ``B A``, through triangular factors, which keep digits that Gram matrices lose."""
        return float(np.linalg.norm(triangular(self.b) @ triangular(self.a.T).T))

    @property
    def size(self) -> float:
        """The norm that ``B A`` would have if nothing in it cancelled: rounding errors are small relative to it."""
        return float(np.linalg.norm(np.linalg.norm(self.a, axis=1) * np.linalg.norm(self.b, axis=0)))

    def minus(self, other: LoraPair) -> LoraPair:
        """Return the difference of the two updates."""
        return LoraPair(np.concatenate([self.a, other.a]), np.concatenate([self.b, -other.b], axis=1))

    def rounded(self, other: LoraPair) -> float:
        """Return the distance to a pair whose A and B are nearly these: the norm of ``dB A + B dA``.

        Its terms do not cancel, so the cheaper Gram matrices have digits enough.
        """
        a, b = np.concatenate([other.a, other.a - self.a]), np.concatenate([other.b - self.b, self.b], axis=1)
        return math.sqrt(max(0.0, float(np.sum((a @ a.T) * (b.T @ b)))))

    def padded(self, rank: int) -> LoraPair:
        """Return the update with zero rows of A and columns of B up to ``rank``."""
        more = rank - self.rank
        return LoraPair(np.pad(self.a, ((0, more), (0, 0))), np.pad(self.b, ((0, 0), (0, more))))


@dataclass(frozen=True)
class ModulePair:
    """One module's update as the adapter has it, as it is exported, and the norm of what truncation took away."""

    exact: LoraPair
    exported: LoraPair
    truncation: float = 0.0


@dataclass(frozen=True)
class Part:
    """An adapter that is exported, and the factor of its updates."""

    adapter: Adapter
    share: float = 1.0


def sites_of(parts: Sequence[Part]) -> list[Site]:
    """Return the sites of all adapters, each once."""
    return list({site.name: site for part in parts for site in part.adapter.plan.sites}.values())


def module_pairs(
    parts: Sequence[Part],
    modules: Mapping[str, nn.Module],
    task: str | Mapping[str, str] | None,
    rank: int | None,
    experts: Mapping[str, ExpertMatrix] | None = None,
) -> dict[str, ModulePair]:
    """Return the pair of each adapted module, and zeros where another layer has one, in the model's order.

    ``experts`` has the matrices of single experts, by name, which have pairs of their own.
    """
    twins, alone = [Part(in_double(part.adapter, task), part.share) for part in parts], experts or {}
    apart = {site.name for matrix in alone.values() for site, _ in matrix.sites}
    sites: dict[str, list[Site]] = {}
    for site in sites_of(parts):
        if site.name not in apart:
            sites.setdefault(site.module, []).append(site)
    first = [of_module[0] for of_module in sites.values()]
    like = {name: replace(s, name=name) for s in first for name in (*_in_other_layers(modules, s), s.module)}
    shapes = {name: _shape(like[name], module) for name, module in modules.items() if name in like}
    widest = max(map(min, [*shapes.values(), *(matrix.shape for matrix in alone.values())]))
    if rank is not None and not is_whole(rank, 1, widest):
        raise TensorAdaptError(
            f"rank is {shown(rank)}; expected a whole number from 1 to {widest}, the shorter side of the largest "
            "matrix, or None for an exact export"
        )
    pairs = {
        name: _of_module(twins, name, shape, [(site, site.block) for site in sites.get(name, ())], rank)
        for name, shape in shapes.items()
    }
    return pairs | {name: _of_module(twins, name, m.shape, m.sites, rank) for name, m in alone.items()}


def _in_other_layers(modules: Mapping[str, nn.Module], site: Site) -> Iterator[str]:
    """Yield the modules of the same class and path in the other layers of the list that the site's layer is in."""
    parts, layer = site.module.split("."), str(site.coord.get("layer"))
    for i, part in enumerate(parts):
        layers = modules.get(".".join(parts[:i]))
        if part == layer and isinstance(layers, nn.ModuleList):
            names = (".".join([*parts[:i], str(n), *parts[i + 1 :]]) for n in range(len(layers)))
            yield from (name for name in names if type(modules.get(name)) is type(modules[site.module]))
            return


def _shape(site: Site, module: nn.Module) -> tuple[int, int]:
    matrix = StoredMatrix.of(module, site)
    if matrix.kind in (LINEAR, CONV1D):
        return matrix.shape
    raise TensorAdaptError(
        f"site {site.name} is a {matrix.kind.name}, and an export has pairs of linear layers alone; export an "
        "adapter without it, or ta.merge_and_unload(model) and save the model"
        + (f", or give {EXPERT_TARGETS}" if matrix.kind is STACKED else "")
    )


def _of_module(
    twins: Sequence[Part], name: str, shape: tuple[int, int], sites: Sequence[tuple[Site, Block]], rank: int | None
) -> ModulePair:
    terms = [
        (LoraPair(a.numpy(), twin.share * b.numpy()), block)
        for site, block in sites
        for twin in twins
        if twin.adapter.adapts(site)
        for a, b in [twin.adapter.pair(site)]
    ]
    exact = stacked(terms, shape)
    if not (np.isfinite(exact.a).all() and np.isfinite(exact.b).all()):
        raise TensorAdaptError(
            f"the update of module {name} has non-finite entries; nothing was written. Go back to a checkpoint from "
            "before training diverged"
        )
    pair, bound = merged(exact) if len(terms) > 1 else exact, 0.0
    if pair.rank > (most := min(*shape, rank or min(shape))):
        pair, bound = reduced(pair, most)
    distance = 0.0 if pair is exact else exact.minus(pair).norm
    if not distance <= bound + ROUNDING * exact.size:
        raise TensorAdaptError(
            f"the pair of module {name} is {distance:.3g} away from the adapter's update, of norm {exact.norm:.3g}, "
            f"and at most {bound:.3g} was expected; nothing was written. Please report this plan"
        )
    return ModulePair(exact, pair, distance if bound else 0.0)


@torch.no_grad()
def in_double(adapter: Adapter, task: str | Mapping[str, str] | None) -> Adapter:
    """Return a copy of the adapter in float64 on the CPU, with a task of its own.

    Its products are those of the factors as they are stored, without float32's rounding.
    """
    check_filled(adapter)
    tensors: list[Any] = list(adapter.tensors)
    values = [{f.name: t.factors[f.name].cpu() for f in t.network.factors if f.source not in MADE} for t in tensors]
    twin = Adapter(adapter.plan, adapter.seed, values, [t.scale for t in tensors]).double()
    known = twin.state_dict()  # an adapter of the PEFT plug-in saves its multipliers too, which the twin was given
    twin.load_state_dict({key: value for key, value in adapter.state_dict().items() if key in known})
    if task is not None and (modes := adapter.plan.spec.runtime):
        given = task if isinstance(task, Mapping) else dict.fromkeys(modes, task)
        twin.select(**{mode: name for mode, name in given.items() if mode in modes})
    own = dict(twin.named_buffers())
    for name, base in adapter.named_buffers():  # not all are in the state, and rounded where the adapter was cast
        own[name].copy_(base)
    return twin


def stacked(terms: Sequence[tuple[LoraPair, Block]], shape: tuple[int, int]) -> LoraPair:
    """Sum the terms to one pair of the module's (out, in) shape: A stacked, B block by block."""
    rank = sum(pair.rank for pair, _ in terms)
    a, b = np.zeros((rank, shape[1])), np.zeros((shape[0], rank))
    at = 0
    for pair, (rows, cols) in terms:
        span = slice(at, at := at + pair.rank)
        a[span, cols], b[rows, span] = pair.a, pair.b
    return LoraPair(a, b)


def merged(pair: LoraPair) -> LoraPair:
    """Return the update with rows of A that are multiples of one another made one, and columns of B likewise."""
    a, b = _merged_rows(pair.a, pair.b)
    bt, at = _merged_rows(b.T, a.T)
    return LoraPair(at.T, bt.T)


def _merged_rows(
    a: np.ndarray,  # (R, in)
    b: np.ndarray,  # (out, R)
) -> tuple[np.ndarray, np.ndarray]:
    """Drop each row a_i = c a_j of A, and add c b_i to the column b_j of B.

    Rows of zeros stay: at the start of training the columns of B that belong to them are not zero.
    """
    norms, b = np.linalg.norm(a, axis=1), b.copy()
    units = a / np.where(norms == 0, 1, norms)[:, None]
    cosines = units @ units.T
    kept: list[int] = []
    for i in range(len(a)):
        j = max(kept, key=lambda j: abs(cosines[i, j]), default=i)
        sign = np.sign(cosines[i, j])
        if norms[i] and j != i and np.linalg.norm(units[i] - sign * units[j]) <= SAME:
            b[:, j] += sign * norms[i] / norms[j] * b[:, i]
        else:
            kept.append(i)
    return a[kept], b[:, kept]


def reduced(pair: LoraPair, rank: int) -> tuple[LoraPair, float]:
    """Return the nearest update of at most ``rank``, with orthonormal rows of A, and its distance.

    The distance is the root of the sum of the squared singular values left out.
    """
    qa, ra = np.linalg.qr(pair.a.T)
    qb, rb = np.linalg.qr(pair.b)
    u, s, vt = np.linalg.svd(rb @ ra.T, full_matrices=False)
    return LoraPair(vt[:rank] @ qa.T, qb @ (u[:, :rank] * s[:rank])), math.hypot(*s[rank:])


def triangular(matrix: np.ndarray) -> np.ndarray:  # (min(n, m), m)
    """Return R of the matrix's QR."""
    return np.linalg.qr(matrix, mode="r")  # type: ignore[return-value]  # numpy's stubs do not know this mode

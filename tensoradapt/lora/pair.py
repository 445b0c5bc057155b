"""LoRA pairs of whole modules, from the pairs of their sites; float64 arrays, and never a dense update.

A module's pair is A (R, in) and B (out, R), its update B A. Each term of it (a site's pair, or one of two that are
subtracted) has rows of A and columns of B of its own, in the block of the module that the site is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SAME = 64 * float(np.finfo(np.float64).eps)  # two directions that differ by rounding alone


@dataclass(frozen=True)
class LoraPair:
    """``B A``; equations read ``pair.b @ pair.a``."""

    a: np.ndarray  # (R, in)
    b: np.ndarray  # (out, R)

    @property
    def rank(self) -> int:
        return len(self.a)

    @property
    def finite(self) -> bool:
        return bool(np.isfinite(self.a).all() and np.isfinite(self.b).all())

    @property
    def norm(self) -> float:
        """Frobenius norm of ``B A``, through triangular factors, which keeps digits that Gram matrices lose."""
        return float(np.linalg.norm(_triangular(self.b) @ _triangular(self.a.T).T))

    @property
    def size(self) -> float:
        """The norm it would have if nothing in it cancelled; what rounding errors are small against."""
        return float(np.linalg.norm(np.linalg.norm(self.a, axis=1) * np.linalg.norm(self.b, axis=0)))

    def minus(self, other: LoraPair) -> LoraPair:
        """The difference of the two updates."""
        return LoraPair(np.concatenate([self.a, other.a]), np.concatenate([self.b, -other.b], axis=1))

    def rounded(self, other: LoraPair) -> float:
        """How far an update is whose A and B are nearly these: ``dB A + B dA``, whose terms do not cancel, so that the
        cheaper Gram matrices have digits enough.
        """
        a, b = np.concatenate([other.a, other.a - self.a]), np.concatenate([other.b - self.b, self.b], axis=1)
        return math.sqrt(max(0.0, float(np.sum((a @ a.T) * (b.T @ b)))))

    def padded(self, rank: int) -> LoraPair:
        """The same update with zero rows of A and columns of B up to a rank."""
        more = rank - self.rank
        return LoraPair(np.pad(self.a, ((0, more), (0, 0))), np.pad(self.b, ((0, 0), (0, more))))


@dataclass(frozen=True)
class Term:
    """One product, and the rows and columns of the module that it updates."""

    pair: LoraPair
    rows: slice | list[int]
    cols: slice


def stacked(terms: Sequence[Term], shape: tuple[int, int]) -> LoraPair:
    """The sum of the terms as one pair of the module's (out, in) shape: A stacked, B block by block."""
    rank = sum(term.pair.rank for term in terms)
    a, b = np.zeros((rank, shape[1])), np.zeros((shape[0], rank))
    at = 0
    for term in terms:
        own = slice(at, at := at + term.pair.rank)
        a[own, term.cols], b[term.rows, own] = term.pair.a, term.pair.b
    return LoraPair(a, b)


def merged(pair: LoraPair) -> LoraPair:
    """The same update with rows of A that are multiples of one another made one, and columns of B likewise."""
    a, b = _merged_rows(pair.a, pair.b)
    bt, at = _merged_rows(b.T, a.T)
    return LoraPair(at.T, bt.T)


def _merged_rows(
    a: np.ndarray,  # (R, in)
    b: np.ndarray,  # (out, R)
) -> tuple[np.ndarray, np.ndarray]:
    """``a_i = c a_j`` makes b_j into b_j + c b_i. Rows of zeros stay: at the start of training they have partners."""
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
    """The nearest update of at most ``rank``, with orthonormal rows of A, and its distance: the root of the sum of the
    squared singular values left out.

    A thin QR of both sides and the singular values of the small core between them.
    """
    qa, ra = np.linalg.qr(pair.a.T)
    qb, rb = np.linalg.qr(pair.b)
    u, s, vt = np.linalg.svd(rb @ ra.T, full_matrices=False)
    return LoraPair(vt[:rank] @ qa.T, qb @ (u[:, :rank] * s[:rank])), math.hypot(*s[rank:])


def _triangular(matrix: np.ndarray) -> np.ndarray:  # (min(n, m), m)
    return np.linalg.qr(matrix, mode="r")  # type: ignore[return-value]  # numpy's stubs do not know this mode

"""sharing says which ties a trained update would bear: the error of a tie, beside that of directions by chance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor
from tqdm.auto import tqdm

from tensoradapt.checks import Check, check_arguments, listed, optional, shown, texts, whole
from tensoradapt.checks import seed as check_seed
from tensoradapt.compression.library import is_library, read_library
from tensoradapt.compression.sources import TrainedUpdates, Update, read
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lora.pair import LoraPair
from tensoradapt.networks.modes import TASK
from tensoradapt.sites.site import Site
from tensoradapt.training.progress import is_watched

SIDES = ("inputs", "outputs", "both")
USUAL = ("layer", "proj", "layer proj", TASK)
HEAD = "head"
TINY = 1e-12  # the least deviation of draws: of ties whose update and null are one by construction
NOTHING = 1e-10  # singular values below this share of the largest are rounding
ROUNDING = 1e-6  # of a share of the squared norm, in float32
COLUMNS = ("tied", "side", "rank", "n_params", "lora", "error", "null", "p", "saved", "saved_null", "n_sets")


@dataclass(frozen=True)
class Piece:
    """A matrix (out, in), or a head's part of it: its coordinates and its singular value decomposition."""

    coords: Mapping[str, Any]
    left: Tensor  # (out, R)
    values: Tensor  # (R,)
    right: Tensor  # (in, R)

    def drawn(self, generator: torch.Generator) -> Piece:
        """Return a matrix, in float32, of the same singular values whose directions are random on both sides."""
        left, right = (_frame(len(side), len(self.values), generator) for side in (self.left, self.right))
        return replace(self, left=left, values=self.values.float(), right=right)

    @property
    def turned(self) -> Piece:
        """The transposed matrix."""
        return replace(self, left=self.right, right=self.left)


class Reference(NamedTuple):
    """LoRAs of one A and one B for each matrix: ranks, parameters and what they keep of the squared norm."""

    ranks: np.ndarray
    counts: np.ndarray
    kept: np.ndarray


class Tie(NamedTuple):
    """What one tie makes equal: sets of pieces, by number, and on which side."""

    mode: str
    side: str
    sets: tuple[tuple[int, ...], ...]


class Curve(NamedTuple):
    """How much of the squared norm a form keeps with so many parameters, at each rank from 0."""

    counts: np.ndarray
    kept: np.ndarray

    def at(self, counts: np.ndarray) -> np.ndarray:
        """Return what is kept at other counts, between two ranks in proportion."""
        return np.interp(counts, self.counts, self.kept).clip(0.0, 1.0)

    def needed(self, kept: np.ndarray) -> np.ndarray:
        """Return the parameters that keep so much; NaN where none of the ranks does."""
        return np.interp(kept - ROUNDING, np.maximum.accumulate(self.kept), self.counts, right=np.nan)


CHECKS: Mapping[str, Check] = {
    "modes": optional(texts),
    "ranks": partial(listed, whole),
    "draws": partial(whole, least=2),
    "seed": check_seed,
}


def sharing(
    source: Any,
    sites: Any = None,
    modes: str | Sequence[str] | None = None,
    *,
    ranks: Sequence[int] = (1, 2, 4, 8),
    draws: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """Return what matrices of a trained update have in common, mode by mode and side by side, beside a null.

    A tie gives all matrices that differ in a mode alone one A of rank R (side "inputs"), one B ("outputs"), or both
    with a core (R, R) for each matrix. The best A or B of rank R spans the leading eigenvectors of the summed Gram
    matrices, a closed form; both are taken so in turn, which is nearly the best. The null has the singular values of
    each matrix and random directions, so that it shares nothing. Only products B A count, not how they are factored.
    The A of a LoRA keeps most of its random start (its inputs are near the null for that reason alone); full
    fine-tuning has no such start.

    Args:
        source: what ``compress`` takes: an adapter, a LoRA folder, a pair (tuned model, base), a mapping of site names
            to updates, or several of these (tasks, seeds, checkpoints), which then differ in the mode ``task``.
        sites: as of ``compress``; a part of a model's, such as ``find_sites(model, "q k v")``, ties only these.
        modes: what is tied, such as "layer" or "layer proj": coordinates of sites, "task" of several sources, and
            "head", by which matrices are cut into heads; default layer, proj, both of them, and task, where the sites
            have more than one.
        ranks: of the LoRA (one A and one B for each matrix) with whose size and error a tie is compared.
        draws: of the null, 2 or more.
        seed: of the draws.

    Returns:
        A row for each tie, side and rank. ``n_params`` and ``lora``: parameters and relative Frobenius error of the
        LoRA of that rank, the best one. ``error`` and ``null``: those of the tie with as many parameters, of the update
        and of the mean draw. ``p``: one-sided, of the update's squared error as one more draw of a normal distribution
        with the draws' mean and deviation. ``saved``: the share of the LoRA's parameters that the tie spares at its
        error, negative where it takes more, NaN where it never gets there; ``saved_null``: the same for the null.
        ``n_sets``: how many sets of matrices are tied.

    Raises:
        TensorAdaptError: for sources that ``compress`` refuses, an update that is zero, and a mode that ties nothing.

    >>> import numpy as np
    >>> import tensoradapt as ta
    >>> sites, rng = ta.find_sites("tiny-random-bert", ["q"]), np.random.default_rng(0)
    >>> a = rng.normal(size=(2, 24))  # all layers read the same two directions
    >>> updates = {site.name: (a, rng.normal(size=(site.out, 2))) for site in sites}
    >>> table = ta.sharing(updates, sites, "layer", ranks=[2])
    >>> table[["tied", "side", "n_params", "error", "null"]].round(2).head(1)
        tied    side  n_params  error  null
    0  layer  inputs       288    0.0  0.57
    """
    check_arguments(locals(), **CHECKS)
    trained = read_library(source, sites) if is_library(source) else read(source, sites)
    pieces = _pieces(trained)
    if not pieces:
        raise TensorAdaptError("every update is zero, so there is nothing to share; expected a trained one")
    asked = USUAL if modes is None else texts(modes, "modes")
    n_lora = np.array(ranks) * sum(len(piece.left) + len(piece.right) for piece in pieces)
    lora = Reference(np.array(ranks), n_lora, _one_side([[piece] for piece in pieces]).at(n_lora))
    rows: list[dict[str, Any]] = []
    for by_head in (False, True):
        own = [mode for mode in asked if (HEAD in mode.split()) == by_head]
        parts = _pieces(trained, by_head) if by_head and own else pieces
        ties = [tie for mode in own for tie in _ties(mode, parts, must=modes is not None)]
        rows += _table(parts, ties, lora, int(draws), int(seed))
    return pd.DataFrame(rows, columns=COLUMNS)


def _pieces(trained: TrainedUpdates, by_head: bool = False) -> list[Piece]:
    """Return the matrices that changed, or their parts by head where a site has heads."""
    found = []
    for task, updates in trained.updates.items():
        for site in trained.sites:
            own = {**site.coord, **({TASK: task} if task else {})}
            for number, part in enumerate(_heads(site, updates[site.name]) if by_head else [updates[site.name]]):
                found += _decomposed(part, {**own, HEAD: number} if by_head else own)
    return found


def _heads(site: Site, update: Update) -> list[Update]:
    """Cut an update into the parts of its heads: rows where its outputs are heads', else columns."""
    n = dict(site.inner).get(HEAD, 1)
    if isinstance(update, LoraPair) and site.reads:
        return [LoraPair(update.a, b) for b in np.split(update.b, n)]
    if isinstance(update, LoraPair):
        return [LoraPair(a, update.b) for a in np.split(update.a, n, axis=1)]
    return list(np.split(update, n, axis=0 if site.reads else 1))


def _decomposed(update: Update, coords: Mapping[str, Any]) -> list[Piece]:
    """Return the singular value decomposition of an update that is not zero, through QR where it is a pair."""
    if isinstance(update, LoraPair):
        (left, upper), (right, lower) = np.linalg.qr(update.b), np.linalg.qr(update.a.T)
        u, values, vt = np.linalg.svd(upper @ lower.T)
        u, vt = left @ u, vt @ right.T
    else:
        u, values, vt = np.linalg.svd(update, full_matrices=False)
    some = values > NOTHING * values.max(initial=0.0)
    if not some.any():
        return []
    kept = (torch.from_numpy(np.ascontiguousarray(x)) for x in (u[:, some], values[some], vt[some].T))
    return [Piece(coords, *kept)]


def _ties(mode: str, pieces: Sequence[Piece], must: bool) -> list[Tie]:
    """Return the ties of a mode on each side: pieces of equal width there that differ in the mode alone."""
    tied, found = set(mode.split()), []
    for side in SIDES:
        sets = defaultdict(list)
        for number, piece in enumerate(pieces):
            rest = tuple((name, value) for name, value in piece.coords.items() if name not in tied)
            shape = (len(piece.right) if side != "outputs" else 0, len(piece.left) if side != "inputs" else 0)
            sets[rest, shape].append(number)
        if any(len(one) > 1 for one in sets.values()):
            found.append(Tie(mode, side, tuple(map(tuple, sets.values()))))
    if must and not found:
        values: dict[str, set[Any]] = defaultdict(set)
        for piece in pieces:
            for name, value in piece.coords.items():
                values[name].add(value)
        several = [name for name, own in values.items() if len(own) > 1]
        raise TensorAdaptError(
            f"modes has {shown(mode)}, in which no two of the {len(pieces)} matrices that changed differ alone; "
            f"expected one or several of {', '.join(several) or 'none, as there is one'}"
        )
    return found


def _table(
    pieces: Sequence[Piece], ties: Sequence[Tie], lora: Reference, draws: int, seed: int
) -> list[dict[str, Any]]:
    """Return the rows of the ties of these pieces, all of them measured on each draw of the null."""
    generator, found = torch.Generator().manual_seed(seed), [_curve(tie, pieces, lora) for tie in ties]
    nulls = []
    for _ in tqdm(range(draws if ties else 0), desc="draws of the null", disable=not is_watched()):
        drawn = [piece.drawn(generator) for piece in pieces]
        nulls.append([_curve(tie, drawn, lora) for tie in ties])
    together = zip(ties, found, zip(*nulls, strict=True), strict=False)
    return [row for tie, curve, own in together for row in _rows(tie, curve, own, lora)]


def _rows(tie: Tie, found: Curve, draws: Sequence[Curve], lora: Reference) -> list[dict[str, Any]]:
    """Return a row for each rank of the LoRA."""
    kept, chance = found.at(lora.counts), np.array([curve.at(lora.counts) for curve in draws])
    mean = Curve(found.counts, np.mean([curve.kept for curve in draws], axis=0))
    spread = np.maximum(chance.std(axis=0, ddof=1), TINY) * np.sqrt(1 + 1 / len(draws))
    table = {
        "rank": lora.ranks,
        "n_params": lora.counts,
        "lora": np.sqrt(1 - lora.kept),
        "error": np.sqrt(1 - kept),
        "null": np.sqrt(1 - chance.mean(axis=0)),
        "p": stats.t.sf((kept - chance.mean(axis=0)) / spread, len(draws) - 1),
        "saved": 1 - found.needed(lora.kept) / lora.counts,
        "saved_null": 1 - mean.needed(lora.kept) / lora.counts,
    }
    n_sets = sum(len(one) > 1 for one in tie.sets)
    return [
        {"tied": tie.mode, "side": tie.side, **{name: column[i] for name, column in table.items()}, "n_sets": n_sets}
        for i in range(len(lora.ranks))
    ]


def _curve(tie: Tie, pieces: Sequence[Piece], lora: Reference) -> Curve:
    sets = [[pieces[number] for number in one] for one in tie.sets]
    if tie.side == "both":
        return _both_sides(sets, lora.counts)
    return _one_side(sets if tie.side == "inputs" else [[piece.turned for piece in one] for one in sets])


def _one_side(sets: Sequence[Sequence[Piece]]) -> Curve:
    """Return what is kept with one A of rank R for each set and a B for each matrix: the leading eigenvalues."""
    values = [_leading(torch.cat([piece.right * piece.values for piece in one], 1))[0] for one in sets]
    kept = torch.zeros(1 + max(map(len, values)), dtype=torch.float64)
    for own in values:
        kept[1 : 1 + len(own)] += own
    each = sum(len(one[0].right) + sum(len(piece.left) for piece in one) for one in sets)
    return Curve(each * np.arange(len(kept)), kept.cumsum(0).numpy() / _squares(sets))


def _both_sides(sets: Sequence[Sequence[Piece]], counts: np.ndarray) -> Curve:
    """Return what is kept with one A and one B of rank R for each set and a core (R, R) for each matrix.

    R is the largest with as many parameters as each count has, the one after the last of them, and that of twice the
    largest count.
    """
    width = sum(len(one[0].left) + len(one[0].right) for one in sets)
    n, widest = sum(map(len, sets)), min(min(len(one[0].left), len(one[0].right)) for one in sets)
    fits = [int((np.sqrt(width**2 + 4 * n * count) - width) / (2 * n)) for count in (*counts, 2 * counts.max())]
    chosen = sorted({min(rank, widest) for rank in (*fits, fits[-2] + 1)} - {0})
    kept = np.sum([[0.0, *_in_turn(one, chosen)] for one in sets], axis=0)
    table = np.array([0, *chosen])
    return Curve(table * width + n * table**2, kept / _squares(sets))


def _in_turn(one: Sequence[Piece], ranks: Sequence[int]) -> list[float]:
    """Return the squares that the best A of each rank keeps with the best B for it, and the best A for that again."""
    kept = []
    first = _leading(torch.cat([piece.right * piece.values for piece in one], 1))[1]
    for rank in ranks:
        a = first[:, :rank]
        b = _leading(torch.cat([(p.left * p.values) @ (p.right.T @ a) for p in one], 1))[1][:, :rank]
        kept.append(float(_leading(torch.cat([(p.right * p.values) @ (p.left.T @ b) for p in one], 1))[0][:rank].sum()))
    return kept


def _leading(columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared singular values of a matrix (n, m), the largest first, and its left singular vectors."""
    if columns.shape[0] > columns.shape[1]:
        vectors, values, _ = torch.linalg.svd(columns, full_matrices=False)
        return values.double() ** 2, vectors
    squares, vectors = torch.linalg.eigh(columns @ columns.T)
    return squares.flip(0).double().clamp(min=0.0), vectors.flip(1)


def _squares(sets: Sequence[Sequence[Piece]]) -> float:
    return float(sum((piece.values.double() ** 2).sum() for one in sets for piece in one))


def _frame(n: int, rank: int, generator: torch.Generator) -> Tensor:
    """Return a random matrix (n, rank) with orthonormal columns, all directions alike."""
    columns, upper = torch.linalg.qr(torch.randn(n, rank, generator=generator))
    return columns * upper.diagonal().sign()

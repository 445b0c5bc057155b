"""Mode diagnostics of a trained stack of weight updates: the directions that each mode uses, what its slices share.

The stack is one dense array with named modes, such as ("layer", "proj", "out", "in"). Unfolding it along a mode of size
n gives a matrix (n, size / n); its singular values are the higher-order singular values (De Lathauwer, De Moor and
Vandewalle, SIAM J. Matrix Anal. Appl. 21, 2000) and say how few directions of that mode carry the whole stack. Ranks
are keyed by mode, as the ``rank=`` of a Tucker adapter over the same modes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensoradapt.checks import check_is, is_number, items, shown, strings, text
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.lab.analysis.statistics.intervals import Floats
from tensoradapt.lab.analysis.statistics.noise_rank import above_noise, left_singular, rotated, unfold


@dataclass(frozen=True, eq=False)
class Spectra:
    """The singular values of every unfolding of a tensor; what has a value per mode is a dict by mode name.

    Made by ``spectra``, which raises what is wrong (notebooks/6_read_the_mode_spectra.ipynb).

    Attributes:
        shape: size of each mode.
        values: (min(n, size / n),) for a mode of size n, largest first.
        noise: estimated standard deviation of the noise in one entry, in the tensor's unit.
        noise_rank: how many singular values stand above that noise.

    >>> import tensoradapt as ta
    >>> found = ta.spectra.spectra(np.outer([1.0, 2.0], [1.0, 0.0, 3.0]), ("out", "in"))
    >>> found.shape, found.rank_for(energy=0.9), found.effective_rank["out"]
    ({'out': 2, 'in': 3}, {'out': 1, 'in': 1}, 1.0)
    """

    shape: dict[str, int]
    values: dict[str, Floats]
    noise: float
    noise_rank: dict[str, int]

    @property
    def energy(self) -> dict[str, Floats]:
        """The share of the squared norm in the first 1, 2, ... directions, like ``values``; 0 for a zero tensor."""
        return {mode: np.cumsum(_shares(values)) for mode, values in self.values.items()}

    @property
    def effective_rank(self) -> dict[str, float]:
        """exp(-sum p log p) of the energy shares p_i = s_i^2 / sum s^2: 1 for one direction, r for r equal ones.

        Roy and Vetterli (EUSIPCO 2007) take p_i = s_i / sum s, which is never smaller; the squares are the shares that
        ``energy`` adds up. 0 for a zero tensor.
        """
        return {mode: _exp_entropy(_shares(values)) for mode, values in self.values.items()}

    def rank_for(self, energy: float = 0.9) -> dict[str, int]:
        """Return the least rank of each mode that keeps the share ``energy`` of the squared norm; 0 for a zero tensor.

        Cut to these ranks in all modes at once, a tensor of d modes keeps at least 1 - d (1 - energy). A share outside
        0 < energy <= 1 raises TensorAdaptError; 1 means up to the rounding of float64.
        """
        if not is_number(energy, 0, 1):
            raise TensorAdaptError(
                f"energy is {shown(energy)}; expected a share above 0 and at most 1, such as 0.9 or 0.99"
            )
        lost = 1 - energy + 4 * np.finfo(float).eps
        return {mode: int((np.cumsum(_shares(values)[::-1]) > lost).sum()) for mode, values in self.values.items()}


@dataclass(frozen=True)
class Compression:
    """The number of directions that carry one mode, as ``advice`` finds (notebooks/6_read_the_mode_spectra.ipynb).

    Nothing is raised here.

    Attributes:
        mode, size: the mode.
        rank: how many of its directions keep the energy asked for.
        effective_rank: as in ``Spectra``.

    >>> import tensoradapt as ta
    >>> found = ta.spectra.spectra(np.outer([1.0, 2.0], [1.0, 0.0, 3.0]), ("out", "in"))
    >>> [(one.mode, one.rank, one.ratio) for one in ta.spectra.advice(found)]
    [('in', 1, 0.3333333333333333), ('out', 1, 0.5)]
    """

    mode: str
    size: int
    rank: int
    effective_rank: float

    @property
    def ratio(self) -> float:
        """rank / size: the smaller, the more is saved by one tensor over the mode; 1 saves nothing."""
        return self.rank / self.size

    @property
    def worth_tying(self) -> bool:
        """Whether at most half of the directions keep the energy: a convention."""
        return self.ratio <= 0.5


def spectra(
    tensor: Any,  # (n_1, ..., n_d), anything numpy reads
    names: Sequence[str],
) -> Spectra:
    """Return singular values, effective ranks and ranks above the noise of every mode of ``tensor``, in float64.

    Each unfolding is reduced by QR before its SVD, never to a Gram matrix, which loses half the digits: the error of a
    singular value is about 1e-15 of the largest. Operations: about 4 size sum n; memory: four copies of the tensor.

    Noise is taken as independent between entries and of one variance. That is first bounded by the trailing values of
    the mode that leaves most room, so a mode that is all signal borrows it from the others; then the ranks above the
    edge of noise and the variance left outside them are recomputed until they agree (after Kritchman and Nadler,
    Chemom. Intell. Lab. Syst. 94, 2008), at last with the other modes cut to their ranks, which shows directions that a
    whole unfolding hides. Not told from noise: a direction below the edge, a signal that fills every mode evenly, a
    vector. Counted as signal: noise whose variance differs between entries. Without noise beyond the
    rounding of the tensor's dtype, as in updates of exactly low rank, ``noise_rank`` is the numerical rank.

    Args:
        tensor: (n_1, ..., n_d), of numpy or torch, real and finite.
        names: of its modes, in their order.

    Returns:
        The spectra.

    >>> import tensoradapt as ta
    >>> rng = np.random.default_rng(0)
    >>> signal = np.einsum("ar,br,cr->abc", *(rng.standard_normal((n, 2)) for n in (6, 8, 10)))
    >>> found = ta.spectra.spectra(signal + 0.05 * rng.standard_normal(signal.shape), ("layer", "out", "in"))
    >>> found.noise_rank, round(found.noise, 3)
    ({'layer': 2, 'out': 2, 'in': 2}, 0.051)

    An array that is empty, not real or not finite, and names that do not fit it raise TensorAdaptError.
    """
    data, eps = _checked(tensor, names)
    unit = float(np.abs(data).max()) or 1.0  # squares neither overflow nor vanish
    core = data / unit
    values = []
    for axis in range(data.ndim):
        left, spectrum = left_singular(unfold(core, axis))
        core = rotated(core, left, axis)
        values.append(spectrum)
    variance, ranks = above_noise(core, values, data.shape, eps)
    return Spectra(
        shape=dict(zip(names, data.shape, strict=True)),
        values={name: spectrum * unit for name, spectrum in zip(names, values, strict=True)},
        noise=math.sqrt(variance) * unit,
        noise_rank=dict(zip(names, ranks, strict=True)),
    )


def similarity(
    tensor: Any,  # (n_1, ..., n_d)
    names: Sequence[str],
    mode: str,
) -> Floats:  # (n, n), n the size of mode
    """Return cosines ``<T_i, T_j> / (|T_i| |T_j|)`` (Frobenius) of the slices of ``tensor`` along ``mode``.

    Args:
        tensor, names: as in ``spectra``.
        mode: one of the names, of size n.

    Returns:
        (n, n), in -1 ... 1, whatever the slices' norms. A zero slice has no direction: its cosines are 0.

    Raises:
        TensorAdaptError: for what ``spectra`` refuses, and a mode that is not among ``names``.

    >>> import tensoradapt as ta
    >>> ta.spectra.similarity([[1, 0], [2, 0], [0, 3]], ("layer", "in"), "layer")
    array([[1., 1., 0.],
           [1., 1., 0.],
           [0., 0., 1.]])
    """
    data, _ = _checked(tensor, names)
    check_mode(mode, names)
    rows = unfold(data, list(names).index(mode))
    rows = _divided(rows, np.abs(rows).max(1))  # so that no norm overflows or vanishes
    rows = _divided(rows, norms := np.linalg.norm(rows, axis=1))
    cosines = np.clip(rows @ rows.T, -1, 1)
    np.fill_diagonal(cosines, norms > 0)
    return cosines


def advice(spectra: Spectra, modes: Sequence[str] | None = None, energy: float = 0.9) -> tuple[Compression, ...]:
    """Return the modes that are worth tying first: by rank for ``energy`` / size, the most compressible first.

    Tie the first ones and leave the last ones free; the reverse is the control that should do worse. Compare index
    modes with each other: row and column modes of low-rank updates are compressible by construction. One slice of
    large norm also makes a mode look compressible; ``similarity`` is blind to norms and tells the two apart. A zero
    tensor has ratio 0 everywhere.

    Args:
        spectra: of a tensor.
        modes: some of its modes; all by default.
        energy: share of the squared norm to keep, in (0, 1].

    Returns:
        Each mode with its rank.

    Raises:
        TensorAdaptError: for what are no ``Spectra``, an unknown mode, and a share out of range.

    >>> import tensoradapt as ta
    >>> found = ta.spectra.spectra(np.einsum("a,bc->abc", [1.0, -2.0, 1.5], np.eye(4)[:, :3]), ("layer", "out", "in"))
    >>> [(one.mode, one.rank, one.size, one.worth_tying) for one in ta.spectra.advice(found)]
    [('layer', 1, 3, True), ('out', 3, 4, False), ('in', 3, 3, False)]
    """
    check_is("spectra", spectra, Spectra)
    chosen = list(spectra.shape) if modes is None else strings(modes, "modes")
    for mode in chosen:
        check_mode(mode, spectra.shape)
    ranks, effective = spectra.rank_for(energy), spectra.effective_rank
    compressions = (Compression(mode, spectra.shape[mode], ranks[mode], effective[mode]) for mode in chosen)
    return tuple(sorted(compressions, key=lambda one: (one.ratio, one.effective_rank / one.size)))


def _checked(tensor: Any, names: Sequence[str]) -> tuple[Floats, float]:
    """Return the tensor in float64, if real, finite and with an axis for each name; and what its dtype rounds to."""
    try:
        data = np.asarray(tensor)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TensorAdaptError(
            f"tensor is a {type(tensor).__name__} that numpy cannot read ({error}); expected an array of real numbers: "
            "pass tensor.detach().cpu().float().numpy() of a torch tensor"
        ) from error
    given = f"tensor has dtype {data.dtype} and shape {data.shape}"
    if data.dtype.kind not in "biuf" or data.size == 0:
        raise TensorAdaptError(f"{given}; expected real numbers, one or more along every axis")
    if isinstance(names, str) or not data.ndim or not len(set(strings(names, "names"))) == len(names) == data.ndim:
        raise TensorAdaptError(
            f"{given}, names are {shown(names)}; expected a different name for each of one or more axes"
        )
    if n_bad := data.size - int(np.isfinite(data).sum()):
        raise TensorAdaptError(
            f"{given}, {n_bad} entries are not finite; expected finite ones: leave out runs that diverged"
        )
    return data.astype(np.float64), float(np.finfo(data.dtype).eps) if data.dtype.kind == "f" else 0.0


def check_mode(mode: str, names: Iterable[str]) -> None:
    """Check a mode's name, as all functions of this module do (notebooks/6_read_the_mode_spectra.ipynb).

    Args:
        mode: the name.
        names: those that there are.

    Raises:
        TensorAdaptError: for an unknown mode, with the closest.

    >>> import tensoradapt as ta
    >>> ta.spectra.check_mode("layer", ("layer", "out", "in"))
    """
    if mode not in (valid := items(text, names, "names")):
        raise TensorAdaptError(f"mode {mode!r} is not a mode of the tensor{did_you_mean(mode, valid)}")


def _divided(rows: Floats, sizes: Floats) -> Floats:
    return rows / np.where(sizes > 0, sizes, 1)[:, None]


def _shares(values: Floats) -> Floats:
    squares = (values / (values[0] or 1.0)) ** 2
    return squares / (squares.sum() or 1.0)


def _exp_entropy(shares: Floats) -> float:
    some = shares[shares > 0]
    return float(np.exp(-(some * np.log(some)).sum())) if len(some) else 0.0

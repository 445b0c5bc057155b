"""compress gives trained updates any other factored form, with the true error and what it cost."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tensoradapt.adapter import checkpoint
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.checks import (
    Check,
    anything,
    as_path,
    check_arguments,
    check_number,
    count,
    named,
    one_of,
    optional,
    shown,
    text,
)
from tensoradapt.checks import seed as check_seed
from tensoradapt.compression.agreement import null_spectrum
from tensoradapt.compression.core import Core
from tensoradapt.compression.fit import Factors, Fit, Job, fit_within, in_best_order, with_row
from tensoradapt.compression.library import is_library, left_out_of, read_library
from tensoradapt.compression.sources import TrainedUpdates, difference, norm_of, read, update_of
from tensoradapt.errors import TensorAdaptError, located
from tensoradapt.networks.modes import TASK
from tensoradapt.networks.network import Network
from tensoradapt.planning.plan import Plan
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.surgery.attach import attach
from tensoradapt.text import Rank

ORDERS, DAMAGED = ("given", "search"), ("error", "skip")
WHOLE = "kept whole"
GROWN = 2.0  # above this, components cancel: others are at most about as large as the tensor


@dataclass(frozen=True)
class Tried:
    """A rank that was tried, with its parameters and relative error."""

    rank: int
    n_params: int
    error: float


@dataclass(frozen=True)
class Compressed:
    """Updates in factored form: a plan with scale 1, the factors of its tensors, and their errors.

    ``factors`` are float64 and have the names of the networks' factors. ``left`` and ``norms``, (adapters, sites), are
    the squared Frobenius norms of what they leave of each update and of the update, in float64 from the factors and the
    source; the errors are made of them. ``growth`` of a CP is the largest component's norm over the tensor's; far above
    1 the components cancel. Of a library ``task_spectra`` has for each tensor the singular values of its unfolding
    along the mode ``task``: how many directions the adapters share, beside those of random ones in
    ``task_null_spectra``.
    """

    plan: Plan
    factors: tuple[Factors, ...]
    left: np.ndarray
    norms: np.ndarray
    n_source_params: int
    seconds: float
    source: str = ""
    exact: bool = False  # by construction, without a decomposition
    growth: float | None = None
    orders: tuple[tuple[str, ...], ...] = ()  # for each tensor, its modes as the network chains them
    cuts: tuple[str, ...] = ()
    tried: tuple[Tried, ...] = ()
    left_out: tuple[str, ...] = ()
    task_spectra: tuple[np.ndarray, ...] = ()

    @property
    def n_params(self) -> int:
        return self.plan.n_params

    @property
    def error(self) -> float:
        """The relative Frobenius error over all sites, and all adapters of a library."""
        return math.sqrt(self.left.sum() / (float(self.norms.sum()) or 1.0))

    @property
    def site_errors(self) -> Mapping[str, float]:
        """The error of each site; for one whose update is zero it is relative to the root mean square norm of all."""
        names = [site.name for site in self.plan.sites]
        return dict(zip(names, _relative(self.left.sum(0), self.norms.sum(0)), strict=True))

    @property
    def task_errors(self) -> Mapping[str, float]:
        """The error of each adapter of a library, by its name."""
        return dict(zip(self.plan.spec.tasks, _relative(self.left.sum(1), self.norms.sum(1)), strict=False))

    @cached_property
    def task_null_spectra(self) -> tuple[np.ndarray, ...]:  # (adapters,) for each tensor
        """The singular values that ``task_spectra`` would have if each matrix kept its own and directions were random.

        Adapters that share nothing have about these, which follow their norms: about equal values where the norms are.
        Computed when first asked for, of the adapters that were compressed together (``agreement.null_spectrum``).
        """
        names, found = [site.name for site in self.plan.sites], []
        for group, spectrum in zip(self.plan.groups, self.task_spectra, strict=False):
            at = [names.index(member.site.name) for member in group.members]
            areas = np.array([float(member.site.out * member.site.in_) for member in group.members])
            found.append(null_spectrum(self.norms[: len(spectrum), at], areas))
        return tuple(found)

    @property
    def n_params_each(self) -> int:
        """The numbers that each adapter of a library has of its own: those of factors with the mode ``task``."""
        factors = [(g.network, f) for g in self.plan.groups for f in g.network.factors if TASK in f.labels]
        return sum(math.prod(net.shape(f)) // net.sizes[TASK] for net, f in factors)

    def with_adapter(self, name: str, source: Any) -> Compressed:
        """Return a library with one more adapter in its bases: only the adapter's own numbers are solved for.

        Its error is in ``task_errors``; the other adapters stay as they are.

        Args:
            name: of the adapter, which no other has.
            source: what ``compress`` takes of one adapter.

        Raises:
            TensorAdaptError: without adapters, for a name that is taken, a source that cannot be read for the library's
                sites, and a network in which several factors have the mode ``task``.
        """
        return with_adapter(self, name, source)

    def attach(self, model: nn.Module, dropout: float = 0.0) -> Adapter:
        """Attach an adapter that starts training from these factors, in torch's default dtype."""
        planned = replace(self.plan, spec=replace(self.plan.spec, dropout=dropout))
        return attach(model, planned, values=_tensors(self.factors))

    def save(self, path: str | Path) -> None:
        """Write a checkpoint without a model, to be loaded with ``strict=False``: it does not know the base weights.

        To have these checked, save the attached adapter instead.
        """
        path = as_path(path, "path")
        factors = {f"{i}.{k}": v.float() for i, values in enumerate(_tensors(self.factors)) for k, v in values.items()}
        scales = tuple(1.0 for _ in self.factors)
        checkpoint.write(checkpoint.Checkpoint(self.plan, 0, scales, "", factors, {}), path)

    def __str__(self) -> str:
        worst = max(self.site_errors, key=lambda name: self.site_errors[name])
        spread = f"{min(self.site_errors.values()):.3g} to {self.site_errors[worst]:.3g} ({worst})"
        more = ", more than the source" if self.n_params > self.n_source_params else ""
        lines = [
            f"{self.plan.spec.name} of {self.source}: {self.n_params:,} parameters for {self.n_source_params:,} "
            f"({100 * self.n_params / self.n_source_params:.3g} %{more}) over {len(self.site_errors)} matrices",
            f"relative error {self.error:.3g}; of single matrices {spread}",
            f"ranks {'; '.join(dict.fromkeys(str(group.rank) for group in self.plan.groups))}",
            f"mode order {'; '.join(dict.fromkeys(' '.join(order) for order in self.orders))}",
            *(f"sides {cut}" for cut in dict.fromkeys(self.cuts)),
        ]
        if any(WHOLE in cut for cut in self.cuts):
            lines.append(
                f"{WHOLE} are sides of several modes or factors, and those whose matrices' ranks sum to their width"
            )
        if self.growth is not None:
            warns = ": components cancel, so a small change of one factor is a large change of the update"
            lines.append(f"largest component {self.growth:.3g} times the tensor{warns if self.growth > GROWN else ''}")
        if self.tried:
            lines.append(f"tried ranks {', '.join(f'{t.rank}: {t.error:.3g}' for t in self.tried)}")
        if self.task_errors:
            lines[2:2] = [self._adapters_text(), self._directions_text()]
        if self.left_out and self.task_errors:
            more = f", and {len(self.left_out) - 1} more" if len(self.left_out) > 1 else ""
            lines.append(f"left out: {self.left_out[0]}{more}")
        elif self.left_out:
            lines.append(f"not in the error: {len(self.left_out)} other parameters changed, such as {self.left_out[0]}")
        return "\n".join([*lines, f"{'exact by construction, ' if self.exact else ''}{self.seconds:.3g} s"])

    def _adapters_text(self) -> str:
        errors = self.task_errors
        best, worst = min(errors, key=errors.__getitem__), max(errors, key=errors.__getitem__)
        return (
            f"{len(errors)} adapters with {self.n_params_each:,} numbers of their own each; relative error "
            f"{errors[best]:.3g} ({best}) to {errors[worst]:.3g} ({worst})"
        )

    def _directions_text(self) -> str:
        squares = float(self.norms[: len(self.task_spectra[0])].sum()) or 1.0
        found, null = (np.square(x).sum(0) / squares for x in (self.task_spectra, self.task_null_spectra))
        return (
            f"task mode: the first {len(found[:3])} of {len(found)} directions hold "
            f"{', '.join(f'{x:.2f}' for x in found[:3])} of the squares; "
            f"{', '.join(f'{x:.2f}' for x in null[:3])} if the matrices had random directions"
        )


def _max_error(value: Any, where: str) -> None:
    check_number(where, value, above=0)
    if value >= 1:
        raise TensorAdaptError(f"{where} is {shown(value)}, which no update at all meets; expected a number under 1")


def _order_choice(value: Any, where: str) -> None:
    if not isinstance(value, str) or value not in ORDERS:
        raise TensorAdaptError(
            f"{where} is {shown(value)}; expected one of {', '.join(ORDERS)}. An order itself is an option"
        )


CHECKS: Mapping[str, Check] = {
    "max_error": optional(_max_error),
    "options": optional(partial(named, anything)),
    "seed": check_seed,
    "order": _order_choice,
    "damaged": partial(one_of, DAMAGED),
}


def compress(
    source: Any,
    sites: Any = None,
    layout: str | Sequence[str] | None = None,
    method: str | Any = None,
    rank: Rank | None = None,
    *,
    max_error: float | None = None,
    budget: int | str | None = None,
    options: Mapping[str, Any] | None = None,
    split: Mapping[str, Any] | None = None,
    seed: int = 0,
    order: str = "given",
    damaged: str = "error",
) -> Compressed:
    """Decompose trained updates in a factored form; give exactly one of ``rank``, ``max_error`` and ``budget``.

    A LoRA stack is decomposed as a small core (QR), exactly, where a side of the layout is one mode that is wider than
    its matrices' ranks summed. Other sides are kept whole; with both whole, the dense stack is in memory several times
    over, 8 bytes an entry. The result prints which sides were cut. Several adapters of one model become one tensor,
    over a layout with the mode ``task``: they are read one at a time, their core takes half a GiB at most, and the
    result is one adapter whose tasks they are (docs/guides/adapter-libraries.md). A warning names those whose A agree
    more than chance allows, as LoRAs do that were drawn with one seed. CP adapters become Tucker and tensor-train of
    their own rank exactly; all others are decomposed by ``decompose`` of the parameterization, or by least squares.

    Args:
        source: path of a LoRA folder as PEFT saves it (heads that it saved are left out and named); an Adapter (its
            selected task; shared biases are left out and named); a pair (tuned model, base model); a mapping of site
            names to (A, B) or dense (out, in) updates; or a library: a list of LoRA folders, or a mapping of names to
            any of these but pairs of models.
        sites: from ``find_sites``; or a model or config: those that the source has. An Adapter knows its own.
        layout: one layout, or one for each set of sites; default the parameterization's.
        method: a name, or an object like the modules of ``tensoradapt.parameterizations``.
        rank: the rank of all bonds, or a mapping of bonds; parameterizations without a rank need none.
        max_error: take the smallest rank whose relative Frobenius error over all sites is at most this, in (0, 1).
        budget: largest number of parameters, such as 18_000 or "18k".
        options: further arguments of the parameterization's ``build``.
        split: sizes of the parts of a mode, as in ``plan``.
        seed: the seed of random starts.
        order: "search" finds the order of modes with the least error, of chains (tensor_train, tensor_ring).
        damaged: "skip" leaves out adapters of a library that cannot be read, and names them in ``left_out``.

    Returns:
        The plan and its factors, with the errors; ``attach`` of it puts them into a model.

    Raises:
        TensorAdaptError: for sources that cannot be read, modules and sites that differ, adapters of different base
            models or one that is there twice, parameterizations with frozen factors, and an error that no rank reaches.

    >>> import tensoradapt as ta
    >>> import numpy as np
    >>> sites = ta.find_sites("tiny-random-bert", ["q"])
    >>> updates = {site.name: (np.ones((1, site.in_)), np.ones((site.out, 1))) for site in sites}
    >>> result = ta.compress(updates, sites, "layer : out : in", "cp", rank=1)
    >>> result.n_params, result.n_source_params, result.error < 1e-12
    (51, 144, True)
    """
    began = time.perf_counter()
    check_arguments(locals(), **CHECKS)
    most: int | None = optional(count)(budget, "budget")
    given = sum(value is not None for value in (rank, max_error, budget))
    not_one = TensorAdaptError(
        f"rank={shown(rank)}, max_error={shown(max_error)}, budget={shown(budget)} were given; expected exactly one of "
        "them"
    )
    if given > 1:
        raise not_one
    trained = read_library(source, sites, damaged) if is_library(source) else read(source, sites)
    _check_task_mode(trained.tasks, layout)
    spec = AdapterSpec(method, layout, options=options, split=split, scale=1.0, train=(), tasks=trained.tasks)
    job = Job(trained, spec, int(seed))
    if not given and any(group.rank for group in job.plan(1).groups):
        raise not_one
    if order == "search":
        job = in_best_order(job, rank, most, max_error)
    fit, tried = fit_within(job, max_error) if max_error is not None else (job.fit(rank, most), {})
    return _result(job, fit, tried, time.perf_counter() - began)


def _check_task_mode(tasks: Sequence[str], layout: Any) -> None:
    """Raise TensorAdaptError where several adapters are given without a mode for them."""
    every = layout if isinstance(layout, list | tuple) and layout else (layout,)
    texts = [one for one in every if isinstance(one, str)]  # what else a layout can be, or cannot, the plan says
    if tasks and (layout is None or not all(TASK in one.partition(":")[0].split() for one in texts)):
        raise TensorAdaptError(
            f"{len(tasks)} adapters and layout={shown(layout)} were given; their mode in a layout is called task: give "
            "one with it, as in layout='task layer proj : out : in'"
        )


def _result(job: Job, fit: Fit, fits: Mapping[int, Fit], seconds: float) -> Compressed:
    """Return the result of a job; its errors are computed anew, from the factors."""
    left, norms = squares(fit.plan, fit.factors, job.source)
    names = [site.name for site in fit.plan.sites]
    of_group = [
        math.sqrt(norms[:, [names.index(m.site.name) for m in group.members]].sum()) for group in fit.plan.groups
    ]
    growth = getattr(job.family, "growth", None)
    grown = max(map(growth, fit.factors, of_group)) if growth else None
    orders = tuple(_order(group.network) for group in fit.plan.groups)
    cuts = tuple(_cut_text(group.network, core) for group, core in zip(fit.plan.groups, job.cores, strict=False))
    tried = tuple(Tried(rank, trial.plan.n_params, trial.error) for rank, trial in sorted(fits.items()))
    return Compressed(
        fit.plan,
        fit.factors,
        left,
        norms,
        job.source.n_params,
        seconds,
        job.source.name,
        exact=fit.exact,
        growth=grown,
        orders=orders,
        cuts=cuts or ("not needed",),
        tried=tried,
        left_out=job.source.left_out,
        task_spectra=tuple(map(_task_spectrum, job.cores)) if job.source.tasks else (),
    )


def squares(
    plan: Plan, factors: Sequence[Factors], source: TrainedUpdates, first: int = 0
) -> tuple[np.ndarray, np.ndarray]:  # (adapters, sites) each
    """Return the squared norms of what factors leave of each update, and of itself, without a dense stack.

    ``first``: the number of the task that a library's first adapter has in the plan.
    """
    adapter = Adapter(plan, values=_tensors(factors)).double()
    with torch.no_grad():
        for tensor, values in zip(adapter.factored, factors, strict=True):
            for name, parameter in tensor.trained.items():
                parameter.copy_(torch.from_numpy(values[name]))
    left, norms = np.zeros((2, len(source.updates), len(plan.sites)))
    for number, own in enumerate(source.updates.values()):
        for i, site in enumerate(plan.sites):
            update = own[site.name]
            found = update_of(adapter, site, first + number if plan.spec.tasks else None)
            left[number, i], norms[number, i] = norm_of(difference(update, found)) ** 2, norm_of(update) ** 2
    return left, norms


def with_adapter(library: Compressed, name: str, source: Any) -> Compressed:
    """Return a library with one more adapter, as ``Compressed.with_adapter`` says."""
    check_arguments(locals(), name=text)
    tasks = library.plan.spec.tasks
    if not tasks or name in tasks:
        has = f"the library has an adapter {name!r}" if tasks else "this is no library, as it was made of one adapter"
        raise TensorAdaptError(f"{has}; expected a library of ta.compress([...]), and a name that none of it has")
    with located(f"adapter {name!r}"):
        one = read(source, library.plan.sites)
    widened = [
        with_row(group, factors, one.updates)
        for group, factors in zip(library.plan.groups, library.factors, strict=True)
    ]
    groups = tuple(replace(g, network=net) for g, (net, _) in zip(library.plan.groups, widened, strict=True))
    plan = replace(library.plan, groups=groups, spec=replace(library.plan.spec, tasks=(*tasks, name)))
    factors = tuple(values for _, values in widened)
    more = squares(plan, factors, one, first=len(tasks))
    left, norms = (np.concatenate(pair) for pair in zip((library.left, library.norms), more, strict=True))
    params = library.n_source_params + one.n_params
    named = (*library.left_out, *left_out_of(name, one))
    return replace(
        library, plan=plan, factors=factors, left=left, norms=norms, n_source_params=params, exact=False, left_out=named
    )


def _relative(left: np.ndarray, norms: np.ndarray) -> list[float]:
    """Return relative errors of squared norms; where there is nothing they are relative to the mean."""
    usual = float(norms.mean()) or 1.0
    return np.sqrt(left / np.where(norms > 0, norms, usual)).tolist()


def _task_spectrum(core: Core) -> np.ndarray:
    """Return the singular values of a core's unfolding along the mode of its adapters, the largest first."""
    axis = core.layout.names.index(TASK)
    unfolded = np.moveaxis(core.values, axis, 0).reshape(core.values.shape[axis], -1)
    triangle = np.linalg.qr(unfolded.T, mode="r")
    values = np.linalg.svd(triangle, compute_uv=False)
    return np.pad(values, (0, len(unfolded) - len(values)))  # one for each adapter


def _order(network: Network) -> tuple[str, ...]:
    return tuple(dict.fromkeys(x for f in network.factors for x in f.labels if x in network.layout.size_of))


def _cut_text(network: Network, core: Core) -> str:
    sizes = network.layout.size_of
    cut = [f"{mode} {sizes[mode]} cut to {basis.shape[1]}" for mode, basis in core.bases.items()]
    if core.outside:
        share = core.outside / (core.outside + float(np.linalg.norm(core.values)) ** 2)
        cut.append(f"which leaves out {100 * share:.2g} % of the squared norm")
    sides = (network.layout.rows, network.layout.cols)
    whole = [" ".join(f"{mode.name} {mode.size}" for mode in side) for side in sides if side[0].name not in core.bases]
    kept = [f"{' and '.join(whole)} {WHOLE}"] if whole else []
    return f"{', '.join([*cut, *kept])}: a core of {core.values.nbytes / 2**20:.3g} MiB"


def _tensors(factors: Sequence[Factors]) -> list[dict[str, torch.Tensor]]:
    return [{name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in values.items()} for values in factors]

"""Compress and convert: updates trained in one form, in any other factored form, with the true error stated."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from tensoradapt.checks import check_number
from tensoradapt.compression.fit import Job, fit_within, in_best_order
from tensoradapt.compression.result import Compressed, stated
from tensoradapt.compression.sources import read
from tensoradapt.errors import TensorAdaptError
from tensoradapt.text import Rank

ORDERS = ("given", "search")


def compress(
    source: Any,
    sites: Any = None,
    layout: str | Sequence[str] | None = None,
    parameterization: str | Any = None,
    rank: Rank | None = None,
    *,
    max_error: float | None = None,
    budget: int | None = None,
    options: Mapping[str, Any] | None = None,
    split: Mapping[str, Any] | None = None,
    seed: int = 0,
    order: str = "given",
) -> Compressed:
    """Trained updates in factored form, with exactly one of ``rank``, ``max_error`` and ``budget`` (families without a
    rank need none).

    ``source``: the path of a LoRA folder as PEFT saves it; an Adapter (of one with tasks the selected; shared biases
    are left out and named); a pair (tuned model, base model); or a mapping of site names to (A, B) or dense (out, in)
    updates. ``sites``: from ``find_sites``, or a model or config (then: those the source has); an Adapter knows its
    own. ``max_error``: the smallest rank whose relative Frobenius error over everything is at most this.
    ``order="search"``: of chains (tensor_train, tensor_ring), the order of modes with the least error.

    A LoRA stack is decomposed as a small core (QR), exactly and without the dense stack, wherever a side of the layout
    is one mode that is wider than its matrices' ranks summed. Other sides are kept whole; with both whole, the dense
    stack is in memory: 8 bytes an entry, several times over while it is decomposed. The result prints what was cut and
    the size of each core. CP adapters become Tucker and tensor-train of their own rank exactly. Other families with all
    factors trained are decomposed by their own ``decompose``, or by alternating least squares.

    >>> import numpy as np
    >>> from tensoradapt.sites.site import Site
    >>> sites = [Site(name, name, (("layer", i),), out=6, in_=5, inner=(("ff", 6),)) for i, name in enumerate("xyz")]
    >>> updates = {site.name: (np.arange(5.0)[None], np.ones((6, 1))) for site in sites}
    >>> result = compress(updates, sites, "layer : out : in", "cp", rank=1)
    >>> result.n_params, result.n_source_params, result.error < 1e-12
    (14, 33, True)

    Raises TensorAdaptError for sources that cannot be read, modules and sites that differ, families with frozen
    factors, and an error that no rank reaches.
    """
    began = time.perf_counter()
    _check_choices(rank, max_error, budget, order)
    job = Job(read(source, sites), layout, parameterization, dict(options or {}), split, seed)
    if rank is None and max_error is None and budget is None and any(group.rank for group in job.plan(1).groups):
        raise _one_of(rank, max_error, budget)
    if order == "search":
        job = in_best_order(job, rank, budget, max_error)
    fit, tried = fit_within(job, max_error) if max_error is not None else (job.fit(rank, budget), {})
    return stated(job, fit, tried, time.perf_counter() - began)


def _check_choices(rank: Any, max_error: Any, budget: Any, order: str) -> None:
    if sum(value is not None for value in (rank, max_error, budget)) > 1:
        raise _one_of(rank, max_error, budget)
    if max_error is not None:
        check_number("max_error", max_error, above=0)
        if max_error >= 1:
            raise TensorAdaptError(
                f"max_error is {max_error!r}, which no update at all meets; expected a number under 1"
            )
    if order not in ORDERS:
        raise TensorAdaptError(f"order is {order!r}; expected one of {', '.join(ORDERS)}. An order itself is an option")


def _one_of(rank: Any, max_error: Any, budget: Any) -> TensorAdaptError:
    return TensorAdaptError(
        f"rank={rank!r}, max_error={max_error!r}, budget={budget!r} were given; expected exactly one of them"
    )

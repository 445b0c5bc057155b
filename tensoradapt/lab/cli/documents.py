"""What ``--json`` prints of plans, compressed adapters and exports."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tensoradapt.planning.plan import Group, Plan
from tensoradapt.records import as_json, changed

if TYPE_CHECKING:  # they load torch
    from tensoradapt.compression.compress import Compressed
    from tensoradapt.lora.export import LoraExport

OF_PLAN = ("parameterization", "source", "n_params", "n_dense", "n_base", "n_biases", "n_magnitudes", "n_trained_base")


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return a plan: its settings, its counts, each tensor with its sites, and what is skipped."""
    settings = {name: as_json(item) for name, item in changed(plan.spec).items() if name != "method"}
    return {
        "method": plan.spec.name,
        **{name: getattr(plan, name) for name in OF_PLAN},
        "needs_weights": plan.needs_weights,
        "settings": settings,
        "tensors": [_tensor(group) for group in plan.groups],
        "skipped": [{"module": module, "reason": reason} for module, reason in plan.skipped or ()],
    }


def _tensor(group: Group) -> dict[str, Any]:
    """Return a tensor; a slice of several positions is its first, and the one after its last."""
    network = group.network
    sites = [
        {
            "name": member.site.name,
            "out": member.site.out,
            "in": member.site.in_,
            "at": {mode: [at.start, at.stop] if isinstance(at, range) else at for mode, at in member.at.items()},
            "transposed": member.transposed,
        }
        for member in group.members
    ]
    return {
        "layout": str(network.layout),
        "sizes": dict(zip(network.layout.names, network.layout.shape, strict=True)),
        "rank": group.rank,
        "lora_rank": network.cut.rank,
        "n_params": network.n_params,
        "sites": sites,
    }


def compressed_document(found: Compressed) -> dict[str, Any]:
    """Return what a compression reached: parameters, ranks and errors."""
    names = ("source", "n_params", "n_source_params", "error", "site_errors", "exact", "growth", "orders", "seconds")
    said = {name: getattr(found, name) for name in names}
    ranks = [group.rank for group in found.plan.groups]
    tried = [asdict(one) for one in found.tried]
    document = {"method": found.plan.spec.name, **said, "ranks": ranks, "tried": tried, "left_out": found.left_out}
    if found.task_errors:
        document |= {"task_errors": found.task_errors, "n_params_each": found.n_params_each}
    return document


def export_document(found: LoraExport) -> dict[str, Any]:
    """Return what was exported: the rank that servers need, the bytes, and the errors of each module."""
    return {**asdict(found), "exact": found.exact, "max_lora_rank": found.max_lora_rank}

"""Checks a saved adapter against the model it is to be attached to."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from tensoradapt.adapter import checkpoint
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.planning.plan import Plan
from tensoradapt.planning.trained_modules import trained_modules


def _from_weights(saved: checkpoint.Checkpoint) -> list[dict[str, Tensor]]:
    """Saved factors that would otherwise be taken from the base weights again."""
    parts = [[f for f in group.network.factors if f.source == "base"] for group in saved.plan.groups]
    return [
        {f.name: saved.factors[f"{i}.{f.name}" if f.trainable else f"{i}.fixed.{f.name}"] for f in factors}
        for i, factors in enumerate(parts)
    ]


def unattached(path: str | Path) -> Adapter:
    """The saved adapter without a model, for what needs its updates alone; trained heads stay in their file."""
    saved = checkpoint.read(Path(path))
    adapter = Adapter(saved.plan, saved.seed, _from_weights(saved), saved.scales)
    adapter.restore(saved)
    return adapter


def head_shapes(model: nn.Module, plan: Plan) -> dict[str, tuple[int, ...]]:
    """The trained numbers of a plan's heads, in the model at hand."""
    heads = trained_modules(model, plan.train, plan.published)
    return {f"{head}.{k}": tuple(p.shape) for head, m in heads.items() for k, p in m.named_parameters()}

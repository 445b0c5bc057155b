"""What the run of an adapter was given beside its parameterization and size: targets, scale, optimizer and layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tensoradapt import published as papers
from tensoradapt.checks import is_number
from tensoradapt.runs.store import Run

SETUP = ("targets", "scale", "optimizer", "layout")
GROUPS = {"attention": {"q", "k", "v", "o"}}  # projections that a word stands for


def setup(config: Mapping[str, Any]) -> dict[str, str | None]:
    """The values of ``SETUP`` of a run's config, as text; None where they mean nothing, as for full fine-tuning.

    A published adapter without projections of its own has its paper's, and its paper's layouts.

    >>> setup({"kind": "adapter", "published": "lora", "projections": [], "scale": "paper"})
    {'targets': 'q v', 'scale': 'paper', 'optimizer': 'adamw', 'layout': ': out : in'}
    """
    if "setup" in config:  # the run is from a table, which said it
        return dict(config["setup"])
    optimizer = str((config.get("training") or {}).get("optimizer", "adamw"))
    if config.get("kind") != "adapter":
        return {**dict.fromkeys(SETUP), "optimizer": optimizer}
    name = config.get("published")
    row = papers.get(name) if name in papers.names() else None  # a row that another version had is not known here
    return {
        "targets": targets_text(config.get("projections", ("attention",)) or (row.projections if row else ())) or None,
        "scale": _scale_text(config),
        "optimizer": optimizer,
        "layout": layout_text(config.get("layout") or (row.layout if row else None)),
    }


def targets_text(projections: str | Iterable[str]) -> str:
    """Projections as text; those that a word stands for as that word.

    >>> targets_text(("q", "v")), targets_text(("o", "k", "q", "v"))
    ('q v', 'attention')
    """
    names = (projections,) if isinstance(projections, str) else tuple(projections)
    return next((word for word, group in GROUPS.items() if set(names) == group), " ".join(names))


def layout_text(layout: str | Iterable[str] | None) -> str | None:
    """The layout as text; several layouts, of which each site takes the first that fits, are one choice."""
    return layout if layout is None or isinstance(layout, str) else " | ".join(layout)


def _scale_text(config: Mapping[str, Any]) -> str:
    scale, alpha = config.get("scale", "matched"), (config.get("plan") or {}).get("alpha")
    return _number_text(scale) if alpha is None else f"{_number_text(scale)}, alpha {_number_text(alpha)}"


def _number_text(value: Any) -> str:
    return f"{value:g}" if is_number(value) else str(value)


def unequal(runs: Iterable[Run]) -> dict[str, dict[str, list[str]]]:
    """Of ``SETUP`` what the adapters of these runs do not have in common: each value with its methods, both by name."""
    found: dict[str, dict[str, set[str]]] = {key: {} for key in SETUP}
    for run in runs:
        if run.config.get("kind") == "adapter":
            for key, value in setup(run.config).items():
                found[key].setdefault(value or "not stated", set()).add(str(run.config["label"]))
    return {key: {v: sorted(of[v]) for v in sorted(of)} for key, of in found.items() if len(of) > 1}

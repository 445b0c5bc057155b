"""The commands ``tasks`` and ``models``: the names that other commands take, and what each stands for."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from tensoradapt.lab.cli.output import show, show_json, show_text, width
from tensoradapt.lab.cli.parser import add_command
from tensoradapt.text import align

OWN_DATA = "A file of one's own is a task too, such as reviews.csv (docs/start/your-data.md)."
OTHER_MODELS = "A folder of a model is one too, and any name on the hub, such as FacebookAI/roberta-base."


def add_parsers(commands: Any) -> None:
    """Add the commands to those of a parser (``add_subparsers``)."""
    add_command(commands, "tasks", tasks, "list the tasks that are built in or of plug-ins", "[options]")
    add_command(commands, "models", models, "list the models that are built in or of plug-ins", "[options]")


def tasks(args: argparse.Namespace) -> int:
    """Print each task with its metric, its number of classes, if labels are classes, and where its data comes from."""
    from tensoradapt.lab.tasks import registry

    found = [registry.resolve(name)[0] for name in registry.names()]
    rows = [
        {"name": t.name, "metric": t.metric.name, "classes": t.n_labels if t.n_labels > 1 else None, "source": t.source}
        for t in found
    ]
    return _print(args, "tasks", rows, OWN_DATA)


def models(args: argparse.Namespace) -> int:
    """Print each model with what it is."""
    from tensoradapt.lab.data import models

    rows = [{"name": name, "holds": models.holds(name)} for name in models.names()]
    return _print(args, "models", rows, OTHER_MODELS)


def _print(args: argparse.Namespace, what: str, rows: Sequence[Mapping[str, Any]], others: str) -> int:
    if args.json:
        show_json({what: rows})
        return 0
    cells = [tuple("" if cell is None else str(cell) for cell in row.values()) for row in rows]
    show(*align([tuple(rows[0]), *cells], width()), "")
    show_text(others)
    return 0

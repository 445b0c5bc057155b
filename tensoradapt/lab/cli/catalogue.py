"""The commands ``tasks`` and ``models``, which list names, ``choose``, and ``completion``, which a shell reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from cyclopts import Parameter

from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.lab.choose import PURPOSES, candidates
from tensoradapt.lab.cli.options import DEFAULT_MODEL, Count, Json, Model
from tensoradapt.lab.cli.output import show_json, show_table, show_text

OWN_DATA = "A file of one's own is a task too, such as reviews.csv (docs/start/your-data.md)."
OTHER_MODELS = "A folder of a model is one too, and any name on the hub, such as FacebookAI/roberta-base."
SHELLS = ("bash", "zsh", "fish")
MEANINGS = ", ".join(f"{name} ({meaning})" for name, meaning in PURPOSES.items())


def tasks(*, json: Json = False) -> None:
    """Print each task with its metric, its number of classes, if labels are classes, and where its data comes from."""
    from tensoradapt.lab.tasks import registry

    every = [registry.resolve(name)[0] for name in registry.names()]
    rows = [
        {"name": t.name, "metric": t.metric.name, "classes": t.n_labels if t.n_labels > 1 else None, "source": t.source}
        for t in every
    ]
    _print("tasks", rows, OWN_DATA, json)


def models(*, json: Json = False) -> None:
    """Print each model with what it is."""
    from tensoradapt.lab.data import models

    _print("models", [{"name": name, "holds": models.holds(name)} for name in models.names()], OTHER_MODELS, json)


def _print(what: str, rows: Sequence[Mapping[str, Any]], others: str, json: bool) -> None:
    if json:
        show_json({what: rows})
    else:
        show_table([*rows[0]], [["" if cell is None else str(cell) for cell in row.values()] for row in rows])
        show_text("", others)


def choose(
    *,
    budget: Annotated[int, *Count.__metadata__],
    purpose: Annotated[str, Parameter(help=MEANINGS, completer=lambda _: PURPOSES)] = "smallest",
    model: Model = DEFAULT_MODEL,
    json: Json = False,
) -> None:
    """Print three candidates, the first one first.

    Args:
        budget: the most trainable parameters, as 5000 or 18k
        model: a built-in model, a folder, or a hub name
    """
    rows = candidates(model, budget, purpose)
    if json:
        show_json({"model": model, "budget": budget, "purpose": purpose, "candidates": rows})
        return
    show_text(f"{PURPOSES[purpose]}, at most {budget:,} parameters, on {model}", "")
    texts = [(r["method"], r["layout"], r["rank"], f"{r['n_params']:,}", f"{r['lora_rank']:,}", r["why"]) for r in rows]
    show_table(("method", "layout", "rank", "parameters", "LoRA rank", "why"), texts)
    show_text("", f"Why these: {rows[0]['page']}. {_next(rows[0], model, budget)}")


def _next(first: Mapping[str, Any], model: str, budget: int) -> str:
    """Return the command that shows the first candidate."""
    if re.search("[0-9]", first["layout"]):  # the parts of a width are no option of ``plan``
        return f"More of the first: tensoradapt methods {first['method']} --model {model}"
    words = f'--method {first["method"]} --layout "{first["layout"]}" --budget {budget}'
    return f"To see the first: tensoradapt plan --model {model} {words}"


def completion(shell: Annotated[str, Parameter(completer=lambda _: SHELLS)], /, *, json: Json = False) -> None:
    """Print the script of a shell.

    Args:
        shell: bash, zsh or fish
    """
    from tensoradapt.lab.cli.main import app

    if shell not in SHELLS:
        raise TensorAdaptError(f"the shell is {shown(shell)}{did_you_mean(shell, SHELLS)}")
    script = app().generate_completion(shell=shell)  # type: ignore[arg-type]  # one of them
    if json:
        show_json({"shell": shell, "script": script})
    else:
        print(script)

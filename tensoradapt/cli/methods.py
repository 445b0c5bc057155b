"""`tensoradapt methods`: the published adapters, and the page docs/methods.md."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from typing import Any

from tensoradapt import parameterizations, published
from tensoradapt.errors import TensorAdaptError
from tensoradapt.text import align


def _methods(args: argparse.Namespace) -> int:
    from tensoradapt.data import models

    if args.markdown:
        print(text(), end="")
        return 0
    if args.model is not None:
        config = models.config(args.model)
        print(
            "\n".join(
                align([("name", f"parameters at rank {args.rank}"), *map(_counted(config, args.rank), published.ROWS)])
            )
        )
        return 0
    print(published.LETTERS)
    for row in published.ROWS:
        layouts = "; ".join(f"{text}  ({' '.join(projections)})" for text, projections in row.tensors)
        print(f"\n{row.name}: {row.parameterization} over {layouts}")
        print(f"  parameters {row.formula}; start {row.start}; scale {row.scale}, alpha {row.alpha:g}")
        print(f"  {row.source}" + (f"\n  {row.note}" if row.note else ""))
    return 0


def _counted(config: Any, rank: int) -> Callable[[Any], tuple[str, str]]:
    """A row's count at a model's sizes, or why it has none."""
    import tensoradapt as ta

    def of(row: Any) -> tuple[str, str]:
        tasks = ("a", "b") if any("task" in text for text in row.layout) else ()
        try:
            plan = ta.plan(config, published=row.name, rank=rank, tasks=tasks)
        except TensorAdaptError as error:
            return row.name, f"- ({error})"
        return row.name, f"{plan.n_params:,}" + (" (2 tasks)" if tasks else "")

    return of


HEAD = """# Methods

Made by `tensoradapt methods --markdown`; do not edit. A parameterization is one file in
`tensoradapt/parameterizations/`, a published adapter one row of `tensoradapt/published/rows.py`.

"""


def text() -> str:
    """Markdown: every parameterization with its options, every published adapter with its formula and source."""
    return HEAD + "\n".join([*_parameterizations(), "", *_published()]) + "\n"


def _parameterizations() -> list[str]:
    lines = ["## Parameterizations", "", "| name | what it is | options | parameters |", "|---|---|---|---|"]
    for name in parameterizations.names():
        family = parameterizations.get(name)
        options = list(inspect.signature(family.build).parameters)[2:]
        shown = ", ".join(f"`{option}`" for option in options)
        lines.append(f"| `{name}` | {_first(family)} | {shown} | {_first(family.count)} |")
    return lines


def _published() -> list[str]:
    lines = ["## Published adapters", "", f"Letters: {published.LETTERS}.", ""]
    lines += ["| name | parameterization, layout (targets) | parameters | start | scale | source | note |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in published.ROWS:
        layouts = "; ".join(f"`{layout}` ({' '.join(projections)})" for layout, projections in row.tensors)
        formula, scale = f"`{row.formula}`", f"{row.scale}, alpha {row.alpha:g}"
        cells = (row.name, f"{row.parameterization}, {layouts}", formula, row.start, scale, row.source, row.note)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _first(of: object) -> str:
    """The first sentence of a docstring, on one line."""
    return " ".join((inspect.getdoc(of) or "").split("\n\n")[0].split()).replace("|", "\\|")

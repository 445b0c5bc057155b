"""The page of all methods, made from their docstrings and rows: ``tensoradapt methods --markdown``."""

from __future__ import annotations

import inspect

from tensoradapt import parameterizations, published

HEAD = """# Methods

Made by `tensoradapt methods --markdown`; do not edit. A parameterization is one file in
`tensoradapt/parameterizations/`, a published adapter one row of `tensoradapt/published_rows.py`.

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

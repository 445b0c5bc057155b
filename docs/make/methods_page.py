"""The page docs/reference/methods.md, made from docstrings and rows; ``site_pages.py`` writes it."""

from __future__ import annotations

import inspect

from tensoradapt import parameterizations, published
from tensoradapt.lab.methods import formula
from tensoradapt.text import prose

HEAD = """# Methods

Made from docstrings and rows. A parameterization is one file in
`tensoradapt/parameterizations/`, a published adapter one row of `tensoradapt/published/rows.py`.

"""

PAPER = (
    "By default a plan takes of a row what defines the method: layout, options, frozen factors and a start that is not",
    "zero. With `paper=True` it takes targets, scale, alpha and trained modules from the paper too, as below.",
)


def methods_page() -> str:
    """Return the page in Markdown: parameterizations with their options, published adapters with formula and source."""
    return HEAD + "\n".join([*_parameterization_rows(), "", *_published_rows()]) + "\n"


def _parameterization_rows() -> list[str]:
    lines = ["## Parameterizations", "", "| name | what it is | when | options | parameters |"]
    lines += ["|---|---|---|---|---|"]
    for name in parameterizations.names():
        factoring = parameterizations.get(name)
        options = list(inspect.signature(factoring.build).parameters)[2:]
        taken = ", ".join(f"`{option}`" for option in options)
        what, when = _cell(factoring), parameterizations.advice(factoring)
        lines.append(f"| `{name}` | {what} | {when} | {taken} | {formula(factoring)}. |")
    return lines


def _published_rows() -> list[str]:
    lines = ["## Published adapters", "", *PAPER, "", prose(f"Letters: {published.LETTERS}."), ""]
    lines += ["| name | parameterization, layout (targets) | parameters | start | scale | source | note |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in published.every():
        layouts = "; ".join(f"`{layout}` ({' '.join(projections)})" for layout, projections in row.tensors)
        formula, scale = f"`{row.formula}`", f"{row.scale}, alpha {row.alpha:g}"
        cells = (row.name, f"{row.parameterization}, {layouts}", formula, row.start, scale, row.source, row.note)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cell(of: object) -> str:
    """Return the first paragraph of a docstring as a cell of a table in Markdown."""
    return " ".join((inspect.getdoc(of) or "").split("\n\n")[0].split()).replace("|", "\\|")

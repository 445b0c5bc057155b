"""All methods as rows: what each is, its formula, its counts at the sizes of a model, and when to choose it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from tensoradapt import parameterizations, published
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.layout import Pattern, near_equal
from tensoradapt.published.row import Published

Row = dict[str, Any]
KINDS = ("parameterization", "published")
# what methods are counted at where no model is named; no config is fetched for it
BERT_BASE = SimpleNamespace(
    model_type="bert", hidden_size=768, num_attention_heads=12, num_hidden_layers=12, intermediate_size=3072
)
SIZES = "12 layers, 768 wide, as BERT-base"


def methods_table(kind: str | None = None) -> list[Row]:
    """Return a row for each method: name, kind, parameterization, layout, formula, source, when to choose it.

    Args:
        kind: "parameterization" or "published" for these alone. A name that is both has two rows.
    """
    rows = [_factored(name) for name in parameterizations.names()] if kind != KINDS[1] else []
    return rows + [_published(row) for row in published.ROWS if kind != KINDS[0]]


def _factored(name: str) -> Row:
    factoring = parameterizations.get(name)
    when = parameterizations.advice(factoring) or first_paragraph(factoring)
    layouts = list(parameterizations.layouts_of(factoring))
    return _row(name, KINDS[0], name, layouts, formula(factoring), "", when)


def _published(row: Published) -> Row:
    when, source = parameterizations.advice(row.parameterization), row.source.split(";")[0]
    return _row(row.name, KINDS[1], row.parameterization, list(row.layout), row.formula, source, when)


def _row(name: str, kind: str, factored: str, layout: Sequence[str], count: str, source: str, when: str) -> Row:
    texts = {"formula": unmarked(count), "source": source, "when": unmarked(when)}
    return {"name": name, "kind": kind, "parameterization": factored, "layout": layout, **texts}


def counted(
    rows: Iterable[Row], config: Any, *, rank: int | None = None, budget: int | None = None, layout: str | None = None
) -> Iterator[Row]:
    """Yield rows with their counts at the sizes of a model: ``n_params``, ``rank``, ``lora_rank``, else ``fault``.

    Args:
        rows: of ``methods_table``.
        config: of the model.
        rank: the rank to count at.
        budget: in place of a rank: the largest that has at most so many parameters.
        layout: the layout of parameterizations in place of their usual ones.

    ``lora_rank`` is the largest rank of the update of a matrix: that of a LoRA folder which the adapter is exported as.
    """
    from tensoradapt.planning.build_plan import build_plan
    from tensoradapt.planning.spec import AdapterSpec

    size = {"budget": budget} if budget is not None else {"rank": rank}
    for row in rows:
        try:
            given = _arguments(row, config, layout)
            groups = (plan := build_plan(config, AdapterSpec(**given, **size))).groups
        except TensorAdaptError as error:
            yield {**row, "fault": str(error)}
            continue
        lora = max(group.network.cut.rank for group in groups)
        tasks = {"tasks": len(given["tasks"])} if given.get("tasks") else {}
        yield {**row, "n_params": plan.n_params, "rank": groups[0].rank or None, "lora_rank": lora, **tasks}


def _arguments(row: Mapping[str, Any], config: Any, layout: str | None) -> dict[str, Any]:
    if row["kind"] == KINDS[1]:
        return arguments_of(published.get(row["name"]))
    given = usual_arguments(row["name"], config)
    return (
        given if layout is None else {**given, "layout": layout, "split": None if "*" not in layout else given["split"]}
    )


def of_layout(rows: Iterable[Row], layout: str) -> list[Row]:
    """Return the parameterizations, which take any layout, and the published adapters that have this one."""
    asked = Pattern.parse(layout)  # refuses what is no layout
    return [
        row
        for row in rows
        if row["kind"] == KINDS[0] or any("*" not in one and Pattern.parse(one) == asked for one in row["layout"])
    ]


def arguments_of(row: Published) -> dict[str, Any]:
    """Return the arguments of ``plan`` for a published adapter, with two tasks where it is for several."""
    tasks = ("a", "b") if any("task" in text for text in row.layout) else ()
    return {"method": row.name, "paper": True, "tasks": tasks}


def usual_arguments(name: str, config: Any) -> dict[str, Any]:
    """Return the arguments of ``plan`` for a parameterization over its usual layouts, split by a model's widths."""
    layouts, parts = parameterizations.layouts_of(name), getattr(parameterizations.get(name), "parts", (2,))[-1]
    if not any(re.search(r"[*0-9]", text) for text in layouts):
        return {"method": name, "split": None}
    widths = {width: near_equal(width, parts) for width in _widths(config)}
    return {"method": name, "split": dict.fromkeys(("out", "in"), widths)}


def _widths(config: Any) -> set[int]:
    """Return the widths of a model's attention matrices."""
    from tensoradapt.sites.find import find_sites

    return {width for site in find_sites(config) for width in (site.out, site.in_)}


def formula(factoring: Any) -> str:
    """Return the count of parameters in words, as the docstring of ``count`` begins with it."""
    return first_paragraph(factoring.count).removeprefix("Return ").rstrip(".")


def first_paragraph(of: object) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(of) or "").split("\n\n")[0].split())


def unmarked(text: str) -> str:
    """Return a text without the marks of reStructuredText and Markdown, as a terminal shows it.

    >>> unmarked("CP: ``delta = sum_k F1``, :math:`r` columns")
    'CP: delta = sum_k F1, r columns'
    """
    return re.sub(r":\w+:(?=`)|`", "", text)

"""All methods as one table, with the numbers that each has on a model. No torch."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tensoradapt import checks, parameterizations
from tensoradapt import published as papers
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.layout import Pattern
from tensoradapt.planning.build_plan import plan
from tensoradapt.planning.spec import tasks_of
from tensoradapt.planning.splits import usual_split
from tensoradapt.published import registry
from tensoradapt.published.row import Published
from tensoradapt.sites.find import config_of, find_sites
from tensoradapt.text import bonds_text

if TYPE_CHECKING:
    from pandas import DataFrame

Row = dict[str, Any]
KINDS = ("parameterization", "published")
RANK = 8
SIZES = "6 layers, 384 wide, as all-MiniLM-L6-v2"  # so that a table without a model needs no file
MINILM = SimpleNamespace(
    model_type="bert", hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
)


def _refuse_method(model: Any) -> None:
    """Raise TensorAdaptError for the name of a method in the place of a model."""
    if isinstance(model, str) and model in registry.names():
        raise TensorAdaptError(
            f"the model is {model!r}, which is a method; ta.methods() has a row for each, ta.plan(model, {model!r}, "
            f"rank=8) counts it on a model, and tensoradapt methods {model} describes it"
        )


def methods(
    model: Any = None,
    *,
    rank: int = RANK,
    budget: int | str | None = None,
    layout: str | None = None,
    kind: str | None = None,
    exports_as_lora: bool = False,
) -> DataFrame:
    """Return every method as a row of a table, with its numbers on a model (docs/reference/methods.md).

    All adapt the model's attention at equal footing, as ``plan(model, name, rank=rank)`` does.
    ``print(table.to_string())`` shows all columns.

    Args:
        model: a model, its config, or its name or folder; by default one of the sizes of all-MiniLM-L6-v2.
        rank: the rank at which parameters are counted.
        budget: the most parameters, in place of ``rank``; methods that need more at rank 1 are left out.
        layout: the layout to count parameterizations over, in place of their usual ones. Those that cannot take it are
            left out, and published adapters of other layouts.
        kind: "parameterization" or "published"; by default both.
        exports_as_lora: whether to leave out methods whose update, exported as a LoRA, is not even half as small as
            the matrices.

    Returns:
        A DataFrame with a row for each method: ``name``, ``kind``, ``n_params`` (missing where the method is not
        defined on this model), ``rank`` (as used), ``lora_rank`` (of the LoRA that an export writes, and the most that
        the rank of a matrix's update can be), ``parameterization``, ``layout``, ``formula`` of the parameters,
        ``when`` to choose it, and ``source``.

    Raises:
        TensorAdaptError: for a model, rank, budget, layout or kind that cannot be.

    >>> import tensoradapt as ta
    >>> table = ta.methods(kind="parameterization")
    >>> table.loc[table["name"] == "cp", ["n_params", "lora_rank"]].to_numpy().tolist()
    [[3504, 8]]
    """
    from tensoradapt.lab.frames import Methods

    given = locals()
    checks.check_arguments({name: given[name] for name in _CHECKS}, **_CHECKS)
    _refuse_method(model)
    config = config_of(MINILM if model is None else model)
    rows = counted(method_rows(kind, layout), config, {"rank": rank} if budget is None else {"budget": budget}, layout)
    if budget is not None or layout is not None:
        rows = [row for row in rows if row["fault"] is None]
    table = Methods([row for row in rows if row["small"] or not exports_as_lora], columns=COLUMNS)
    table["rank"] = [rank and bonds_text(rank) for rank in table["rank"]]
    return Methods(table.astype({"n_params": "Int64", "lora_rank": "Int64"}))


COLUMNS = [
    *("name", "kind", "n_params", "rank", "lora_rank"),
    *("parameterization", "layout", "formula", "when", "source"),
]
_COUNTS = ("n_params", "rank", "lora_rank", "small")
_PAPER = re.compile(r"(?:[A-Z][\w-]+(?: et al\.)?, )?arXiv [\d.]+\d|[A-Z][\w ]+, [A-Z][\w. ]+\(\d{4}\)")
_CHECKS: Mapping[str, Any] = {
    "rank": checks.whole,
    "budget": checks.optional(checks.count),
    "layout": checks.optional(checks.text),
    "kind": checks.optional(partial(checks.one_of, KINDS)),
    "exports_as_lora": checks.flag,
}


def method_rows(kind: str | None = None, layout: str | None = None) -> list[Row]:
    """Return what is known of each method without a model: name, kind, parameterization, layout, formula, when, source.

    Args:
        kind: "parameterization" or "published" for these alone; a name that is both is a parameterization by default.
        layout: leaves out published adapters of other layouts; parameterizations take any.
    """
    asked = None if layout is None else Pattern.parse(layout)
    factored = registry.names()
    names = {None: factored, KINDS[0]: parameterizations.names(), KINDS[1]: papers.names()}[kind]
    found = [_row(name, kind) for name in names]
    return found if asked is None else [row for row in found if _takes(row, asked)]


def _takes(row: Row, layout: Pattern) -> bool:
    return row["kind"] == KINDS[0] or ("*" not in row["layout"] and str(layout) == row["layout"])


def _row(name: str, kind: str | None) -> Row:
    found = registry.find(name, paper=kind == KINDS[1])
    row, factored = found.row, found.parameterization
    paper = row or papers.named(name)
    factoring = parameterizations.get(factored)
    return {
        "name": name,
        "kind": KINDS[row is not None],
        "parameterization": factored,
        "layout": "; ".join(row.layout if row else parameterizations.layouts_of(factoring)),
        "formula": row.formula if row else formula(factoring),
        "when": bare(parameterizations.advice(factoring)).removeprefix("Choose it ").rstrip("."),
        "source": paper.source.split(";")[0] if paper else _source(factoring),
    }


def counted(rows: Sequence[Row], config: Any, size: Mapping[str, Any], layout: str | None = None) -> list[Row]:
    """Return rows with their counts at the sizes of a model, and as ``fault`` why a method is not defined on it.

    Args:
        rows: of ``method_rows``.
        config: of the model.
        size: rank or budget, as ``plan`` takes them.
        layout: in place of the usual ones of parameterizations.
    """
    find_sites(config)  # whose error is one of the model
    return [{**row, **_counts(row["name"], config, size, layout)} for row in rows]


def _counts(name: str, config: Any, size: Mapping[str, Any], layout: str | None) -> Row:
    try:
        given = usual_arguments(name, config, layout)
        groups = (made := plan(config, **given, **size)).groups
    except TensorAdaptError as error:
        return {**dict.fromkeys(_COUNTS), "fault": str(error)}
    return {
        "n_params": made.n_params,
        "rank": groups[0].rank or None,
        "lora_rank": max(group.network.cut.rank for group in groups),
        "layout": "; ".join(dict.fromkeys(str(group.network.layout) for group in groups)),
        "small": all(group.pairs_are_small for group in groups),
        "tasks": made.spec.n_tasks if made.spec.tasks else 0,
        "fault": None,
    }


def usual_arguments(name: str, config: Any, layout: str | None = None) -> dict[str, Any]:
    """Return the arguments of ``plan`` for a method on equal footing, with two tasks where it is for several.

    Args:
        name: a method.
        config: a model's, whose widths a parameterization over split modes divides.
        layout: the layout, in place of the method's usual ones.
    """
    if (row := registry.find(name).row) is not None:
        return {"method": name, **_tasks(row.layout)}
    usual = (layout,) if layout else parameterizations.layouts_of(name)
    arguments = {"method": name, **_tasks(usual)} | ({"layout": layout} if layout else {})
    if any(re.search("[*0-9]", text) for text in usual):
        factoring = parameterizations.get(name)
        modes = dict.fromkeys(("out", "in"), getattr(factoring, "parts", (2,))[-1])
        arguments["split"] = usual_split(find_sites(config), modes, getattr(factoring, "near", (1, 1)))
    return arguments


def paper_arguments(row: Published) -> dict[str, Any]:
    """Return the arguments of ``plan`` for a published adapter as in its paper, with two tasks where it is for more."""
    return {"method": row.name, "paper": True, **_tasks(row.layout)}


def _tasks(layouts: Sequence[str]) -> dict[str, Any]:
    return {"tasks": tasks} if (tasks := tasks_of(layouts, ("a", "b"))) else {}


def formula(factoring: Any) -> str:
    """Return the count of parameters in words, as the docstring of ``count`` begins with it."""
    said = " ".join((inspect.getdoc(factoring.count) or "").split("\n\n")[0].split())
    return bare(said).removeprefix("Return ").rstrip(".")


def _source(factoring: Any) -> str:
    """Return the first paper that a parameterization's docstring names; "" where it names none."""
    found = _PAPER.search(" ".join((inspect.getdoc(factoring) or "").split()))
    return found[0] if found else ""


def bare(text: str) -> str:
    """Return a text without the marks of reStructuredText and Markdown, as a terminal shows it.

    >>> bare("CP: ``delta = sum_k F1``, :math:`r` columns")
    'CP: delta = sum_k F1, r columns'
    """
    return re.sub(r":\w+:(?=`)|`", "", text)

"""All methods as one table, with the numbers that each has on a model. No torch."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tensoradapt import checks, parameterizations
from tensoradapt import published as papers
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.layout import Pattern, near_equal
from tensoradapt.planning.build_plan import plan
from tensoradapt.planning.plan import Plan
from tensoradapt.published import methods as every
from tensoradapt.sites.find import config_of, find_sites
from tensoradapt.text import bonds_text

if TYPE_CHECKING:
    from pandas import DataFrame

KINDS = ("parameterization", "published")
RANK = 8
# the sizes of all-MiniLM-L6-v2, so that a table without a model needs no file
MINILM = SimpleNamespace(
    model_type="bert", hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
)


def methods(
    model: Any = None,
    *,
    rank: int = RANK,
    budget: int | None = None,
    layout: str | None = None,
    kind: str | None = None,
    exports_as_lora: bool = False,
) -> DataFrame:
    """Return every method as a row of a table, with its numbers on a model (docs/reference/methods.md).

    All adapt the model's attention at equal footing, as ``plan(model, name, rank=rank)`` does.

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
        the rank of a matrix's update can be), ``layout``, ``formula`` of the parameters, ``when`` to choose it, and
        ``source``.

    Raises:
        TensorAdaptError: for a model, rank, budget, layout or kind that cannot be.

    >>> table = methods(kind="parameterization")
    >>> table.loc[table["name"] == "cp", ["n_params", "lora_rank"]].to_numpy().tolist()
    [[3504, 8]]
    """
    from pandas import DataFrame

    checks.check_arguments(locals(), **_CHECKS)
    config = config_of(MINILM if model is None else model)
    size: dict[str, Any] = {"rank": rank} if budget is None else {"budget": budget}
    asked = [name for name in every.names() if kind in (None, _kind(name)) and _takes(name, layout)]
    find_sites(config)  # whose error is one of the model
    rows = [_row(name, config, layout, size) for name in asked]
    if budget is not None or layout is not None:
        rows = [row for row in rows if row["n_params"] is not None]
    table = DataFrame([row for row in rows if row["small"] or not exports_as_lora], columns=COLUMNS)
    return table.astype({"n_params": "Int64", "lora_rank": "Int64"})


COLUMNS = ["name", "kind", "n_params", "rank", "lora_rank", "layout", "formula", "when", "source"]
_PAPER = re.compile(r"(?:[A-Z][\w-]+(?: et al\.)?, )?arXiv [\d.]+\d|[A-Z][\w ]+, [A-Z][\w. ]+\(\d{4}\)")
_CHECKS: Mapping[str, Any] = {
    "rank": checks.whole,
    "budget": checks.optional(checks.whole),
    "layout": checks.optional(checks.text),
    "kind": checks.optional(lambda given, where: checks.one_of(KINDS, given, where)),
    "exports_as_lora": checks.flag,
}


def _kind(name: str) -> str:
    return KINDS[name not in parameterizations.names()]


def _takes(name: str, layout: str | None) -> bool:
    """Say whether a method may be asked for a layout: a published adapter has its own."""
    _, row = every.find(name)
    return layout is None or row is None or row.layout == (str(Pattern.parse(layout)),)


def _row(name: str, config: Any, layout: str | None, size: dict[str, Any]) -> dict[str, Any]:
    """Return a method's row; counts are None where the method is not defined on the model."""
    _, row = every.find(name)
    paper = row or papers.named(name)
    factoring = parameterizations.get(row.parameterization if row else name)
    try:
        made: Plan | None = plan(config, **usual_arguments(name, config, layout), **size)
    except TensorAdaptError:
        made = None
    return {
        "name": name,
        "kind": _kind(name),
        "formula": row.formula if row else formula(factoring),
        "when": bare(parameterizations.advice(factoring)).removeprefix("Choose it ").rstrip("."),
        "source": paper.source if paper else _source(factoring),
        **(_counts(made) if made else dict.fromkeys(("n_params", "rank", "lora_rank", "layout", "small"))),
    }


def _counts(made: Plan) -> dict[str, Any]:
    ranks = dict.fromkeys(bonds_text(group.rank) for group in made.groups)
    return {
        "n_params": made.n_params,
        "rank": "; ".join(filter(None, ranks)),
        "lora_rank": max(group.network.cut.rank for group in made.groups),
        "layout": "; ".join(dict.fromkeys(str(group.network.layout) for group in made.groups)),
        "small": all(group.pairs_are_small for group in made.groups),
    }


def usual_arguments(name: str, config: Any, layout: str | None = None) -> dict[str, Any]:
    """Return the arguments of ``plan`` for a method, with two tasks where it is for several.

    Args:
        name: a method.
        config: a model's, whose widths a parameterization over split modes divides.
        layout: the layout, in place of the method's usual ones.
    """
    _, row = every.find(name)
    usual = (layout,) if layout else row.layout if row else parameterizations.layouts_of(name)
    arguments: dict[str, Any] = {"method": name} | ({"layout": layout} if layout else {})
    if any("task" in text.split(":")[0] for text in usual):
        arguments["tasks"] = ("a", "b")
    if not row and papers.named(name) is None and any(any(c in text for c in "*0123456789") for text in usual):
        parts = getattr(parameterizations.get(name), "parts", (2,))[-1]
        widths = {width: near_equal(width, parts) for site in find_sites(config) for width in (site.out, site.in_)}
        arguments["split"] = dict.fromkeys(("out", "in"), widths)
    return arguments


def formula(factoring: Any) -> str:
    """Return the count of parameters in words, as the docstring of ``count`` begins with it."""
    said = " ".join((inspect.getdoc(factoring.count) or "").split("\n\n")[0].split())
    return bare(said).removeprefix("Return ").rstrip(".")


def _source(factoring: Any) -> str:
    """Return the first paper that a parameterization's docstring names; "" where it names none."""
    found = _PAPER.search(" ".join((inspect.getdoc(factoring) or "").split()))
    return found[0] if found else ""


def bare(text: str) -> str:
    """Return a text of a docstring without its markup."""
    return text.replace("``", "")

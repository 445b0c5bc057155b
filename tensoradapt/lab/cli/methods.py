"""The command ``methods``: all parameterizations and published adapters, or one in full."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tensoradapt import checks, parameterizations, published
from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.lab.cli.options import DEFAULT_MODEL, METHODS, MORE, Count, Json, Maybe, Model, one_of
from tensoradapt.lab.cli.output import complain, show, show_json, show_table, show_text
from tensoradapt.lab.methods import (
    KINDS,
    MINILM,
    SIZES,
    Row,
    bare,
    counted,
    formula,
    method_rows,
    paper_arguments,
    usual_arguments,
)
from tensoradapt.networks.network import Factor, Network
from tensoradapt.planning.size import Size
from tensoradapt.published import registry
from tensoradapt.published.registry import Method
from tensoradapt.text import bonds_text, prose

MORE_TEXT = "methods NAME shows one in full, --kind the formulas of all; --model NAME or --budget N counts parameters."
SIZE = one_of()


def methods(
    name: Annotated[str | None, Parameter(completer=METHODS)] = None,
    /,
    *,
    model: Annotated[str | None, *Model.__metadata__] = None,
    rank: Annotated[int | None, Parameter(group=SIZE, metavar="R")] = None,
    budget: Annotated[Count, Parameter(group=SIZE)] = None,
    kind: Annotated[str | None, Parameter(completer=lambda _: KINDS)] = None,
    draw: Maybe = None,
    wide: bool = False,
    layout: Annotated[str | None, Parameter(group=MORE)] = None,
    exports_as_lora: Annotated[bool, Parameter(group=MORE)] = False,
    json: Json = False,
) -> None:
    """List all methods, with their counts where an option asks for them, or show one in full.

    Args:
        name: show this one in full
        model: count at the sizes of a built-in model, a folder, or a hub name (default: those of all-MiniLM-L6-v2)
        rank: the rank to count at (default: 8)
        budget: only those with at most N parameters, at the largest rank
        kind: parameterization or published (default: both)
        draw: draw the network of NAME too, into a PNG, PDF or SVG file
        wide: show all columns, whatever the width of the terminal
        layout: those over it, such as "layer : out : in"
        exports_as_lora: those whose updates are small as a LoRA
    """
    if kind not in (None, *KINDS):
        raise TensorAdaptError(f"--kind is {shown(kind)}{did_you_mean(kind, KINDS)}")
    if rank is not None:
        checks.whole(rank, "--rank")
    if draw is not None and name is None:
        raise TensorAdaptError(f"--draw {draw} was given without a method; name one, as in: methods cp --draw FILE")
    filters = {"--kind": kind, "--layout": layout, "--exports-as-lora": exports_as_lora, "--budget": budget}
    if name is not None and (asked := [option for option, value in filters.items() if value]):
        raise TensorAdaptError(f"{asked[0]} chooses among all methods; leave {name} out")
    size = Size(None if budget else rank or 8, budget)
    if name is not None:
        _print_one(name, model or DEFAULT_MODEL, rank or 8, draw, json)
        return
    counting = exports_as_lora or any(value is not None for value in (model, rank, budget, layout))
    rows = method_rows(kind, layout)
    rows = counted(rows, _config(model), size.asked, layout) if counting else rows
    left = {row["name"]: fault for row in rows if (fault := row.pop("fault", None))}
    rows = [row for row in rows if row["name"] not in left and (row.pop("small", False) or not exports_as_lora)]
    if json:
        show_json({**({"model": model or SIZES, **size.asked} if counting else {}), "methods": rows, "left_out": left})
        return
    if counting and rows:
        at = f"at most {budget:,} parameters" if budget else f"rank {rank or 8}"
        show_text(f"{at}, counted at {model or SIZES}; all adapt its attention, on equal footing", "")
    _print_tables(sorted(rows, key=lambda row: row.get("n_params", 0)), counting, kind is None, wide)
    if left:
        show_text("", f"left out, as they are not defined there: {', '.join(left)} (methods NAME says why)")


def _config(model: str | None) -> Any:
    from tensoradapt.lab.data import models

    return MINILM if model is None else models.config(model)


def _print_tables(rows: Sequence[Row], counting: bool, short: bool, wide: bool) -> None:
    """Print a table for each kind of methods."""
    if not rows:
        show_text("no method is of this kind; leave an option out, or raise the budget")
    for kind, title in zip(KINDS, ("Parameterizations", "Published adapters"), strict=True):
        if of_kind := [row for row in rows if row["kind"] == kind]:
            show_text(title, style="bold")
            titles, *texts = _counted(of_kind) if counting else _purposes(of_kind) if short else _formulas(of_kind)
            show_table(titles, texts, range(len(titles)) if len(titles) > 3 else (), wide)
            show_text("")
    if not (counting or short) and rows[-1:] and rows[-1]["kind"] == KINDS[1]:
        show_text(f"Letters: {published.LETTERS}.", "")
    show_text(f"tensoradapt {MORE_TEXT}")


def _purposes(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return what each parameterization is for; of published adapters those of each parameterization together."""
    if rows[0]["kind"] == KINDS[0]:
        return [("name", "choose it"), *((row["name"], row["when"]) for row in rows)]
    names: dict[str, list[str]] = {}
    for row in rows:
        names.setdefault(row["parameterization"], []).append(row["name"])
    return [("is a", "names"), *((factored, ", ".join(adapters)) for factored, adapters in names.items())]


def _formulas(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    if rows[0]["kind"] == KINDS[0]:
        return [("name", "choose it", "parameters"), *((row["name"], row["when"], row["formula"]) for row in rows)]
    cells = [(r["name"], r["formula"], r["layout"], r["source"], r["parameterization"]) for r in rows]
    return [("name", "parameters", "over", "source", "is a"), *cells]


def _counted(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    what, title = ("when", "choose it") if rows[0]["kind"] == KINDS[0] else ("source", "source")
    names = [f"{row['name']} ({row['tasks']} tasks)" if row["tasks"] else row["name"] for row in rows]
    cells = [
        (name, f"{row['n_params']:,}", Size(row["rank"]).short, f"{row['lora_rank']:,}", row[what])
        for name, row in zip(names, rows, strict=True)
    ]
    return [("name", "parameters", "rank", "LoRA rank", title), *cells]


def _meant(name: str) -> list[Method]:
    """Return the parameterization and the published adapter that a text stands for."""
    method, paper = registry.find(name), registry.known(name, paper=True)
    return [method] if paper in (None, method) else [method, paper]


def _print_one(name: str, model: str, rank: int, draw: Path | None, json: bool) -> None:
    from tensoradapt.lab.data import models

    config = models.config(model)
    if json:
        rows = [row for row in method_rows() if row["name"] in {method.name for method in _meant(name)}]
        show_json({"model": model, "methods": counted(rows, config, {"rank": rank})})
    else:
        for i, method in enumerate(_meant(name)):
            show_text(*("", "") * (i > 0))
            arguments = usual_arguments(method.name, config) if method.row is None else paper_arguments(method.row)
            show_text(*(_parameterization(method) if method.row is None else _published(method.row)), "")
            _print_planned(config, model, rank, arguments)
    if draw is not None:
        (complain if json else show)("\n".join(_drawing(name, config, rank, draw)))


def _parameterization(method: Method) -> list[str]:
    """Return the advice, the formula and the names of a parameterization, as paragraphs."""
    factoring = parameterizations.get(method.name)
    advice, doc = bare(parameterizations.advice(factoring)), bare(inspect.getdoc(factoring) or "")
    paragraphs = [" ".join(part.split()).replace(advice, "").strip() for part in doc.split("\n\n")]
    options = list(inspect.signature(factoring.build).parameters)[2:]
    rows = [row.name for row in published.every() if row.parameterization == method.name]
    texts = {"parameters": f"{formula(factoring)}." if factoring.count.__doc__ else ""}
    texts |= {"usual layouts": "; ".join(parameterizations.layouts_of(factoring)), "options": ", ".join(options)}
    texts["published adapters"] = ", ".join(rows)
    listed = [f"{title}: {text}" for title, text in texts.items() if text]
    return [f"{method.name}: {method.label}. {advice}", "", *filter(None, paragraphs), "", *listed]


def _published(row: Any) -> list[str]:
    layouts = "; ".join(f"{text}  ({' '.join(projections)})" for text, projections in row.tensors)
    counts = f"parameters {row.formula}; start {row.start}; scale {row.scale}, alpha {row.alpha:g}"
    return ["", f"{row.name}: {row.parameterization} over {layouts}", *filter(None, (row.note, counts, row.source))]


def _print_planned(config: Any, model: str, rank: int, arguments: dict[str, Any]) -> None:
    """Print the parameters of a plan, and the factors of its first tensor with the bonds that each has."""
    import tensoradapt as ta

    try:
        planned = ta.plan(config, rank=rank, **arguments)
    except TensorAdaptError as error:
        show_text(f"{model}, rank {rank}: {error}", "")
        return
    group, n = planned.groups[0], len(planned.groups)
    tensors = f"{n} tensors; the first is" if n > 1 else "one tensor,"
    ranks = f", ranks {bonds_text(group.rank)}" if group.rank else ""
    head = f"{model}, rank {rank}: {planned.n_params:,} parameters in {tensors}"
    show_text(f"{head} over {str(group.network.layout)!r} {group.network.layout.shape}{ranks}", "")
    show_table(
        ("factor", "axes, in this order", "numbers", "starts"), factor_rows(group.network, planned.begins.origin)
    )


def factor_rows(network: Network, origin: str) -> list[tuple[str, ...]]:
    """Return the name of each factor, its modes and bonds, its numbers, and how it starts."""
    return [_factor(network, factor, origin) for factor in network.factors]


def _factor(network: Network, factor: Factor, origin: str) -> tuple[str, ...]:
    axes = " x ".join(f"{label}={network.sizes[label]}" for label in factor.labels)
    sources = {"base": f"from {origin}", "set": "set"}
    start = sources.get(factor.source, "at zero" if factor.init == "zero" else "drawn")
    count = f"{math.prod(network.shape(factor)):,}"
    return factor.name, axes, count, start if factor.trainable else f"{start}, frozen"


def _drawing(name: str, config: Any, rank: int, path: Path) -> tuple[str, str]:
    """Draw the network of a method's first tensor into a file; return its path, and what the drawing shows."""
    from matplotlib.figure import Figure

    import tensoradapt as ta
    from tensoradapt.files import replace_file
    from tensoradapt.lab.analysis.plots._files import UNDATED, rendered
    from tensoradapt.lab.analysis.plots.network import described, draw, size

    if (kind := path.suffix[1:]) not in UNDATED:
        raise TensorAdaptError(f"{path} has no ending of a figure; expected one of .{', .'.join(UNDATED)}")
    method = registry.find(name)
    arguments = paper_arguments(method.row) if method.row else usual_arguments(method.name, config)
    plan = ta.plan(config, rank=rank, **arguments)
    figure = Figure(figsize=size(plan))
    draw(plan, figure.add_axes((0, 0, 1, 1)))
    return str(replace_file(path, rendered(figure, kind))), prose(described(plan))

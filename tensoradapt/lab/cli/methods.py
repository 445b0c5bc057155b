"""The command ``methods``: all parameterizations and published adapters, one in full, and the page of all."""

from __future__ import annotations

import argparse
import inspect
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tensoradapt import checks, parameterizations, published
from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.lab.cli.options import DEFAULT_MODEL, n_params, path
from tensoradapt.lab.cli.output import complain, heading, show, show_json, show_text, width
from tensoradapt.lab.cli.parser import add_command
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
from tensoradapt.text import align, bonds_text, prose

HEAD = """# Methods

Made by `tensoradapt methods --markdown`; do not edit. A parameterization is one file in
`tensoradapt/parameterizations/`, a published adapter one row of `tensoradapt/published/rows.py`.

"""

PAPER = (
    "By default a plan takes of a row what defines the method: layout, options, frozen factors and a start that is not",
    "zero. With `paper=True` it takes targets, scale, alpha and trained modules from the paper too, as below.",
)

FILTERS = ("kind", "layout", "exports_as_lora", "budget")


def add_parsers(commands: Any) -> None:
    """Add the command to those of a parser (``add_subparsers``)."""
    p = add_command(
        commands,
        "methods",
        methods,
        "list parameterizations and published adapters, or show one in full",
        "[NAME] [options]",
        "Lists all methods and what each is for, or, with any option of counting, their parameters at the sizes of a "
        "model. NAME: formula, factors, parameters and diagram of one.",
    )
    p.add_argument("name", nargs="?", metavar="NAME", help="show this one in full")
    counting = p.add_argument_group("counting")
    counting.add_argument(
        "--model", help=f"count at the sizes of a built-in model, a folder, or a hub name (default: {SIZES})"
    )
    size = counting.add_mutually_exclusive_group()
    size.add_argument("--rank", type=int, help="the rank to count at (default: 8)")
    size.add_argument(
        "--budget", type=n_params, metavar="N", help="only those with at most N parameters; at the largest rank"
    )
    which = p.add_argument_group("which methods")
    which.add_argument("--kind", help=f"{' or '.join(KINDS)} (default: both)")
    which.add_argument("--layout", metavar="LAYOUT", help='those over it, such as "layer : out : in"')
    which.add_argument("--exports-as-lora", action="store_true", help="those whose updates are small as a LoRA")
    more = p.add_argument_group("files and pages")
    more.add_argument("--draw", metavar="FILE", type=path, help="draw the network of NAME too: a PNG, PDF or SVG file")
    more.add_argument("--markdown", action="store_true", help="print the page of all methods, as the site has it")


def methods(args: argparse.Namespace) -> int:
    """Print all methods, one in full, their counts at a model's sizes, or the page of all."""
    _check_together(args)
    rank = 8 if args.rank is None else args.rank
    if args.markdown:
        print(methods_page(), end="")
    elif args.name is not None:
        _print_one(args, rank)
    else:
        _print_list(args, rank)
    return 0


def _check_together(args: argparse.Namespace) -> None:
    """Raise TensorAdaptError for options that say nothing together."""
    if args.kind not in (None, *KINDS):
        raise TensorAdaptError(f"--kind is {shown(args.kind)}{did_you_mean(args.kind, KINDS)}")
    if args.draw is not None and args.name is None:
        raise TensorAdaptError(
            f"--draw {args.draw} was given without a method; name one, as in: methods cp --draw FILE"
        )
    if args.rank is not None:
        checks.whole(args.rank, "--rank")
    given = [f"--{name.replace('_', '-')}" for name in FILTERS if getattr(args, name)]
    if given and (args.name is not None or args.markdown):
        raise TensorAdaptError(f"{given[0]} chooses among all methods; leave {args.name or '--markdown'} out")
    if args.markdown and args.json:
        raise TensorAdaptError("--markdown and --json were given; expected one of them")


def _print_one(args: argparse.Namespace, rank: int) -> None:
    from tensoradapt.lab.data import models

    model = args.model or DEFAULT_MODEL
    config = models.config(model)
    if args.json:
        rows = [row for row in method_rows() if row["name"] in {found.name for found in _meant(args.name)}]
        show_json({"model": model, "methods": counted(rows, config, {"rank": rank})})
    else:
        show(*in_full(args.name, config, model, rank))
    if args.draw is not None:
        path, said = _drawing(args.name, config, rank, args.draw)
        (complain if args.json else show)(f"{path}\n{said}")


def _print_list(args: argparse.Namespace, rank: int) -> None:
    """Print the methods that were asked for, with their counts where an option asks for them."""
    rows, size = method_rows(args.kind, args.layout), Size(None if args.budget else rank, args.budget)
    counting = any(getattr(args, name) is not None for name in ("model", "rank", "budget", "layout"))
    if counting or args.exports_as_lora:
        rows = counted(rows, _config(args.model), size.asked, args.layout)
    left = {row["name"]: fault for row in rows if (fault := row.pop("fault", None))}
    rows = [row for row in rows if row["name"] not in left and (row.pop("small", False) or not args.exports_as_lora)]
    if args.json:
        at = {"model": args.model or SIZES, **size.asked} if counting else {}
        show_json({**at, "methods": rows, "left_out": left})
        return
    _print_tables(sorted(rows, key=lambda row: row.get("n_params", 0)), args, size if counting else Size())
    if left:
        show_text("", f"left out, as they are not defined there: {', '.join(left)} (methods NAME says why)")


def _config(model: str | None) -> Any:
    from tensoradapt.lab.data import models

    return MINILM if model is None else models.config(model)


def _print_tables(rows: Sequence[Row], args: argparse.Namespace, size: Size) -> None:
    """Print a table for each kind of methods."""
    if not rows:
        show_text("no method is of this kind; leave an option out, or raise the budget")
        return
    if size:
        at = f"at most {size.budget:,} parameters" if size.budget else f"rank {size.rank}"
        show_text(f"{at}, counted at {args.model or SIZES}; all adapt its attention, on equal footing", "")
    short = not size and args.kind is None and args.layout is None
    for kind, title in zip(KINDS, ("Parameterizations", "Published adapters"), strict=True):
        if found := [row for row in rows if row["kind"] == kind]:
            heading(title)
            texts = _counted_texts(found) if size else _purposes(found) if short else _formula_texts(found)
            show(*align(texts, width()), "")
    letters = [f"Letters: {published.LETTERS}.", ""] if not (size or short or args.kind == KINDS[0]) else []
    more = "methods NAME shows one in full, --kind the formulas of all; --model NAME or --budget N counts parameters."
    show_text(*letters, f"tensoradapt {more}")


def _purposes(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return what each parameterization is for; of published adapters those of each parameterization together."""
    if rows[0]["kind"] == KINDS[0]:
        return [("name", "choose it"), *((row["name"], row["when"]) for row in rows)]
    names: dict[str, list[str]] = {}
    for row in rows:
        names.setdefault(row["parameterization"], []).append(row["name"])
    return [("is a", "names"), *((factored, ", ".join(own)) for factored, own in names.items())]


def _formula_texts(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    if rows[0]["kind"] == KINDS[0]:
        return [("name", "choose it", "parameters"), *((row["name"], row["when"], row["formula"]) for row in rows)]
    cells = [(r["name"], r["parameterization"], r["layout"], r["formula"], r["source"]) for r in rows]
    return [("name", "is a", "over", "parameters", "source"), *cells]


def _counted_texts(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    head = ("name", "parameters", "rank", "LoRA rank", "choose it" if rows[0]["kind"] == KINDS[0] else "source")
    cells = [
        (
            row["name"],
            f"{row['n_params']:,}" + (f" ({row['tasks']} tasks)" if row["tasks"] else ""),
            Size(row["rank"]).short,
            f"{row['lora_rank']:,}",
            row["when"] if row["kind"] == KINDS[0] else row["source"],
        )
        for row in rows
    ]
    return [head, *cells]


def _meant(name: str) -> list[Method]:
    """Return the parameterization and the published adapter that a text stands for."""
    found, paper = registry.find(name), registry.known(name, paper=True)
    return [found] if paper in (None, found) else [found, paper]


def in_full(name: str, config: Any, model: str, rank: int) -> Iterator[str]:
    """Yield formula, advice, factors, parameters and diagram of a parameterization, a published adapter, or both."""
    for found in _meant(name):
        if found.row is None:
            yield from _parameterization(found, config, model, rank)
        else:
            yield from _folded(f"{_described(found.row)}\n")
            yield from _planned(config, model, rank, **paper_arguments(found.row))


def _drawing(name: str, config: Any, rank: int, path: Path) -> tuple[str, str]:
    """Draw the network of a method's first tensor into a file; return its path, and what the drawing shows."""
    from matplotlib.figure import Figure

    import tensoradapt as ta
    from tensoradapt.files import replace_file
    from tensoradapt.lab.analysis.plots._files import UNDATED, rendered
    from tensoradapt.lab.analysis.plots.network import described, draw, size

    if (kind := path.suffix[1:]) not in UNDATED:
        raise TensorAdaptError(f"{path} has no ending of a figure; expected one of .{', .'.join(UNDATED)}")
    found = registry.find(name)
    given = paper_arguments(found.row) if found.row else usual_arguments(found.name, config)
    plan = ta.plan(config, rank=rank, **given)
    figure = Figure(figsize=size(plan))
    draw(plan, figure.add_axes((0, 0, 1, 1)))
    return str(replace_file(path, rendered(figure, kind))), prose(described(plan))


def _parameterization(method: Method, config: Any, model: str, rank: int) -> Iterator[str]:
    name = method.name
    factoring = parameterizations.get(name)
    layouts = parameterizations.layouts_of(factoring)
    options = list(inspect.signature(factoring.build).parameters)[2:]
    rows = [row.name for row in published.every() if row.parameterization == name]
    yield from (
        f"{name}: {method.label}\n",
        *_folded(bare(inspect.getdoc(factoring) or "")),
        "",
    )
    texts = {"usual layouts": "; ".join(layouts), "options": ", ".join(options), "published adapters": ", ".join(rows)}
    if factoring.count.__doc__:
        texts = {"parameters": f"{formula(factoring)}.", **texts}
    yield from (line for title, text in texts.items() if text for line in _folded(f"{title}: {text}"))
    yield ""
    yield from _planned(config, model, rank, **usual_arguments(name, config))


def _planned(config: Any, model: str, rank: int, **arguments: Any) -> Iterator[str]:
    """Yield the parameters of a plan, the factors of its first tensor, and how they are joined."""
    import tensoradapt as ta

    try:
        planned = ta.plan(config, rank=rank, **arguments)
    except TensorAdaptError as error:
        yield from _folded(f"{model}, rank {rank}: {error}")
        return
    network = planned.groups[0].network
    tensors = f"{len(planned.groups)} tensors; the first is" if len(planned.groups) > 1 else "one tensor,"
    ranks = f", ranks {bonds_text(planned.groups[0].rank)}" if planned.groups[0].rank else ""
    head = f"{model}, rank {rank}: {planned.n_params:,} parameters in {tensors}"
    yield from _folded(f"{head} over {str(network.layout)!r} {network.layout.shape}{ranks}\n")
    factors = map(_factor(network, planned.begins.origin), network.factors)
    rows = [("factor", "axes, in this order", "numbers", "starts", ""), *factors]
    yield from align(rows, width())
    yield f"\n{diagram(network)}\n"


def _factor(network: Network, origin: str) -> Callable[[Factor], tuple[str, ...]]:
    def row(factor: Factor) -> tuple[str, ...]:
        axes = " x ".join(f"{label}={network.sizes[label]}" for label in factor.labels)
        n = math.prod(network.shape(factor))
        sources = {"base": f"from {origin}", "set": "set"}
        start = sources.get(factor.source, "at zero" if factor.init == "zero" else "drawn")
        return factor.name, axes, f"{n:,}", start, "" if factor.trainable else "frozen"

    return row


def diagram(network: Network) -> str:
    """Draw which factors hold which modes and bonds. A factor has an ``o`` at each of its bonds.

    >>> from tensoradapt.networks.layout import Layout
    >>> from tensoradapt.parameterizations.tensor_train import build
    >>> print(diagram(build(Layout.parse("layer : out : in", {"layer": 6, "out": 8, "in": 8}), 2)))
                      r_in=2   r_layer=2
       in=8 -[ in  ]--o
                      |
    layer=6 -[layer]--o--------o
                               |
      out=8 -[ out ]-----------o
    """
    names = network.layout.names
    modes = [" ".join(f"{x}={network.sizes[x]}" for x in f.labels if x in names) for f in network.factors]
    left, middle = max(map(len, modes)), max(len(f.name) for f in network.factors)
    bonds = [f"{bond}={n}" for bond, n in network.bonds.items()]
    head = " " * (left + middle + 4) + "".join(f"  {bond} " for bond in bonds)
    lines = [head.rstrip()] if bonds else []
    for i, (factor, text) in enumerate(zip(network.factors, modes, strict=True)):
        joint = " -" if text else "  "
        lines.append(f"{text:>{left}}{joint}[{factor.name:^{middle}}]{_held(network, factor, i)}")
        if i + 1 < len(network.factors):
            lines.append((" " * (left + middle + 4) + _passing(network, i)).rstrip())
    return "\n".join(line for line in lines if line)


def _holders(network: Network, bond: str) -> list[int]:
    return [i for i, factor in enumerate(network.factors) if bond in factor.labels]


def _held(network: Network, factor: Factor, i: int) -> str:
    """Draw the bonds of one factor: o where it holds one, | where one passes, and the line to its last."""
    bonds, text = list(network.bonds), ""
    last = max((k for k, bond in enumerate(bonds) if bond in factor.labels), default=-1)
    for k, bond in enumerate(bonds):
        holders = _holders(network, bond)
        passes = "|" if holders[0] < i < holders[-1] else "-" if k < last else " "
        mark, line = "o" if bond in factor.labels else passes, "-" if k <= last else " "
        text += f"{line * 2}{mark}{('-' if k < last else ' ') * (_width(network, bond) - 3)}"
    return text.rstrip()


def _passing(network: Network, i: int) -> str:
    """Draw the bonds between factor i and the next."""
    marks = ""
    for bond in network.bonds:
        holders = _holders(network, bond)
        marks += f"  {'|' if holders[0] <= i < holders[-1] else ' '}{' ' * (_width(network, bond) - 3)}"
    return marks


def _width(network: Network, bond: str) -> int:
    return len(f"  {bond}={network.bonds[bond]} ")


def _folded(text: str) -> list[str]:
    """Return the lines of a text, folded at the width of the terminal."""
    room = width() or 120
    return [part for line in text.split("\n") for part in textwrap.wrap(line, room, break_on_hyphens=False) or [line]]


def _described(row: Any) -> str:
    layouts = "; ".join(f"{text}  ({' '.join(projections)})" for text, projections in row.tensors)
    lines = [
        f"\n{row.name}: {row.parameterization} over {layouts}",
        f"  parameters {row.formula}; start {row.start}; scale {row.scale}, alpha {row.alpha:g}",
        f"  {row.source}",
    ]
    return "\n".join(lines + [f"  {row.note}"] * bool(row.note))


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

"""The command ``methods``: all parameterizations and published adapters, one in full, and docs/reference/methods.md."""

from __future__ import annotations

import argparse
import inspect
import math
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tensoradapt import parameterizations, published
from tensoradapt.cli.options import DEFAULT_MODEL
from tensoradapt.cli.output import show
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.networks.layout import near_equal
from tensoradapt.networks.network import Factor, Network
from tensoradapt.published.row import Published
from tensoradapt.text import align, bonds_text, prose

HEAD = """# Methods

Made by `tensoradapt methods --markdown`; do not edit. A parameterization is one file in
`tensoradapt/parameterizations/`, a published adapter one row of `tensoradapt/published/rows.py`.

"""

PAPER = (
    "By default a plan takes of a row what defines the method: layout, options, frozen factors and a start that is not",
    "zero. With `paper=True` it takes targets, scale, alpha and trained modules from the paper too, as below.",
)


def add_parsers(commands: Any) -> None:
    """Add the command to those of a parser (``add_subparsers``)."""
    p = commands.add_parser("methods", help="list parameterizations and published adapters, or show one in full")
    p.set_defaults(command=methods)
    p.add_argument("name", nargs="?", metavar="NAME", help="one of them: formula, factors, parameters, diagram")
    p.add_argument(
        "--model",
        help="count at this model's sizes: a built-in model, a folder, or a hub name (of NAME: "
        f"{DEFAULT_MODEL}; all: not counted)",
    )
    p.add_argument("--rank", type=int, default=8, help="the rank to count at (default: %(default)s)")
    p.add_argument("--draw", metavar="FILE", type=Path, help="draw the network of NAME too: a PNG, PDF or SVG file")
    p.add_argument("--markdown", action="store_true", help="as docs/reference/methods.md")


def methods(args: argparse.Namespace) -> int:
    """Print all methods, one in full, their counts at a model's sizes, or the page docs/reference/methods.md."""
    from tensoradapt.data import models

    if args.markdown:
        print(methods_page(), end="")
    elif args.name is not None:
        config = models.config(args.model or DEFAULT_MODEL)
        show(*in_full(args.name, config, args.model or DEFAULT_MODEL, args.rank))
        if args.draw is not None:
            show(*_drawing(args.name, config, args.rank, args.draw))
    elif args.draw is not None:
        raise TensorAdaptError(
            f"--draw {args.draw} was given without a method; name one, as in: methods cp --draw FILE"
        )
    elif args.model is not None:
        counted = map(_counted(models.config(args.model), args.rank), published.ROWS)
        show(*align([("name", f"parameters at rank {args.rank}"), *counted]))
    else:
        chosen = [(name, _what(name)) for name in parameterizations.names()]
        show("Parameterizations; tensoradapt methods NAME shows one in full\n", *align(chosen))
        show("\nPublished adapters", published.LETTERS, *map(_described, published.ROWS))
    return 0


def spelled(method: str) -> str:
    """Return the name of a parameterization or published adapter that is given in any spelling."""
    row = published.named(method)
    name = parameterizations.name_of(method)
    return row.name if row and name not in parameterizations.names() else name


def _what(name: str) -> str:
    """Return a parameterization's advice, or else what it is."""
    factoring = parameterizations.get(name)
    return parameterizations.advice(factoring) or _first(factoring)


def in_full(name: str, config: Any, model: str, rank: int) -> Iterator[str]:
    """Yield formula, advice, factors, parameters and diagram of a parameterization, a published adapter, or both."""
    row, chosen = published.named(name), parameterizations.name_of(name)
    if chosen in parameterizations.names():
        yield from _parameterization(chosen, config, model, rank)
    elif row is None:
        valid = [*parameterizations.names(), *published.names()]
        raise TensorAdaptError(f"unknown method {name!r}{did_you_mean(name, valid)}")
    if row is not None:
        yield f"{_described(row)}\n"
        yield from _planned(config, model, rank, **arguments_of(row))


def _drawing(name: str, config: Any, rank: int, path: Path) -> tuple[str, str]:
    """Draw the network of a method's first tensor into a file; return its path, and what the drawing shows."""
    from matplotlib.figure import Figure

    import tensoradapt as ta
    from tensoradapt.analysis.plots._files import UNDATED, rendered
    from tensoradapt.analysis.plots.network import described, draw, size
    from tensoradapt.files import replace_file

    if (kind := path.suffix[1:]) not in UNDATED:
        raise TensorAdaptError(f"{path} has no ending of a figure; expected one of .{', .'.join(UNDATED)}")
    chosen = parameterizations.name_of(name)
    given = (
        usual_arguments(chosen, config) if chosen in parameterizations.names() else arguments_of(published.get(name))
    )
    plan = ta.plan(config, rank=rank, **given)
    figure = Figure(figsize=size(plan))
    draw(plan, figure.add_axes((0, 0, 1, 1)))
    return str(replace_file(path, rendered(figure, kind))), prose(described(plan))


def arguments_of(row: Published) -> dict[str, Any]:
    """Return the arguments of ``plan`` for a published adapter, with two tasks where it is for several."""
    tasks = ("a", "b") if any("task" in text for text in row.layout) else ()
    return {"method": row.name, "paper": True, "tasks": tasks}


def usual_arguments(name: str, config: Any) -> dict[str, Any]:
    """Return the arguments of ``plan`` for a parameterization over its usual layouts, split by a model's widths."""
    layouts, parts = parameterizations.layouts_of(name), getattr(parameterizations.get(name), "parts", (2,))[-1]
    widths = {width: near_equal(width, parts) for width in _widths(config)}
    split = dict.fromkeys(("out", "in"), widths) if any(re.search(r"[*0-9]", text) for text in layouts) else None
    return {"method": name, "split": split}


def _parameterization(name: str, config: Any, model: str, rank: int) -> Iterator[str]:
    factoring = parameterizations.get(name)
    layouts = parameterizations.layouts_of(factoring)
    options = list(inspect.signature(factoring.build).parameters)[2:]
    rows = [row.name for row in published.ROWS if row.parameterization == name]
    yield from (f"{name}: {getattr(factoring, 'label', name)}\n", inspect.getdoc(factoring) or "", "")
    yield f"usual layouts: {'; '.join(layouts)}"
    if factoring.count.__doc__:
        yield f"parameters: {_formula(factoring)}"
    yield from [f"options: {', '.join(options)}"] * bool(options)
    yield from textwrap.wrap(f"published adapters: {', '.join(rows)}", 100, subsequent_indent="  ") * bool(rows)
    yield ""
    yield from _planned(config, model, rank, **usual_arguments(name, config))


def _widths(config: Any) -> set[int]:
    """Return the widths of a model's attention matrices."""
    from tensoradapt.sites.find import find_sites

    return {width for site in find_sites(config) for width in (site.out, site.in_)}


def _planned(config: Any, model: str, rank: int, **arguments: Any) -> Iterator[str]:
    """Yield the parameters of a plan, the factors of its first tensor, and how they are joined."""
    import tensoradapt as ta

    try:
        planned = ta.plan(config, rank=rank, **arguments)
    except TensorAdaptError as error:
        yield f"{model}, rank {rank}: {error}"
        return
    network = planned.groups[0].network
    tensors = f"{len(planned.groups)} tensors; the first is" if len(planned.groups) > 1 else "one tensor,"
    ranks = f", ranks {bonds_text(planned.groups[0].rank)}" if planned.groups[0].rank else ""
    head = f"{model}, rank {rank}: {planned.n_params:,} parameters in {tensors}"
    yield f"{head} over {str(network.layout)!r} {network.layout.shape}{ranks}\n"
    yield from align(
        [("factor", "axes, in this order", "numbers", "starts", ""), *map(_factor(network), network.factors)]
    )
    yield f"\n{diagram(network)}\n"


def _factor(network: Network) -> Callable[[Factor], tuple[str, ...]]:
    def row(factor: Factor) -> tuple[str, ...]:
        axes = " x ".join(f"{label}={network.sizes[label]}" for label in factor.labels)
        n = math.prod(network.shape(factor))
        start = "from the weights" if factor.source == "base" else "at zero" if factor.init == "zero" else "drawn"
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
        places = _holders(network, bond)
        passes = "|" if places[0] < i < places[-1] else "-" if k < last else " "
        mark, line = "o" if bond in factor.labels else passes, "-" if k <= last else " "
        text += f"{line * 2}{mark}{('-' if k < last else ' ') * (_width(network, bond) - 3)}"
    return text.rstrip()


def _passing(network: Network, i: int) -> str:
    """Draw the bonds between factor i and the next."""
    marks = ""
    for bond in network.bonds:
        places = _holders(network, bond)
        marks += f"  {'|' if places[0] <= i < places[-1] else ' '}{' ' * (_width(network, bond) - 3)}"
    return marks


def _width(network: Network, bond: str) -> int:
    return len(f"  {bond}={network.bonds[bond]} ")


def _described(row: Any) -> str:
    layouts = "; ".join(f"{text}  ({' '.join(projections)})" for text, projections in row.tensors)
    lines = [
        f"\n{row.name}: {row.parameterization} over {layouts}",
        f"  parameters {row.formula}; start {row.start}; scale {row.scale}, alpha {row.alpha:g}",
        f"  {row.source}",
    ]
    return "\n".join(lines + [f"  {row.note}"] * bool(row.note))


def _counted(config: Any, rank: int) -> Callable[[Any], tuple[str, str]]:
    """Return a function that gives a published row's name, and its count at a model's sizes or why it has none."""
    import tensoradapt as ta

    def count(row: Any) -> tuple[str, str]:
        given = arguments_of(row)
        try:
            n_params = ta.plan(config, rank=rank, **given).n_params
        except TensorAdaptError as error:
            return row.name, f"- ({error})"
        return row.name, f"{n_params:,}" + (" (2 tasks)" if given["tasks"] else "")

    return count


def methods_page() -> str:
    """Return the page in Markdown: parameterizations with their options, published adapters with formula and source."""
    return HEAD + "\n".join([*_parameterization_rows(), "", *_published_rows()]) + "\n"


def _parameterization_rows() -> list[str]:
    lines = ["## Parameterizations", "", "| name | what it is | when | options | parameters |"]
    lines += ["|---|---|---|---|---|"]
    for name in parameterizations.names():
        factoring = parameterizations.get(name)
        options = list(inspect.signature(factoring.build).parameters)[2:]
        shown = ", ".join(f"`{option}`" for option in options)
        what, when = _first(factoring), parameterizations.advice(factoring)
        lines.append(f"| `{name}` | {what} | {when} | {shown} | {_formula(factoring)} |")
    return lines


def _published_rows() -> list[str]:
    lines = ["## Published adapters", "", *PAPER, "", prose(f"Letters: {published.LETTERS}."), ""]
    lines += ["| name | parameterization, layout (targets) | parameters | start | scale | source | note |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in published.ROWS:
        layouts = "; ".join(f"`{layout}` ({' '.join(projections)})" for layout, projections in row.tensors)
        formula, scale = f"`{row.formula}`", f"{row.scale}, alpha {row.alpha:g}"
        cells = (row.name, f"{row.parameterization}, {layouts}", formula, row.start, scale, row.source, row.note)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _formula(factoring: Any) -> str:
    """Return the count of parameters in words, as the docstring of ``count`` begins with it."""
    return _first(factoring.count).removeprefix("Return ")


def _first(of: object) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(of) or "").split("\n\n")[0].split()).replace("|", "\\|")

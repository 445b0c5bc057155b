"""The docstring of a figure's function, from those of its file: what it shows, its options, what it returns."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable
from types import ModuleType

SHARED = """data: a folder of runs, runs of ``load_runs``, or a DataFrame with a row for each run.
ax: axes to draw into; by default those of a new figure.
figsize: inches of a new figure, as (width, height), or a width, of which the figure chooses its height.
caption: whether what a reader needs to judge it stands below a new figure.
headline: whether one sentence stands above, written from what is drawn.
col: "task", "method", "model", "rank", "budget" or "layout", for a panel of each.
looks: name, colour and marker of each method (``lab.analysis.names.looks``); by default those of data.
focus: the method that is in colour, with the others in grey.
names: whether methods are named within the axes."""
FRAME = ("data", "ax", "figsize", "caption", "headline", "col")


def text(module: ModuleType, options: Iterable[str]) -> str:
    """Return the docstring of the function that a file of ``plots`` makes, with a line for each of its options."""
    data, own = next(iter(inspect.signature(module.rows).parameters)), _entries(SHARED)
    own |= _entries(_section(module.rows, "Args"))
    own["data"] += f" They are {own['runs']}" if data == "runs" and data in own else ""
    if data != "runs":
        own["data"] = own[data]
    entries = [f"{name}: {own[name]}" for name in (*FRAME, *options)]
    raises = _section(module.rows, "Raises").partition("TensorAdaptError: ")[2] or "what the runs do not allow."
    errors = f"TensorAdaptError: for an option that it has not, with those that there are; {' '.join(raises.split())}"
    wrapped = [
        textwrap.fill(line, 100, initial_indent="    ", subsequent_indent=" " * 8) for line in (*entries, errors)
    ]
    head = inspect.cleandoc(module.__doc__ or "")
    returns = "Returns:\n    The axes, or with ``col`` those of all panels."
    args, errors = "\n".join(["Args:", *wrapped[:-1]]), f"Raises:\n{wrapped[-1]}"
    return "\n\n".join((head, args, returns, errors, "Examples are in docs/guides/sweeps/results.md."))


def _entries(section: str) -> dict[str, str]:
    """Return what a section says of each argument, on one line each."""
    parts = re.split(r"^(\w+): ", section, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (" ".join(entry.split()) for entry in parts[2::2]), strict=True))


def _section(function: object, name: str) -> str:
    """Return the lines of a section of a docstring, without their indent; "" where it has none."""
    section = re.search(rf"^{name}:\n((?:    .*\n?|\n)+)", inspect.getdoc(function) or "", re.MULTILINE)
    return inspect.cleandoc(section[1]) if section else ""

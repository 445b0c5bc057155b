"""The docstring of a figure's function, from those of its file: what it shows, its options, what it returns."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable
from types import ModuleType

FRAME = """data: {data}.
ax: axes to draw into; by default those of a new figure.
figsize: inches of a new figure, as (width, height), or a width, of which the figure chooses its height.
caption: whether what a reader needs to judge it stands below a new figure.
headline: whether one sentence stands above, written from what is drawn.
col: "task", "method", "model", "rank" or "budget", for a panel of each."""
RUNS = "a folder of runs, runs of ``load_runs``, or a DataFrame with a row for each run"
SHARED = {
    "looks": "name, colour and marker of each method (``lab.analysis.names.looks``); by default those of data.",
    "focus": "the method that is in colour, with the others in grey.",
    "names": "whether methods are named within the axes.",
}


def text(module: ModuleType, options: Iterable[str]) -> str:
    """Return the docstring of the function that a file of ``plots`` makes, with a line for each of its options."""
    own = SHARED | _args(module.draw) | _args(module.rows)
    data = next(iter(inspect.signature(module.rows).parameters))
    given = own.get(data, "")
    first = f"{RUNS}{', ' if given else ''}{given.rstrip('.')}" if data == "runs" else given.rstrip(".")
    lines = [*FRAME.format(data=first).splitlines(), *(f"{name}: {own[name]}" for name in options if name in own)]
    raises = _section(module.rows, "Raises").partition("TensorAdaptError: ")[2] or "what the runs do not allow."
    refused = f"TensorAdaptError: for an option that it has not, with those that there are; {' '.join(raises.split())}"
    parts = (
        inspect.cleandoc(module.__doc__ or ""),
        "\n".join(["Args:", *map(_wrapped, lines)]),
        "Returns:\n    The axes, or with ``col`` those of all panels.",
        f"Raises:\n{_wrapped(refused)}",
        "Examples are in docs/guides/sweeps/results.md.",
    )
    return "\n\n".join(parts)


def _wrapped(line: str) -> str:
    return textwrap.fill(line, 100, initial_indent=" " * 4, subsequent_indent=" " * 8)


def _args(function: object) -> dict[str, str]:
    """Return what a docstring says of each argument, on one line each."""
    found = re.split(r"^(\w+): ", _section(function, "Args"), flags=re.MULTILINE)
    return dict(zip(found[1::2], (" ".join(said.split()) for said in found[2::2]), strict=True))


def _section(function: object, name: str) -> str:
    """Return the lines of a section of a docstring, without their indent; "" where it has none."""
    found = re.search(rf"^{name}:\n((?:    .*\n?|\n)+)", inspect.getdoc(function) or "", re.MULTILINE)
    return inspect.cleandoc(found[1]) if found else ""

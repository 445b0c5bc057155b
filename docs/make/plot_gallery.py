"""Write the gallery of figures, docs/gallery/plots: a picture of each kind and the lines that draw it.

``python docs/make/plot_gallery.py`` writes it, as Sphinx does before it reads the pages. An example is a function of
docs/examples/plots.py, named for its figure or for figure_variant: its docstring is the question that the figure
answers and what its marks are, and the lines below are run from the root of the repository and shown as they are, after
those at the top of the file.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import runpy
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent
ROOT = DOCS.parent
sys.path[:0] = [name for name in (str(HERE), str(ROOT)) if name not in sys.path]

import matplotlib as mpl  # noqa: E402
import variants  # noqa: E402  # beside this file
from matplotlib import pyplot  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from PIL import Image  # noqa: E402  # which matplotlib brings

import tensoradapt  # noqa: E402
from tensoradapt.errors import TensorAdaptError, did_you_mean  # noqa: E402
from tensoradapt.lab.analysis import plots  # noqa: E402

EXAMPLES = DOCS / "examples" / "plots.py"
FIRST = ("frontier", "differences", "layouts", "curves", "learning")  # others follow by name
HALF = ("column", "dark")  # variants that stand beside each other
PANELS = ("tasks", "methods")  # variants of several panels, which have no room on a telephone
SMALL: dict[str, Any] = {"figsize": (2.8, 2.1), "headline": False, "caption": False}
DPI, INKS = 160, 160  # dots per inch, and colours
INTRODUCTION = """# Figures of runs

Each figure answers a question about runs. `ta.plots.NAME` takes a folder of runs, runs or a DataFrame, draws into `ax`
or a figure of its own, obeys rcParams and style sheets, and returns the axes
([results](../../guides/sweeps/results.md)). The lines beside a picture are those that drew it, from the top of a copy
of the repository and after those below the cards; where they read a CSV file, the folder of a sweep does as well:
`ta.plots.frontier("runs/x")`.
"""


@dataclass(frozen=True)
class Example:
    """A function that draws one figure."""

    path: Path
    function: str
    title: str
    text: str
    code: str

    @property
    def figure(self) -> str:
        return self.function.partition("_")[0]

    @property
    def name(self) -> str:
        """Of its picture."""
        return self.function.replace("_", "-")

    @staticmethod
    def of(found: ast.FunctionDef, path: Path) -> Example:
        """Return a function as an example; raise TensorAdaptError without a docstring of a title and a text."""
        title, _, text = (ast.get_docstring(found) or "").partition("\n\n")
        if not title or not text:
            says = f"{found.name} in {path} says nothing"
            raise TensorAdaptError(f"{says}; expected a docstring: a question, an empty line, the answer")
        lines = path.read_text(encoding="utf-8").splitlines()[found.body[0].end_lineno or 0 : found.end_lineno]
        code = textwrap.dedent("\n".join(lines)).strip()
        return Example(path, found.name, title, " ".join(text.split()), code)


def functions(path: Path) -> list[ast.FunctionDef]:
    """Return the functions of a file that draw: those without arguments."""
    found = ast.parse(path.read_text(encoding="utf-8")).body
    return [node for node in found if isinstance(node, ast.FunctionDef) and not node.args.args]


def examples(path: Path = EXAMPLES, figures: Sequence[str] = plots.NAMES) -> dict[str, list[Example]]:
    """Return the examples of each figure, that with its name alone first; raise TensorAdaptError where one lacks."""
    found: dict[str, list[Example]] = {name: [] for name in (*FIRST, *figures) if name in figures}
    for function in sorted(functions(path), key=lambda function: function.name):
        example = Example.of(function, path)
        if example.figure not in found:
            raise TensorAdaptError(f"{function.name} in {path} is of no figure{did_you_mean(example.figure, figures)}")
        found[example.figure].append(example)
    for name, own in found.items():
        if not own or own[0].name != name:
            raise TensorAdaptError(
                f"the figure {name!r} has no example; expected a function {name} in {path}: a docstring with the "
                "question that it answers, and a few lines that draw it from a CSV file"
            )
    return found


def head(path: Path = EXAMPLES) -> str:
    """Return the lines between a file's docstring and its first example: what all examples need."""
    source = path.read_text(encoding="utf-8")
    begin, end = ast.parse(source).body[0].end_lineno or 0, functions(path)[0].lineno - 1
    return "\n".join(source.splitlines()[begin:end]).strip()


class Instead:
    """An object in whose place this one stands, with other attributes."""

    def __init__(self, of: Any, **attributes: Any) -> None:
        self.__dict__.update(attributes, of=of)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)


def drawn(example: Example, **options: Any) -> Figure:
    """Run an example as a reader would and return its figure, with ``options`` in place of its own.

    Raises:
        TensorAdaptError: unless it draws one figure.
    """
    pyplot.close("all")
    function = runpy.run_path(str(example.path))[example.function]
    if options:
        call = partial(_with, plots.figure(example.figure), options)
        function.__globals__["ta"] = Instead(tensoradapt, plots=Instead(plots, **{example.figure: call}))
    with contextlib.chdir(ROOT):
        function()
    if len(numbers := pyplot.get_fignums()) != 1:
        raise TensorAdaptError(f"{example.function} in {example.path} draws {len(numbers)} figures; expected one")
    return pyplot.figure(numbers[0])


def _with(draw: Callable[..., Any], options: Mapping[str, Any], *data: Any, **own: Any) -> Any:
    return draw(*data, **{**own, **options})


def takes(example: Example, option: str) -> bool:
    """Return whether its figure has an option; a drawing of a network has no headline and a size of its own."""
    return option in inspect.signature(plots.figure(example.figure)).parameters


def thumbnail(example: Example) -> Figure:
    """Return an example as a small figure of marks and names of axes alone."""
    figure = drawn(example, **{name: value for name, value in SMALL.items() if takes(example, name)})
    for text in [*figure.texts, *(text for ax in figure.axes for text in ax.texts)]:
        text.set_visible(False)
    for ax in figure.axes:
        ax.tick_params(labelbottom=False, labelleft=False, labeltop=False, labelright=False, length=0, which="both")
        ax.set_title("")
        if ax.get_legend():
            ax.get_legend().remove()
        for axis in (ax.xaxis, ax.yaxis):
            axis.label.set(size="large", text=re.split(r" \(| minus | over |\n", axis.label.get_text())[0])
    for legend in figure.legends:
        legend.remove()
    return figure


def png(figure: Figure) -> bytes:
    """Return a picture of few colours, which is a third as large."""
    written, small = io.BytesIO(), io.BytesIO()
    figure.savefig(written, dpi=DPI)
    Image.open(written).convert("RGB").quantize(INKS, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return small.getvalue()


def write(folder: Path, draw: bool = True) -> list[Path]:
    """Write index.md and, to ``draw``, a picture of each example (NAME.png) into a folder; return the paths."""
    every, folder = examples(), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "index.md"]
    said: dict[str, str] = {}
    for own in every.values() if draw else ():
        _draw(folder / f"{own[0].name}-thumbnail.png", partial(thumbnail, own[0]))
        for example in own:
            written.append(folder / f"{example.name}.png")
            said[example.name] = _draw(written[-1], partial(drawn, example)) or example.title
            if not example.name.endswith((*HALF, *PANELS)) and takes(example, "headline"):
                _draw(variants.beside(written[-1], "_narrow"), partial(drawn, example, figsize=variants.NARROW))
    written[0].write_text(page(every, said), encoding="utf-8")
    return written


def _draw(path: Path, draw: Callable[[], Figure]) -> str:
    """Draw a picture light and dark, one in a dark style sheet once; return its headline."""
    with mpl.rc_context(), contextlib.ExitStack() as after:
        pyplot.switch_backend("agg")
        after.callback(pyplot.close, "all")
        if path.stem.endswith("-dark"):
            path.write_bytes(png(draw()))
        else:
            variants.both(path, lambda one: one.write_bytes(png(draw())))
        return " ".join(pyplot.gcf().get_suptitle().split())


def page(every: Mapping[str, list[Example]], said: Mapping[str, str]) -> str:
    """Return the page: what all examples need, a card for each figure, then its examples.

    ``said`` has what the figures say, by name.
    """
    lines = [INTRODUCTION, "::::{grid} 2 3 3 3", ":gutter: 2", ""]
    for name, (first, *_) in every.items():
        lines += [f":::{{grid-item-card}} {name}", f":img-top: {first.name}-thumbnail.png", f":img-alt: {first.title}"]
        lines += [":class-img-top: plot-thumbnail", f':link: "#{name}"', ":link-type: url", "", first.title, ":::", ""]
    lines += ["::::", "", "```{dropdown} What all examples begin with", "~~~python", head(), "~~~", "```", ""]
    for name, own in every.items():
        lines += section(name, own, said)
    return "\n".join(lines) + "\n"


def section(name: str, own: Sequence[Example], said: Mapping[str, str]) -> list[str]:
    """Return the part about a figure: its first example as it is, the lines of others folded below their pictures."""
    first, *others = own
    lines = [f"## {name}", "", *_said(first, said), "```python", first.code, "```", ""]
    lines += [f"Options: [`ta.plots.{name}`](../../reference/analyse.md#taplots{name}).", ""]
    beside = [one for one in others if one.name.removeprefix(f"{name}-") in HALF]
    if beside:
        lines += ["::::{grid} 1 1 2 2", ":gutter: 3", ""]
        for example in beside:
            lines += [":::{grid-item}", *_folded(example, said), ":::", ""]
        lines += ["::::", ""]
    for example in [one for one in others if one not in beside]:
        lines += _folded(example, said)
    return lines


def _said(example: Example, said: Mapping[str, str]) -> list[str]:
    alt = said.get(example.name, example.title)
    return [f"**{example.title}** {example.text}", "", f"![{alt}]({example.name}.png)", ""]


def _folded(example: Example, said: Mapping[str, str]) -> list[str]:
    return [*_said(example, said), "```{dropdown} The lines", "~~~python", example.code, "~~~", "```", ""]


if __name__ == "__main__":
    write(DOCS / "gallery" / "plots")

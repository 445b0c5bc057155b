"""Write the gallery: a page for each parameterization and published adapter, made from its file or row.

``python docs/make/gallery.py`` writes docs/gallery, as Sphinx does before it reads the pages. Nothing on its pages is
written by hand but the lines of gallery.toml.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent
sys.path[:0] = [name for name in (str(HERE), str(DOCS.parent)) if name not in sys.path]

import variants  # noqa: E402  # these are beside this file
from concept_figures import network_figure, small_png  # noqa: E402
from gallery_entries import Entry, entries, picture_name  # noqa: E402
from gallery_pages import page  # noqa: E402

THUMBNAIL = (2.4, 1.5)  # inches of a drawing without names, on a card of one size for all
INTRODUCTION = """# All methods, drawn

Every parameterization and every published adapter, drawn from its own network. A page has the formula, the factors, the
parameters at any size, the LoRA rank it exports to, its start and scale, and where it was measured.

In the drawings filled factors are trained from random values, hollow ones start at zero, grey ones are frozen. A dot is
an index of three ends or more. Legs are green for index modes, orange for rows and blue for columns. They are drawn by
[`ta.plots.network(plan)`](../reference/analyse.md), which draws yours too.
"""


def write(folder: Path, draw: bool = True) -> list[Path]:
    """Write index.md, the pages and, to ``draw``, their drawings (figures/*.png) into a folder; returns the paths."""
    folder, every = Path(folder), entries()
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    written = [_text(folder / "index.md", index(every))]
    for entry in every:
        written.append(_text(folder / f"{entry.slug}.md", page(entry)))
        if draw:
            written += drawings(entry, folder / "figures")
    return written


def _text(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def drawings(entry: Entry, folder: Path) -> Iterator[Path]:
    plan = entry.plan()
    for k, (tensor, _) in enumerate(entry.networks):
        path = folder / picture_name(entry, k)
        variants.both(path, lambda one, t=tensor: one.write_bytes(small_png(network_figure(plan, tensor=t))))
        yield path
    path = folder / f"{entry.slug}-small.png"
    variants.both(path, lambda one: one.write_bytes(small_png(network_figure(plan, THUMBNAIL, names=False))))
    yield path


def index(every: Sequence[Entry]) -> str:
    """The grid of all pages."""
    lines = [INTRODUCTION]
    for head, chosen in (
        ("Parameterizations", [entry for entry in every if not entry.row]),
        ("Published adapters", [entry for entry in every if entry.row]),
    ):
        lines += [f"## {head}", "", "::::{grid} 1 2 3 3", ":gutter: 2", ""]
        for entry in chosen:
            picture = f"[![{entry.title}](figures/{entry.slug}-small.png)]({entry.slug}.md)"
            lines += [f":::{{grid-item-card}} [{entry.title}]({entry.slug}.md)", "", picture, ":::", ""]
        lines += ["::::", ""]
    lines += ["```{toctree}", ":hidden:", "", *(entry.slug for entry in every), "```"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write(DOCS / "gallery")

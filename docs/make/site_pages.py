"""Make what the site has and git has not: ``python docs/make/site_pages.py``, as Sphinx does before it reads the pages.

Pages come from docstrings, declarations, methods and notebooks; pictures from tables and records in git. Nothing is
trained and nothing is downloaded. Each page made here is named in .gitignore.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent
sys.path[:0] = [name for name in (str(HERE), str(DOCS.parent)) if name not in sys.path]

import declared_pages  # noqa: E402  # these are beside this file
import draw_figures  # noqa: E402
import gallery  # noqa: E402
import methods_page  # noqa: E402
import plot_gallery  # noqa: E402
import reference_pages  # noqa: E402
import render_notebooks  # noqa: E402


def reference() -> dict[str, str]:
    """Return the made pages of docs/reference by the names of their files."""
    made = {"fields.md": declared_pages.fields(), "columns.md": declared_pages.columns()}
    made["methods.md"] = methods_page.methods_page()
    return {path.name: text for path, text in reference_pages.pages().items()} | made


def write_reference(folder: Path) -> None:
    """Write the pages that have changed, so that Sphinx reads only these again."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in reference().items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def pictures(docs: Path) -> None:
    """Draw the pictures of the handwritten pages."""
    with contextlib.redirect_stdout(io.StringIO()):
        draw_figures.main(docs=docs)


MAKERS: dict[str, Callable[[Path], object]] = {  # what is made, and what makes it in a folder of docs
    "reference": lambda docs: write_reference(docs / "reference"),
    "notebooks": lambda docs: render_notebooks.write(docs / "notebooks"),
    "gallery": lambda docs: gallery.write(docs / "gallery"),
    "plots": lambda docs: plot_gallery.write(docs / "gallery" / "plots"),
    "pictures": pictures,
}


def write(docs: Path = DOCS) -> dict[str, float]:
    """Make all; return the seconds that each took. Raises TensorAdaptError for what cannot be made."""
    seconds = {}
    for name, make in MAKERS.items():
        begun = time.perf_counter()
        make(docs)
        seconds[name] = time.perf_counter() - begun
    return seconds


if __name__ == "__main__":
    print(*(f"{name} {taken:.1f} s" for name, taken in write().items()), sep=", ")

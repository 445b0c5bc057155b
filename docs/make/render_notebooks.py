"""The pages of the notebooks: each is executed at full size and written as Markdown with its figures.

    python docs/make/render_notebooks.py              # all
    python docs/make/render_notebooks.py 2 5          # those whose names begin so

Writes docs/notebooks/NAME.md, its figures beside it, and docs/notebooks/README.md.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode
from PIL import Image

DOCS = Path(__file__).parents[1]
SOURCE, PAGES = DOCS.parent / "notebooks", DOCS / "notebooks"
LARGEST = 80_000  # bytes of one figure: they are kept in the repository
INDEX = """# Notebooks

Made by `python docs/make/render_notebooks.py` from the scripts in [notebooks](../../notebooks). To run them yourself:
`pip install -e ".[notebooks]"`, then `jupytext --to notebook notebooks/*.py`, or open a script in Jupyter with jupytext
installed. Each takes under 3 minutes on 2 cores.

"""


def main(chosen: list[str]) -> None:
    """Renders the notebooks whose names begin with one of ``chosen``, or all, and the index of all."""
    os.environ.pop("TENSORADAPT_FAST", None)
    PAGES.mkdir(exist_ok=True)
    lines = []
    for source in sorted(SOURCE.glob("*.py")):
        notebook = jupytext.read(source)
        if not chosen or source.name.startswith(tuple(chosen)):
            execute(notebook)
            write_page(notebook, source.stem)
        title = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
        lines.append(f"{len(lines) + 1}. [{title}]({source.stem}.md)\n")
    (PAGES / "README.md").write_text(INDEX + "".join(lines))


def execute(notebook: NotebookNode) -> None:
    """Runs all cells in the folder of the notebooks; keeps what they print and draw, and nothing from stderr."""
    # streams are joined: where prints are cut into blocks depends on the machine's speed
    options = {"timeout": 1200, "coalesce_streams": True, "resources": {"metadata": {"path": str(SOURCE)}}}
    NotebookClient(notebook, **options).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":  # what libraries say on stderr differs between machines and names their paths
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]


def write_page(notebook: NotebookNode, name: str) -> None:
    """Writes the page of an executed notebook, and its figures in the place of those that were there."""
    text, resources = MarkdownExporter().from_notebook_node(notebook, {"unique_key": name, "output_files_dir": "."})
    for old in PAGES.glob(f"{name}_*.png"):
        old.unlink()
    for file, data in resources["outputs"].items():
        if (size := (PAGES / file).write_bytes(small(data))) > LARGEST:
            raise SystemExit(f"{file} has {size:,} bytes; expected at most {LARGEST:,}: draw less, or at fewer dpi")
    lines = (line.rstrip() for line in text.replace("![png]", "![figure]").splitlines())
    (PAGES / f"{name}.md").write_text("\n".join(lines).strip() + "\n")


def small(png: bytes) -> bytes:
    """The picture with a palette of 256 colours: a third of the bytes, and no difference to be seen."""
    data = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(data, "PNG", optimize=True)
    return data.getvalue()


if __name__ == "__main__":
    main(sys.argv[1:])

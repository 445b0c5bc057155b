"""Write docs/notebooks, a page for each notebook: ``python docs/make/render_notebooks.py``, as Sphinx does.

    python docs/make/render_notebooks.py               # the pages of all, without outputs
    python docs/make/render_notebooks.py --execute     # with outputs and figures: a quarter of an hour
    python docs/make/render_notebooks.py --strip       # takes outputs out of notebooks/*.ipynb, before a commit

The notebooks in git have no outputs, so that their changes can be read; tests/test_notebooks.py executes them.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NOTEBOOKS, PAGES = ROOT / "notebooks", ROOT / "docs" / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def sources() -> list[Path]:
    """Return the notebooks, in their order."""
    return sorted(NOTEBOOKS.glob("*.ipynb"))


def read(path: Path) -> Any:
    import nbformat

    return nbformat.read(path, 4)


def stripped(notebook: Any) -> Any:
    """Return a notebook without outputs and without what an editor writes, as it is in git."""
    notebook.metadata = METADATA
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def executed(notebook: Any) -> Any:
    """Return a notebook after all its cells ran in an empty folder; what libraries say on stderr is left out."""
    from nbclient import NotebookClient

    os.environ["OMP_NUM_THREADS"] = "1"  # the order of sums, and so the last digits, depend on it
    os.environ["TQDM_DISABLE"] = "1"  # a bar is of the moment
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook, timeout=3600, coalesce_streams=True, resources={"metadata": {"path": folder}}
        ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def page(notebook: Any, name: str) -> dict[str, bytes]:
    """Return the page of a notebook and its figures, by the names of their files."""
    from nbconvert import MarkdownExporter

    text, resources = MarkdownExporter().from_notebook_node(notebook, {"unique_key": name, "output_files_dir": "."})
    lines = text.replace("![png]", "![figure]").replace("](../docs/", "](../").splitlines()
    about = f"This page is the notebook [{name}.ipynb](../../notebooks/{name}.ipynb)."
    if not any(cell.get("outputs") for cell in notebook.cells):
        about += " Its outputs and figures are made by running it."
    figures = {Path(file).name: data for file, data in resources["outputs"].items()}
    return figures | {f"{name}.md": ("\n".join(map(str.rstrip, [*lines, "", about])).strip() + "\n").encode()}


def write(folder: Path, execute: bool = False) -> list[Path]:
    """Write the pages of all notebooks into a folder; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for source in sources():
        notebook = executed(read(source)) if execute else read(source)
        for name, content in page(notebook, source.stem).items():
            paths.append(folder / name)
            paths[-1].write_bytes(content)
    return paths


def strip() -> None:
    """Take the outputs out of the notebooks."""
    import nbformat

    for source in sources():
        nbformat.write(stripped(read(source)), source)


if __name__ == "__main__":
    if "--strip" in sys.argv[1:]:
        strip()
    else:
        write(PAGES, execute="--execute" in sys.argv[1:])

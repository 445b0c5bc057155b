"""The notebooks: each script is executed into an .ipynb beside it, and the pages of the site are made from those.

    python docs/make/render_notebooks.py              # all: a quarter of an hour
    python docs/make/render_notebooks.py 2 5          # those whose names begin so
    python docs/make/render_notebooks.py --prose      # none: what changed is prose, and outputs are kept

Writes notebooks/NAME.ipynb, docs/notebooks/NAME.md with its figures beside it, and docs/notebooks/README.md.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode
from PIL import Image

ROOT = Path(__file__).parents[2]
NOTEBOOKS, PAGES = ROOT / "notebooks", ROOT / "docs" / "notebooks"
LARGEST = 80_000  # bytes of one figure: they are kept in the repository
PNG = "image/png"
INDEX = """# Notebooks

Real models and data from first steps to the figure of a paper, executed, with their figures. To run them: `pip install
-e ".[notebooks]"`, then `jupyter lab notebooks` and a click on one; GitHub and editors open the same
[.ipynb files](../../notebooks) as they are. Each takes a few minutes on 2 cores, needs no GPU, and imports public names
alone.

"""


def main(chosen: list[str]) -> None:
    """Executes the notebooks whose names begin with one of ``chosen``, or all; writes the pages and their index."""
    for source in sorted(NOTEBOOKS.glob("*.py")):
        run = not chosen or source.name.startswith(tuple(chosen))
        if run or source.with_suffix(".ipynb").is_file():
            nbformat.write(executed(source) if run else with_new_prose(source), source.with_suffix(".ipynb"))
    for file, content in pages().items():
        (PAGES / file).write_bytes(content)
    for old in {path.name for path in PAGES.iterdir()} - set(pages()):
        (PAGES / old).unlink()


def notebook_of(source: Path) -> NotebookNode:
    """The notebook of a script, with nothing in it that differs between two times it is made."""
    notebook = jupytext.read(source)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for i, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{i}", {}
    return notebook


def executed(source: Path) -> NotebookNode:
    """The notebook of a script after all its cells ran, with what they print and draw, and nothing from stderr."""
    notebook, plain = notebook_of(source), {"record_timing": False, "timeout": 3600}
    os.environ["OMP_NUM_THREADS"] = "1"  # the order of sums, and so the last digits, depend on it
    os.environ["TQDM_DISABLE"] = "1"  # a bar is of the moment
    with tempfile.TemporaryDirectory() as folder:  # streams are joined: where prints are cut depends on speed
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, coalesce_streams=True, resources=resources, **plain).execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":  # what libraries say on stderr differs between machines and names their paths
            cell.outputs = [kept(output) for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.language_info = notebook_of(source).metadata["language_info"]  # the kernel's has versions
    return notebook


def with_new_prose(source: Path) -> NotebookNode:
    """The notebook that there is, with the prose of its script; as it is where the script has other code."""
    before, notebook = nbformat.read(source.with_suffix(".ipynb"), 4), notebook_of(source)
    ran = [cell for cell in before.cells if cell.cell_type == "code"]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.source for cell in ran] != [cell.source for cell in code]:
        return before
    for cell, old in zip(code, ran, strict=True):
        cell.outputs, cell.execution_count = old.outputs, old.execution_count
    return notebook


def kept(output: NotebookNode) -> NotebookNode:
    """An output as it is shipped: its picture is small, and has no text that stands for it."""
    if PNG in output.get("data", {}):
        output.data, output.metadata = {PNG: small(output.data[PNG])}, {}
    return output


def small(png: str) -> str:
    """The picture with a palette of 256 colours: a third of the bytes, and no difference to be seen."""
    data = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(256).save(data, "PNG", optimize=True)
    if len(data.getvalue()) > LARGEST:
        raise SystemExit(f"a figure has {len(data.getvalue()):,} bytes; expected at most {LARGEST:,}: draw less")
    return base64.b64encode(data.getvalue()).decode()


def pages() -> dict[str, bytes]:
    """The files of docs/notebooks, by their names, of the notebooks as they are."""
    found, index = dict[str, bytes](), INDEX
    for number, path in enumerate(sorted(NOTEBOOKS.glob("*.ipynb")), 1):
        notebook = nbformat.read(path, 4)
        title = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
        index += f"{number}. [{title}]({path.stem}.md)\n"
        found |= page(notebook, path.stem)
    return found | {"README.md": index.encode()}


def page(notebook: NotebookNode, name: str) -> dict[str, bytes]:
    """The page of an executed notebook, and its figures."""
    text, resources = MarkdownExporter().from_notebook_node(notebook, {"unique_key": name, "output_files_dir": "."})
    text = text.replace("![png]", "![figure]").replace("](../docs/", "](../")
    text += f"\nThis page is the notebook [{name}.ipynb](../../notebooks/{name}.ipynb).\n"
    lines = (line.rstrip() for line in text.splitlines())
    figures = {Path(file).name: data for file, data in resources["outputs"].items()}
    return figures | {f"{name}.md": ("\n".join(lines).strip() + "\n").encode()}


if __name__ == "__main__":
    main(sys.argv[1:])

"""Every notebook is kept without outputs and can be executed; its page is made of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "docs" / "make"))

import render_notebooks  # noqa: E402

SIZES = re.compile(
    r'((?:STEPS = |STEPS, SEEDS = |\\"steps\\": |steps=|\\"n_test\\": |n_test=|\\"n_train\\": |n_train=))(\d+)'
)  # in a notebook's JSON
NOTEBOOKS = render_notebooks.sources()
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def pictures(notebook: Any) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


@every_notebook
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    """``python docs/make/render_notebooks.py --strip`` takes them out."""
    found = render_notebooks.read(path)
    nbformat.validate(found)
    assert found == render_notebooks.stripped(render_notebooks.read(path))


@every_notebook
def test_links_of_a_notebook_lead_somewhere(path: Path) -> None:
    prose = "\n".join(cell.source for cell in render_notebooks.read(path).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", prose)
    assert not [link for link in links if not (path.parent / link).is_file()]


@every_notebook
def test_the_page_has_the_cells_of_its_notebook(path: Path) -> None:
    notebook = render_notebooks.read(path)
    made = render_notebooks.page(notebook, path.stem)
    text = made[f"{path.stem}.md"].decode()
    assert list(made) == [f"{path.stem}.md"] and text.startswith("# ")
    for cell in notebook.cells:
        assert cell.source.splitlines()[-1].rstrip().replace("](../docs/", "](../") in text
    assert "Its outputs and figures are made by running it." in text


def test_the_page_of_an_executed_notebook_has_its_figures() -> None:
    code = "from matplotlib import pyplot\npyplot.plot([1, 2])\npyplot.show()"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"%matplotlib inline\n{code}")])
    made = render_notebooks.page(render_notebooks.executed(notebook), "drawn")
    assert sorted(name.rpartition(".")[2] for name in made) == ["md", "png"]
    assert b"made by running it" not in made["drawn.md"]


def an_eighth(found: re.Match[str]) -> str:
    """A size over eight, but ten steps and examples for them."""
    return found[1] + str(max(320 if "n_train" in found[1] else 10, int(found[2]) // 8))


def executed(path: Path, folder: Path, shorter: bool) -> Any:
    """A copy of a notebook as jupyter executed it, with fewer steps, examples and seeds where asked."""
    notebook = folder / path.name
    text = path.read_text()
    notebook.write_text(SIZES.sub(an_eighth, text).replace("0, 1, 2", "0, 1") if shorter else text)
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # errors in the kernel too, but for what libraries deprecate among themselves
    warnings = "error::UserWarning,error::RuntimeWarning,error::FutureWarning"
    environment = {
        **os.environ,
        "PATH": programs,
        "PYTHONWARNINGS": warnings,
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # whatever that of the tests is
        "TQDM_DISABLE": "1",
    }  # bars are on stderr
    command = ["jupyter", "execute", "--inplace", notebook.name]
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=3600)
    return render_notebooks.read(notebook)


@pytest.mark.parametrize(
    "shorter",
    [
        pytest.param(True, marks=pytest.mark.slow, id="trains less"),
        pytest.param(False, marks=pytest.mark.nightly, id="as shipped"),
    ],
)
@every_notebook
def test_jupyter_executes_a_notebook(path: Path, shorter: bool, tmp_path: Path) -> None:
    found = executed(path, tmp_path, shorter)
    assert pictures(found) and {output.output_type for output in outputs(found)} <= {"stream", "display_data"}
    assert not [output for output in outputs(found) if output.get("name") == "stderr"]

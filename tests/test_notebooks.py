"""Every notebook is shipped executed, as made of its script; ``jupyter execute`` runs it; its page is made of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
SIZES = re.compile(
    r'((?:STEPS = |STEPS, SEEDS = |\\"steps\\": |steps=|\\"n_test\\": |n_test=|\\"n_train\\": |n_train=))(\d+)'
)  # in a notebook's JSON
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@cache
def maker() -> Any:
    """What makes the notebooks and their pages; it takes seconds to import."""
    sys.path.append(str(ROOT / "docs" / "make"))
    import render_notebooks

    return render_notebooks


def shipped(path: Path) -> Any:
    return maker().nbformat.read(path.with_suffix(".ipynb"), 4)


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def pictures(notebook: Any) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


@pytest.mark.thorough
@every_notebook
def test_a_notebook_has_the_cells_of_its_script_and_nothing_that_changes(path: Path) -> None:
    found, made = shipped(path), maker().notebook_of(path)
    maker().nbformat.validate(found)
    assert found.metadata == made.metadata
    for cell, own in zip(found.cells, made.cells, strict=True):
        assert {key: cell[key] for key in own if key in ("id", "cell_type", "source", "metadata")} == {
            key: own[key] for key in own if key in ("id", "cell_type", "source", "metadata")
        }


@every_notebook
def test_a_notebook_is_shipped_as_it_ran_with_figures_and_without_errors(path: Path) -> None:
    found = shipped(path)
    code = [cell for cell in found.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert pictures(found) and {output.output_type for output in outputs(found)} <= {"stream", "display_data"}
    texts = [output.get("text", "") for output in outputs(found)]
    assert not [text for text in texts if "/tmp" in text or "/home" in text], "a path of the machine it was made on"


@every_notebook
def test_links_of_a_notebook_lead_somewhere(path: Path) -> None:
    prose = "\n".join(cell.source for cell in shipped(path).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", prose)
    assert not [link for link in links if not (path.parent / link).is_file()]


def test_the_pages_are_made_of_the_notebooks() -> None:
    """``python docs/make/render_notebooks.py --prose`` writes them again."""
    assert {path.name: path.read_bytes() for path in maker().PAGES.iterdir()} == maker().pages()


def an_eighth(found: re.Match[str]) -> str:
    """A size over eight, but ten steps and examples for them."""
    return found[1] + str(max(320 if "n_train" in found[1] else 10, int(found[2]) // 8))


def executed(path: Path, folder: Path, shorter: bool) -> Any:
    """A copy of a notebook as jupyter executed it, with fewer steps, examples and seeds where asked."""
    notebook = folder / path.with_suffix(".ipynb").name
    text = path.with_suffix(".ipynb").read_text()
    notebook.write_text(SIZES.sub(an_eighth, text).replace("0, 1, 2", "0, 1") if shorter else text)
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # errors in the kernel too, but for what libraries deprecate among themselves
    warnings = "error::UserWarning,error::RuntimeWarning,error::FutureWarning"
    environment = {
        **os.environ,
        "PATH": programs,
        "PYTHONWARNINGS": warnings,
        "TQDM_DISABLE": "1",
    }  # bars are on stderr
    command = ["jupyter", "execute", "--inplace", notebook.name]
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=3600)
    return maker().nbformat.read(notebook, 4)


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
    assert pictures(found) == pictures(shipped(path))
    assert not [output for output in outputs(found) if output.get("name") == "stderr"]

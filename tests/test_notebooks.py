"""Every notebook runs from its first cell to its last, warns of nothing, and draws; its page shows the same code."""

import re
from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.mark.slow
@every_notebook
def test_a_notebook_runs_and_draws(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORADAPT_FAST", "1")
    # errors within the kernel too, but for what libraries deprecate among themselves
    monkeypatch.setenv("PYTHONWARNINGS", "error::UserWarning,error::RuntimeWarning,error::FutureWarning")
    notebook = jupytext.read(path)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert [output for output in outputs if "image/png" in output.get("data", {})]


@every_notebook
def test_a_page_shows_the_code_of_its_notebook_and_figures_that_exist(path: Path) -> None:
    page = (PAGES / f"{path.stem}.md").read_text()
    code = [cell.source for cell in jupytext.read(path).cells if cell.cell_type == "code"]
    assert re.findall(r"^```python\n(.*?)\n```$", page, re.DOTALL | re.MULTILINE) == code
    figures = re.findall(r"!\[figure\]\(([^)]+)\)", page)
    assert figures and all((PAGES / name).is_file() for name in figures)
    assert f"]({path.stem}.md)" in (PAGES / "README.md").read_text()

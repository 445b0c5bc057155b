"""The gallery of figures: an example for each, of a few lines, which draws what the page shows."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

import tensoradapt as ta
from tensoradapt.lab.analysis import plots

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "docs" / "make"))

import plot_gallery  # noqa: E402

EVERY = plot_gallery.examples()
EXAMPLES = [example for own in EVERY.values() for example in own]


def written(folder: Path, function: str, docstring: str) -> Path:
    """A file with one example that draws nothing."""
    (path := folder / "p.py").write_text(f'"""E."""\n\n\ndef {function}():\n    """{docstring}"""\n')
    return path


def test_each_figure_has_an_example_and_the_two_most_used_also_narrow_dark_and_in_panels() -> None:
    assert sorted(EVERY) == sorted(plots.NAMES)
    for name in ("frontier", "differences"):
        assert {f"{name}-{variant}" for variant in ("column", "dark", "tasks")} <= {one.name for one in EVERY[name]}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_is_a_few_lines_and_reads_files_that_are_there(example: plot_gallery.Example) -> None:
    lines = [line for line in example.code.splitlines() if line and not line.startswith(("import ", "from "))]
    assert len(lines) <= 4 and f"ta.plots.{example.figure}(" in example.code
    read = re.findall(r'"(docs/[\w/.-]+\.csv)"', example.code)
    assert all((ROOT / name).is_file() for name in read)


def test_a_figure_without_an_example_is_named_with_the_file_that_it_needs(tmp_path: Path) -> None:
    path = written(tmp_path, "frontier", "Q?\n\nA.")
    with pytest.raises(
        ta.TensorAdaptError, match=r"figure 'curves' has no example; expected a function curves in .*p\.py: a docstring"
    ):
        plot_gallery.examples(path, ("curves", "frontier"))


def test_an_example_of_no_figure_and_one_that_says_nothing_are_named(tmp_path: Path) -> None:
    with pytest.raises(ta.TensorAdaptError, match=r"frontir in .*p\.py is of no figure.*frontier"):
        plot_gallery.examples(written(tmp_path, "frontir", "Q?\n\nA."), ("frontier",))
    with pytest.raises(ta.TensorAdaptError, match=r"frontir in .*p\.py says nothing; expected a docstring"):
        plot_gallery.examples(written(tmp_path, "frontir", "Q?"), ("frontier",))


def test_the_page_shows_the_lines_that_are_run(tmp_path: Path) -> None:
    (path,) = plot_gallery.write(tmp_path, draw=False)
    text, module = path.read_text(), ast.parse(plot_gallery.EXAMPLES.read_text()).body
    assert ast.dump(ast.Module(module[1 : -len(EXAMPLES)], [])) == ast.dump(ast.parse(plot_gallery.head()))
    assert plot_gallery.head() in text
    for function in plot_gallery.functions(plot_gallery.EXAMPLES):
        (example,) = (one for one in EXAMPLES if one.function == function.name)
        assert example.code in text and f"]({example.name}.png)" in text and example.title in text
        assert ast.dump(ast.Module(function.body[1:], [])) == ast.dump(ast.parse(example.code))


@pytest.mark.thorough
def test_a_picture_is_as_wide_as_its_lines_say(tmp_path: Path) -> None:
    for name, inches in (("differences-column", 3.3), ("curves", 7)):
        (example,) = (one for one in EXAMPLES if one.name == name)
        (tmp_path / "x.png").write_bytes(plot_gallery.png(plot_gallery.drawn(example)))
        with Image.open(tmp_path / "x.png") as picture:
            assert picture.width == pytest.approx(inches * plot_gallery.DPI, abs=1)


def test_lines_that_draw_nothing_are_named(tmp_path: Path) -> None:
    path = written(tmp_path, "curves", "Q?\n\nA.")
    with pytest.raises(ta.TensorAdaptError, match=r"curves in .*p\.py draws 0 figures; expected one"):
        plot_gallery.drawn(plot_gallery.examples(path, ("curves",))["curves"][0])

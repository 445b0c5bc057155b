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


def test_each_figure_has_an_example_and_the_two_most_used_also_narrow_dark_and_in_panels() -> None:
    assert sorted(EVERY) == sorted(plots.NAMES)
    for name in ("frontier", "differences"):
        assert {f"{name}-{variant}" for variant in ("column", "dark", "tasks")} <= {one.name for one in EVERY[name]}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_is_about_five_lines_and_reads_files_that_are_there(example: plot_gallery.Example) -> None:
    lines = [line for line in example.code.splitlines() if line and not line.startswith(("import ", "from "))]
    assert len(lines) <= 6 and f"ta.plots.{example.figure}(" in example.code
    read = re.findall(r'"(docs/[\w/.-]+\.csv)"', example.code)
    assert all((ROOT / name).is_file() for name in read)


def test_a_figure_without_an_example_is_named_with_the_file_that_it_needs(tmp_path: Path) -> None:
    (tmp_path / "frontier.py").write_text('"""Q?\n\nA.\n"""\n')
    with pytest.raises(
        ta.TensorAdaptError, match=r"figure 'curves' has no example; expected .*curves\.py: a docstring"
    ):
        plot_gallery.examples(tmp_path, ("curves", "frontier"))


def test_an_example_of_no_figure_and_one_that_says_nothing_are_named(tmp_path: Path) -> None:
    (tmp_path / "frontir.py").write_text('"""Q?\n\nA.\n"""\n')
    with pytest.raises(ta.TensorAdaptError, match=r"frontir\.py is of no figure.*frontier"):
        plot_gallery.examples(tmp_path, ("frontier",))
    (tmp_path / "frontir.py").write_text('"""Q?"""\n')
    with pytest.raises(ta.TensorAdaptError, match=r"frontir\.py says nothing; expected a docstring"):
        plot_gallery.examples(tmp_path, ("frontier",))


def test_the_page_shows_the_lines_that_are_run(tmp_path: Path) -> None:
    (path,) = plot_gallery.write(tmp_path, draw=False)
    text = path.read_text()
    for example in EXAMPLES:
        assert example.code in text and f"]({example.name}.png)" in text and example.title in text
        body = ast.parse(example.path.read_text()).body[1:]
        assert ast.dump(ast.Module(body, [])) == ast.dump(ast.parse(example.code))


@pytest.mark.thorough
def test_a_picture_is_as_wide_as_its_lines_say(tmp_path: Path) -> None:
    for name, inches in (("differences-column", 3.3), ("curves", 7)):
        (example,) = (one for one in EXAMPLES if one.name == name)
        (tmp_path / "x.png").write_bytes(plot_gallery.png(plot_gallery.drawn(example)))
        with Image.open(tmp_path / "x.png") as picture:
            assert picture.width == pytest.approx(inches * plot_gallery.DPI, abs=1)


def test_lines_that_draw_nothing_are_named(tmp_path: Path) -> None:
    (tmp_path / "curves.py").write_text('"""Q?\n\nA.\n"""\n')
    with pytest.raises(ta.TensorAdaptError, match=r"curves\.py draws 0 figures; expected one"):
        plot_gallery.drawn(plot_gallery.Example.read(tmp_path / "curves.py"))

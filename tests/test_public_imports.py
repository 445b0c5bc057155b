"""What readers are shown imports public names alone: the README, the notebooks, the examples and the pages of docs."""

from __future__ import annotations

import ast
import doctest
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.pages import DOCS, FROM_ELSEWHERE, MODULES, handwritten, members, reference

import tensoradapt as ta

ROOT = Path(__file__).parents[1]
OWNERS = {"ta": "tensoradapt"} | {path.replace("tensoradapt", "ta", 1): path for path in MODULES}  # as written
USED = re.compile(r"\btensoradapt\b|\bta\.")


def blocks(path: Path) -> list[str]:
    """The Python code of a script, a notebook, or a page; of doctests without what they print.

    Pages of the reference give signatures, which are no code, as python, and their examples as pycon.
    """
    text = REFERENCE[path] if path in REFERENCE else path.read_text()
    if path.suffix == ".py":
        return [text]
    if path.suffix == ".ipynb":
        return ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    kind = "pycon" if path.parent.name == "reference" else "(?:python|pycon)"
    found = re.findall(rf"^```{kind}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [
        "".join(example.source for example in doctest.DocTestParser().get_examples(code)) if ">>>" in code else code
        for code in found
    ]


REFERENCE = {DOCS / "reference" / name: text for name, text in reference().items()}
SHOWN = [
    ROOT / "README.md",
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
    *sorted((ROOT / "docs" / "examples").rglob("*.py")),
    *(page for page in [*handwritten(), *REFERENCE] if any(map(USED.search, blocks(page)))),
]


def inner_names(code: str) -> Iterator[str]:
    """What a piece of code imports of the package, or reads from ``ta``, that is no public name."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (
                one.name for one in node.names if one.name.startswith("tensoradapt.") and one.name not in MODULES
            )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tensoradapt":
            yield from (f"{node.module}.{one.name}" for one in node.names if not is_public(node.module, one.name))
        elif isinstance(node, ast.Attribute) and (owner := ast.unparse(node.value)) in OWNERS:
            yield from () if is_public(OWNERS[owner], node.attr) else (f"{owner}.{node.attr}",)


def is_public(module: str | None, name: str) -> bool:
    if module == "tensoradapt":
        return name in (*ta.__all__, "__version__") or f"tensoradapt.{name}" in MODULES
    listed = module in MODULES and name in members(MODULES[module])
    return listed or f"{module}.{name}" in {**MODULES, **FROM_ELSEWHERE}


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_readers_are_shown_imports_public_names_alone(path: Path) -> None:
    code = blocks(path)
    assert any(map(USED.search, code))
    assert not [name for block in code for name in inner_names(block)]

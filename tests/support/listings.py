"""Counts where the fields of a record are listed again: several of its names in one class, signature, call or literal.

``python tests/support/listings.py`` prints the places.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.training.options import Training

PACKAGE = Path(__file__).parents[2] / "tensoradapt"
LONGEST_TEXT = 140  # characters of a text that may list names, such as "lr steps"
ADAPTER = [f.name for f in fields(AdapterSpec)]
TRAINING = [f.name for f in fields(Training)]


def _texts(node: ast.AST) -> Iterator[str]:
    """Yield the texts that a node holds as literals."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            yield inner.value


def _of_call(node: ast.Call) -> Iterator[str]:
    """Yield the names of a call: its keywords, and what its arguments read or say."""
    yield from (keyword.arg for keyword in node.keywords if keyword.arg)
    for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
        yield from (inner.attr for inner in ast.walk(argument) if isinstance(inner, ast.Attribute))
    for argument in node.args:
        yield from (inner.id for inner in ast.walk(argument) if isinstance(inner, ast.Name))
        yield from _texts(argument)


def named_in(node: ast.AST) -> Iterable[str]:
    """Return the names that one class, signature, call or literal lists."""
    match node:
        case ast.ClassDef():
            declared = (line.target for line in node.body if isinstance(line, ast.AnnAssign))
            return [target.id for target in declared if isinstance(target, ast.Name)]
        case ast.FunctionDef():
            return [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
        case ast.Call():
            return _of_call(node)
        case ast.Dict():
            return [text for key in node.keys if key for text in _texts(key)]
        case ast.Tuple() | ast.List() | ast.Set():
            return [text for item in node.elts for text in _texts(item)]
        case ast.Constant(value=str() as text) if len(text) < LONGEST_TEXT:
            return text.split()
    return ()


def listings(names: Iterable[str], least: int) -> dict[str, list[int]]:
    """Return the files of the package that list at least so many of some names in one place, with their lines."""
    found: dict[str, list[int]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        nodes: list[Any] = list(ast.walk(ast.parse(path.read_text())))
        lines = {node.lineno for node in nodes if len({*named_in(node)} & {*names}) >= least}
        if lines:
            found[path.relative_to(PACKAGE).as_posix()] = sorted(lines)
    return found


def main() -> None:
    """Print the places where adapters and trainings are listed."""
    for what, names, least in (("adapters", ADAPTER, 5), ("trainings and data", TRAINING, 4)):
        places = listings(names, least)
        print(f"{what}: {len(places)} files, {sum(map(len, places.values()))} places")
        for file, lines in places.items():
            print(f"  {file}: {', '.join(map(str, lines))}")


if __name__ == "__main__":
    main()

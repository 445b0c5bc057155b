"""Reads the structure of the package: its modules, what they import and when, and their functions."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2] / "tensoradapt"
FILES = {
    ".".join(("tensoradapt", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


def folder_of(module: str) -> str:
    """Return the folder of the package that a module is in, such as "lab.runs"; the module itself at the root."""
    parts = module.split(".")[1:]
    return ".".join(parts[: 2 if parts[:1] == ["lab"] else 1])


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text())


def statements(module: str) -> list[ast.stmt]:
    """Return the import statements that run when a module is loaded; those for type checking alone do not."""
    return [node for node in parsed(module).body if is_import(node)]


def statements_for_types(module: str) -> list[ast.stmt]:
    """Return the import statements under ``if TYPE_CHECKING``, which the root has for all public names."""
    blocks = [node for node in parsed(module).body if isinstance(node, ast.If) and module != "tensoradapt"]
    return [node for block in blocks if ast.unparse(block.test) == "TYPE_CHECKING" for node in block.body]


def is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def names_of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def within_functions(module: str) -> set[str]:
    """Return what the functions of a module import when they run."""
    nodes = [node for function in functions(module) for node in ast.walk(function) if is_import(node)]
    return {name for node in nodes for name in names_of(node)}


def resolved(names: set[str]) -> set[str]:
    """Return the modules of the package that dotted names are in."""
    own = {name for name in names if name.split(".")[0] == "tensoradapt"}
    return {name if name in FILES else name.rpartition(".")[0] for name in own}


@cache
def imported(module: str) -> frozenset[str]:
    """Modules of the package that a module imports when it is loaded."""
    return frozenset(resolved({name for node in statements(module) for name in names_of(node)}) - {module})


@cache
def named(module: str) -> frozenset[str]:
    """Return the modules of the package that a module imports when it is loaded, or for its types."""
    types = resolved({name for node in statements_for_types(module) for name in names_of(node)})
    return imported(module) | (types - {module})


def outside(module: str) -> set[str]:
    """Top-level names of the packages beside this one that a module imports when it is loaded."""
    return {name.split(".")[0] for node in statements(module) for name in names_of(node)} - {"tensoradapt"}


def circle() -> list[str]:
    """Return modules that import one another in a loop, when they are loaded or for types; empty without one."""
    try:
        TopologicalSorter({module: named(module) for module in FILES}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def functions(module: str) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(parsed(module)) if isinstance(node, ast.FunctionDef)]


def lines_of_code(function: ast.FunctionDef) -> int:
    """Lines of a function's body without its docstring."""
    first = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - first[0].lineno + 1 if first else 0


def n_parameters(function: ast.FunctionDef) -> int:
    """Parameters of a function; ``self`` does not count."""
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])

"""Measures the structure of the package: folders and their order, circles, import depth, sizes of functions.

``python tests/support/house.py`` prints the figures.
"""

from __future__ import annotations

import ast
import io
import statistics
import tokenize
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2] / "tensoradapt"
# Each folder imports only from those on the lines above it; folders of one line know nothing of each other.
FOLDERS = (
    ("errors", "files", "checks", "text", "records", "habits"),
    ("networks", "metrics", "data"),
    ("sites",),
    ("parameterizations",),
    ("published",),
    ("planning",),
    ("adapter",),
    ("testing", "layers"),
    ("surgery",),
    ("storage", "lora", "training"),
    ("integrations", "compression", "tasks"),
    ("runs",),
    ("analysis",),
    ("sweeps",),
    ("cli",),
)
# Within these folders a subfolder imports only from those before it; "" stands for the folder's own files.
SUBFOLDERS = {"analysis": ("statistics", "", "plots", "page"), "sweeps": ("executors", "")}
PLACE = {name: line for line, names in enumerate(FOLDERS) for name in names}
FILES = {
    ".".join(("tensoradapt", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


def folder_of(module: str) -> str:
    """The folder of the package that a module is in, or the module itself at the root; ``__main__`` is the cli's."""
    return module.split(".")[1].replace("__main__", "cli") if "." in module else ""


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


def upward() -> list[tuple[str, str]]:
    """Imports from a folder that is not above: of one on the same line, or on a line below."""
    arrows = [(module, other) for module in FILES for other in named(module)]
    pairs = [(a, b) for a, b in arrows if "" not in (folder_of(a), folder_of(b)) and folder_of(a) != folder_of(b)]
    foundations = FOLDERS[0]
    return sorted(
        (a, b) for a, b in pairs if PLACE[folder_of(b)] >= PLACE[folder_of(a)] and folder_of(b) not in foundations
    )


def subfolder_of(module: str) -> str:
    """The folder within a folder of the package that a module is in; empty for the folder's own files."""
    inner = FILES[module].relative_to(ROOT).parts[1:-1]
    return inner[0] if inner else ""


def upward_within(folder: str) -> list[tuple[str, str]]:
    """Imports between the subfolders of a folder that go against their order."""
    order = SUBFOLDERS[folder]
    inside = [name for name in FILES if folder_of(name) == folder and name != f"tensoradapt.{folder}"]
    arrows = [(a, b) for a in inside for b in named(a) & set(inside)]
    return sorted((a, b) for a, b in arrows if order.index(subfolder_of(b)) > order.index(subfolder_of(a)))


def circle() -> list[str]:
    """Return modules that import one another in a loop, when they are loaded or for types; empty without one."""
    try:
        TopologicalSorter({module: named(module) for module in FILES}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@cache
def depth(module: str) -> int:
    """Modules in the longest chain of imports that begins with this one."""
    return 1 + max(map(depth, imported(module)), default=0)


def is_init(module: str) -> bool:
    return FILES[module].name == "__init__.py"


def lines(module: str) -> int:
    return len(FILES[module].read_text().splitlines())


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


def comments(module: str) -> list[str]:
    """Return a module's comments, without the sign and the spaces after it."""
    tokens = tokenize.generate_tokens(io.StringIO(FILES[module].read_text()).readline)
    return [token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT]


def classes(module: str) -> list[str]:
    """Return the names of a module's classes."""
    return [node.name for node in ast.walk(parsed(module)) if isinstance(node, ast.ClassDef)]


def first_lines(*nodes: ast.AST) -> list[str]:
    """Return the first lines of the docstrings of these nodes."""
    documented = [node for node in nodes if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    return [text.splitlines()[0] for node in documented if (text := ast.get_docstring(node))]


def folders() -> Counter[str]:
    """Python files in each folder, ``__init__`` and ``__main__`` aside."""
    return Counter(str(path.parent.relative_to(ROOT)) for path in FILES.values() if not path.name.startswith("__"))


def report() -> Iterator[str]:
    every = [function for module in FILES for function in functions(module)]
    sizes, code = [lines(module) for module in FILES if not is_init(module)], [*map(lines_of_code, every)]
    yield f"files {len(FILES)}, lines {sum(map(lines, FILES))}"
    yield f"median file {statistics.median(sizes):g} lines, longest {max(sizes)}"
    yield f"functions {len(every)}, median {statistics.median(code):g} lines, longest {max(code)}"
    yield "more than 9 parameters: " + ", ".join(f.name for f in every if n_parameters(f) > 9)
    yield f"largest folders {folders().most_common(4)}"
    yield f"circle {circle()}"
    if not circle():
        yield f"depth {max(map(depth, FILES))}"
    yield from (f"not from above: {a} imports {b}" for a, b in upward())


if __name__ == "__main__":
    print("\n".join(report()))

"""Imports go one way, files and functions stay small, and what needs no torch works without it."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import tensoradapt as ta

ROOT = Path(ta.__file__).parent
ORDER = (
    *("errors", "files", "modes", "contraction", "network", "als", "parameterizations", "published_row"),
    *(
        "published_tenslora",
        "published_rows",
        "recipe",
        "recipe_parts",
        "recipes",
        "published",
        "methods_page",
        "site",
        "bare",
        "recipe_sites",
        "layer_stacks",
        "generic",
        "module_sites",
        "sites",
        "strips",
        "splits",
        "grouping",
        "ranks",
        "rank_pattern",
        "choices",
        "report",
        "variants",
        "trained",
    ),
    *("plan", "records", "checkpoint", "sharding", "card", "hub"),
    *("first_step", "init", "factored", "stacking", "routing", "adapter", "surgery"),
    *("peft_config", "peft_folder", "lora_folder", "updates", "cores", "fitting", "compressed", "compression"),
    *("lora_pairs", "module_pairs", "export_report", "export"),
    *("rounding", "rank_choice", "rank_adaptation"),
    *("laws", "testing", "_index", "assets", "tasks", "models", "language_models", "preconditioning"),
    *("training_state", "training"),
    "integrations",
    *(
        "sweep.machine",
        "sweep.store",
        "analysis",
        "sweep",
        "cli_compress",
        "cli_export",
        "cli_sweep",
        "cli_figures",
        "cli",
    ),
)
# third-party packages that a function may import when it runs: optional, or too slow for what does not need them
LAZY = {
    "torch",
    "transformers",
    "datasets",
    "rich",
    "scipy",
    "matplotlib",
    "huggingface_hub",
    "bitsandbytes",
    "torchao",
    "pandas",
    "pyarrow",
    "moocore",
    "jinja2",
    "optuna",
    "trackio",
    "wandb",
}
FILES = {
    ".".join(("tensoradapt", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
every_file = pytest.mark.parametrize("module", FILES)


@every_file
def test_imports_go_one_way(module: str) -> None:
    backwards = [other for other in imported(module) if level(other) > level(module)]
    assert not backwards, f"{module} imports {backwards}, which come after it"


def test_no_module_imports_itself_through_others() -> None:
    TopologicalSorter({module: imported(module) - {module} for module in FILES}).prepare()


def test_analysis_and_plans_reach_no_torch() -> None:
    for module in [name for name in FILES if level(name) in (level("tensoradapt.analysis"), level("tensoradapt.plan"))]:
        reached = {module}
        while more := {other for one in reached for other in imported(one)} - reached:
            reached |= more
        assert not [one for one in reached if "torch" in outside(one)], module


@every_file
def test_nothing_needs_peft(module: str) -> None:
    assert "peft" not in outside(module) or level(module) == ORDER.index("integrations")


@every_file
def test_functions_import_only_what_is_optional_or_slow(module: str) -> None:
    inside = [node for function in functions(module) for node in ast.walk(function) if is_import(node)]
    names = {name.split(".")[0] for node in inside for name in names_of(node)}
    own = {"tensoradapt"} if module.startswith("tensoradapt.cli") else set()  # each command loads what it needs
    assert names <= LAZY | own


@every_file
def test_files_have_at_most_300_lines_and_functions_50(module: str) -> None:
    assert len(FILES[module].read_text().splitlines()) <= 300
    long = {f.name: lines_of_code(f) for f in functions(module) if lines_of_code(f) > 50}
    assert not long


@pytest.mark.parametrize("name", sorted(ta.__all__))
def test_every_public_name_resolves_and_is_documented(name: str) -> None:
    assert (getattr(ta, name).__doc__ or "").strip()
    assert name in dir(ta)


@every_file
def test_every_module_and_public_function_says_what_it_is(module: str) -> None:
    tree = parsed(module)
    public = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"]
    missing = [node.name for node in public if not ast.get_docstring(node)]
    assert ast.get_docstring(tree) is not None
    assert not missing


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, tensoradapt; print(sorted(sys.modules))"
    loaded = set(ast.literal_eval(run(code)))
    assert not loaded & {"torch", "transformers", "matplotlib", "scipy", "hypothesis", "peft", "rich"}


def test_runs_are_analysed_and_plotted_without_torch(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import tensoradapt as ta
from synthetic_runs import write_many
write_many(Path({str(tmp_path)!r}), {{"cp": [(2, 300, 0.75), (4, 600, 0.8)], "lora": [(1, 900, 0.82)]}})
points = ta.frontier(ta.load_runs(Path({str(tmp_path)!r})))
ta.plots.frontier(ta.load_runs(Path({str(tmp_path)!r})))
print(len(points))
"""
    assert int(run(code)) >= 2


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def level(module: str) -> int:
    """The place in ORDER of the longest name there that the module is in; the lazy roots come before the sweep."""
    if module == "tensoradapt.sweep":
        return ORDER.index("plan")  # it imports nothing; like plan it must be there before its name is asked for
    names = [i for i, name in enumerate(ORDER) if f"{module}.".startswith(f"tensoradapt.{name}.")]
    found = max(names, key=lambda i: len(ORDER[i]), default=ORDER.index("training"))
    assert names or module == "tensoradapt", f"{module} has no place in the order of imports"
    return found


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text())


def imported(module: str) -> set[str]:
    """Modules of the package that a module imports when it is loaded, type checking aside."""
    found = {name for node in top_level(module) for name in names_of(node) if name.split(".")[0] == "tensoradapt"}
    return {name if name in FILES else name.rpartition(".")[0] for name in found} - {module}


def outside(module: str) -> set[str]:
    return {name.split(".")[0] for node in top_level(module) for name in names_of(node)} - {"tensoradapt"}


def top_level(module: str) -> list[ast.stmt]:
    return [node for node in parsed(module).body if is_import(node)]


def is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def names_of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def functions(module: str) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(parsed(module)) if isinstance(node, ast.FunctionDef)]


def lines_of_code(function: ast.FunctionDef) -> int:
    first = function.body[1:] if ast.get_docstring(function) else function.body
    return function.end_lineno - first[0].lineno + 1 if first else 0

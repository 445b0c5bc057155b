"""The core knows no lab, functions stay small, and what needs no torch works without it."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import operator
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import house

import tensoradapt as ta
from tensoradapt.lab.analysis.plots import NAMES
from tensoradapt.lab.cli.main import TABLE

# Third-party packages that a function may import when it runs: optional, or too slow for what does not need them.
LAZY = {
    "importlib",  # its metadata are slow, and the package is to be imported quickly
    "difflib",  # the same
    "torch",  # slow: sites are found, models named and runs tracked by code that plans and reports use without it
    "transformers",  # extra demo
    "tokenizers",  # extra demo
    "datasets",  # extra hub
    "scipy",  # slow: only correlations need its statistics, and decompositions its linear algebra
    "tensorly",  # slow: only decompositions need it, and every command plans
    "matplotlib",  # slow: only drawing needs it
    "huggingface_hub",  # extra demo
    "bitsandbytes",  # extra quantised
    "torchao",  # extra quantised
    "pandas",  # slow: only tables need it
    "pyarrow",  # extra data
    "PIL",  # extra vision
    "sklearn",  # extra data
    "optuna",  # extra optuna
    "submitit",  # extra slurm
    "ray",  # extra ray
    "trackio",  # extra trackio
    "wandb",  # extra wandb
    "swift",  # ms-swift, which no extra installs
    "llamafactory",  # no extra installs it
    "pip",  # not installed everywhere; used in a process of its own
}
# modules of the package that functions import when they run: they load torch, which a sweep must do without where its
# runs are finished, or are computed by other processes
SLOW = {
    "tensoradapt.lab.analysis",  # its figures load pandas and matplotlib
    "tensoradapt.lab.frames",  # loads pandas
    "tensoradapt.layers.stored_matrix",
    "tensoradapt.lab.data.models",
    "tensoradapt.lab.runs.execute",
    "tensoradapt.training.state",
    "tensoradapt.surgery.attach",
    "tensoradapt.surgery.factors_from_model",
    "tensoradapt.surgery.registry",
}
# public functions whose arguments are the toolkit's interface
MANY_PARAMETERS = {"plan", "fit", "sweep", "compress", "export_lora", "push_to_hub", *TABLE}  # options of commands
every_file = pytest.mark.parametrize("module", house.FILES)


@pytest.mark.thorough
def test_a_core_file_that_imports_the_lab_is_refused(tmp_path: Path) -> None:
    copied = shutil.copytree(house.ROOT, tmp_path / "tensoradapt", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(house.ROOT.parent / "pyproject.toml", tmp_path)
    check = functools.partial(subprocess.run, ["lint-imports"], cwd=tmp_path, capture_output=True, text=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    assert check(env=environment).returncode == 0
    site = copied / "sites" / "find.py"
    site.write_text(site.read_text() + "\n\ndef mutant() -> None:\n    from tensoradapt.lab.data import models\n")
    found = check(env=environment)
    assert found.returncode == 1 and "tensoradapt.sites is not allowed to import tensoradapt.lab" in found.stdout


def test_analysis_reads_runs_through_the_store_and_their_rows_alone() -> None:
    for module in house.FILES:
        if house.folder_of(module) == "lab.analysis":
            reached = {
                other for other in house.imported(module) if house.folder_of(other) in ("lab.runs", "lab.sweeps")
            }
            assert reached <= {"tensoradapt.lab.runs.store", "tensoradapt.lab.runs.row"}


def test_no_module_imports_itself_through_others_even_for_types() -> None:
    assert not house.circle()


def test_analysis_and_plans_reach_no_torch() -> None:
    for module in [
        name for name in house.FILES if house.folder_of(name) in ("lab.analysis", "planning", "networks", "sites")
    ]:
        reached = {module}
        while more := {other for one in reached for other in house.imported(one)} - reached:
            reached |= more
        assert not [one for one in reached if "torch" in house.outside(one)], module


@every_file
def test_nothing_needs_peft(module: str) -> None:
    assert "peft" not in house.outside(module) or house.folder_of(module) in ("integrations", "extras")


@every_file
def test_functions_import_only_what_is_optional_or_slow(module: str) -> None:
    names = {name.split(".")[0] for name in house.within_functions(module) if name.rpartition(".")[0] not in SLOW}
    # each command loads what it needs, and so does what the lab registers
    late = module.startswith("tensoradapt.lab.cli") or module in ("tensoradapt.lab", "tensoradapt.lab.checkup")
    own = {"tensoradapt"} if late else set()
    assert names <= LAZY | own


@every_file
def test_functions_have_at_most_50_lines_and_9_parameters(module: str) -> None:
    assert not {f.name: n for f in house.functions(module) if (n := house.lines_of_code(f)) > 50}
    assert {f.name for f in house.functions(module) if house.n_parameters(f) > 9} <= MANY_PARAMETERS


@pytest.mark.parametrize("name", sorted(ta.__all__))
def test_every_public_name_resolves_and_is_documented(name: str) -> None:
    assert (getattr(ta, name).__doc__ or "").strip()
    assert name in dir(ta)


@pytest.mark.parametrize("name", sorted(ta.__all__))
def test_type_checkers_find_every_public_name_where_it_is(name: str) -> None:
    (block,) = [node for node in house.parsed("tensoradapt").body if isinstance(node, ast.If)]
    named = {alias.asname: (node.module, alias.name) for node in block.body for alias in node.names}  # type: ignore[attr-defined]
    module, attribute = named[name]
    public = getattr(ta, name)  # first, as a module may be the attribute
    assert getattr(importlib.import_module(module), attribute) is public


@pytest.mark.parametrize("name", ["sweep", "results", *(f"plots.{name}" for name in NAMES)])
def test_public_functions_have_real_signatures(name: str) -> None:
    found = inspect.signature(operator.attrgetter(name)(ta))
    kinds = {parameter.kind for parameter in found.parameters.values()}
    assert len(found.parameters) >= 4 and inspect.Parameter.VAR_POSITIONAL not in kinds
    assert not name.startswith("plots.") or list(found.parameters)[1] == "ax"


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, tensoradapt; print(sorted(sys.modules))"
    loaded = set(ast.literal_eval(run(code)))
    assert not loaded & {"torch", "transformers", "matplotlib", "scipy", "hypothesis", "peft", "pandas"}


@pytest.mark.thorough
def test_runs_are_analysed_and_plotted_without_torch(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = None
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import tensoradapt as ta
from tensoradapt.lab.cli.main import TABLE
from support.synthetic_runs import write_many
write_many(Path({str(tmp_path)!r}), {{"cp": [(2, 300, 0.75), (4, 600, 0.8)], "lora": [(1, 900, 0.82)]}})
means = ta.frontier(ta.load_runs(Path({str(tmp_path)!r})))
ta.plots.frontier(ta.load_runs(Path({str(tmp_path)!r})))
print(len(means))
"""
    assert int(run(code)) >= 2


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

"""The pages of docs that are in git, those that docs/make makes of code, and the public names that these describe."""

from __future__ import annotations

import inspect
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import tensoradapt as ta
from tensoradapt import testing
from tensoradapt.extras import axolotl, llama_factory, ms_swift
from tensoradapt.integrations import peft, trainer
from tensoradapt.lab.data import assets
from tensoradapt.sites import recipe

MODULES = {
    "tensoradapt.parameterizations": ta.parameterizations,
    "tensoradapt.published": ta.published,
    "tensoradapt.plots": ta.plots,
    "tensoradapt.spectra": ta.spectra,
    "tensoradapt.statistics": ta.statistics,
    "tensoradapt.testing": testing,
    "tensoradapt.lab.data.assets": assets,
    "tensoradapt.sites.recipe": recipe,
    "tensoradapt.integrations.peft": peft,
    "tensoradapt.integrations.trainer": trainer,
    "tensoradapt.extras.ms_swift": ms_swift,
    "tensoradapt.extras.llama_factory": llama_factory,
    "tensoradapt.extras.axolotl": axolotl,
}
FROM_ELSEWHERE = {f"tensoradapt.plots.{name}": getattr(ta.plots, name) for name in ta.plots.NAMES}  # files of plots


def members(module: ModuleType) -> dict[str, Any]:
    """Return the functions and classes of ``__all__`` of a module, or else all of its own."""
    listed = getattr(module, "__all__", None)
    own = {name: value for name, value in vars(module).items() if inspect.isfunction(value) or inspect.isclass(value)}
    return {
        name: value
        for name, value in own.items()
        if (name in listed if listed is not None else value.__module__ == module.__name__ and not name.startswith("_"))
    }


def public() -> dict[str, Any]:
    """Every public function and class, each by the first of its names."""
    top = {f"tensoradapt.{name}": getattr(ta, name) for name in ta.__all__}
    found = {name: value for name, value in top.items() if not inspect.ismodule(value)} | FROM_ELSEWHERE
    for path, module in MODULES.items():
        new = {f"{path}.{name}": value for name, value in members(module).items()}
        found |= {name: value for name, value in new.items() if not any(value is other for other in found.values())}
    return found


def parameters(value: Any) -> list[str]:
    """The names of what it is called with."""
    return [name for name in inspect.signature(value).parameters if name not in ("self", "args", "kwargs")]


ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.append(str(DOCS / "make"))


def handwritten() -> list[Path]:
    """The pages that are in git, which .gitignore does not name."""
    ignored = [line for line in (ROOT / ".gitignore").read_text().splitlines() if line.startswith("/docs/")]
    made = {ROOT / line[1:] for line in ignored if line.endswith(".md")} | {*(DOCS / "notebooks").glob("[0-9]*.md")}
    return sorted(page for page in {*DOCS.rglob("*.md")} - made if not page.is_relative_to(DOCS / "gallery"))


@cache
def reference() -> dict[str, str]:
    """The made pages of docs/reference by the names of their files."""
    import site_pages

    return site_pages.reference()

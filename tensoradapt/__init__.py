"""tensoradapt: tensor-decomposition adapters for transformers.

Layouts are strings, parameterizations are labelled networks, and only (A, B) crosses to the layers.
Names are imported when first used, so planning from a config and analysing runs work without torch.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "TensorAdaptError": "tensoradapt.errors",
    "Plan": "tensoradapt.planning.plan",
    "plan": "tensoradapt.planning.build_plan",
    "Task": "tensoradapt.tasks.task",
    "register_task": "tensoradapt.tasks.registry",
    "sweep": "tensoradapt.sweeps.run_sweep",
    "find_sites": "tensoradapt.sites.find",
    "FactoredTensor": "tensoradapt.adapter.factored",
    "Adapter": "tensoradapt.adapter.adapter",
    "adapters": "tensoradapt.surgery.registry",
    "print_trainable_parameters": "tensoradapt.surgery.registry",
    "attach": "tensoradapt.surgery.attach",
    "detach": "tensoradapt.surgery.attach",
    "disabled": "tensoradapt.surgery.attach",
    "merge": "tensoradapt.surgery.merge",
    "unmerge": "tensoradapt.surgery.merge",
    "merge_and_unload": "tensoradapt.surgery.attach",
    "load": "tensoradapt.storage.load",
    "from_pretrained": "tensoradapt.storage.load",
    "push_to_hub": "tensoradapt.storage.hub",
    "model_card": "tensoradapt.storage.card",
    "restore": "tensoradapt.storage.load",
    "use": "tensoradapt.surgery.use",
    "compress": "tensoradapt.compression.compress",
    "export_lora": "tensoradapt.lora.export",
    "fit": "tensoradapt.training.fit",
    "parameter_groups": "tensoradapt.training.fit",
    "equal_steps": "tensoradapt.training.equal_steps",
    "preconditioned": "tensoradapt.training.preconditioning",
    "reduce_rank": "tensoradapt.training.reduce_rank",
    "load_runs": "tensoradapt.runs.store",
    "frontier": "tensoradapt.analysis.tables.frontier",
    "savings": "tensoradapt.analysis.tables.savings",
    "results": "tensoradapt.sweeps.reports.dataframe",
}
_MODULES = {
    "parameterizations": "tensoradapt.parameterizations",
    "published": "tensoradapt.published",
    "plots": "tensoradapt.analysis.figures.plots",
    "spectra": "tensoradapt.analysis.statistics.spectra",
    "spectra_plots": "tensoradapt.analysis.figures.spectra_plots",
}
__all__ = [*_HOME, *_MODULES]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'tensoradapt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

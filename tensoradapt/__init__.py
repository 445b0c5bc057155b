"""tensoradapt: tensor-decomposition adapters for transformers.

Layouts are strings, parameterizations are labelled networks, and only (A, B) crosses to the layers.
Names are imported when first used, so planning from a config and analysing runs work without torch.
"""

from __future__ import annotations

import importlib
from typing import Any

# not lazy: the first import of the modules tensoradapt.plan and tensoradapt.sweep would put them in these names' places
from tensoradapt.plan import Plan, plan
from tensoradapt.sweep import sweep

_HOME = {
    "TensorAdaptError": "tensoradapt.errors",
    "find_sites": "tensoradapt.sites",
    "FactoredTensor": "tensoradapt.factored",
    "Adapter": "tensoradapt.adapter",
    "adapters": "tensoradapt.surgery",
    "attach": "tensoradapt.surgery",
    "detach": "tensoradapt.surgery",
    "disabled": "tensoradapt.surgery",
    "merge": "tensoradapt.surgery",
    "unmerge": "tensoradapt.surgery",
    "load": "tensoradapt.surgery",
    "from_pretrained": "tensoradapt.surgery",
    "push_to_hub": "tensoradapt.hub",
    "model_card": "tensoradapt.card",
    "restore": "tensoradapt.surgery",
    "use": "tensoradapt.surgery",
    "compress": "tensoradapt.compression",
    "export_lora": "tensoradapt.export",
    "fit": "tensoradapt.training",
    "parameter_groups": "tensoradapt.training",
    "preconditioned": "tensoradapt.preconditioning",
    "reduce_rank": "tensoradapt.rank_adaptation",
    "load_runs": "tensoradapt.sweep.store",
    "frontier": "tensoradapt.analysis.frontier",
}
_MODULES = {
    "parameterizations": "tensoradapt.parameterizations",
    "published": "tensoradapt.published",
    "plots": "tensoradapt.analysis.plots",
    "spectra": "tensoradapt.analysis.spectra",
    "spectra_plots": "tensoradapt.analysis.spectra_plots",
}
__all__ = ["Plan", "plan", "sweep", *_HOME, *_MODULES]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'tensoradapt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

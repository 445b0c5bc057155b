"""Tensor-decomposition adapters for transformers.

Layouts are strings, parameterizations are labelled networks, and only (A, B) crosses to the layers.
Names are imported when first used, so planning from a config and analysing runs work without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tensoradapt import doors
from tensoradapt import lab as lab  # which registers names of models, and loads nothing else

if TYPE_CHECKING:  # so that editors and type checkers know the names below, with their signatures
    from tensoradapt import parameterizations as parameterizations
    from tensoradapt import published as published
    from tensoradapt.adapter.adapter import Adapter as Adapter
    from tensoradapt.adapter.factored import FactoredTensor as FactoredTensor
    from tensoradapt.compression.compress import compress as compress
    from tensoradapt.compression.sharing import sharing as sharing
    from tensoradapt.errors import TensorAdaptError as TensorAdaptError
    from tensoradapt.extras.alignment import alignment as alignment
    from tensoradapt.extras.orthonormal.steps import orthonormal as orthonormal
    from tensoradapt.lab.analysis import plots as plots
    from tensoradapt.lab.analysis import statistics as statistics
    from tensoradapt.lab.analysis.comparisons import compare as compare
    from tensoradapt.lab.analysis.paper import paper_table as paper_table
    from tensoradapt.lab.analysis.statistics import spectra as spectra
    from tensoradapt.lab.analysis.tables import frontier as frontier  # type: ignore[no-redef, unused-ignore]
    from tensoradapt.lab.analysis.tables import summarise as summarise
    from tensoradapt.lab.analysis.verdict import verdict as verdict
    from tensoradapt.lab.choose import choose as choose
    from tensoradapt.lab.data.models import model_folder as model_folder
    from tensoradapt.lab.methods import methods as methods
    from tensoradapt.lab.metrics.metric import Metric as Metric
    from tensoradapt.lab.runs.store import load_runs as load_runs
    from tensoradapt.lab.runs.trained import load_run as load_run
    from tensoradapt.lab.runs.trained import train as train
    from tensoradapt.lab.sweeps.report import report as report
    from tensoradapt.lab.sweeps.results import results as results
    from tensoradapt.lab.sweeps.run_sweep import sweep as sweep
    from tensoradapt.lab.tasks.registry import load_task as load_task
    from tensoradapt.lab.tasks.registry import register_task as register_task
    from tensoradapt.lab.tasks.task import Task as Task
    from tensoradapt.lora.export import export_lora as export_lora
    from tensoradapt.networks.network import Factor as Factor
    from tensoradapt.networks.network import Network as Network
    from tensoradapt.planning.build_plan import plan as plan
    from tensoradapt.planning.plan import Plan as Plan
    from tensoradapt.planning.spec import AdapterSpec as AdapterSpec
    from tensoradapt.sites.find import find_sites as find_sites
    from tensoradapt.storage.card import model_card as model_card
    from tensoradapt.storage.hub import push_to_hub as push_to_hub
    from tensoradapt.storage.load import from_pretrained as from_pretrained
    from tensoradapt.storage.load import load as load
    from tensoradapt.storage.load import restore as restore
    from tensoradapt.storage.save_model import save_model as save_model
    from tensoradapt.surgery.attach import attach as attach
    from tensoradapt.surgery.attach import detach as detach
    from tensoradapt.surgery.attach import disabled as disabled
    from tensoradapt.surgery.attach import merge_and_unload as merge_and_unload
    from tensoradapt.surgery.merge import merge as merge
    from tensoradapt.surgery.merge import unmerge as unmerge
    from tensoradapt.surgery.registry import adapters as adapters
    from tensoradapt.surgery.registry import print_trainable_parameters as print_trainable_parameters
    from tensoradapt.surgery.use import use as use
    from tensoradapt.training.equal_steps import equal_steps as equal_steps
    from tensoradapt.training.fit import fit as fit
    from tensoradapt.training.fit import parameter_groups as parameter_groups
    from tensoradapt.training.preconditioning import preconditioned as preconditioned
    from tensoradapt.training.reduce_rank import reduce_rank as reduce_rank

_HOME = {
    "TensorAdaptError": "tensoradapt.errors",
    "Plan": "tensoradapt.planning.plan",
    "plan": "tensoradapt.planning.build_plan",
    "AdapterSpec": "tensoradapt.planning.spec",
    "methods": "tensoradapt.lab.methods",
    "choose": "tensoradapt.lab.choose",
    "Task": "tensoradapt.lab.tasks.task",
    "register_task": "tensoradapt.lab.tasks.registry",
    "load_task": "tensoradapt.lab.tasks.registry",
    "model_folder": "tensoradapt.lab.data.models",
    "Metric": "tensoradapt.lab.metrics.metric",
    "sweep": "tensoradapt.lab.sweeps.run_sweep",
    "find_sites": "tensoradapt.sites.find",
    "Network": "tensoradapt.networks.network",
    "Factor": "tensoradapt.networks.network",
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
    "save_model": "tensoradapt.storage.save_model",
    "use": "tensoradapt.surgery.use",
    "compress": "tensoradapt.compression.compress",
    "sharing": "tensoradapt.compression.sharing",
    "export_lora": "tensoradapt.lora.export",
    "fit": "tensoradapt.training.fit",
    "parameter_groups": "tensoradapt.training.fit",
    "equal_steps": "tensoradapt.training.equal_steps",
    "preconditioned": "tensoradapt.training.preconditioning",
    "reduce_rank": "tensoradapt.training.reduce_rank",
    "load_runs": "tensoradapt.lab.runs.store",
    "load_run": "tensoradapt.lab.runs.trained",
    "train": "tensoradapt.lab.runs.trained",
    "results": "tensoradapt.lab.sweeps.results",
    "report": "tensoradapt.lab.sweeps.report",
    "summarise": "tensoradapt.lab.analysis.tables",
    "verdict": "tensoradapt.lab.analysis.verdict",
    "compare": "tensoradapt.lab.analysis.comparisons",
    "frontier": "tensoradapt.lab.analysis.tables",
    "paper_table": "tensoradapt.lab.analysis.paper",
}
_MODULES = {
    "parameterizations": "tensoradapt.parameterizations",
    "published": "tensoradapt.published",
    "plots": "tensoradapt.lab.analysis.plots",
    "spectra": "tensoradapt.lab.analysis.statistics.spectra",
    "statistics": "tensoradapt.lab.analysis.statistics",
}
__all__ = [*_HOME, *_MODULES, *doors.names("names")]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        module, habits = importlib.import_module(_MODULES[name]), importlib.import_module("tensoradapt.habits")
        if name in habits.MODULES:
            module.__class__ = habits.Module
        return module
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in doors.names("names"):
        return doors.get("names", name)
    if missing := doors.missing("names", name):
        raise AttributeError(f"tensoradapt has no {name}{missing}")
    if name.startswith("__"):  # as importlib and inspect look for
        raise AttributeError(f"module 'tensoradapt' has no attribute {name!r}")
    habits = importlib.import_module("tensoradapt.habits")
    raise habits.no_attribute("tensoradapt", name, habits.PACKAGE, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)

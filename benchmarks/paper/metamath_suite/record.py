"""The result of a run in the format of PEFT's comparison: run_info, train_info, meta_info."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metamath_suite.course import Course, mean
from metamath_suite.setting import Experiment, Setting
from tensoradapt.lab.runs.provenance import commit_of, provenance, version
from tensoradapt.planning.plan import Plan
from tensoradapt.records import as_json

SUCCESS, CANCELED = "success", "canceled"
PACKAGES = ("transformers", "peft", "datasets", "bitsandbytes", "torch")
PERCENTILE = 99


@dataclass(frozen=True)
class Outcome:
    """What a result is made of, besides the experiment and its course: times in seconds, sizes in bytes."""

    created_at: str
    total_time: float
    train_time: float
    dtype: str
    device: str
    file_size: int
    peak_memory: int
    n_trained: int
    n_total: int
    model_sha: str | None = None
    error: str = ""

    @property
    def status(self) -> str:
        """Whether the run ended as it should."""
        return CANCELED if self.error else SUCCESS


def document(experiment: Experiment, plan: Plan, course: Course, outcome: Outcome) -> dict[str, Any]:
    """Return the result as JSON's types; what a local run cannot know, such as the hub's dates, is None."""
    return {
        "run_info": _run_info(experiment, plan, outcome),
        "train_info": _train_info(course, outcome),
        "meta_info": _meta_info(outcome),
    }


def file_name(experiment: Experiment) -> str:
    """Return what PEFT's comparison calls the file of an experiment."""
    return f"{experiment.name.replace('/', '--')}.json"


def as_bytes(document: Mapping[str, Any]) -> bytes:
    """Return a document as the text of its file."""
    return json.dumps(document, indent=2, allow_nan=False).encode() + b"\n"


def train_config(setting: Setting, dtype: str) -> dict[str, Any]:
    """Return the setting as PEFT's TrainConfig; what is no choice here has the value that it stands for."""
    return {
        **{"model_id": setting.model_id, "dtype": dtype, "max_seq_length": setting.max_seq_length},
        **{"batch_size": setting.batch_size, "batch_size_eval": setting.batch_size_eval},
        **{"max_steps": setting.max_steps, "eval_steps": setting.eval_steps, "compile": False, "use_gc": False},
        **{"query_template": setting.query_template, "seed": setting.seed, "grad_norm_clip": setting.grad_norm_clip},
        **{"optimizer_type": setting.optimizer_type, "optimizer_kwargs": dict(setting.rates)},
        **{"lr_scheduler": "cosine", "use_amp": False, "autocast_adapter_dtype": True},
        **{"generation_kwargs": dict(setting.lengths), "attn_implementation": None, "init_kv_cache_prefix": None},
    }


def peft_config(experiment: Experiment, plan: Plan) -> dict[str, Any]:
    """Return the adapter as a config of ``tensoradapt.integrations.peft``, which PEFT reads."""
    own = {name: as_json(value) for name, value in experiment.plan.items() if name != "projections"}
    modules = sorted({site.module.rpartition(".")[2] for site in plan.sites})
    head = {"task_type": "CAUSAL_LM", "peft_type": "TENSORADAPT", "auto_mapping": None}
    base = {"base_model_name_or_path": experiment.setting.model_id, "revision": None, "inference_mode": False}
    return {**head, "peft_version": version("peft"), **base, "target_modules": modules, **own}


def _run_info(experiment: Experiment, plan: Plan, outcome: Outcome) -> dict[str, Any]:
    commit = commit_of(Path(__file__).parents[3]) or ""
    return {
        "created_at": outcome.created_at,
        "total_time": outcome.total_time,
        "experiment_name": experiment.name,
        "peft_branch": f"tensoradapt-{version('tensoradapt')}",
        "peft_worktree_is_dirty": commit.endswith("-dirty"),
        "train_config": train_config(experiment.setting, outcome.dtype),
        "peft_config": peft_config(experiment, plan),
        "error_msg": outcome.error,
    }


def _train_info(course: Course, outcome: Outcome) -> dict[str, Any]:
    reserved = [step.reserved for step in course.steps] or [0]
    return {
        "accelerator_memory_reserved_avg": int(mean(reserved)),
        "accelerator_memory_max": outcome.peak_memory,
        "accelerator_memory_reserved_99th": int(np.percentile(reserved, PERCENTILE)),
        "train_time": outcome.train_time,
        "file_size": outcome.file_size,
        "num_trainable_params": outcome.n_trained,
        "num_total_params": outcome.n_total,
        "status": outcome.status,
        "metrics": course.metrics,
    }


def _meta_info(outcome: Outcome) -> dict[str, Any]:
    unknown = {"sha": None, "created_at": None}
    versions = {f"{name}-version": version(name) for name in PACKAGES} | {"torch-version": torch.__version__}
    package_info = {key: value for name in PACKAGES for key, value in _of_package(name, versions).items()}
    return {
        "model_info": {"sha": outcome.model_sha, "created_at": None},
        "dataset_info": {"metamath": dict(unknown), "gsm8k": dict(unknown)},
        "package_info": package_info,
        "system_info": _system_info(outcome.device),
        "pytorch_info": torch.__config__.show(),
    }


def _of_package(name: str, versions: Mapping[str, str | None]) -> dict[str, str | None]:
    return {f"{name}-version": versions[f"{name}-version"], f"{name}-commit-hash": None}


def _system_info(device: str) -> dict[str, str]:
    cuda = torch.device(device).type == "cuda"
    return {
        "system": platform.system(),
        "release": platform.release(),
        "version": platform.version(),
        "machine": platform.machine(),
        "processor": platform.processor(),
        "accelerator": torch.cuda.get_device_name(device) if cuda else str(provenance()["cpu"]),
    }

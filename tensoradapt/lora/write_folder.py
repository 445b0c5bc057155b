"""Write a LoRA folder that every reader computes alike, although PEFT, vLLM, TGI and llama.cpp scale differently.

They agree where every scale is in B and ``r = lora_alpha`` is the one rank of all pairs, with no patterns, no biases
and no other trained modules.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors.torch import save as pack_tensors
from torch import Tensor

from tensoradapt.checks import one_of, shown
from tensoradapt.errors import TensorAdaptError, few
from tensoradapt.files import parse_json, read_bounded, reason, replace_files
from tensoradapt.lora.config import CONFIG, TENSORS
from tensoradapt.lora.read_folder import PREFIX

EMPTY: Mapping[str, Tensor] = MappingProxyType({})
Halves = tuple[Tensor, Tensor]  # A (R, in) and B (out, R) in the dtype of the file

# PEFT looks for a trained head in a folder of any other task type, and fails
TASK_TYPES = ("CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION")
HEADED = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
# settings that are the same in every export
PLAIN: Mapping[str, Any] = {
    **dict.fromkeys(("exclude_modules", "layers_pattern", "layers_to_transform", "modules_to_save", "revision")),
    **dict.fromkeys(("use_dora", "use_rslora"), False),
    **dict.fromkeys(("inference_mode", "init_lora_weights"), True),
    **{"alpha_pattern": {}, "rank_pattern": {}},
    **{"bias": "none", "lora_dropout": 0.0, "peft_type": "LORA"},
}
NAMED = "base_model_name_or_path"
VARIED = ("auto_mapping", "base_model_name_or_path", "fan_in_fan_out", "lora_alpha", "r", "target_modules", "task_type")


def write_lora(
    path: Path, config: Mapping[str, Any], pairs: Mapping[str, Halves], heads: Mapping[str, Tensor] = EMPTY
) -> None:
    """Write config and tensors, once both are whole on disk, the config last; ``heads`` are of ``modules_to_save``."""
    tensors = {
        f"{PREFIX}{module}.lora_{side}.weight": half.contiguous()
        for module, pair in pairs.items()
        for side, half in zip("AB", pair, strict=True)
    } | {f"{PREFIX}{name}": value.contiguous() for name, value in heads.items()}
    text = (json.dumps(config, indent=2, sort_keys=True) + "\n").encode()
    replace_files({path / TENSORS: pack_tensors(tensors, metadata={"format": "pt"}), path / CONFIG: text})


def check_folder(path: Path) -> None:
    """Raise TensorAdaptError for a folder that holds anything but an earlier export."""
    try:
        names = sorted(file.name for file in path.iterdir()) if path.exists() else []
    except OSError as error:
        raise TensorAdaptError(f"{path} is no folder to export to ({reason(error)}); choose another path") from None
    if names and not _is_export(path / CONFIG):
        raise TensorAdaptError(
            f"{path} holds {few(names, 3)}; expected a new or empty folder, or an earlier export, which "
            "is replaced. Choose another path, or remove them"
        )


def _is_export(path: Path) -> bool:
    """Say whether a config was written here: PEFT writes its version and more into those of trained adapters."""
    try:
        config = parse_json(read_bounded(path, "which no export has"), path, "it is no export")
    except (OSError, TensorAdaptError):
        return False
    return isinstance(config, dict) and set(config) - {"target_parameters"} == {*PLAIN, *VARIED}


def lora_config(
    model: Any, rank: int, modules: set[str], names: set[str], transposed: bool, task_type: str | None, alone: bool
) -> dict[str, Any]:
    """Make the adapter_config.json of a model's pairs, which all have one rank.

    Args:
        model: the exported model.
        rank: the rank of every pair.
        modules: names of the modules that have a pair.
        names: names of all modules of the served model.
        transposed: whether modules store their weight as (in, out).
        task_type: PEFT's name of the task; default CAUSAL_LM for a causal language model, else None.
        alone: whether the served model is ``model`` itself; the class of a model around it is not known.
    """
    kind = type(model)
    if task_type is None and kind.__name__.endswith(("ForCausalLM", "LMHeadModel")):
        task_type = "CAUSAL_LM"
    origin = {"base_model_class": kind.__name__, "parent_library": kind.__module__}
    return {
        **PLAIN,
        "auto_mapping": None if task_type or not alone else origin,
        "base_model_name_or_path": getattr(getattr(model, "config", None), "_name_or_path", None) or None,
        "fan_in_fan_out": transposed,
        "lora_alpha": rank,
        "r": rank,
        "target_modules": _targets(modules, names),
        "task_type": task_type,
    }


def task_type_known(value: Any, where: str) -> str:
    """Return a task type that PEFT knows and that needs no trained head in the folder."""
    if isinstance(value, str) and value in HEADED:
        raise TensorAdaptError(
            f"{where} {value!r} makes PEFT look for a trained head in the folder, and an export has none; leave "
            "it out, and load the model with its own head"
        )
    return one_of(TASK_TYPES, value, where)


def module_path(value: Any, where: str) -> str:
    """Return an empty text, or names with dots between them."""
    if isinstance(value, str) and (not value or all(re.fullmatch(r"\w+", name) for name in value.split("."))):
        return value
    raise TensorAdaptError(
        f"{where} is {shown(value)}; expected the path of this model in the one that will be served: names with dots "
        "between them and none at the ends, as in prefix='model' or prefix='model.language_model'"
    )


def bare_name(model: Any) -> str:
    """Return the name under which models with a head hold this one; empty if it has a head, or is not transformers'."""
    return getattr(model, "base_model_prefix", "") if getattr(model, "base_model", None) is model else ""


def _targets(modules: set[str], names: set[str]) -> list[str]:
    """Return the shortest end of each module's name that matches none of ``names`` but these modules."""
    ends: dict[str, set[str]] = {}
    for name in names | modules:
        for end in _ends(name):
            ends.setdefault(end, set()).add(name)
    return sorted({next(end for end in _ends(module) if ends[end] <= modules) for module in modules})


def _ends(name: str) -> list[str]:
    """Return the ends of a dotted name, the shortest first: ``c``, ``b.c``, ``a.b.c``."""
    parts = name.split(".")
    return [".".join(parts[i:]) for i in reversed(range(len(parts)))]

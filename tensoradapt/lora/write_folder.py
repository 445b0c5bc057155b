"""LoRA folders that every reader computes alike: PEFT, vLLM, TGI and llama.cpp scale an adapter in different ways.

They agree where every scale is in B and ``r = lora_alpha`` is the one rank of all pairs, with no patterns, no biases
and no other trained modules.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save as pack_tensors
from torch import Tensor

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.files import reason, replace_file
from tensoradapt.lora.config import CONFIG, TENSORS
from tensoradapt.lora.read_folder import PREFIX

Pair = tuple[Tensor, Tensor]  # A: (R, in), B: (out, R)

# what a folder without heads can say; for the others PEFT looks for a trained head in it, and fails
TASK_TYPES = ("CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION")
HEADED = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")
# settings that are the same in every export
PLAIN: Mapping[str, Any] = {
    "alpha_pattern": {},
    "bias": "none",
    "exclude_modules": None,
    "inference_mode": True,
    "init_lora_weights": True,
    "layers_pattern": None,
    "layers_to_transform": None,
    "lora_dropout": 0.0,
    "modules_to_save": None,
    "peft_type": "LORA",
    "rank_pattern": {},
    "revision": None,
    "use_dora": False,
    "use_rslora": False,
}
OWN = ("auto_mapping", "base_model_name_or_path", "fan_in_fan_out", "lora_alpha", "r", "target_modules", "task_type")
CONFIG_KEYS = {*PLAIN, *OWN}


def write_lora(path: Path, config: Mapping[str, Any], pairs: Mapping[str, Pair]) -> None:
    """Writes both files, each whole or not at all, the config last."""
    named = {
        f"{PREFIX}{module}.lora_{side}.weight": half.contiguous()
        for module, pair in pairs.items()
        for side, half in zip("AB", pair, strict=True)
    }
    replace_file(path / TENSORS, pack_tensors(named, metadata={"format": "pt"}))
    replace_file(path / CONFIG, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())


def check_place(path: Path) -> None:
    """Refuses to write over anything but an earlier export."""
    try:
        found = sorted(one.name for one in path.iterdir()) if path.exists() else []
    except OSError as error:
        raise TensorAdaptError(f"{path} is no folder to export to ({reason(error)}); choose another path") from None
    if found and not _ours(path / CONFIG):
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise TensorAdaptError(
            f"{path} holds {', '.join(found[:3])}{more}; expected a new or empty folder, or an earlier export, which "
            "is replaced. Choose another path, or remove them"
        )


def _ours(path: Path) -> bool:
    """Whether a config is an export's: PEFT writes its version and much more into those of trained adapters."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and set(found) == CONFIG_KEYS


def lora_config(
    model: Any,
    rank: int,
    modules: Iterable[str],
    names: Iterable[str],
    transposed: bool,
    task_type: str | None,
    own: bool,
) -> dict[str, Any]:
    """The adapter_config.json of pairs of one rank at ``modules``; ``names`` are all of the base model's. ``own``: that
    is ``model`` itself, and no other around it, whose class is not known.
    """
    kind = type(model)
    task_type = task_type or _certain_task(kind.__name__)
    origin = {"base_model_class": kind.__name__, "parent_library": kind.__module__}
    return {
        **PLAIN,
        "auto_mapping": None if task_type or not own else origin,
        "base_model_name_or_path": getattr(getattr(model, "config", None), "_name_or_path", None) or None,
        "fan_in_fan_out": transposed,
        "lora_alpha": rank,
        "r": rank,
        "target_modules": targets(set(modules), set(names)),
        "task_type": task_type,
    }


def check_task_type(task_type: str | None) -> None:
    """Refuses what PEFT does not know, or would look for a head with."""
    if task_type in HEADED:
        raise TensorAdaptError(
            f"task_type {task_type!r} makes PEFT look for a trained head in the folder, and an export has none; leave "
            "it out, and load the model with its own head"
        )
    if task_type is not None and task_type not in TASK_TYPES:
        raise TensorAdaptError(f"task_type is {task_type!r}{did_you_mean(task_type, TASK_TYPES)}")


def check_prefix(prefix: Any) -> None:
    """Refuses what is no module's path: names with dots between them, or nothing."""
    if isinstance(prefix, str) and (not prefix or all(re.fullmatch(r"\w+", one) for one in prefix.split("."))):
        return
    raise TensorAdaptError(
        f"prefix is {prefix!r}; expected the path of this model in the one that will be served: names with dots "
        "between them and none at the ends, as in prefix='model' or prefix='model.language_model'"
    )


def bare_name(model: Any) -> str:
    """What models with a head call a bare transformers model that they hold; empty for any other model."""
    return getattr(model, "base_model_prefix", "") if getattr(model, "base_model", None) is model else ""


def _certain_task(model: str) -> str | None:
    return "CAUSAL_LM" if model.endswith(("ForCausalLM", "LMHeadModel")) else None


def targets(modules: set[str], names: set[str]) -> list[str]:
    """The ends of names that match these modules, and of all ``names`` no other: the shortest of each that does."""
    ends: dict[str, set[str]] = {}
    for name in names | modules:
        for end in _ends(name):
            ends.setdefault(end, set()).add(name)
    return sorted({next(end for end in _ends(module) if ends[end] <= modules) for module in modules})


def _ends(name: str) -> list[str]:
    """``c``, ``b.c``, ``a.b.c``."""
    parts = name.split(".")
    return [".".join(parts[i:]) for i in reversed(range(len(parts)))]

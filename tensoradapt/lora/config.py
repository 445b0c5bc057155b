"""Read adapter_config.json of a LoRA folder strictly, as a file that anyone may have written.

A setting that makes an update more than ``B A``, or that this version does not know, is refused by name.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tensoradapt.checks import is_whole, shown
from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import explained, parse_json, read_bounded

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
NATIVE = "adapter.json"  # only a folder that adapter.save wrote has this file
AGAIN = "the folder is damaged: copy it, or save the adapter again"
# settings under which the updates are more than B A, or not B A on the base model's own weights
OTHER_UPDATES = (
    *("lora_bias", "target_parameters", "trainable_token_indices", "layer_replication"),
    *("alora_invocation_tokens", "arrow_config", "kasa_config", "velora_config", "monteclora_config"),
)
HARMLESS = {"use_rslora"}
# settings that leave the update at B A: target layers, start, origin, and modules that are saved whole beside it
KNOWN = {
    *("alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying"),
    *("eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern"),
    *("layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout", "lora_ga_config", "megatron_config"),
    *("megatron_core", "modules_to_save", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern"),
    *("revision", "runtime_config", "target_modules", "task_type", "use_rslora"),
}
PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")  # others change the base weights before training
LONGEST = 500  # the most characters of a pattern; names of modules have far fewer
STEPS = 10**7  # the most steps of matching all names with all patterns: about a second
REPEATS = 3  # the most in a pattern: with more, or a repeated group, a name that does not match can take for ever


def read_config(path: Path) -> dict[str, Any]:
    """Read and check the settings of a LoRA folder.

    Raises TensorAdaptError for a missing, oversized or damaged file, other methods than LoRA, settings under which the
    updates are not B A alone, and invalid ranks, scales and patterns.
    """
    config = parse_json(_bytes(path), path / CONFIG, AGAIN)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise TensorAdaptError(
            f"{path / CONFIG} has peft_type {shown(kind)}; expected 'LORA'. Convert it to LoRA first"
        )
    _refuse(config, path / CONFIG)
    _check_values(config, path / CONFIG)
    return config


def check_cost(config: Mapping[str, Any], modules: Iterable[str], path: Path) -> None:
    """Raise TensorAdaptError where matching every module's name with every pattern could take longer than a second.

    A pattern with k repeats can try as many ways as there are to choose k + 1 places in a name.
    """
    keys = [key for name in ("rank_pattern", "alpha_pattern") for key in config.get(name) or {}]
    repeats = Counter(_repeats(key) for key in keys)
    lengths = Counter(map(len, modules))
    steps = sum(
        names * patterns * (math.comb(length + k, k + 1) if k else 1)
        for length, names in lengths.items()
        for k, patterns in repeats.items()
    )
    if steps > STEPS:
        raise TensorAdaptError(
            f"{path / CONFIG} has {len(keys):,} patterns, with up to {max(repeats)} repeats each, for "
            f"{lengths.total():,} names of up to {max(lengths):,} characters, which could take minutes to match; "
            "expected fewer repeats, or names in full"
        )


def rank_of(config: Mapping[str, Any], module: str) -> int:
    """Return the rank of a module's pair."""
    return _setting(config, "rank_pattern", module, config.get("r", 8))


def scale_of(config: Mapping[str, Any], module: str) -> float:
    """Return the multiplier of a module's ``B A``."""
    rank, alpha = rank_of(config, module), _setting(config, "alpha_pattern", module, config.get("lora_alpha", 8))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _setting(config: Mapping[str, Any], pattern: str, module: str, usual: Any) -> Any:
    """Return the setting of the first pattern that matches the end of a module's name, as in PEFT, or the usual one."""
    for key, value in (config.get(pattern) or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return usual


def _bytes(path: Path) -> bytes:
    wanted = f"expected a LoRA folder as PEFT saves it, with {CONFIG} and {TENSORS}"
    if (path / NATIVE).is_file():
        wanted = f"the folder was saved by tensoradapt: load(model, {str(path)!r}) it, and pass the adapter"
    with explained("read", path / CONFIG, wanted):
        return read_bounded(path / CONFIG, f"and no {CONFIG} has as many; {AGAIN}")


def _refuse(config: Mapping[str, Any], path: Path) -> None:
    switches = [key for key in config if key.startswith("use_")]
    on = [key for key in (*switches, *OTHER_UPDATES) if config.get(key) and key not in HARMLESS]
    if config.get("bias", "none") != "none":
        on.append("bias")
    if on:
        raise TensorAdaptError(
            f"{path} sets {', '.join(f'{key}={shown(config[key])}' for key in on)}; only plain LoRA can be read, whose "
            "whole update is B A. Train without it, or pass the updates themselves as a mapping of site names"
        )
    if unknown := [key for key in config if config[key] and key not in KNOWN]:
        raise TensorAdaptError(
            f"{path} sets {', '.join(f'{key}={shown(config[key])}' for key in unknown[:3])}, which this version does "
            "not know, so B A may not be the whole update. Update tensoradapt; or, where it changes no update, take it "
            "out of the file"
        )
    start = config.get("init_lora_weights", True)
    if start not in PLAIN_STARTS:
        raise TensorAdaptError(
            f"{path} has init_lora_weights={shown(start)}, which changed the base weights before training, so B A is "
            "not the update. Save it with path_initial_model_for_weight_conversion, which converts it to plain LoRA"
        )


def _check_values(config: Mapping[str, Any], path: Path) -> None:
    """Raise for ranks, scales and patterns that PEFT cannot have written."""
    is_rank = partial(is_whole, most=2**31 - 1)
    wrong = [("use_rslora", config.get("use_rslora"))] if config.get("use_rslora") not in (None, True, False) else []
    wrong += [("r", config["r"])] if not is_rank(config.get("r", 8)) else []
    whole = config.get("modules_to_save") or []
    if not isinstance(whole, list) or not all(isinstance(name, str) and name for name in whole):
        wrong.append(("modules_to_save", whole))
    wrong += [("lora_alpha", config["lora_alpha"])] if not _is_number(config.get("lora_alpha", 8)) else []
    for name, fits in (("rank_pattern", is_rank), ("alpha_pattern", _is_number)):
        given = config.get(name) or {}
        if not isinstance(given, dict) or not all(map(fits, given.values())) or not all(map(_is_pattern, given)):
            wrong.append((name, given))
    if wrong:
        raise TensorAdaptError(
            f"{path} has {' and '.join(f'{name}={shown(value)}' for name, value in wrong)}; expected ranks of 1 or "
            f"more, finite numbers as alpha, a list of names as modules_to_save, and patterns of at most {LONGEST} "
            f"characters and {REPEATS} repeats, none of them of a group; {AGAIN}"
        )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 2**63  # False for NaN


def _repeats(key: str) -> int:
    return sum(map(key.count, "*+?{"))


def _is_pattern(key: str) -> bool:
    if len(key) > LONGEST or _repeats(key) > REPEATS or re.search(r"[)][*+?{]", key):
        return False
    try:
        re.compile(f"({key})")
    except (re.error, OverflowError):
        return False
    return True

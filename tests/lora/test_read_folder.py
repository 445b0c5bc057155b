"""LoRA folders that PEFT itself wrote are read as PEFT computes them; what is more than B A is refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.models import make
from torch import nn

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lora.read_folder import read_lora

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
    "ignore:The following alpha_pattern keys did not match:RuntimeWarning",  # that is what the case is for
    "ignore:Adapter 'default'. 9 LoRA tensor.s. have invalid shape",  # lora_bias saves what it then finds odd
)
TARGETS = {
    "bert": ["query", "value", "intermediate.dense"],
    "gpt2": ["c_attn", "c_fc"],
    "llama": ["q_proj", "k_proj", "down_proj"],
}


def saved(family: str, path: Path, **options: Any) -> nn.Module:
    """PEFT's model with every A and B random, saved; the model is the reference."""
    config = peft.LoraConfig(
        **{"r": 3, "lora_alpha": 5, "target_modules": TARGETS[family], "fan_in_fan_out": family == "gpt2", **options}
    )
    model = peft.get_peft_model(make(family, torch.float32), config).double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    model.save_pretrained(str(path))
    return model


def deltas(model: nn.Module) -> dict[str, torch.Tensor]:
    """PEFT's own updates as logical (out, in) matrices, by module."""
    layers = {n: m for n, m in model.base_model.model.named_modules() if hasattr(m, "lora_A")}
    found = {n: layer.get_delta_weight("default").detach() for n, layer in layers.items()}
    return {n: d.T if layers[n].fan_in_fan_out else d for n, d in found.items()}


PATTERNS = {  # layer.2 matches nothing: a pattern is for the end of a name
    "bert": {
        "rank_pattern": {"query": 5},
        "alpha_pattern": {"layer.2": 9, "value": 7, "layer.1.intermediate.dense": 3},
    },
    "gpt2": {"rank_pattern": {"0.attn.c_attn": 2}, "alpha_pattern": {".*.1.attn.c_attn": 3}},
    "llama": {"rank_pattern": {"model.layers.1.self_attn.q_proj": 4, "k_proj": 2}, "alpha_pattern": {"k_proj": 9}},
}


@pytest.mark.parametrize("family", TARGETS)
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("patterns", [False, True])
def test_the_pairs_are_what_peft_computes(family: str, rslora: bool, patterns: bool, tmp_path: Path) -> None:
    model = saved(family, tmp_path, use_rslora=rslora, **(PATTERNS[family] if patterns else {}))
    expected, found = deltas(model), read_lora(tmp_path)
    assert found.keys() == expected.keys()
    for name, pair in found.items():
        torch.testing.assert_close(torch.from_numpy(pair.b @ pair.a), expected[name], rtol=1e-12, atol=1e-12)


def rewrite(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    save_file(dict(tensors), path)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "DoRA": ({"use_dora": True}, "sets use_dora=True; only plain LoRA"),
    "bias": ({"bias": "lora_only"}, "sets bias='lora_only'"),
    "lora_bias": ({"lora_bias": True}, "sets lora_bias=True"),
    "PiSSA": ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa', which changed the base weights"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_more_than_a_product_is_refused_by_name(name: str, tmp_path: Path) -> None:
    options, message = REFUSED[name]
    saved("bert", tmp_path, **options)
    with pytest.raises(TensorAdaptError, match=message):
        read_lora(tmp_path)


def damaged(tmp_path: Path, **changes: Any) -> Path:
    saved("bert", tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    return tmp_path / "adapter_model.safetensors"


def refuses(path: Path, message: str) -> None:
    with pytest.raises(TensorAdaptError, match=message):
        read_lora(path)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    refuses(
        tmp_path / "none", r"adapter_config.json cannot be read \(No such file.*expected a LoRA folder as PEFT saves"
    )
    path = damaged(tmp_path, peft_type="VERA")
    refuses(tmp_path, "peft_type 'VERA'; expected 'LORA'")
    damaged(tmp_path, use_qalora=True)
    refuses(tmp_path, "sets use_qalora=True")
    damaged(tmp_path, r=4)
    refuses(tmp_path, r"A \(3, 3[04]\) and B \(3[04], 3\); expected \(r, in\) and \(out, r\) with r = 4")
    damaged(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    refuses(tmp_path, r"has 15,\d+ bytes; expected 15,\d+, .* as its header says. It is truncated")
    (tmp_path / "adapter_config.json").write_text("{")
    refuses(tmp_path, "adapter_config.json is not JSON")


def test_pickled_tensors_are_never_read(tmp_path: Path) -> None:
    damaged(tmp_path).rename(tmp_path / "adapter_model.bin")
    refuses(tmp_path, "adapter_model.bin is there, but pickled files run code when read")
    (tmp_path / "adapter_model.bin").unlink()
    refuses(tmp_path, r"adapter_model.safetensors cannot be read \(No such file or directory\); the folder is damaged")


def test_tensors_that_are_no_pair_are_refused(tmp_path: Path) -> None:
    path = damaged(tmp_path)
    tensors = load_file(path)
    a, b = (f"base_model.model.bert.encoder.layer.0.attention.self.query.lora_{side}.weight" for side in "AB")
    rewrite(path, {**tensors, "base_model.model.classifier.weight": torch.ones(2)})
    refuses(tmp_path, "holds 'base_model.model.classifier.weight', which is not A or B")
    rewrite(path, {name: t for name, t in tensors.items() if name != b})
    refuses(tmp_path, "module 'bert.encoder.layer.0.attention.self.query' has no lora_B.weight")
    rewrite(path, {**tensors, b: tensors[b][:, :2].contiguous()})
    refuses(tmp_path, r"has A \(3, 30\) and B \(30, 2\)")
    rewrite(path, {**tensors, a: torch.full_like(tensors[a], math.nan)})
    refuses(tmp_path, "query' has non-finite entries")
    rewrite(path, {})
    refuses(tmp_path, "holds no tensors")

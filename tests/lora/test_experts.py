"""Stacked experts in a LoRA folder for llama.cpp: a pair for each matrix of each expert, under its own name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from support.models import perturb

import tensoradapt as ta

SIZES: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
SIZES |= {"intermediate_size": 36, "vocab_size": 40}
MIXTRAL = {"gate": "block_sparse_moe.experts.{}.w1", "up": "block_sparse_moe.experts.{}.w3"}
MIXTRAL |= {"down": "block_sparse_moe.experts.{}.w2"}
QWEN = {proj: f"mlp.experts.{{}}.{proj}_proj" for proj in ("gate", "up", "down")}


def mixtral() -> Any:
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**SIZES, num_local_experts=3))


def qwen() -> Any:
    config = transformers.Qwen3MoeConfig(**SIZES, num_experts=3, moe_intermediate_size=20, decoder_sparse_step=1)
    return transformers.Qwen3MoeForCausalLM(config)


@pytest.mark.parametrize(("make", "names"), [(mixtral, MIXTRAL), (qwen, QWEN)])
def test_the_pair_of_each_expert_is_its_update_and_zeros_stand_for_the_rest(
    make: Any, names: dict[str, str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = make()
    sites = ta.find_sites(model, ("q", "gate", "down"), layers=[1])
    adapter = ta.attach(model, ta.plan(sites, ": out : in", "lora", 2))
    perturb(adapter)
    report = ta.export_lora(model, tmp_path, target="llama.cpp", rank=2)
    assert "named for llama.cpp alone" in str(report)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    found = {name.removeprefix("base_model.model.").removesuffix(".lora_A.weight") for name in stored if "_A" in name}
    experts = {f"model.layers.1.{name.format(e)}" for name in names.values() for e in range(3)}
    assert found == experts | {f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)}
    for site in adapter.plan.sites:
        proj, slot = site.coord["proj"], site.slot
        name = site.module if slot is None else f"model.layers.1.{names[proj].format(slot)}"
        a, b = (stored[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        torch.testing.assert_close(b @ a, adapter.delta(site).detach(), rtol=1e-4, atol=1e-6)
    up = stored[f"base_model.model.model.layers.1.{names['up'].format(0)}.lora_B.weight"]
    assert not up.count_nonzero()
    assert len(up) == model.model.layers[1].mlp.experts.down_proj.shape[2]


def test_other_readers_have_no_place_for_experts(tmp_path: Path) -> None:
    model = mixtral()
    ta.attach(model, ta.plan(ta.find_sites(model, "experts"), ": out : in", "lora", 2))
    with pytest.raises(ta.TensorAdaptError, match=r'give target="llama.cpp", which takes those of mixtral, qwen2_moe'):
        ta.export_lora(model, tmp_path / "lora")
    assert not (tmp_path / "lora").exists()

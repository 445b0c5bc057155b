"""Stacked experts in LoRA folders: of llama.cpp a pair for each matrix of each expert, of PEFT one for all of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from support.models import perturb

import tensoradapt as ta

SIZES: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
SIZES |= {"intermediate_size": 36, "vocab_size": 40, "experts_implementation": "eager"}  # others take no float64
MIXTRAL = {"gate": "block_sparse_moe.experts.{}.w1", "up": "block_sparse_moe.experts.{}.w3"}
MIXTRAL |= {"down": "block_sparse_moe.experts.{}.w2"}
QWEN = {proj: f"mlp.experts.{{}}.{proj}_proj" for proj in ("gate", "up", "down")}


def mixtral() -> Any:
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**SIZES, num_local_experts=3))


def qwen() -> Any:
    sizes = {**SIZES, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
    return transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**sizes, decoder_sparse_step=1))


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


@pytest.mark.parametrize("make", [mixtral, qwen])
@pytest.mark.parametrize(
    ("projections", "plan"),
    [
        (("q", "gate", "down"), (("expert : out : in", ": out : in"), "cp", 3)),
        ("experts", (": out : in", "lora", 3)),
        (("gate", "up"), ("layer proj expert : ff : model", "tucker", 2)),
        (("down",), ("layer expert : out : in", "tensor_train", 2)),
    ],
)
def test_peft_computes_what_the_adapter_does(make: Any, projections: Any, plan: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make().double().eval()
    base = copy.deepcopy(model)
    perturb(ta.attach(model, ta.plan(ta.find_sites(model, projections, layers=[1]), *plan)).double())
    report = ta.export_lora(model, tmp_path, target="peft", dtype="float64")
    assert "stacked for PEFT" in str(report)
    ids = torch.arange(20).view(2, 10)
    expected, frozen = model(input_ids=ids).logits, {name: value.clone() for name, value in base.state_dict().items()}
    served = PeftModel.from_pretrained(base, str(tmp_path)).eval()
    torch.testing.assert_close(served(input_ids=ids).logits, expected, rtol=0, atol=1e-7)  # routers compute in float32
    merged = served.merge_and_unload().state_dict()
    for name, value in ta.merge_and_unload(copy.deepcopy(model)).state_dict().items():
        torch.testing.assert_close(merged[name], value, rtol=0, atol=1e-12)
    assert any((merged[name] - value).abs().max() > 1e-6 for name, value in frozen.items() if "experts" in name)
    ta.export_lora(model, tmp_path, target="peft")  # an export is replaced
    with pytest.raises(ta.TensorAdaptError, match="sets target_parameters="):
        ta.compress(tmp_path, model, ": out : in", "lora", 1)

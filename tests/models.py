"""Tiny random models of every family; sizes are pairwise different, above 1, and no matrix that can avoid it is
square.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor, nn

import tensoradapt as ta

ENCODER = {"num_hidden_layers": 3, "num_attention_heads": 5, "hidden_size": 30, "intermediate_size": 34}
DECODER = {**ENCODER, "num_attention_heads": 6, "num_key_value_heads": 2, "hidden_size": 24, "vocab_size": 50}
DECODER |= {"max_position_embeddings": 32, "tie_word_embeddings": False}
TEXT = {"vocab_size": 50, "max_position_embeddings": 32, "num_labels": 7, "pad_token_id": 1}
IMAGE = {"image_size": 16, "patch_size": 8, "num_labels": 7}
GPT2 = {"n_layer": 3, "n_head": 5, "n_embd": 30, "n_inner": 34, "n_positions": 32, "vocab_size": 50}
GPT2 |= {"bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": False}
DISTIL = {"n_layers": 3, "n_heads": 5, "dim": 30, "hidden_dim": 34}
DEBERTA = {"relative_attention": True, "pos_att_type": "p2c|c2p", "share_att_key": True, "position_buckets": 4}
DEBERTA |= {"norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0}
ESM = {"mask_token_id": 2, "position_embedding_type": "rotary"}
SPECIAL = {f"{name}_token_id": 1 for name in ("pad", "bos", "eos", "cls", "sep")}
MODERN = {**ENCODER, "num_attention_heads": 6, "hidden_size": 24, "num_labels": 7, "vocab_size": 50, **SPECIAL}
WHISPER = {"encoder_layers": 3, "encoder_attention_heads": 5, "d_model": 30, "encoder_ffn_dim": 34, "num_mel_bins": 4}
WHISPER |= {"max_source_positions": 10, "num_labels": 7, "vocab_size": 50, **SPECIAL, "decoder_start_token_id": 1}
EXPERTS = {**DECODER, "num_experts_per_tok": 2, "experts_implementation": "eager"}  # the default has no float64
DINO = {"num_hidden_layers": 3, "num_attention_heads": 5, "hidden_size": 30, "mlp_ratio": 2, **IMAGE}


@dataclass(frozen=True)
class Family:
    """How to make one family's tiny model, and what it takes."""

    config: Callable[[], Any]
    model: str
    head: str
    passed: tuple[str, ...] = ()  # modules with weights inside the layers that its recipe leaves alone

    @property
    def audio(self) -> bool:
        return self.model.endswith("AudioClassification")

    @property
    def image(self) -> bool:
        return self.model.endswith("ImageClassification")


FAMILIES = {
    "bert": Family(lambda: transformers.BertConfig(**ENCODER, **TEXT), "BertForSequenceClassification", "classifier"),
    "roberta": Family(
        lambda: transformers.RobertaConfig(**ENCODER, **TEXT), "RobertaForSequenceClassification", "classifier"
    ),
    "esm": Family(
        lambda: transformers.EsmConfig(**ENCODER, **TEXT, **ESM), "EsmForSequenceClassification", "classifier"
    ),
    "distilbert": Family(
        lambda: transformers.DistilBertConfig(**DISTIL, **TEXT), "DistilBertForSequenceClassification", "classifier"
    ),
    "deberta-v2": Family(
        lambda: transformers.DebertaV2Config(**ENCODER, **TEXT, **DEBERTA),
        "DebertaV2ForSequenceClassification",
        "classifier",
    ),
    "modernbert": Family(
        lambda: transformers.ModernBertConfig(**MODERN), "ModernBertForSequenceClassification", "classifier"
    ),
    "gpt2": Family(lambda: transformers.GPT2Config(**GPT2), "GPT2LMHeadModel", "lm_head"),
    "llama": Family(lambda: transformers.LlamaConfig(**DECODER, head_dim=8), "LlamaForCausalLM", "lm_head"),
    "qwen2": Family(lambda: transformers.Qwen2Config(**{**DECODER, "hidden_size": 48}), "Qwen2ForCausalLM", "lm_head"),
    "qwen3": Family(lambda: transformers.Qwen3Config(**DECODER, head_dim=8), "Qwen3ForCausalLM", "lm_head"),
    "mistral": Family(lambda: transformers.MistralConfig(**DECODER, head_dim=8), "MistralForCausalLM", "lm_head"),
    "gemma": Family(lambda: transformers.GemmaConfig(**DECODER, head_dim=8), "GemmaForCausalLM", "lm_head"),
    "gemma2": Family(lambda: transformers.Gemma2Config(**DECODER, head_dim=8), "Gemma2ForCausalLM", "lm_head"),
    "gemma3": Family(lambda: transformers.Gemma3TextConfig(**DECODER, head_dim=8), "Gemma3ForCausalLM", "lm_head"),
    "phi3": Family(lambda: transformers.Phi3Config(**DECODER, **SPECIAL, head_dim=8), "Phi3ForCausalLM", "lm_head"),
    "mixtral": Family(
        lambda: transformers.MixtralConfig(**EXPERTS, head_dim=8, num_local_experts=3),
        "MixtralForCausalLM",
        "lm_head",
        passed=("mlp.gate",),
    ),
    "qwen2_moe": Family(
        lambda: transformers.Qwen2MoeConfig(
            **{**EXPERTS, "hidden_size": 48},
            num_experts=3,
            moe_intermediate_size=10,
            shared_expert_intermediate_size=14,
        ),
        "Qwen2MoeForCausalLM",
        "lm_head",
        passed=("mlp.gate", "mlp.shared_expert_gate", "gate_proj", "up_proj", "down_proj"),
    ),
    "qwen3_moe": Family(
        lambda: transformers.Qwen3MoeConfig(**EXPERTS, head_dim=8, num_experts=3, moe_intermediate_size=10),
        "Qwen3MoeForCausalLM",
        "lm_head",
        passed=("mlp.gate",),
    ),
    "whisper": Family(lambda: transformers.WhisperConfig(**WHISPER), "WhisperForAudioClassification", "classifier"),
    "vit": Family(lambda: transformers.ViTConfig(**ENCODER, **IMAGE), "ViTForImageClassification", "classifier"),
    "dinov2": Family(lambda: transformers.Dinov2Config(**DINO), "Dinov2ForImageClassification", "classifier"),
    "dinov2-swiglu": Family(
        lambda: transformers.Dinov2Config(**DINO, use_swiglu_ffn=True), "Dinov2ForImageClassification", "classifier"
    ),
}
GROUPED = (
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
)
RENAMED = (
    "esm",
    "distilbert",
    "deberta-v2",
    "gemma",
    "gemma2",
    "gemma3",
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
    "whisper",
)
"""Fewer key and value heads than query heads; and other names for modules of the same kinds and shapes."""


def make(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A model in eval mode with no weight at a special value: norms are not 1 and biases not 0."""
    return copy.deepcopy(_first(name, dtype))


@cache  # a copy is made far sooner than a model
def _first(name: str, dtype: torch.dtype) -> nn.Module:
    family, generator = FAMILIES[name], torch.Generator().manual_seed(3)
    model = getattr(transformers, family.model)(family.config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + (parameter.ndim == 1) * 0.5)
    return model.to(dtype).eval()


def inputs(name: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """A batch of two."""
    generator = torch.Generator().manual_seed(4)
    if FAMILIES[name].image:
        return {"pixel_values": torch.randn(2, 3, 16, 16, generator=generator).to(dtype)}
    if FAMILIES[name].audio:
        return {"input_features": torch.randn(2, 4, 20, generator=generator).to(dtype)}
    return {"input_ids": torch.randint(2, 50, (2, 7), generator=generator)}


def perturb(adapter: ta.Adapter, std: float = 0.3) -> None:
    """Gives every trainable factor normal entries: at the start everything is zero and any mistake is invisible."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)


def weights_with_deltas(base: nn.Module, adapter: ta.Adapter) -> dict[str, Tensor]:
    """Parameters of the base model plus the updates: what an attached model must compute with."""
    weights = {name: p.detach().clone() for name, p in base.named_parameters()}
    for site in adapter.plan.sites:
        weight, delta = weights[f"{site.module}.weight"], adapter.delta(site).detach()
        stored = weight.T if type(base.get_submodule(site.module)).__name__ == "Conv1D" else weight
        rows, cols = (slice(None) if block is None else slice(*block) for block in (site.rows, site.cols))
        stored[rows, cols] += delta.to(weight.dtype)
    return weights


def assert_identical(model: nn.Module, base: nn.Module) -> None:
    """Module tree, keys, bits and requires_grad flags."""
    assert str(model) == str(base)
    found, expected = model.state_dict(), base.state_dict()
    assert list(found) == list(expected)
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []
    flags = {name: p.requires_grad for name, p in base.named_parameters()}
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags

"""Tiny random models of every family; sizes are pairwise different, above 1, and no matrix that can avoid it is
square.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from support.copies import copier
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.sites.site import Site

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
EXPERTS = {**DECODER, "num_experts_per_tok": 3}  # all, so that each of them changes the output
EXPERTS |= {"experts_implementation": "eager"}  # the default has no float64
NEOX = {**ENCODER, "vocab_size": 50, "max_position_embeddings": 32, "tie_word_embeddings": False}
T5 = {"num_layers": 3, "num_decoder_layers": 2, "d_model": 30, "d_kv": 8, "num_heads": 5, "d_ff": 34, "vocab_size": 50}
T5 |= {"decoder_start_token_id": 0, "relative_attention_num_buckets": 4}
SPEECH = {**WHISPER, "decoder_layers": 2, "decoder_attention_heads": 6, "decoder_ffn_dim": 38}
SPEECH |= {"max_target_positions": 12, "suppress_tokens": None, "begin_suppress_tokens": None}
SPEECH |= {"tie_word_embeddings": False}
CLIP_TEXT = {**ENCODER, "vocab_size": 50, "max_position_embeddings": 32, **SPECIAL, "eos_token_id": 2}
CLIP_VISION = {**ENCODER, "num_hidden_layers": 2, "num_attention_heads": 6, "hidden_size": 24, "intermediate_size": 38}
CLIP_VISION |= {"image_size": 16, "patch_size": 8}
DINO = {"num_hidden_layers": 3, "num_attention_heads": 5, "hidden_size": 30, "mlp_ratio": 2, **IMAGE}


@dataclass(frozen=True)
class Family:
    """How to make one family's tiny model, and what it takes."""

    config: Callable[[], Any] | None  # None: the model has none, and a class of its own
    model: str | Callable[[], nn.Module]
    head: str
    passed: tuple[str, ...] = ()  # modules with weights inside the layers that its recipe leaves alone
    scope: str | None = None  # the stack of its config that the model has, if it has not all
    reads: tuple[str, ...] = ("input_ids",)

    def make(self) -> nn.Module:
        if self.config is None:
            return self.model()  # type: ignore[operator]
        return getattr(transformers, self.model)(self.config())  # type: ignore[arg-type]


class TorchEncoder(nn.Module):
    """torch's own encoder below a head, without a config."""

    def __init__(self, n_layers: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 30)
        layer = nn.TransformerEncoderLayer(30, 5, 34, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
        self.head = nn.Linear(30, 7)

    def forward(self, input_ids: Tensor, padding: Tensor | None = None) -> Any:
        hidden = self.encoder(self.embed(input_ids), src_key_padding_mask=padding)
        return SimpleNamespace(logits=self.head(hidden))


class TorchLayers(nn.Module):
    """A bare list of torch's decoder layers, which also read what they decode: two attentions in a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 30)
        self.layers = nn.ModuleList(nn.TransformerDecoderLayer(30, 5, 34, batch_first=True) for _ in range(3))
        self.head = nn.Linear(30, 7)

    def forward(self, input_ids: Tensor) -> Any:
        hidden = memory = self.embed(input_ids)
        for layer in self.layers:
            hidden = layer(hidden, memory)
        return SimpleNamespace(logits=self.head(hidden))


class Timm(nn.Module):
    """A timm model whose output is called logits."""

    def __init__(self) -> None:
        super().__init__()
        timm = pytest.importorskip("timm", reason="timm makes this model")
        sizes = {"embed_dim": 30, "depth": 3, "num_heads": 5, "mlp_ratio": 34 / 30}
        self.net = timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=8, num_classes=7, **sizes)

    def forward(self, pixel_values: Tensor) -> Any:
        return SimpleNamespace(logits=self.net(pixel_values))


FAMILIES = {
    "bert": Family(lambda: transformers.BertConfig(**ENCODER, **TEXT), "BertForSequenceClassification", "classifier"),
    "roberta": Family(
        lambda: transformers.RobertaConfig(**ENCODER, **TEXT), "RobertaForSequenceClassification", "classifier"
    ),
    "esm": Family(
        lambda: transformers.EsmConfig(**ENCODER, **TEXT, **ESM), "EsmForSequenceClassification", "classifier"
    ),
    "mpnet": Family(
        lambda: transformers.MPNetConfig(**ENCODER, **TEXT), "MPNetForSequenceClassification", "classifier"
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
        passed=("mlp.gate", "mlp.shared_expert_gate"),
    ),
    "qwen3_moe": Family(
        lambda: transformers.Qwen3MoeConfig(**EXPERTS, head_dim=8, num_experts=3, moe_intermediate_size=10),
        "Qwen3MoeForCausalLM",
        "lm_head",
        passed=("mlp.gate",),
    ),
    "qwen2_moe-mixed": Family(  # experts in every other layer
        lambda: transformers.Qwen2MoeConfig(
            **{**EXPERTS, "hidden_size": 48},
            num_experts=3,
            moe_intermediate_size=10,
            shared_expert_intermediate_size=14,
            decoder_sparse_step=2,
        ),
        "Qwen2MoeForCausalLM",
        "lm_head",
        passed=("mlp.gate", "mlp.shared_expert_gate"),
    ),
    "gpt_neox": Family(lambda: transformers.GPTNeoXConfig(**NEOX), "GPTNeoXForCausalLM", "lm_head"),
    "t5": Family(
        lambda: transformers.T5Config(**T5),
        "T5ForConditionalGeneration",
        "decoder.final_layer_norm",  # its head is its embedding, always
        passed=("relative_attention_bias",),
        reads=("input_ids", "decoder_input_ids"),
    ),
    "mt5": Family(
        lambda: transformers.MT5Config(**T5),
        "MT5ForConditionalGeneration",
        "decoder.final_layer_norm",
        passed=("relative_attention_bias",),
        reads=("input_ids", "decoder_input_ids"),
    ),
    "whisper": Family(
        lambda: transformers.WhisperConfig(**WHISPER),
        "WhisperForAudioClassification",
        "classifier",
        scope="encoder",
        reads=("input_features",),
    ),
    "whisper-both": Family(
        lambda: transformers.WhisperConfig(**SPEECH),
        "WhisperForConditionalGeneration",
        "proj_out",
        reads=("input_features", "decoder_input_ids"),
    ),
    "clip": Family(
        lambda: transformers.CLIPConfig(text_config=CLIP_TEXT, vision_config=CLIP_VISION, projection_dim=9),
        "CLIPModel",
        "text_projection",
        reads=("input_ids", "pixel_values"),
    ),
    "clip-image": Family(
        lambda: transformers.CLIPConfig(text_config=CLIP_TEXT, vision_config=CLIP_VISION, num_labels=7),
        "CLIPForImageClassification",
        "classifier",
        scope="vision",
        reads=("pixel_values",),
    ),
    "vit": Family(
        lambda: transformers.ViTConfig(**ENCODER, **IMAGE),
        "ViTForImageClassification",
        "classifier",
        reads=("pixel_values",),
    ),
    "dinov2": Family(
        lambda: transformers.Dinov2Config(**DINO),
        "Dinov2ForImageClassification",
        "classifier",
        reads=("pixel_values",),
    ),
    "dinov2-swiglu": Family(
        lambda: transformers.Dinov2Config(**DINO, use_swiglu_ffn=True),
        "Dinov2ForImageClassification",
        "classifier",
        reads=("pixel_values",),
    ),
    "timm-vit": Family(None, Timm, "net.head", reads=("pixel_values",)),
    "torch-encoder": Family(None, TorchEncoder, "head"),
    "torch-decoder": Family(None, TorchLayers, "head"),
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
    "mpnet",
    "distilbert",
    "deberta-v2",
    "gemma",
    "gemma2",
    "gemma3",
    "mixtral",
    "qwen2_moe",
    "qwen2_moe-mixed",
    "qwen3_moe",
    "t5",
    "mt5",
    "whisper",
    "whisper-both",
    "clip",
    "clip-image",
    "timm-vit",
    "torch-encoder",
    "torch-decoder",
)
"""Fewer key and value heads than query heads; and other names for modules of the same kinds and shapes."""
CONFIGURED = tuple(name for name, family in FAMILIES.items() if family.config is not None)


def make(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A model in eval mode with no weight at a special value: norms are not 1 and biases not 0."""
    return _first(name, dtype)()


@cache
def _first(name: str, dtype: torch.dtype) -> Callable[[], nn.Module]:
    return copier(_made(name, dtype))


class ExactNorm(nn.Module):
    """A norm by the root mean square in the type of what it gets.

    Transformers' compute it in float32 whatever that is, so that two ways of computing a float64 that lie 1e-15 apart
    may give results that lie 1e-9 apart, where a number is near the middle of two of float32.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight = norm.weight
        self.eps = getattr(norm, "variance_epsilon", None) or norm.eps
        self.added = 1 if type(norm).__name__.startswith("Gemma") else 0

    def forward(self, hidden: Tensor) -> Tensor:
        scale = torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.eps)
        return hidden * scale * (self.weight + self.added)


def _with_exact_norms(model: nn.Module) -> nn.Module:
    for name, module in [*model.named_modules()]:
        if type(module).__name__.endswith(("RMSNorm", "T5LayerNorm")):
            model.set_submodule(name, ExactNorm(module))
    return model


def _made(name: str, dtype: torch.dtype) -> nn.Module:
    model, generator = FAMILIES[name].make(), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + (parameter.ndim == 1) * 0.5)
    return (_with_exact_norms(model) if dtype == torch.float64 else model).to(dtype).eval()


def inputs(name: str, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """A batch of two."""
    generator = torch.Generator().manual_seed(4)
    every = {
        "pixel_values": lambda: torch.randn(2, 3, 16, 16, generator=generator).to(dtype),
        "input_features": lambda: torch.randn(2, 4, 20, generator=generator).to(dtype),
        "input_ids": lambda: torch.randint(2, 50, (2, 7), generator=generator),
        "decoder_input_ids": lambda: torch.randint(2, 50, (2, 5), generator=generator),
    }
    return {key: every[key]() for key in FAMILIES[name].reads}


def logits(output: Any) -> Tensor:
    """What a model answers; CLIP's is what it computes from both towers."""
    return output.logits if hasattr(output, "logits") else output.logits_per_text


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
        delta = adapter.delta(site).detach()
        logical(base, site, weights)[site.block] += delta.to(weights[site.key].dtype)
    return weights


def logical(base: nn.Module, site: Site, values: Mapping[str, Tensor]) -> Tensor:  # (out, in), a view
    """A site's matrix among values stored as the model stores its parameters."""
    stored, kind = values[site.key], type(base.get_submodule(site.module)).__name__
    stored = stored if site.slot is None else stored[site.slot]
    return stored.T if kind in ("Conv1D", "Embedding") else stored.flatten(1) if kind == "Conv2d" else stored


def assert_identical(model: nn.Module, base: nn.Module) -> None:
    """Module tree, keys, bits and requires_grad flags."""
    assert str(model) == str(base)
    found, expected = model.state_dict(), base.state_dict()
    assert list(found) == list(expected)
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []
    flags = {name: p.requires_grad for name, p in base.named_parameters()}
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags


def checkpoint_layers(model, reentrant: bool) -> None:
    """Compute activations again in the backward pass; transformers has renamed the method since 5.0."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})


TIED = "layer proj : head dim : model"


def llama(**changes: Any) -> SimpleNamespace:
    sizes = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2}
    return SimpleNamespace(**{"model_type": "llama", **sizes, "head_dim": 8, "intermediate_size": 34, **changes})


class One(nn.Module):
    """A model of one matrix."""

    def __init__(self, out: int, in_: int) -> None:
        super().__init__()
        self.lin = nn.Linear(in_, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(x)

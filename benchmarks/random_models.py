"""Random models of known shapes and random batches, for timings without downloads."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.sites.site import Sites

TEXT: Mapping[str, Any] = {"max_position_embeddings": 514}
LLAMA: Mapping[str, Any] = {"max_position_embeddings": 2048, "rope_theta": 10000.0}


def bert(hidden: int, layers: int, heads: int, vocab: int) -> nn.Module:
    """A BERT of these sizes."""
    sizes: dict[str, Any] = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads}
    return transformers.BertModel(
        transformers.BertConfig(**sizes, vocab_size=vocab, intermediate_size=4 * hidden, **TEXT)
    )


def _llama(hidden: int, inner: int, layers: int, heads: int, keys: int, vocab: int) -> nn.Module:
    sizes: dict[str, Any] = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    return transformers.LlamaModel(
        transformers.LlamaConfig(
            **sizes, vocab_size=vocab, num_attention_heads=heads, num_key_value_heads=keys, **LLAMA
        )
    )


def _vit() -> nn.Module:
    return transformers.ViTModel(transformers.ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536))


# model, samples in a batch, tokens of a text (0: pictures)
SHAPES: Mapping[str, tuple[Callable[[], nn.Module], int, int]] = {
    "small": (partial(bert, 64, 2, 4, 100), 4, 16),
    "minilm": (partial(bert, 384, 6, 12, 30522), 16, 64),
    "roberta-base": (partial(bert, 768, 12, 12, 50265), 8, 64),
    "smollm2-135m": (partial(_llama, 576, 1536, 30, 9, 3, 49152), 4, 128),
    "vit-s": (_vit, 8, 0),
    "llama-3.2-1b": (partial(_llama, 2048, 8192, 16, 32, 8, 128256), 4, 512),
    "llama-3.2-3b": (partial(_llama, 3072, 8192, 28, 24, 8, 128256), 4, 512),
    "llama-2-7b": (partial(_llama, 4096, 11008, 32, 32, 32, 32000), 2, 512),
}


def base_of(shape: str, device: str, dtype: str) -> nn.Module:
    """A model of a shape without trained parameters."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with torch.device(device):  # drawn there: one thread of a CPU takes minutes for 7 billion numbers
            return SHAPES[shape][0]().to(device).train().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def sites_of(model: nn.Module) -> Sites:
    """q, k, v and o."""
    return ta.find_sites(model, "attention")


def shared(model: nn.Module) -> nn.Module:
    """A copy that has the same parameters."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


def batch_of(model: nn.Module, shape: str, device: str) -> dict[str, Tensor]:
    """A batch of the shape: embedded tokens, or pixels, with a gradient."""
    _, samples, tokens = SHAPES[shape]
    settings: Any = model.config
    sizes = (tokens, settings.hidden_size) if tokens else (3, settings.image_size, settings.image_size)
    numbers = torch.randn((samples, *sizes), generator=torch.Generator().manual_seed(0))
    key = "inputs_embeds" if tokens else "pixel_values"
    return {key: numbers.to(device, next(model.parameters()).dtype).requires_grad_(True)}


def classifier_of(shape: str) -> nn.Module:
    """A random classifier of two classes of a BERT's shape, without dropout."""
    settings = settings_of(shape)
    settings.hidden_dropout_prob = settings.attention_probs_dropout_prob = 0.0
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(settings)


def settings_of(shape: str) -> Any:
    """The config of a shape's model, whose weights take no memory for it."""
    with torch.device("meta"):
        return SHAPES[shape][0]().config


def texts(shape: str, samples: int, tokens: int) -> Iterator[dict[str, Tensor]]:
    """Batches of random tokens and labels for a classifier of a shape, each another one."""
    vocabulary = settings_of(shape).vocab_size
    for seed in itertools.count():
        ids = torch.randint(vocabulary, (samples, tokens), generator=torch.Generator().manual_seed(seed))
        yield {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 2}

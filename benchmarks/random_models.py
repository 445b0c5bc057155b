"""Random models of known shapes and batches of random tokens, for timings without downloads."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import transformers
from torch import Tensor, nn

SHAPES: Mapping[str, Mapping[str, int]] = {
    "small": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "vocab_size": 30522},
    "roberta-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 50265},
}


def base_of(shape: str) -> nn.Module:
    """A random model of a shape, without dropout."""
    sizes = SHAPES[shape]
    more: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **sizes}
    config = transformers.BertConfig(intermediate_size=4 * sizes["hidden_size"], **more)
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(config)


def batch_of(vocabulary: int, samples: int, tokens: int, seed: int) -> dict[str, Tensor]:
    """A batch of random tokens and labels."""
    ids = torch.randint(vocabulary, (samples, tokens), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 2}


def stream(args: argparse.Namespace, k: int) -> Iterator[dict[str, Tensor]]:
    """The batches of run ``k``."""
    for i in itertools.count():
        yield batch_of(SHAPES[args.shape]["vocab_size"], args.samples, args.tokens, 1000 * k + i)

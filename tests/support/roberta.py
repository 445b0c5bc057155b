"""RoBERTa of its two sizes with random weights, and a tokenizer of bytes, as a folder."""

from __future__ import annotations

from pathlib import Path

import tokenizers
import transformers

SIZES = {
    "base": {},
    "large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
}
MORE = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}


def save(folder: Path, size: str) -> None:
    """Save a model of the config of RoBERTa-base or -large."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bytes_ = tokenizers.ByteLevelBPETokenizer()
    bytes_.train_from_iterator(["a"], vocab_size=300, special_tokens=special, show_progress=False)
    transformers.RobertaTokenizerFast(tokenizer_object=bytes_._tokenizer).save_pretrained(folder)
    config = transformers.RobertaConfig(**MORE, **SIZES[size])
    transformers.RobertaForSequenceClassification(config).save_pretrained(folder)

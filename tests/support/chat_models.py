"""Chat models: a tiny random Llama saved as a folder that a task can name, and the plug-in's, which tests may need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tensoradapt.lab.data.models import names
from tensoradapt.lab.tasks.splits import Split, Splits

SMOLLM2 = "smollm2-135m-instruct"
needs_smollm2 = pytest.mark.skipif(
    SMOLLM2 not in names(), reason=f"{SMOLLM2} is of a plug-in: pip install -e benchmarks/paper"
)


TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<pad>", "<|im_start|>", "<|im_end|>")


def numbered(first: str = "It is 0.") -> Splits:
    """Sixty prompts with answers, of which the first can be another; a third is held out."""
    texts = [(f"Say {i}.", f"It is {i}." if i else first) for i in range(60)]
    parts = [(0, 40), (40, 50), (50, 60)]
    made = [Split(tuple(texts[a:b]), np.zeros(b - a, np.int64), tuple(map(str, range(a, b)))) for a, b in parts]
    return made[0], made[1], made[2], ()


def saved_chat_model(folder: Path, template: str | None = TEMPLATE) -> str:
    """Save the model and its tokenizer; weights are ten times the usual size, so that attention is far from uniform."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *letters))}
    words = Tokenizer(models.BPE(vocabulary, []))
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    names = {"pad_token": SPECIAL[0], "eos_token": SPECIAL[2], "additional_special_tokens": [SPECIAL[1]]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, chat_template=template, **names)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    ids = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 2, "initializer_range": 0.2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(vocabulary), intermediate_size=48, **sizes, **ids))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)

"""AntiBERTy (Ruffolo et al., 2021), a language model of antibodies, as a folder that transformers loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"  # the twenty amino acids; any other letter is an unknown one
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY, WEIGHTS = "vocab.txt", "pytorch_model.bin"


def unpack(hf: Any, packed: Path, into: Path) -> None:
    """Save the masked language model, the pooler that classifiers use, and the tokenizer."""
    import torch

    settings = hf.BertConfig.from_pretrained(packed)
    model = hf.BertForMaskedLM(settings)
    weights = torch.load(packed / WEIGHTS, map_location="cpu", weights_only=True)
    model.load_state_dict({name: weights[name] for name in model.state_dict() if name in weights})
    tokenizer(hf, (packed / VOCABULARY).read_text().split(), settings.max_position_embeddings).save_pretrained(into)
    pooler = {name: value for name, value in weights.items() if name.startswith("bert.pooler.")}
    model.save_pretrained(into, state_dict={**model.state_dict(), **pooler})


def tokenizer(hf: Any, vocabulary: list[str], max_length: int) -> Any:
    """Make a tokenizer of one token a letter: ``[CLS]`` sequence ``[SEP]``; letters without a token are ``[UNK]``."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    pad, unknown, start, end, mask = SPECIAL
    ids = {token: i for i, token in enumerate(vocabulary)}
    made = Tokenizer(models.WordLevel(ids, unk_token=unknown))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    ends = [(token, ids[token]) for token in (start, end)]
    made.post_processor = processors.TemplateProcessing(f"{start} $A {end}", f"{start} $A {end} $B {end}", ends)
    named = {"unk_token": unknown, "pad_token": pad, "cls_token": start, "sep_token": end, "mask_token": mask}
    return hf.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=max_length, **named)


def first_odd(sequence: str) -> str:
    """Return the first character of a sequence that is no capital letter; empty where all are."""
    odd = re.search(r"[^A-Z]", sequence)
    return odd.group() if odd else ""

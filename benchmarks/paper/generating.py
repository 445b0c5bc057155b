"""Greedy answers of a chat model, up to the token that ends a turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tensoradapt.lab.tasks.language.chat import DATE


def stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens at which an answer ends: the model's, the tokenizer's, and those of usual chat templates."""
    ends = model.generation_config.eos_token_id
    named = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|eot_id|>")]
    known = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id, *named}
    return sorted(known - {None, tokenizer.unk_token_id})


@torch.no_grad()
def answer(model: Any, tokenizer: Any, said: Sequence[str], tokens: int) -> str:
    """The next answer in a chat, whose turns are the user's and the model's in turn, the last one the user's."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, date_string=DATE)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").to(next(model.parameters()).device)
    ends = stop_tokens(model, tokenizer)
    settings = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    found = model.generate(**ids, max_new_tokens=tokens, eos_token_id=ends, pad_token_id=ends[0], **settings)
    return str(tokenizer.decode(found[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)).strip()

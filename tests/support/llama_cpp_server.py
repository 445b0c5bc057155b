"""Serves one prompt by llama.cpp and prints log probabilities: ``llama_cpp_server.py BASE.gguf LORA.gguf IDS``.

Run in a process of its own, without torch. LORA may be empty. Prints one line of JSON, by token id. Everything is in
F32, as the default cache in F16 alone makes differences of 2e-2.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def parameters(xllamacpp: Any, base: str, lora: str) -> Any:
    chosen = xllamacpp.CommonParams()
    chosen.model.path, chosen.n_ctx, chosen.n_parallel, chosen.warmup = base, 256, 1, False
    chosen.cpuparams.n_threads = 2
    chosen.cache_type_k = chosen.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    chosen.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if lora:
        chosen.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(lora, 1.0)]
    return chosen


def log_probabilities(base: str, lora: str, ids: list[int]) -> dict[int, float]:
    """Return the log probability of every token as the next one after the prompt, by its id."""
    import xllamacpp  # installed for this alone (.ci/run)

    asked = {"prompt": ids, "n_predict": 1, "logprobs": 10**6, "temperature": 0.0, "cache_prompt": False}
    answer = xllamacpp.Server(parameters(xllamacpp, base, lora)).handle_completions(asked)
    first = answer["choices"][0]["logprobs"]["content"][0]
    return {token["id"]: token["logprob"] for token in first["top_logprobs"]}


if __name__ == "__main__":
    print(json.dumps(log_probabilities(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))))

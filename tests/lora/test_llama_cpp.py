"""A real llama.cpp serves an exported adapter: its log probabilities are those of torch and of PEFT.

``LLAMA_CPP`` is the folder with llama.cpp's converters, which xllamacpp's source archive holds (``.ci/run``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from support.chat_models import SMOLLM2, needs_smollm2
from support.models import perturb
from torch import Tensor

import tensoradapt as ta
from tensoradapt.lab.data.models import load_causal

pytestmark = [
    pytest.mark.llama_cpp,
    needs_smollm2,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]
SERVER = Path(__file__).parents[1] / "support" / "llama_cpp_server.py"
PROMPTS = ("The film is a quiet triumph, and the actors know it.", "def mean(values):\n    return")
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"


def python(*arguments: str | Path) -> str:
    places = os.pathsep.join([os.environ["LLAMA_CPP"], f"{os.environ['LLAMA_CPP']}/gguf-py", *sys.path])
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": places})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def served(base: Path, lora: Path | str, ids: list[int]) -> Tensor:
    found = json.loads(python(SERVER, base, lora, json.dumps(ids)).splitlines()[-1])
    return torch.tensor([found[str(i)] for i in range(len(found))])


@torch.no_grad()
def computed(model: torch.nn.Module, ids: list[int]) -> Tensor:
    return model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)


def converted(model: torch.nn.Module, tokenizer: Any, plan: ta.Plan, folder: Path, **export: Any) -> tuple[Path, Path]:
    """The base and an adapter of a plan as files of llama.cpp, by its own converters; the adapter stays attached."""
    converters, plain, f32 = Path(os.environ["LLAMA_CPP"]), folder / "base", ("--outtype", "f32", "--outfile")
    gguf, lora = folder / "base.gguf", folder / "lora.gguf"
    model.save_pretrained(plain)  # type: ignore[operator]
    tokenizer.save_pretrained(plain)
    perturb(ta.attach(model, plan))
    ta.export_lora(model, folder / "lora", **export)
    python(converters / "convert_hf_to_gguf.py", plain, *f32, gguf)
    python(converters / "convert_lora_to_gguf.py", folder / "lora", "--base", plain, *f32, lora)
    return gguf, lora


def test_llama_cpp_serves_an_exported_cp_as_torch_and_peft_compute_it(tmp_path: Path) -> None:
    model, tokenizer = load_causal(SMOLLM2)
    plan = ta.plan(model, "layer proj : head dim : model", "cp", 8)
    gguf, lora = converted(model, tokenizer, plan, tmp_path, base_model=BASE)
    theirs = peft.PeftModel.from_pretrained(load_causal(SMOLLM2)[0], str(tmp_path / "lora")).eval()
    for prompt in PROMPTS:
        ids = tokenizer(prompt).input_ids
        expected, found = computed(model, ids), served(gguf, lora, ids)
        with ta.disabled(model):
            base = computed(model, ids)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 1e-3
        assert (found - computed(theirs, ids)).abs().max() < 1e-3
        assert (served(gguf, "", ids) - base).abs().max() < 1e-3
        assert (expected - base).abs().max() > 0.1


SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
SMALL |= {"intermediate_size": 96, "vocab_size": 49152, "max_position_embeddings": 256, "head_dim": 16}
EXPERTS = {
    "mixtral": lambda: transformers.MixtralForCausalLM(transformers.MixtralConfig(**SMALL, num_local_experts=4)),
    "qwen3_moe": lambda: transformers.Qwen3MoeForCausalLM(
        transformers.Qwen3MoeConfig(
            **SMALL, num_experts=4, moe_intermediate_size=32, num_experts_per_tok=2, norm_topk_prob=True
        )  # llama.cpp normalises always
    ),
}


@pytest.mark.parametrize("kind", EXPERTS)
def test_llama_cpp_serves_pairs_of_single_experts(kind: str, tmp_path: Path) -> None:
    tokenizer = load_causal(SMOLLM2)[1]
    torch.manual_seed(0)
    model = EXPERTS[kind]().eval()
    plan = ta.plan(ta.find_sites(model, ("q", "up", "down")), ": out : in", "lora", 2)
    gguf, lora = converted(model, tokenizer, plan, tmp_path, base_model=BASE, target="llama.cpp")
    ids = tokenizer(PROMPTS[0]).input_ids
    expected, found = computed(model, ids), served(gguf, lora, ids)
    with ta.disabled(model):
        base = computed(model, ids)
    print(kind, float((found - expected).abs().max()), float((expected - base).abs().max()))
    assert (served(gguf, "", ids) - base).abs().max() < 1e-3
    assert (found - expected).abs().max() < 1e-3
    assert (expected - base).abs().max() > 0.1

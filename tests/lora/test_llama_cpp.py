"""A real llama.cpp serves an exported adapter: its log probabilities are those of torch and of PEFT.

``LLAMA_CPP`` is the folder with llama.cpp's converters, which xllamacpp's source archive holds (``.ci/run``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from support.models import perturb
from torch import Tensor

import tensoradapt as ta
from tensoradapt.data.models import SMOLLM2, load_causal

pytestmark = [
    pytest.mark.llama_cpp,
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


def test_llama_cpp_serves_an_exported_cp_as_torch_and_peft_compute_it(tmp_path: Path) -> None:
    converters = Path(os.environ["LLAMA_CPP"])
    model, tokenizer = load_causal(SMOLLM2)
    plain = tmp_path / "base"
    model.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    adapter = ta.attach(model, ta.plan(model, "layer proj : head dim : model", "cp", 8))
    perturb(adapter)
    ta.export_lora(model, tmp_path / "lora", base_model=BASE)
    gguf, lora = tmp_path / "base.gguf", tmp_path / "lora.gguf"
    f32 = ("--outtype", "f32", "--outfile")
    python(converters / "convert_hf_to_gguf.py", plain, *f32, gguf)
    python(converters / "convert_lora_to_gguf.py", tmp_path / "lora", "--base", plain, *f32, lora)
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

"""Train an adapter under FSDP2, on CUDA with nccl or on the CPU with gloo, and save it once.

torchrun --standalone --nproc-per-node 2 docs/examples/train_fsdp.py adapter
torchrun --standalone --nproc-per-node 8 docs/examples/train_fsdp.py adapter --model Qwen/Qwen3-8B --text notes.txt
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers
from torch import Tensor
from torch.distributed.fsdp import fully_shard

import tensoradapt as ta

TINY = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6}


def start() -> torch.device:
    """The device of this process, in a group with the others."""
    if not torch.cuda.is_available():
        dist.init_process_group("gloo")
        return torch.device("cpu")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl")
    return torch.device("cuda", torch.cuda.current_device())


def base_and_tokens(name: str | None, text: str) -> tuple[Any, Tensor]:
    """A frozen model, the same on each rank, and the text's tokens; without a name a tiny one that reads bytes."""
    if name is None:
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**TINY, num_key_value_heads=2, vocab_size=256)
        return transformers.LlamaForCausalLM(config), torch.tensor(list(text.encode()))
    model = transformers.AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16)
    return model, torch.tensor(transformers.AutoTokenizer.from_pretrained(name)(text)["input_ids"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--text", type=Path, default=Path(__file__))
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    device = start()
    model, tokens = base_and_tokens(args.model, args.text.read_text())
    adapter = ta.attach(model, ta.plan(model, "layer proj : head dim : model", "cp", rank=8))
    model.train()
    for block in model.model.layers:  # after attach, and the root last: its group holds the adapter
        fully_shard(block)
    fully_shard(model)
    optimizer = torch.optim.AdamW(ta.parameter_groups(model, lr=1e-2))  # after fully_shard, which replaces parameters
    generator = torch.Generator().manual_seed(dist.get_rank())  # each rank reads other parts
    for step in range(args.steps):
        starts = torch.randint(0, len(tokens) - 64, (4,), generator=generator).tolist()
        batch = torch.stack([tokens[i : i + 64] for i in starts]).to(device)
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if dist.get_rank() == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    adapter.save(args.out)  # on every rank; the first writes
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

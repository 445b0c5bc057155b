"""Several trainings in one process, by ``fit_many``, against as many by ``fit``: time, memory, and what joining saves.

    python benchmarks/pack.py                      # MiniLM's shape, 16 x 64 tokens, 1, 2, 4 and 8 runs
    python benchmarks/pack.py --samples 2 --tokens 16
    python benchmarks/pack.py --quick              # a look: a small shape, two runs
    python benchmarks/pack.py --device cuda --records runs    # writes runs/fit_many-SHAPE-cuda.json

One process; rounds alternate between the ways, and a ratio is that of neighbours, of processor time, on a GPU of the
clock. ``turns``: that of fit_many over the same trainings one after another, each on a copy of the base. ``joined``: a
step of the frozen model on K batches in one over K steps on one each, which bounds what a batch joined of all runs
could save. Memory: the peak of a process (on a GPU of its allocator) with K runs, and of K processes with one.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from kept import keep, named
from speed_setup import spent
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.runs.provenance import peak_memory
from tensoradapt.text import align, bytes_text

SHAPES: Mapping[str, Mapping[str, int]] = {
    "small": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "vocab_size": 30522},
    "roberta-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 50265},
}
METHODS = (("lora", 8), ("cp", 16), ("tucker", 8), ("tensor_train", 8))


def base_of(shape: str) -> nn.Module:
    """A random model of a shape, without dropout."""
    sizes = SHAPES[shape]
    more: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **sizes}
    config = transformers.BertConfig(intermediate_size=4 * sizes["hidden_size"], **more)
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(config)


def attach(model: nn.Module, k: int) -> str:
    """Attach the adapter of run ``k``; returns its name."""
    method, rank = METHODS[k % len(METHODS)]
    plan = ta.plan(model, method=method, rank=rank, train=("classifier",))
    ta.attach(model, plan, seed=k, name=f"run{k}")
    return f"run{k}"


def batch_of(vocabulary: int, samples: int, tokens: int, seed: int) -> dict[str, Tensor]:
    """A batch of random tokens and labels."""
    ids = torch.randint(vocabulary, (samples, tokens), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 2}


def stream(args: argparse.Namespace, k: int) -> Iterator[dict[str, Tensor]]:
    """The batches of run ``k``."""
    for i in itertools.count():
        yield batch_of(SHAPES[args.shape]["vocab_size"], args.samples, args.tokens, 1000 * k + i)


def together(base: nn.Module, args: argparse.Namespace, n: int) -> None:
    """Train ``n`` adapters of one base by ``fit_many``."""
    model = copy.deepcopy(base)
    runs = {attach(model, k): {"batches": stream(args, k), "lr": 1e-3, "steps": args.steps} for k in range(n)}
    ta.fit_many(model, runs)


def apart(base: nn.Module, args: argparse.Namespace, n: int) -> None:
    """Train ``n`` adapters one after another, each on a copy of the base, as if it were loaded."""
    for k in range(n):
        model = copy.deepcopy(base)
        attach(model, k)
        ta.fit(model, stream(args, k), lr=1e-3, steps=args.steps)


def frozen_step(base: nn.Module, args: argparse.Namespace, samples: int) -> None:
    """A forward and backward pass of the frozen model, with the gradient of its first layer's bias."""
    batch = batch_of(SHAPES[args.shape]["vocab_size"], samples, args.tokens, 0)
    base(**{key: value.to(args.device) for key, value in batch.items()}).loss.backward()


def ratios(base: nn.Module, args: argparse.Namespace, n: int) -> Iterator[dict[str, list[float]]]:
    """After each round: the two ratios of all rounds so far."""

    def seconds(call: Any, model: nn.Module, size: int) -> float:
        return spent(partial(call, model, args, size), args.device)

    found: dict[str, list[float]] = {"turns": [], "joined": []}
    frozen = copy.deepcopy(base)
    for name, p in frozen.named_parameters():
        p.requires_grad_(name.endswith("layer.0.attention.self.query.bias"))
    for _ in range(args.rounds):
        one = seconds(apart, base, n)
        found["turns"].append(seconds(together, base, n) / one)
        each = sum(seconds(frozen_step, frozen, args.samples) for _ in range(n))
        found["joined"].append(seconds(frozen_step, frozen, n * args.samples) / each)
        yield found


def peak_of(args: argparse.Namespace, n: int) -> int:
    """Bytes at the peak of a process of its own with ``n`` runs."""
    command = [sys.executable, __file__, "--peak", str(n), "--shape", args.shape, "--steps", "2"]
    command += ["--samples", str(args.samples), "--tokens", str(args.tokens), "--device", args.device]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1])


def shown(values: list[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Print a line for each number of runs, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="minilm")
    for name, default in (("samples", 16), ("tokens", 64), ("steps", 6), ("rounds", 5), ("threads", 1), ("peak", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--records", type=Path, help="the folder of a record; by default none is written")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if args.quick:
        args.shape, args.runs, args.rounds, args.steps, args.samples = "small", [2], 2, 2, 2
    torch.set_num_threads(args.threads)
    base = base_of(args.shape).to(args.device)
    if args.peak:
        together(base, args, args.peak)
        print(peak_memory() if args.device == "cpu" else torch.cuda.max_memory_allocated())
        return
    together(base, args, 1)  # what is done once in a process
    found: dict[int, dict[str, list[float]]] = {}
    peaks: dict[int, int] = {}
    for n in args.runs:
        for so_far in ratios(base, args, n):
            found[n] = so_far
            written(args, found, peaks)
        print(n, {what: shown(values) for what, values in found[n].items()}, flush=True)
    for n in sorted({1, *args.runs}):
        peaks[n] = peak_of(args, n)
        written(args, found, peaks)
    print("\n".join(align(rows_of(found, peaks))))


def written(args: argparse.Namespace, found: Mapping[int, Any], peaks: Mapping[int, int]) -> None:
    """Write what is known so far into the folder of records, if there is one."""
    sizes = {name: getattr(args, name) for name in ("shape", "samples", "tokens", "steps", "threads")}
    record = {**sizes, "ratios": found, "peak_bytes": peaks}
    keep(record, args.records, named(f"fit_many-{args.shape}", args.device) + ".json", args.device)


def rows_of(found: Mapping[int, Mapping[str, list[float]]], peaks: Mapping[int, int]) -> list[tuple[str, ...]]:
    """Return the table, with its head."""
    rows: list[tuple[str, ...]] = [("runs", "turns", "joined", "memory of one process", "of as many processes")]
    for n, of in found.items():
        memory = bytes_text(peaks[n]), bytes_text(n * peaks[1])
        rows.append((str(n), shown(of["turns"]), shown(of["joined"]), *memory))
    return rows


if __name__ == "__main__":
    main()

"""What equal steps cost: time and memory against a plain step of AdamW, and the largest array they make.

    python benchmarks/equal_steps_cost.py            # writes records/equal_steps_cost.json
    python benchmarks/equal_steps_cost.py --rounds 4 --only cp   # a look

On all-MiniLM-L6-v2 (q, k, v, o; batches of 32 rated sentences) plain and rescaled steps alternate in one process; the
ratio is that of each pair. Of Llama-2-7B's shapes the adapter alone is made, and one change of it is measured.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from minilm import Bench, Setting
from torch.utils._python_dispatch import TorchDispatchMode

import tensoradapt as ta
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.runs.provenance import peak_memory, provenance, reset_peak_memory
from tensoradapt.training.distance import Distance

RECORD = Path(__file__).parent / "records" / "equal_steps_cost.json"
METHODS: Mapping[str, Mapping[str, Any]] = {
    "lora r=8": {"method": "lora", "rank": 8},
    "lora r=64": {"method": "lora", "rank": 64},
    "cp r=16": {"method": "cp", "rank": 16},
    "cp r=64": {"method": "cp", "rank": 64},
    "tucker r=8": {"method": "tucker", "rank": 8},
    "tucker r=16": {"method": "tucker", "rank": 16},
    "tensor_train r=16": {"method": "tensor_train", "rank": 16},
    "tensor_ring r=8": {"method": "tensor_ring", "rank": 8},
    "lotr r=8": {"method": "lotr", "paper": True, "rank": 8},
    "metatt-4d r=16": {"method": "metatt-4d", "paper": True, "rank": 16},
    "vera r=256": {"method": "vera", "rank": 256},
    "loha r=8": {"method": "loha", "rank": 8},
}
LLAMA = SimpleNamespace(
    model_type="llama", hidden_size=4096, intermediate_size=11008, num_attention_heads=32, num_key_value_heads=32,
    num_hidden_layers=32, head_dim=128,
)  # fmt: skip


class Largest(TorchDispatchMode):
    """Keeps the number of entries of the largest array that is made."""

    entries = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        made = result if isinstance(result, tuple | list) else (result,)
        self.entries = max([self.entries, *(t.numel() for t in made if isinstance(t, torch.Tensor))])
        return result


def planned(source: Any, method: Mapping[str, Any], **more: Any) -> ta.Plan:
    return ta.plan(ta.find_sites(source, ("q", "k", "v", "o")), scale="matched", **method, **more)


@contextmanager
def without_hooks(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    hooks = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
    kept = [dict(of) for of in hooks]
    for of in hooks:
        of.clear()
    yield
    for of, old in zip(hooks, kept, strict=True):
        of.update(old)


def peak_of(call: Callable[[], Any]) -> int:
    """How many bytes the resident memory grows during a call, at its peak."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is freed goes back first, or the call would use it
    reset_peak_memory()
    begun = peak_memory()
    call()
    return peak_memory() - begun


def on_minilm(bench: Bench, method: Mapping[str, Any], rounds: int) -> dict[str, Any]:
    """Median and quartiles of the ratio of a rescaled step to the plain step before it, less one."""
    model = bench.fresh()
    adapter = ta.attach(model, planned(model, method, train=("classifier",)), seed=0)
    optimizer = ta.equal_steps(torch.optim.AdamW(ta.parameter_groups(model, 2e-3)), model)
    batches = [batch for _, batch in zip(range(rounds + 2), bench.batches(model), strict=False)]

    def step(batch: Mapping[str, Any]) -> float:
        begun = time.perf_counter()
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - begun

    def plain(batch: Mapping[str, Any]) -> float:
        with without_hooks(optimizer):
            return step(batch)

    for batch in batches[:2]:
        step(batch)
    pairs = [(plain(b), step(b)) if i % 2 else (step(b), plain(b))[::-1] for i, b in enumerate(batches[2:])]
    peaks = {name: peak_of(lambda take=take: take(batches[0])) for name, take in (("plain", plain), ("equal", step))}
    low, middle, high = statistics.quantiles([equal / without - 1 for without, equal in pairs], n=4)
    seconds = statistics.median(without for without, _ in pairs)
    costs = {"plain_seconds": seconds, "cost": middle, "quartiles": [low, high], "peak_bytes": peaks}
    return {"n_params": adapter.plan.n_params, **costs}


def on_llama(method: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds of one measurement, and its largest array against a matrix and against all of them."""
    adapter = Adapter(planned(LLAMA, method), seed=0)
    generator = torch.Generator().manual_seed(0)
    before = [{name: p.detach().double() for name, p in tensor.trained.items()} for tensor in adapter.factored]
    change = [{n: 1e-3 * torch.randn(p.shape, generator=generator).double() for n, p in of.items()} for of in before]
    distance, largest = Distance(adapter), Largest()
    with largest:
        distance.along(before, change)
    begun = time.perf_counter()
    distance.along(before, change)
    seconds = time.perf_counter() - begun
    peak = peak_of(lambda: distance.along(before, change))
    sites = adapter.plan.sites
    return {
        "n_params": adapter.plan.n_params,
        "seconds": seconds,
        "peak_bytes": peak,
        "all_matrices_bytes": 8 * sum(site.out * site.in_ for site in sites),
        "largest_array": largest.entries,
        "of_one_matrix": largest.entries / max(site.out * site.in_ for site in sites),
        "of_all_matrices": largest.entries / sum(site.out * site.in_ for site in sites),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", default="", help="methods whose name begins so")
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    chosen = {name: method for name, method in METHODS.items() if name.startswith(args.only)}
    bench = Bench(Setting(batch=args.batch), 0)
    record: dict[str, Any] = {"minilm": {}, "llama-2-7b": {}, "provenance": provenance(), "batch": args.batch}
    record["threads"] = torch.get_num_threads()
    for name, method in chosen.items():
        for part, measured in (("minilm", on_minilm(bench, method, args.rounds)), ("llama-2-7b", on_llama(method))):
            record[part][name] = measured
            print(part, name, measured, flush=True)
    if not args.only:
        RECORD.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

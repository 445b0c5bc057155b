"""What equal steps cost: time and memory against a plain step of AdamW, and the largest array they make.

    python benchmarks/equal_steps_cost.py            # writes records/equal_steps_cost.json
    python benchmarks/equal_steps_cost.py --shape minilm --device cuda   # equal_steps_cost-minilm-cuda.json
    python benchmarks/equal_steps_cost.py --rules    # writes records/step_rules.json

On all-MiniLM-L6-v2 (q, k, v, o; batches of 32 rated sentences), or with ``--shape`` on a random model and 64 random
tokens, plain and rescaled steps alternate in one process; the ratio is that of each pair. Of Llama-2-7B's shapes the
adapter alone is made, and one change of it is measured. The record is written after each method. ``--rules`` measures
the optimizer's step alone, with random gradients on MiniLM's shape, for each rule of steps against AdamW's own.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

from measure import keep, named, options, place

STEP_ALONE = {"action": "store_true", "help": "the optimizer's step alone, with each rule"}
SHAPE = {"help": "a random model of this shape of random_models.py, without downloads"}
OWN = {"only": "", "batch": 32, "shape": SHAPE, "rules": STEP_ALONE}
ASKED = options(__name__, __doc__, repeat=40, threads=1, device="cpu", **OWN)

import torch
from minilm import Bench, Setting
from random_models import classifier_of, texts
from speed_costs import peak_of, seconds
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import tensoradapt as ta
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.training.distance.adapter_distance import Distance

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
QUICK, TOKENS = ("lora r=8", "cp r=16"), 64
RULES: Mapping[str, Callable[[torch.optim.Optimizer, nn.Module], Any]] = {
    "preconditioned": ta.preconditioned,
    "landing": partial(ta.orthonormal, by="landing"),
    "retraction": partial(ta.orthonormal, by="retraction"),
    "equal_steps": ta.equal_steps,
}
RULED: Mapping[str, Mapping[str, Any]] = {
    "polar r=8": {"method": "polar", "paper": True, "rank": 8},
    "lora r=8": {"method": "lora", "rank": 8},
    "tensor_train r=8": {"method": "tensor_train", "rank": 8},  # preconditioning a large core of Tucker takes minutes
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
    hooks: list[dict[int, Any]] = [optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks]
    kept = [dict(of) for of in hooks]
    for of in hooks:
        of.clear()
    yield
    for of, old in zip(hooks, kept, strict=True):
        of.update(old)


def source_of(args: argparse.Namespace) -> tuple[Callable[[], nn.Module], list[Mapping[str, Any]]]:
    """Return what makes the model, and a batch for each step: two that are not counted, then a pair's each round."""
    make: Callable[[], nn.Module]
    batches: Iterator[Mapping[str, Tensor]]
    if args.shape:
        make, batches = partial(classifier_of, args.shape), texts(args.shape, args.batch, TOKENS)
    else:
        bench = Bench(Setting(batch=args.batch), 0)
        make, batches = bench.fresh, bench.batches(bench.fresh())
    first = itertools.islice(batches, args.repeat + 2)
    return lambda: make().to(args.device), [{key: v.to(args.device) for key, v in batch.items()} for batch in first]


def on_model(
    model: nn.Module, batches: Sequence[Mapping[str, Any]], method: Mapping[str, Any], device: str
) -> dict[str, Any]:
    """Median and quartiles of the ratio of a rescaled step to the plain step before it, less one."""
    adapter = ta.attach(model, planned(model, method, train=("classifier",)), seed=0)
    optimizer = ta.equal_steps(torch.optim.AdamW(ta.parameter_groups(model, 2e-3)), model)

    def stepped(batch: Mapping[str, Any]) -> None:
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def step(batch: Mapping[str, Any]) -> float:
        return seconds(partial(stepped, batch), device)

    def plain(batch: Mapping[str, Any]) -> float:
        with without_hooks(optimizer):
            return step(batch)

    for batch in batches[:2]:
        step(batch)
    pairs = [(plain(b), step(b)) if i % 2 else (step(b), plain(b))[::-1] for i, b in enumerate(batches[2:])]
    peaks = {name: peak_of(partial(take, batches[0]), device) for name, take in (("plain", plain), ("equal", step))}
    low, middle, high = statistics.quantiles([equal / without - 1 for without, equal in pairs], n=4)
    middling = statistics.median(without for without, _ in pairs)
    costs = {"plain_seconds": middling, "cost": middle, "quartiles": [low, high], "peak_bytes": peaks}
    return {"n_params": adapter.plan.n_params, **costs}


def on_llama(method: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Seconds of one measurement, and its largest array against a matrix and against all of them."""
    adapter = Adapter(planned(LLAMA, method), seed=0).to(device)
    generator = torch.Generator().manual_seed(0)
    before = [{name: p.detach().double() for name, p in tensor.trained.items()} for tensor in adapter.factored]
    drawn = [{n: 1e-3 * torch.randn(p.shape, generator=generator).double() for n, p in of.items()} for of in before]
    change = [{n: value.to(device) for n, value in of.items()} for of in drawn]
    distance, largest = Distance(adapter), Largest()  # type: ignore[no-untyped-call]
    with largest:
        distance.along(before, change)
    took = seconds(partial(distance.along, before, change), device)
    peak = peak_of(partial(distance.along, before, change), device)
    sites = adapter.plan.sites
    return {
        "n_params": adapter.plan.n_params,
        "seconds": took,
        "peak_bytes": peak,
        "all_matrices_bytes": 8 * sum(site.out * site.in_ for site in sites),
        "largest_array": largest.entries,
        "of_one_matrix": largest.entries / max(site.out * site.in_ for site in sites),
        "of_all_matrices": largest.entries / sum(site.out * site.in_ for site in sites),
    }


def of_rule(shape: str, method: Mapping[str, Any], rule: str, rounds: int, device: str) -> dict[str, float]:
    """Seconds of AdamW's step alone, and the median ratio of one with the rule to the one beside it."""
    model = classifier_of(shape).to(device)
    adapter = ta.attach(model, planned(model, method, train=()), seed=0)
    for parameter in adapter.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-3)
    RULES[rule](optimizer, model)

    def ruled() -> float:
        return seconds(optimizer.step, device)

    def plain() -> float:
        with without_hooks(optimizer):
            return ruled()

    pairs = [(plain(), ruled()) if i % 2 else (ruled(), plain())[::-1] for i in range(rounds + 2)][2:]
    low, middle, high = statistics.quantiles([with_rule / without for without, with_rule in pairs], n=4)
    return {"seconds": statistics.median(without for without, _ in pairs), "ratio": middle, "low": low, "high": high}


def rules(args: argparse.Namespace) -> None:
    """Print and record what each rule makes of the time of a step."""
    record: dict[str, Any] = {}
    for name, method in RULED.items():
        record[name] = {rule: of_rule(args.shape or "minilm", method, rule, args.repeat, args.device) for rule in RULES}
        print(name, record[name], flush=True)
        keep(place(args, named("step_rules", args.device) + ".json"), record, args.device)


def measure(methods: Mapping[str, Mapping[str, Any]], args: argparse.Namespace) -> None:
    """Print and record what each method costs."""
    fresh, batches = source_of(args)
    shape, file = args.shape or "minilm", "-".join(filter(None, ("equal_steps_cost", args.shape)))
    path = place(args, named(file, args.device) + ".json", part=bool(args.only))
    record: dict[str, Any] = {shape: {}, "llama-2-7b": {}, "batch": args.batch}
    for name, method in methods.items():
        record[shape][name] = on_model(fresh(), batches, method, args.device)
        record["llama-2-7b"][name] = on_llama(method, args.device)
        print(name, record[shape][name], record["llama-2-7b"][name], flush=True)
        keep(path, record, args.device)


def main(args: argparse.Namespace) -> None:
    """Measure the methods, or the rules."""
    torch.set_num_threads(args.threads)
    if args.quick:
        args.shape, args.repeat, args.batch = "small", 4, 2
    if args.rules:
        rules(args)
        return
    measure({name: of for name, of in METHODS.items() if name.startswith(QUICK if args.quick else args.only)}, args)


if __name__ == "__main__":
    main(ASKED)

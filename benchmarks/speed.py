"""What an adapter costs: forward, training step and memory, each against the frozen model's step just before it.

    python benchmarks/speed.py --threads 1           # MiniLM's shape; --shapes roberta-base smollm2-135m vit-s
    python benchmarks/speed.py --only cp --before    # beside it without each piece of work that was saved
    python benchmarks/speed.py --quick               # a look: two rounds of a small shape, no record
    python benchmarks/speed.py --device cuda --dtype bfloat16 --shapes llama-3.2-1b llama-2-7b

One process. In each round every competitor has its turn, in an order that is rotated, after a turn of the frozen model;
a ratio is that of such a pair, and the table has the median and quartiles over rounds. A step is forward, backward and
AdamW's update; the frozen model's has the gradient of its input alone, as a layer of an adapter needs it. Models are
random, of the named shapes, and share their frozen weights. Causal models also decode: a token after the batch's, at
batch 1. Records: records/speed-SHAPE-DEVICE-THREADS.json.
"""

from __future__ import annotations

import argparse
import copy
import gc
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import peft
import torch
import transformers
from equal_steps_cost import peak_of as resident_peak_of
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import tensoradapt as ta
from tensoradapt import parameterizations
from tensoradapt.adapter.forward_pass import ForwardPass
from tensoradapt.layers.wrapper import Wrapped
from tensoradapt.runs.plan_run import layouts_for
from tensoradapt.runs.provenance import provenance
from tensoradapt.sites.site import Sites
from tensoradapt.text import align, bytes_text

RECORDS = Path(__file__).parent / "records"
TEXT = {"max_position_embeddings": 514}
LLAMA = {"max_position_embeddings": 2048, "rope_theta": 10000.0}


def _bert(hidden: int, layers: int, heads: int, vocab: int) -> nn.Module:
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "vocab_size": vocab}
    return transformers.BertModel(transformers.BertConfig(**sizes, intermediate_size=4 * hidden, **TEXT))


def _llama(hidden: int, inner: int, layers: int, heads: int, keys: int, vocab: int) -> nn.Module:
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "vocab_size": vocab}
    return transformers.LlamaModel(
        transformers.LlamaConfig(**sizes, num_attention_heads=heads, num_key_value_heads=keys, **LLAMA)
    )


def _vit() -> nn.Module:
    return transformers.ViTModel(transformers.ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536))


# model, samples in a batch, tokens of a text (0: pictures)
SHAPES: Mapping[str, tuple[Callable[[], nn.Module], int, int]] = {
    "small": (partial(_bert, 64, 2, 4, 100), 4, 16),
    "minilm": (partial(_bert, 384, 6, 12, 30522), 16, 64),
    "roberta-base": (partial(_bert, 768, 12, 12, 50265), 8, 64),
    "smollm2-135m": (partial(_llama, 576, 1536, 30, 9, 3, 49152), 4, 128),
    "vit-s": (_vit, 8, 0),
    "llama-3.2-1b": (partial(_llama, 2048, 8192, 16, 32, 8, 128256), 4, 512),
    "llama-3.2-3b": (partial(_llama, 3072, 8192, 28, 24, 8, 128256), 4, 512),
    "llama-2-7b": (partial(_llama, 4096, 11008, 32, 32, 32, 32000), 2, 512),
}
LORA = {"lora_alpha": 16, "lora_dropout": 0.0}
PEERS: Mapping[str, Callable[..., peft.PeftConfig]] = {
    "PEFT LoRA r=8": partial(peft.LoraConfig, r=8, **LORA),
    "PEFT DoRA r=8": partial(peft.LoraConfig, r=8, use_dora=True, **LORA),
    "PEFT VeRA r=256": partial(peft.VeraConfig, r=256),
    "PEFT LoHa r=8": partial(peft.LoHaConfig, r=8, alpha=8),
    "PEFT LoKr r=8": partial(peft.LoKrConfig, r=8, alpha=8),
}
OTHER_RANKS = {"cp": (8, 64), "vera": (256,)}  # of the other parameterizations 8
SPLIT = {
    "kronecker": "lokr",
    "loretta": "loretta-rep",
    "quanta": "quanta",
    "tt_matrix": "dota",
}  # rows that have splits
Turn = Callable[[], float]  # a measured call, in seconds
# what a competitor is measured without, by name: methods that then find nothing
BEFORE = {
    "each site by itself": ((Wrapped, "only_pair"), (ForwardPass, "once")),
    "contracted at each site": ((ForwardPass, "once"),),
    "unfused": ((Wrapped, "only_pair"),),
}
DECODED = 8  # tokens of a turn


def sites_of(model: nn.Module) -> Sites:
    """q, k, v and o."""
    return ta.find_sites(model, "attention")


def frozen(model: nn.Module) -> nn.Module:
    """The model without trained parameters."""
    return model.requires_grad_(False)


def shared(model: nn.Module) -> nn.Module:
    """A copy that has the same parameters."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


def competitors(base: nn.Module) -> dict[str, Callable[[], nn.Module]]:
    """How each competitor is made, by name: full fine-tuning, PEFT's adapters and ours."""
    sites = sites_of(base)
    targets = sorted({site.module for site in sites})
    made: dict[str, Callable[[], nn.Module]] = {"full": lambda: copy.deepcopy(base).requires_grad_(True)}
    for name, config in PEERS.items():
        made[name] = lambda config=config: peft.get_peft_model(shared(base), config(target_modules=targets))
    for name in parameterizations.names():
        for rank in OTHER_RANKS.get(name, (8,)):
            made[f"{name} r={rank}"] = partial(adapted, base, name, rank)
    return made


def adapted(base: nn.Module, name: str, rank: int) -> nn.Module:
    """A copy with one of our adapters over its usual layout."""
    model = shared(base)
    sites = sites_of(model)
    if name in SPLIT:
        plan = ta.plan(sites, published=SPLIT[name], rank=None if name == "quanta" else rank)
    else:
        plan = ta.plan(sites, layouts_for(name), name, rank)
    ta.attach(model, plan)
    return model


def batch_of(model: nn.Module, samples: int, tokens: int, device: str) -> dict[str, Tensor]:
    """A batch of the shape: embedded tokens, or pixels, with a gradient."""
    generator = torch.Generator().manual_seed(0)
    settings: Any = model.config
    if not tokens:
        shape, key = (samples, 3, settings.image_size, settings.image_size), "pixel_values"
    else:
        shape, key = (samples, tokens, settings.hidden_size), "inputs_embeds"
    kind = next(model.parameters()).dtype
    return {key: torch.randn(shape, generator=generator).to(device, kind).requires_grad_(True)}


def timed(call: Callable[[], Any], device: str) -> float:
    """Seconds of a call, all of whose kernels have ended."""
    if device != "cpu":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def turns(model: nn.Module, batch: Mapping[str, Tensor], device: str) -> dict[str, Turn]:
    """The measured calls of one competitor."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4) if trained else None

    def step() -> None:
        model(**batch).last_hidden_state.square().mean().backward()
        if optimizer:
            optimizer.step()
            optimizer.zero_grad()
        for value in batch.values():
            value.grad = None

    def forward() -> None:
        with torch.no_grad():
            model(**batch)

    calls = {"step": step, "forward": forward}
    if hasattr(model.config, "num_key_value_heads"):
        calls["token"] = decoding(model, next(iter(batch.values())).detach()[:1])
    return {name: partial(timed, call, device) for name, call in calls.items()}


@torch.no_grad()
def decoding(model: nn.Module, embedded: Tensor) -> Callable[[], None]:
    """What decodes tokens one by one after a text, as ``generate`` does with a cache."""
    cache = transformers.DynamicCache(config=model.config)
    model(inputs_embeds=embedded, past_key_values=cache, use_cache=True)

    @torch.no_grad()
    def decode() -> None:
        for _ in range(DECODED):
            model(inputs_embeds=embedded[:, -1:], past_key_values=cache, use_cache=True)
        cache.crop(-DECODED)

    return decode


def without(turn: Turn, methods: tuple[tuple[type, str], ...]) -> float:
    """A turn where these methods find nothing."""
    with ExitStack() as held:
        for owner, name in methods:
            held.enter_context(patch.object(owner, name, lambda *_: None))
        return turn()


def peak_of(call: Callable[[], Any], device: str) -> int:
    """How far memory grows during a call, at its peak: of the process, or of the allocator on a GPU."""
    if device == "cpu":
        return resident_peak_of(call)
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    begun = torch.cuda.memory_allocated()
    call()
    return torch.cuda.max_memory_allocated() - begun


class Counted(TorchDispatchMode):
    """Counts the operations of torch that compute: what a GPU would be asked to launch."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += not func.is_view
        return func(*args, **(kwargs or {}))


def operations_of(call: Callable[[], Any]) -> int:
    """The operations of a call, views aside."""
    with Counted() as counted:
        call()
    return counted.n


def rounds_of(
    reference: Mapping[str, Turn], others: Mapping[str, Mapping[str, Turn]], n: int
) -> dict[str, dict[str, list[float]]]:
    """Ratios to the reference's turn just before, by competitor and call."""
    ratios: dict[str, dict[str, list[float]]] = {name: {call: [] for call in reference} for name in others}
    names = list(others)
    for i in range(n):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            for call, turn in reference.items():
                before = turn()
                ratios[name][call].append(others[name][call]() / before)
    return ratios


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return {"median": middle, "low": low, "high": high}


def measure(shape: str, args: argparse.Namespace) -> dict[str, Any]:
    """All competitors of one shape."""
    make, samples, tokens = SHAPES[shape]
    torch.manual_seed(0)
    base = frozen(make().to(args.device, getattr(torch, args.dtype)).train())
    batch = batch_of(base, samples, tokens, args.device)
    wanted = {name: how for name, how in competitors(base).items() if name.startswith(tuple(args.only))}
    record: dict[str, Any] = {"shape": shape, "batch": [samples, tokens], "refused": {}, "competitors": {}}
    models: dict[str, nn.Module] = {}
    for name, how in wanted.items():
        try:
            begun = time.perf_counter()
            models[name] = how()
            record["competitors"][name] = {"attach_seconds": time.perf_counter() - begun}
        except ta.TensorAdaptError as error:  # a layout that its widths do not allow
            record["refused"][name] = str(error)
    calls = {name: turns(model, batch, args.device) for name, model in models.items()}
    reference = turns(base, batch, args.device)
    ours = [name for name in calls if args.before and not name.startswith(("full", "PEFT"))]
    for name, (what, methods) in itertools.product(ours, BEFORE.items()):
        calls[f"{name}, {what}"] = {c: partial(without, turn, methods) for c, turn in calls[name].items()}
        models[f"{name}, {what}"], record["competitors"][f"{name}, {what}"] = models[name], {}
    for turn in [turn for of in (reference, *calls.values()) for turn in of.values()]:
        turn()
    record["frozen_peak_bytes"] = peak_of(reference["step"], args.device)
    record["frozen_operations"] = operations_of(reference["step"])
    record["frozen_seconds"] = {call: turn() for call, turn in reference.items()}
    for name, ratios in rounds_of(reference, calls, args.rounds).items():
        n = sum(p.numel() for p in models[name].parameters() if p.requires_grad)
        measured = {call: spread(values) for call, values in ratios.items()}
        peak = peak_of(calls[name]["step"], args.device)
        more = operations_of(calls[name]["step"]) - record["frozen_operations"]
        record["competitors"][name] |= {"n_params": n, "step_peak_bytes": peak, "operations_more": more, **measured}
    return record


def table(record: Mapping[str, Any]) -> Iterator[str]:
    """The record as lines; operations and memory are those of a step."""
    calls = list(record["frozen_seconds"])
    rows = [("", "parameters", *(text for call in calls for text in (call, "quartiles")), "operations", "memory")]
    of_step = f"{record['frozen_operations']:,}", bytes_text(record["frozen_peak_bytes"])
    rows += [("frozen", "0", *["1.00", ""] * len(calls), *of_step)]
    for name, of in record["competitors"].items():
        cells = [f(of[call]) for call in calls for f in (_middle, _quartiles)]
        cells += [f"+{of['operations_more']:,}", bytes_text(of["step_peak_bytes"])]
        rows.append((name, f"{of['n_params']:,}", *cells))
    yield from align(rows)
    yield from (f"refused: {name}: {why[:100]}" for name, why in record["refused"].items())


def _middle(values: Mapping[str, float]) -> str:
    return f"{values['median']:.2f}"


def _quartiles(values: Mapping[str, float]) -> str:
    return f"{values['low']:.2f} to {values['high']:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=tuple(SHAPES), default=["minilm"])
    parser.add_argument("--only", nargs="+", default=[""], help="competitors whose names begin so")
    parser.add_argument("--before", action="store_true", help="ours also without each piece of work that was saved")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--quick", action="store_true", help="two rounds of a small shape, no record")
    args = parser.parse_args()
    if args.quick:
        args.shapes, args.rounds = ["small"], 2
    torch.set_num_threads(args.threads)
    card = torch.cuda.get_device_name() if args.device != "cpu" else None
    for shape in args.shapes:
        record = {**measure(shape, args), "device": card or args.device, "threads": args.threads, "dtype": args.dtype}
        print(shape, *table(record), sep="\n", flush=True)
        if not args.quick and args.only == [""]:
            with suppress(FileExistsError):
                RECORDS.mkdir()
            name = f"speed-{shape}-{args.device.replace(':', '')}-{args.threads}.json"
            (RECORDS / name).write_text(json.dumps({**record, "provenance": provenance()}, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Many adapters in one model: what loading one more, switching, and a batch with an adapter for each sample cost.

    python benchmarks/many_adapters.py                  # 1, 10, 100, 1,000 adapters; writes records/many_adapters.json
    python benchmarks/many_adapters.py --only CP --most 100 --device cuda    # these alone, in many_adapters-cuda.json

all-MiniLM-L6-v2's shape, q k v o, rank 4. Each adapter is loaded from a saved folder. The batch has 32 samples, the
i-th with adapter i modulo N. A ratio is that of a turn to a turn of the frozen model just before it, in one process;
methods take their turns one after another, with medians and quartiles over rounds. PEFT's LoRA has ``adapter_names=``.
Times are the processor's. Memory is what the process grew by while adapters were loaded, and their numbers' bytes.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from measure import keep, named, options, place, show, spread

MOST = {"type": int, "default": 1000, "help": "adapters"}
ONLY = {"nargs": "+", "default": [""], "help": "methods whose names begin so"}
ASKED = options(__name__, __doc__, repeat=9, threads=1, device="cpu", only=ONLY, most=MOST)

import peft
import torch
from random_models import base_of, shared, sites_of
from speed_costs import spent
from torch import Tensor, nn

import tensoradapt as ta

ROWS = {"LoRA": "lora", "LoTR": "lotr", "CP (LoRTA)": "lorta", "VeRA": "vera"}
PEFT = "PEFT LoRA"
COUNTS = (1, 10, 100, 1000)
RANK, SAMPLES, TOKENS = 4, 32, 32


@dataclass
class Served:
    """A model with adapters of one method, and what is done with them."""

    model: nn.Module
    folder: Path

    def load(self, i: int) -> None:
        """Add one more."""
        ta.load(self.model, self.folder, name=f"a{i}")

    def switch(self, i: int) -> None:
        """Use one of them."""
        ta.use(self.model, f"a{i}")

    def forward(self, names: list[str], batch: Mapping[str, Tensor]) -> None:
        """A batch with an adapter for each sample, the choice included."""
        ta.use(self.model, samples=names)
        self.model(**batch)

    def n_bytes(self) -> int:
        """Return the bytes of an adapter's numbers."""
        return ta.adapters(self.model)["a0"].n_bytes


class ServedByPeft(Served):
    """The same in a PeftModel."""

    model: Any

    def load(self, i: int) -> None:
        if i == 0:
            self.model = peft.PeftModel.from_pretrained(self.model, self.folder, adapter_name="a0")
        else:
            self.model.load_adapter(str(self.folder), adapter_name=f"a{i}")

    def switch(self, i: int) -> None:
        self.model.set_adapter(f"a{i}")

    def forward(self, names: list[str], batch: Mapping[str, Tensor]) -> None:
        self.model(**batch, adapter_names=names)

    def n_bytes(self) -> int:
        return sum(p.nbytes for name, p in self.model.named_parameters() if ".a0." in name)


def served(base: nn.Module, method: str, root: Path) -> Served:
    """A model that has no adapter yet, and a saved adapter of the method."""
    folder, model = root / method.replace(" ", ""), shared(base)
    if method != PEFT:
        ta.attach(model, ta.plan(sites_of(base), method=ROWS[method], paper=True, rank=RANK, train=())).save(folder)
        ta.detach(model)
        return Served(model, folder)
    targets = sorted({site.module for site in sites_of(base)})
    config = peft.LoraConfig(r=RANK, lora_alpha=16, lora_dropout=0.0, target_modules=targets)
    peft.get_peft_model(shared(base), config).save_pretrained(str(folder))
    return ServedByPeft(model, folder)


def resident(device: str) -> int:
    """Bytes of the process, or of the allocator on a GPU."""
    gc.collect()
    if device != "cpu":
        return torch.cuda.memory_allocated()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def filled(one: Served, held: range, device: str) -> dict[str, float]:
    """Load adapters until there are as many: seconds of them all, of one of the last, and the memory that they took."""
    before = resident(device)
    seconds = [spent(partial(one.load, i), device) for i in held]
    grown = (resident(device) - before) / len(held)
    return {"load_ms": 1e3 * statistics.median(seconds[-10:]), "loads_s": sum(seconds), "grown_bytes_each": grown}


def switched(one: Served, names: list[str], n: int, args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of a switch to another adapter, and to one for each sample."""
    calls: dict[str, Callable[[int], Any]] = {"switch_ms": lambda i: one.switch(i % n)}
    if not isinstance(one, ServedByPeft):
        calls["group_ms"] = lambda i: ta.use(one.model, samples=names)
    return {
        key: 1e3 * statistics.median([spent(partial(call, i), args.device) for i in range(args.repeat + 1)][1:])
        for key, call in calls.items()
    }


@torch.no_grad()
def mixed(
    models: Mapping[str, Served], base: nn.Module, batch: Mapping[str, Tensor], names: list[str], args: Any
) -> dict[str, dict[str, Any]]:
    """Ratios of a batch with an adapter for each sample to the frozen model's."""
    turns: dict[str, Callable[[], Any]] = {name: partial(one.forward, names, batch) for name, one in models.items()}
    ratios: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(args.repeat + 1):
        for name, turn in turns.items():
            before = spent(partial(base, **batch), args.device)
            ratios[name].append(spent(turn, args.device) / before)
    return {name: {"mixed": spread(values[1:])} for name, values in ratios.items()}  # the first round warms up


def measure(
    base: nn.Module, counts: tuple[int, ...], root: Path, args: argparse.Namespace
) -> Iterator[tuple[str, dict[str, Any]]]:
    """All methods, with each number of adapters."""
    width: int = base.config.hidden_size  # type: ignore[union-attr,assignment]
    batch = {"inputs_embeds": torch.randn(SAMPLES, TOKENS, width, device=args.device)}
    wanted = [name for name in (*ROWS, PEFT) if name.startswith(tuple(args.only))]
    models, held = {name: served(base, name, root) for name in wanted}, 0
    for n in counts:
        names = [f"a{i % n}" for i in range(SAMPLES)]
        loads = {name: filled(one, range(held, n), args.device) for name, one in models.items()}
        of = mixed(models, base, batch, names, args)
        for name, one in models.items():
            of[name] |= {"n_bytes": one.n_bytes(), **loads[name], **switched(one, names, n, args)}
        held = n
        yield f"{n:,}", of


def table(counts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """The record as rows of texts."""
    yield "adapters", "method", "mixed", "quartiles", "load", "loads", "switch", "group", "memory each", "numbers"
    for n, methods in counts.items():
        for name, of in methods.items():
            values, group = of["mixed"], f"{of['group_ms']:.1f} ms" if "group_ms" in of else ""
            cells = [n, name, f"{values['median']:.2f}", f"{values['low']:.2f} to {values['high']:.2f}"]
            cells += [f"{of['load_ms']:.1f} ms", f"{of['loads_s']:.1f} s", f"{of['switch_ms']:.2f} ms", group]
            yield (*cells, *(f"{of[key] / 1024:.0f} KiB" for key in ("grown_bytes_each", "n_bytes")))


def record(n: str, found: Mapping[str, Any], args: argparse.Namespace) -> None:
    """Write these figures into the record, beside those of other methods and numbers of adapters."""
    path = place(args, named("many_adapters", args.device) + ".json")
    known = json.loads(path.read_text()) if path and path.exists() else {"counts": {}}
    known["counts"].setdefault(n, {}).update(found)
    keep(path, {**known, "rank": RANK, "batch": [SAMPLES, TOKENS], "threads": args.threads}, args.device)


def main(args: argparse.Namespace) -> None:
    """Measure each number of adapters."""
    counts = (1, 4) if args.quick else tuple(n for n in COUNTS if n <= args.most)
    args.repeat = 2 if args.quick else args.repeat
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    base = base_of("small" if args.quick else "minilm", args.device, "float32").eval()
    with tempfile.TemporaryDirectory() as root:
        for n, found in measure(base, counts, Path(root), args):
            show(table({n: found}))
            record(n, found, args)


if __name__ == "__main__":
    main(ASKED)

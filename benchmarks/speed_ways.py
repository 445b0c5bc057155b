"""The exact ways through one adapted layer, measured, against the cost model that chooses one of them.

For each width, rank and number of tokens every way has its turn after one of the frozen layer, in an order that is
rotated; a turn is forward and the gradients of the input, A and B. The model counts FLOPs and passes
(`tensoradapt/planning/site_ways.py`); what its choice loses is against the way that was fastest.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from speed_costs import seconds
from torch import Tensor

from tensoradapt.layers.fused_linear import _Fused
from tensoradapt.planning.site_ways import Way, cheapest
from tensoradapt.text import align

WIDTHS, RANKS = (384, 768), (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
QUICK = ((64,), (1, 16), (32, 256))
WAYS = {
    "pair": Way(),
    "pair, dense gradient": Way(dense_gradient=True),
    "W + delta": Way(forms_weight=True),
    "W + delta, dense gradient": Way(forms_weight=True, dense_gradient=True),
}
LEAST = 2e-3  # seconds of a turn, which repeats what is shorter
Cell = Mapping[str, Any]


def measure(args: argparse.Namespace) -> Iterator[dict[str, list[Cell]]]:
    """The record after each cell: for a width, a rank and a number of tokens the median ratios to the frozen layer."""
    widths, ranks, tokens = QUICK if args.quick else (WIDTHS, RANKS, TOKENS)
    cells: list[Cell] = []
    for width, rank, n in itertools.product(widths, ranks, tokens):
        cells.append(cell(width, rank, n, args.device, getattr(torch, args.dtype), args.repeat))
        yield {"ways": cells}


def cell(width: int, rank: int, tokens: int, device: str, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """The ways at one point."""
    turns = turns_of(width, rank, tokens, device, dtype)
    wide = dtype == torch.float32
    names = [name for name, way in WAYS.items() if wide or not way.forms_weight]
    times = max(1, round(LEAST / max(_seconds(turns["frozen"], 1, device), 1e-6)))
    for turn in turns.values():
        _seconds(turn, 1, device)
    ratios: dict[str, list[float]] = {name: [] for name in names}
    frozen = []
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            frozen.append(_seconds(turns["frozen"], times, device))
            ratios[name].append(_seconds(turns[name], times, device) / frozen[-1])
    medians = {name: statistics.median(of) for name, of in ratios.items()}
    way = cheapest(tokens, rank, (width, width), wide=wide)
    model = next(name for name in names if WAYS[name] == way)
    best = min(medians, key=lambda name: medians[name])
    point = {"width": width, "rank": rank, "tokens": tokens, "frozen_seconds": statistics.median(frozen)}
    return {**point, "ratios": medians, "best": best, "model": model, "loss": medians[model] / medians[best] - 1}


def turns_of(width: int, rank: int, tokens: int, device: str, dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """A step of the frozen layer and of each way."""
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int, trains: bool = True) -> Tensor:
        drawn = torch.randn(shape, generator=generator) / shape[-1] ** 0.5
        return drawn.to(device, dtype).requires_grad_(trains)

    x, a, b = numbers(tokens, width), numbers(rank, width), numbers(width, rank)
    weight, bias, g = (
        numbers(width, width, trains=False),
        numbers(width, trains=False),
        numbers(tokens, width, trains=False),
    )

    def through(way: Way) -> tuple[Tensor, ...]:
        return torch.autograd.grad(_Fused.apply(x, weight, bias, a, b, way), (x, a, b), g)  # type: ignore[no-untyped-call]

    def frozen() -> None:
        torch.autograd.grad(F.linear(x, weight, bias), x, g)

    return {"frozen": frozen, **{name: partial(through, way) for name, way in WAYS.items()}}


def _seconds(call: Callable[[], Any], times: int, device: str) -> float:
    return seconds(lambda: [call() for _ in range(times)], device) / times


def crossings(cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    """For each width and rank: from how many tokens each way is the fastest, measured and by the model."""
    rows: list[tuple[str, ...]] = [("width", "rank", "measured", "by the model", "most that its choice loses")]
    for width, rank in dict.fromkeys((of["width"], of["rank"]) for of in cells):
        of_rank = [of for of in cells if (of["width"], of["rank"]) == (width, rank)]
        worst = max(of["loss"] for of in of_rank)
        rows.append(
            (str(width), str(rank), _changes(of_rank, "best"), _changes(of_rank, "model"), f"{100 * worst:.0f} %")
        )
    return rows


def _changes(cells: Sequence[Cell], which: str) -> str:
    first = [of for of, last in zip(cells, [None, *cells], strict=False) if last is None or last[which] != of[which]]
    return "; ".join(f"{of['tokens']:,}: {of[which]}" for of in first)


def losses(cells: Sequence[Cell]) -> Iterator[str]:
    """What is lost against the fastest way: by the model's choice, and by each way taken everywhere."""
    chosen = {"the model's choice": [of["loss"] for of in cells]}
    for name in WAYS:
        if all(name in of["ratios"] for of in cells):
            chosen[f"{name} everywhere"] = [of["ratios"][name] / of["ratios"][of["best"]] - 1 for of in cells]
    right = sum(of["model"] == of["best"] for of in cells)
    yield f"- The model chose the fastest of the ways in {right} of {len(cells)} cells."
    for name, lost in chosen.items():
        yield f"- {name} loses {100 * statistics.fmean(lost):.1f} % in the mean, {100 * max(lost):.0f} % at most."


def lines(cells: Sequence[Cell]) -> Iterator[str]:
    """Both as lines of a terminal."""
    yield from align(crossings(cells))
    yield from losses(cells)

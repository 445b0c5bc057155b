"""What an adapter costs: steps, set-up and memory, each step against the frozen model's just before it.

    python benchmarks/speed.py                       # MiniLM's shape; --shapes roberta-base smollm2-135m vit-s
    python benchmarks/speed.py --only cp lora        # the rows whose names begin so
    python benchmarks/speed.py --ways                # one layer: ranks and tokens by the exact ways through it
    python benchmarks/speed.py --figure              # figure and tables of the records
    python benchmarks/speed.py --device cuda --dtype bfloat16 --shapes llama-3.2-1b llama-2-7b

One process. In each round every row has its turn, in an order that is rotated, after a turn of the frozen model; a
ratio is that of such a pair, and the table has the median and quartiles over rounds. A step is forward, backward and
AdamW's update; the frozen model's has the gradient of its input alone, as a layer of an adapter needs it. Models are
random, of the named shapes, and share their frozen weights. Causal models also decode: a token after the batch's, at
batch 1. Records: records/speed-SHAPE-DEVICE-THREADS.json, written again after each row and each round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from measure import keep, options, place, spread

DTYPE = {"choices": ("float32", "bfloat16"), "default": "float32"}
SKIP = {"nargs": "+", "default": [], "help": "not the rows whose names begin so"}
WAYS = {"action": "store_true", "help": "the exact ways through one layer, against the cost model"}
OWN = {"shapes": ["minilm"], "only": [""], "skip": SKIP, "ways": WAYS, "dtype": DTYPE, "figure": False}
ASKED = options(__name__, __doc__, repeat=30, threads=1, device="cpu", **OWN)

import speed_report
import speed_ways
import torch
from random_models import SHAPES, base_of, batch_of, shared
from speed_costs import Competitor, Turn, operations_of, optimizer_bytes, peak_of, setup
from speed_rows import Row, rows_of

import tensoradapt as ta

REPEATS = 3  # repeats of what is done once for an adapter; one in a look


def rounds_of(
    reference: Mapping[str, Turn], others: Mapping[str, Mapping[str, Turn]], n: int
) -> Iterator[tuple[dict[str, float], dict[str, dict[str, list[float]]]]]:
    """After each round: the reference's median seconds by call, and ratios to its turn just before, by competitor."""
    ratios: dict[str, dict[str, list[float]]] = {name: {call: [] for call in reference} for name in others}
    seconds: dict[str, list[float]] = {call: [] for call in reference}
    names = list(others)
    for i in range(n):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            for call, turn in reference.items():
                seconds[call].append(turn())
                ratios[name][call].append(others[name][call]() / seconds[call][-1])
        yield {call: statistics.median(of) for call, of in seconds.items()}, ratios


def chosen(rows: Iterable[Row], only: list[str], skip: list[str]) -> list[Row]:
    """Rows whose names begin so, and not so."""
    return [row for row in rows if row.name.startswith(tuple(only)) and not row.name.startswith(tuple(skip))]


def measure(shape: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The record of one shape, after each row that is set up and then after each round."""
    base = base_of(shape, args.device, args.dtype)
    batch = batch_of(base, shape, args.device)
    frozen = Competitor(base, batch, args.device)
    record: dict[str, Any] = {"shape": shape, "batch": SHAPES[shape][1:], "refused": {}, "competitors": {}}
    competitors: dict[str, Competitor] = {}
    for row in chosen(rows_of(base), args.only, args.skip):
        try:
            costs = setup(row, base, args.device, 1 if args.quick else REPEATS)
            competitor = Competitor(row.attach(shared(base), row.plan(base)), batch, args.device)
            competitor.step()
        except (ta.TensorAdaptError, torch.OutOfMemoryError) as error:  # a layout that its widths do not allow
            record["refused"][row.name] = str(error)
            continue
        what = {"package": row.package, "method": row.method, "group": row.group, "n_params": competitor.n_params}
        of_step = {
            "step_peak_bytes": peak_of(competitor.step, args.device),
            "operations": operations_of(competitor.step),
            "optimizer_bytes": optimizer_bytes(competitor.optimizer),
        }
        record["competitors"][row.name], competitors[row.name] = {**what, **costs, **of_step}, competitor
        yield record
    frozen.step()
    record["frozen_peak_bytes"] = peak_of(frozen.step, args.device)
    record["frozen_operations"] = operations_of(frozen.step)
    for _ in timed(record, frozen, competitors, args):
        yield record


def timed(
    record: dict[str, Any], frozen: Competitor, competitors: Mapping[str, Competitor], args: Any
) -> Iterator[None]:
    """Write the ratios of all turns into the record, in each round."""
    turns = {name: competitor.turns() for name, competitor in competitors.items()}
    reference = frozen.turns()
    for turn in [turn for of in (reference, *turns.values()) for turn in of.values()]:
        turn()
    for n, (seconds, ratios) in enumerate(rounds_of(reference, turns, args.repeat), 1):
        for name, of in ratios.items():
            record["competitors"][name] |= {call: spread(values) for call, values in of.items()}
        record |= {"rounds": n, "frozen_seconds": seconds}
        yield


def last(grown: Iterable[Mapping[str, Any]], name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Write a record as it grows; returns it whole."""
    path = place(args, f"speed-{name}-{args.device.replace(':', '')}-{args.threads}.json", part=args.only != [""])
    for record in grown:
        whole = keep(path, {**record, "dtype": args.dtype}, args.device)
    return whole


def main(args: argparse.Namespace) -> None:
    """Measure the shapes or the ways, or draw what was measured."""
    torch.set_num_threads(args.threads)
    if args.figure:
        found = speed_report.recorded()
        speed_report.draw(found, speed_report.FIGURE)
        print(*speed_report.tables(found), sep="\n")
        return
    if args.quick:
        args.shapes, args.repeat = ["small"], 2
    records, look = [], args.quick and args.only == [""] and not args.skip
    if args.ways or look:
        records.append(last(speed_ways.measure(args), "ways", args))
        print(*speed_ways.lines(records[-1]["ways"]), sep="\n", flush=True)
    for shape in [] if args.ways else args.shapes:
        records.append(last(measure(shape, args), shape, args))
        print(shape, *speed_report.lines(records[-1]), sep="\n", flush=True)
    if look:
        with tempfile.TemporaryDirectory() as folder:  # drawn for a check alone
            speed_report.draw(records, Path(folder) / "speed.png")


if __name__ == "__main__":
    main(ASKED)

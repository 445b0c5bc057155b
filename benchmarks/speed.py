"""What an adapter costs: steps, set-up and memory, each step against the frozen model's just before it.

    python benchmarks/speed.py --threads 1           # MiniLM's shape; --shapes roberta-base smollm2-135m vit-s
    python benchmarks/speed.py --only cp --before    # beside it without each piece of work that was saved
    python benchmarks/speed.py --shapes small --instructions    # those of a step, by valgrind; or of some rows
    python benchmarks/speed.py --ways                # one layer: ranks and tokens by the exact ways through it
    python benchmarks/speed.py --figure              # figure and tables of the records
    python benchmarks/speed.py --quick               # a look: two rounds of a small shape, no record
    python benchmarks/speed.py --device cuda --dtype bfloat16 --shapes llama-3.2-1b llama-2-7b

One process. In each round every row has its turn, in an order that is rotated, after a turn of the frozen model; a
ratio is that of such a pair, and the table has the median and quartiles over rounds. A step is forward, backward and
AdamW's update; the frozen model's has the gradient of its input alone, as a layer of an adapter needs it. Models are
random, of the named shapes, and share their frozen weights. Causal models also decode: a token after the batch's, at
batch 1. Records: records/speed-SHAPE-DEVICE-THREADS.json, written again after each row and each round; of rows chosen
with ``--only`` none, or with ``--records`` one that is called part-speed.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import speed_figure
import speed_instructions
import speed_table
import speed_ways
import torch
from kept import folder_of, keep
from speed_models import SHAPES, base_of, batch_of, shared
from speed_rows import Row, rows_of
from speed_setup import optimizer_bytes, peak_of, setup
from speed_turns import BEFORE, Competitor, Turn, operations_of, without

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


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": middle, "low": low, "high": high}


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
        of_step = {"step_peak_bytes": peak_of(competitor.step, args.device)}
        of_step |= {
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
    if args.instructions is not None:
        counted = [name for name in competitors if name.startswith(tuple(args.instructions or [""]))]
        record["instructions"] = speed_instructions.count(shape, counted)
        yield record


def timed(
    record: dict[str, Any], frozen: Competitor, competitors: Mapping[str, Competitor], args: Any
) -> Iterator[None]:
    """Write the ratios of all turns into the record, in each round; with ``--before`` ours without each saving too."""
    turns = {name: competitor.turns() for name, competitor in competitors.items()}
    ours = [name for name, of in record["competitors"].items() if args.before and of["package"] == "tensoradapt"]
    for name, (what, methods) in itertools.product(ours, BEFORE.items()):
        less = f"{name}, {what}"
        turns[less] = {call: partial(without, turn, methods) for call, turn in turns[name].items()}
        of_step = {
            "operations": operations_of(turns[less]["step"]),
            "step_peak_bytes": peak_of(turns[less]["step"], args.device),
        }
        record["competitors"][less] = {**record["competitors"][name], **of_step}
    reference = frozen.turns()
    for turn in [turn for of in (reference, *turns.values()) for turn in of.values()]:
        turn()
    for n, (seconds, ratios) in enumerate(rounds_of(reference, turns, args.rounds), 1):
        for name, of in ratios.items():
            record["competitors"][name] |= {call: spread(values) for call, values in of.items()}
        record |= {"rounds": n, "frozen_seconds": seconds}
        yield


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=tuple(SHAPES), default=["minilm"])
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose names begin so")
    parser.add_argument("--skip", nargs="+", default=[], help="not those whose names begin so")
    parser.add_argument("--before", action="store_true", help="ours also without each piece of work that was saved")
    parser.add_argument("--instructions", nargs="*", help="count those of a step by valgrind, of rows that begin so")
    parser.add_argument("--ways", action="store_true", help="the exact ways through one layer, against the cost model")
    parser.add_argument("--figure", action="store_true", help="figure and tables of the records")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--records", type=Path, help="the folder of records, for looks and parts too")
    parser.add_argument("--quick", action="store_true", help="two rounds of a small shape, no record")
    args = parser.parse_args()
    if args.quick:
        args.shapes, args.rounds = ["small"], 2
    return args


def written(record: Mapping[str, Any], name: str, args: argparse.Namespace) -> dict[str, Any]:
    """The record with the machine; a file unless this is a look or a part without ``--records``."""
    part = args.only != [""]
    file = f"{'part-' * part}speed-{name}-{args.device.replace(':', '')}-{args.threads}.json"
    return keep({**record, "threads": args.threads, "dtype": args.dtype}, folder_of(args, part), file, args.device)


def last(grown: Iterable[Mapping[str, Any]], name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Write a record as it grows; returns it whole."""
    for record in grown:
        whole = written(record, name, args)
    return whole


def main() -> None:
    args = parsed()
    torch.set_num_threads(args.threads)
    if args.figure:
        found = speed_figure.recorded()
        speed_figure.draw(found, speed_figure.FIGURE)
        print(*speed_figure.tables(found), sep="\n")
        return
    records = []
    look = args.quick and args.only == [""] and not args.skip
    if args.ways or look:
        records.append(last(speed_ways.measure(args), "ways", args))
        print(*speed_ways.lines(records[-1]["ways"]), sep="\n", flush=True)
    for shape in [] if args.ways else args.shapes:
        records.append(last(measure(shape, args), shape, args))
        print(shape, *speed_table.lines(records[-1]), sep="\n", flush=True)
    if look:
        with tempfile.TemporaryDirectory() as folder:  # drawn for a check alone
            speed_figure.draw(records, Path(folder) / "speed.png")


if __name__ == "__main__":
    main()

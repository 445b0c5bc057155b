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
import json
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from measure import RECORDS, keep, options, place, spread

DTYPE = {"choices": ("float32", "bfloat16"), "default": "float32"}
SKIP = {"nargs": "+", "default": [], "help": "not the rows whose names begin so"}
WAYS = {"action": "store_true", "help": "the exact ways through one layer, against the cost model"}
OWN = {"shapes": ["minilm"], "only": [""], "skip": SKIP, "ways": WAYS, "dtype": DTYPE, "figure": False}
ASKED = options(__name__, __doc__, repeat=30, threads=1, device="cpu", **OWN)

import figure_style
import speed_ways
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from random_models import SHAPES, base_of, batch_of, shared
from speed_costs import Competitor, Turn, operations_of, optimizer_bytes, peak_of, setup
from speed_rows import GROUPS, USUAL, Row, rows_of

import tensoradapt as ta
from tensoradapt.lab.analysis.names import Look, display, looks, tone
from tensoradapt.lab.analysis.plots import _parts
from tensoradapt.text import align, bytes_text

REPEATS = 3  # repeats of what is done once for an adapter; one in a look
FIGURE = figure_style.DOCS / "results" / "figures" / "speed.png"
ONCE = ("plan", "attach", "save", "load", "use")
CALLS = ("step", "forward", "token")
Cells = list[tuple[str, ...]]
TICKS = (1, 1.1, 1.2, 1.4, 1.6, 2, 3, 4, 6)
WIDE = 5  # a largest ratio from which ticks would touch: there are fewer of them
ROW, GAP = 0.17, 1.6  # inches of a row, rows between groups
FACES = {"PEFT": "white", "LyCORIS": "#d0d0d0"}  # faces of markers; ours have the method's colour
FULL = "full fine-tuning"  # the method that records call "full"
Key = tuple[str, str]  # group and label


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


def recorded() -> list[dict[str, Any]]:
    """The records that there are, by name, but those that were cut before their first round."""
    found = [json.loads(path.read_text()) for path in sorted(RECORDS.glob("speed-*.json"))]
    return [record for record in found if "ways" in record or "frozen_seconds" in record]


def tables(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The records as lines of a terminal."""
    for record in records:
        if "ways" in record:
            yield from ("", f"the exact ways through one layer, {machine(record)}", *speed_ways.lines(record["ways"]))
        else:
            yield from ("", title(record), *lines(record))


def of_steps(record: Mapping[str, Any]) -> Cells:
    """What is paid in each step: ratios to the frozen model with their quartiles, operations, memory."""
    calls = [call for call in CALLS if call in record["frozen_seconds"]]
    head = ("", "parameters", *(text for call in calls for text in (call, "quartiles")), "operations", "memory")
    own = f"{record['frozen_operations']:,}", bytes_text(record["frozen_peak_bytes"])
    rows: Cells = [head, ("frozen", "0", *["1.00", ""] * len(calls), *own)]
    for name, of in record["competitors"].items():
        cells = [f(of[call]) for call in calls for f in (_middle, _quartiles)]
        cells += [f"{of['operations'] - record['frozen_operations']:+,}", bytes_text(of["step_peak_bytes"])]
        rows.append((name, f"{of['n_params']:,}", *cells))
    return rows


def of_setup(record: Mapping[str, Any]) -> Cells:
    """What is paid once: milliseconds, and bytes of what is held, saved and kept by the optimizer."""
    rows = [("", *(f"{what}, ms" for what in ONCE), "held", "saved", "optimizer")]
    for name, of in record["competitors"].items():
        times = [_milliseconds(of.get(f"{what}_seconds")) for what in ONCE]
        held = [_bytes(of.get(f"{what}_bytes")) for what in ("adapter", "saved", "optimizer")]
        rows.append((name, *times, *held))
    return rows


def lines(record: Mapping[str, Any]) -> Iterator[str]:
    """Both tables as lines of a terminal, and what was refused."""
    yield from align(of_steps(record))
    yield from align(of_setup(record))
    yield from (f"refused: {name}: {why[:100]}" for name, why in record["refused"].items())


def _middle(values: Mapping[str, float]) -> str:
    return f"{values['median']:.2f}"


def _quartiles(values: Mapping[str, float]) -> str:
    return f"{values['low']:.2f} to {values['high']:.2f}"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:,.0f}" if seconds >= 0.01 else f"{1000 * seconds:.2g}"


def _bytes(n: float | None) -> str:
    return "" if n is None else f"{n:,.0f} B" if n < 1e4 else f"{n / 1e3:,.0f} kB" if n < 1e6 else bytes_text(n)


def title(record: Mapping[str, Any]) -> str:
    """The shape and the machine of a record."""
    return f"{record['shape']}, {machine(record)}"


def machine(record: Mapping[str, Any]) -> str:
    """Where a record was made."""
    where = record["provenance"]["cpu"] if record["device"] == "cpu" else record["device"]
    threads = f"{record['threads']} thread{'s' * (record['threads'] != 1)}"
    return f"{where}, {threads}, {record['dtype']}" if record["device"] == "cpu" else f"{where}, {record['dtype']}"


def draw(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the PNG of the records of steps, if there are any."""
    records = [record for record in records if "competitors" in record]
    if not records:
        return
    places = placed(records)
    lowest = max(places.values())
    size = 2.3 + 2.6 * len(records), ROW * (lowest + 4) + 0.9
    with figure_style.drawn(path, size, **{"axes.spines.left": False}) as figure:
        panels = figure.subplots(1, len(records), sharey=True, squeeze=False)[0]
        shown = looks(method_of(of) for record in records for of in record["competitors"].values())
        for ax, record in zip(panels, records, strict=True):
            panel(ax, record, places, shown)
        panels[0].set_yticks(list(places.values()), [label for _, label in places])
        panels[0].set_ylim(lowest + 1, -2.2)
        for group in dict.fromkeys(group for group, _ in places):
            top = min(y for (of, _), y in places.items() if of == group)
            at: dict[str, Any] = {
                "transform": panels[0].get_yaxis_transform(),
                "fontsize": "small",
                "color": tone(0.25),
            }
            panels[0].text(0, top - 0.75, f" {group}", bbox={"fc": tone(1), "ec": "none", "pad": 0.5}, **at)
        handles = [_sample(name, face) for name, face in {"ours": tone(0.25), **FACES}.items()]
        figure.legend(handles=handles, loc="outside lower right", ncols=len(handles), fontsize="small")
        figure.suptitle("Time of a training step, × the frozen model", x=0.02, ha="left")


def _sample(name: str, face: str) -> Line2D:
    """Return what the legend shows of a package."""
    return Line2D([], [], marker="o", linestyle="none", color=tone(0.25), markerfacecolor=face, label=name)


def method_of(of: Mapping[str, Any]) -> str:
    """Return the method of a row, by the name that figures have for it."""
    return FULL if of["method"] == "full" else str(of["method"])


def placed(records: Sequence[Mapping[str, Any]]) -> dict[Key, float]:
    """The height of each row that any record has, from the top, groups apart."""
    found = [key_of(name, of) for record in records for name, of in record["competitors"].items()]
    places: dict[Key, float] = {}
    y = 0.0
    for group in GROUPS:
        for key in sorted({key for key in found if key[0] == group}, key=found.index):
            places[key], y = y, y + 1
        y += GAP
    return places


def key_of(name: str, of: Mapping[str, Any]) -> Key:
    """A row over all shapes: at the parameters of a LoRA the count differs between them."""
    head, sep, rest = labelled(name, of).partition(" n≤")
    before = rest.partition(", ")[2]  # what it was measured without
    return of["group"], f"{head}, {before}" if sep and before else head if of["group"] != USUAL else labelled(name, of)


def labelled(name: str, of: Mapping[str, Any]) -> str:
    """A row's name with its method as figures show it, in place of its name in code."""
    name = FULL if name == "full" else name
    return name.replace(of["method"], display(of["method"]), 1) if of["package"] == "tensoradapt" else name


def panel(ax: Axes, record: Mapping[str, Any], places: Mapping[Key, float], shown: Mapping[str, Look]) -> None:
    """The rows of one record."""
    ax.axvline(1, color=tone(_parts.GREY), linewidth=0.8)
    if peft := record["competitors"].get("PEFT LoRA r=8"):
        ax.axvline(peft["step"]["median"], color=tone(_parts.GREY), linewidth=0.8, linestyle=":")
    for name, of in record["competitors"].items():
        look, y = shown[method_of(of)], places[key_of(name, of)]
        ax.plot([of["step"]["low"], of["step"]["high"]], [y, y], color=look.colour, linewidth=1.1)
        face = FACES.get(of["package"], look.colour)
        ax.plot(of["step"]["median"], y, look.marker, color=look.colour, mfc=face, ms=5, zorder=3)
    ax.set_xscale("log")
    ends = [of["step"][end] for of in record["competitors"].values() for end in ("low", "high")]
    ax.set_xlim(min(0.97, *ends), max(1.25, *ends) * 1.03)
    ax.xaxis.set_major_locator(FixedLocator(TICKS if max(ends) < WIDE else (1, 1.4, 2, 3, 5, 8, 12, 16)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    threads = "" if record["device"] != "cpu" else f", {record['threads']} thread{'s' * (record['threads'] != 1)}"
    ax.set_title(record["shape"] + threads)
    ax.tick_params(labelsize="small")
    ax.tick_params(axis="y", length=0)
    ax.grid()


def main(args: argparse.Namespace) -> None:
    """Measure the shapes or the ways, or draw what was measured."""
    torch.set_num_threads(args.threads)
    if args.figure:
        found = recorded()
        draw(found, FIGURE)
        print(*tables(found), sep="\n")
        return
    if args.quick:
        args.shapes, args.repeat = ["small"], 2
    records, look = [], args.quick and args.only == [""] and not args.skip
    if args.ways or look:
        records.append(last(speed_ways.measure(args), "ways", args))
        print(*speed_ways.lines(records[-1]["ways"]), sep="\n", flush=True)
    for shape in [] if args.ways else args.shapes:
        records.append(last(measure(shape, args), shape, args))
        print(shape, *lines(records[-1]), sep="\n", flush=True)
    if look:
        with tempfile.TemporaryDirectory() as folder:  # drawn for a check alone
            draw(records, Path(folder) / "speed.png")


if __name__ == "__main__":
    main(ASKED)

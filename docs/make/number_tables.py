"""The tables that ``write_numbers.py`` writes into pages: of each its file, its columns and which rows it has."""

from __future__ import annotations

import importlib
import statistics
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from markdown_tables import ROOT, Row, Table, read

from tensoradapt.lab.analysis.names import display
from tensoradapt.lab.analysis.verdict import answer, fewer

RECORDS, VERDICTS = "benchmarks/records", "docs/results/verdicts.csv"


def benchmark(name: str, folder: str = "benchmarks") -> Any:
    """Import a script of benchmarks, which computes what a table needs from its record."""
    if (path := str(ROOT / folder)) not in sys.path:
        sys.path.insert(0, path)
    return importlib.import_module(name)


# Comparisons with LoRA r=8: docs/results/verdicts.csv

OUTCOMES = {
    "less than 1 point lost": "kept",
    "less than 0.01 lost": "kept",
    "less than 2 points lost": "close",
    "less than 0.02 lost": "close",
    "worse": "worse",
    "not settled": "open",
}
PLACES = {"headline/linear": " on all linear layers"}
Size = tuple[str, int]  # a method and its parameters


def outcome_of(words: str) -> str:
    """Return which of the five outcomes of ``ta.verdict`` the words of a verdict say."""
    return OUTCOMES.get(words.split(",")[0], "failed")


def of(family: str, *keep: Size) -> Callable[[list[Row]], list[Row]]:
    """Return what takes the comparisons of a family by size; of these the given methods and counts, where any are."""

    def chosen(rows: list[Row]) -> list[Row]:
        kept = [row for row in rows if row["family"] == family]
        kept = [row for row in kept if not keep or (row["method"], row["n_params"]) in keep]
        return [told(row) for row in sorted(kept, key=lambda row: (row["n_params"], row["method"]))]

    return chosen


def told(row: Row) -> Row:
    """Return a comparison with the texts that its columns show."""
    rank = f" {row['size']}" if str(row["size"]).startswith("r=") else ""
    return row | {
        "name": display(row["method"]) + rank + PLACES.get(row["folder"], ""),
        "checked": interval(row, "validation", "validation_low", "validation_high"),
        "in_points": "{:+.1f} ({:+.1f} to {:+.1f})".format(
            *(100 * row[name] for name in ("difference", "low", "high"))
        ),
        "gain": "" if pd.isna(row["share"]) else f"{100 * row['share']:.0f} %",
        "beside": beside(row),
        "beside_in_points": beside(row, "{:+.1f} points", 100),
    }


def interval(row: Row, value: str, low: str, high: str) -> str:
    """Return a difference with its interval."""
    return "" if pd.isna(row[value]) else f"{row[value]:+.4f} ({row[low]:+.4f} to {row[high]:+.4f})"


def beside(row: Row, text: str = "{:+.4f}", times: int = 1) -> str:
    """Return LoRA at the nearest count, and what a size has more than it."""
    if pd.isna(row["control_difference"]):
        return ""
    name, n = str(row["control"]).replace("lora", "LoRA"), int(row["control_n_params"])
    return f"{name}, {n:,}: {text.format(times * row['control_difference'])}, p {p_text(row['control_p_holm'])}"


def p_text(p: float) -> str:
    """Return a p value with three digits.

    >>> p_text(0.0123), p_text(0.00004), p_text(1.0)
    ('0.012', '< 0.001', '1')
    """
    return "< 0.001" if p < 0.001 else "1" if p > 0.9995 else f"{p:.3f}"


def corrected(rows: list[Row]) -> str:
    """Return what a family was corrected for, with its reference and its floor."""
    if not rows:
        return "The runs of its specification are not finished, so there is no table yet."
    first = rows[0]
    shown = "" if len(rows) == first["compared"] else f", of which {len(rows)} are shown"
    reference, floor = first["mean"] - first["difference"], first["floor"]
    sentences = [f"LoRA r=8 with {first['reference_n_params']:,} parameters has {reference:.3f}."]
    if not pd.isna(floor):
        share = f"{100 * first['margin_share']:.0f} %"
        margin = "0.01" if first["task"] in benchmark("verdicts", "benchmarks/paper").NO_POINTS else "1 point"
        sentences += [f"The floor is {floor:.3f}, so {margin} is {share} of what LoRA r=8 gains over it."]
    sentences += [
        f"Holm's correction is over the {first['compared']} sizes that were compared with it on this task and "
        f"model{shown}; that of LoRA of as many parameters is over those comparisons."
    ]
    return textwrap.fill(" ".join(sentences), 120)


UNSEEN = "unseen sentences"
TASKS = {  # the families beside the movie-review sentences with MiniLM, as pages call them
    "SST-2": "SST-2",
    "rated sentences, MPNet": "Movie reviews, MPNet",
    "SST-2, MPNet": "SST-2, MPNet",
    "CoLA": "CoLA",
    "CIFAR-10": "CIFAR-10",
    "Alpaca": "Alpaca",
}
CARDS = (36864, 18432, 6192)  # the sizes of the cards, each with those of nearly as many parameters


def unseen() -> pd.DataFrame:
    """Return the comparisons on sentences on which no run was scored before, with the columns of ``ta.verdict``."""
    rows = pd.DataFrame(of(UNSEEN)(read(VERDICTS)))
    reference = {"reference": "lora", "reference_rank": 8, "margin": 0.01, "points": 100, "budget": pd.NA}
    times = rows["reference_n_params"] / rows["n_params"]
    outcomes = [outcome_of(words) for words in rows["verdict"]]
    return rows.assign(**reference, times_fewer=times, outcome=outcomes)


def unseen_answer() -> str:
    """Return the answer of these comparisons, as the picture has it."""
    return f"**{answer(unseen())}.**"


def cards() -> str:
    """Return a card for each of ``CARDS``: what is lost there, by method, the best verdict first."""
    rows, made = unseen(), []
    for size in CARDS:
        alike = rows[rows["n_params"].between(size / 1.1, size * 1.1)].sort_values("difference", ascending=False)
        told = [f"{row.name_}: {row.verdict}" for row in alike.rename(columns={"name": "name_"}).itertuples()]
        first = alike.iloc[0]
        good = [":class-card: good"] * (first["outcome"] == "kept")
        kept = f"{first['name']} keeps {first['gain']} of what LoRA r=8 gains over a fitted head."
        lines = [f":::{{grid-item-card}} {fewer(first['times_fewer'])} parameters", *good, "", f"**{told[0]}**", ""]
        made += [*lines, *(f"{line}  " for line in told[1:]), *([""] if told[1:] else []), kept, ":::", ""]
    return grid(made)


def task_cards() -> str:
    """Return a card for each task but the movie-review sentences: the verdict on each of its sizes."""
    return grid([line for family, name in TASKS.items() for line in card(name, of(family)(read(VERDICTS)))])


def lorta_cards() -> str:
    """Return cards of the sizes over LoRTA's layout: few parameters, and about those of LoRA r=1."""
    rows = list(over_lortas_layout(read(VERDICTS)))
    few, more = ([row for row in rows if (row["n_params"] < 2000) == small] for small in (True, False))
    return grid([*card("112× fewer parameters and more", few), *card("8× fewer parameters", more)], 2)


def card(title: str, rows: list[Row]) -> list[str]:
    """Return the lines of a card with the verdict on each size."""
    times = (fewer(row["reference_n_params"] / row["n_params"]) for row in rows)
    told = [f"{row['name']}, {n}: **{row['verdict']}**  " for row, n in zip(rows, times, strict=True)]
    return [f":::{{grid-item-card}} {title}", "", *told, ":::", ""]


def grid(made: list[str], columns: int = 3) -> str:
    """Return cards beside each other."""
    return "\n".join(
        [f"::::{{grid}} 1 1 {columns} {columns}", ":gutter: 2", ":class-container: verdicts", "", *made, "::::"]
    )


SIZE, COUNT, SCORE = {"": "{name}"}, {"parameters:": "{n_params:,}"}, {"score:": "{mean:.3f}"}
TEST = {"against LoRA r=8, test": "{difference:+.4f} ({low:+.4f} to {high:+.4f})"}
POINTS = {"points against LoRA r=8": "{in_points}"}
CHECKED, SHARE, SEEDS = {"on validation": "{checked}"}, {"of its gain:": "{gain}"}, {"seeds:": "{n_seeds}"}
CONTROL, VERDICT = {"LoRA of as many parameters": "{beside}"}, {"verdict": "{verdict}"}
FRONT = SIZE | COUNT | SCORE | POINTS | SHARE | VERDICT
SHORT = SIZE | COUNT | SCORE | TEST | CHECKED | CONTROL | VERDICT
WIDE = SIZE | COUNT | SCORE | TEST | CHECKED | SHARE | SEEDS | CONTROL | VERDICT
KNOWN = (("CP", 6192), ("Tensor-train", 17616), ("lora", 18432), ("CP", 18576), ("CP by HiRA's rule", 18576))
KNOWN += (("lora", 36864), ("Tucker", 36840), ("CP", 37152), ("CP by HiRA's rule", 37152))
TAKE = {  # a number of parameters to spend, and the size that is taken, with its layout
    ("LoRA on v", 4608): ("4,600", ""),
    ("CP", 6192): ("6,000", "layer : out : in"),
    ("lora", 18432): ("18,000", ""),
    ("Tucker", 36840): ("37,000", "layer : out : in"),
}
HEADS_SPLIT = {  # sizes over LoRTA's layout
    ("CP, heads split", 438): "CP, rank 1",
    ("CP, heads split", 1314): "CP",
    ("Tucker, heads split", 17312): "Tucker",
    ("Tensor-train, heads split", 18438): "tensor-train",
    ("CP, heads split", 18396): "CP",
}


def taken(rows: list[Row]) -> Iterator[Row]:
    """Yield what to take for a number of parameters."""
    for row in of(UNSEEN, *TAKE)(rows):
        about, layout = TAKE[row["method"], row["n_params"]]
        yield row | {"about": about, "take": f"{row['name']} over `{layout}`" if layout else row["name"]}


def over_lortas_layout(rows: list[Row]) -> Iterator[Row]:
    """Yield the sizes over LoRTA's layout, those that are settled first."""
    every = {(row["method"], row["n_params"]): row for row in of("rated sentences", *HEADS_SPLIT)(rows)}
    for size, name in HEADS_SPLIT.items():
        yield every[size] | {"name": name, "said": every[size]["verdict"]}


def of_verdicts(columns: Mapping[str, str], rows: Callable[[list[Row]], Any], note: bool = False) -> Table:
    return Table(VERDICTS, columns, rows, corrected if note else None)


# Speed, memory and bytes: benchmarks/records/speed-SHAPE-cpu-1.json and many_adapters.json

SHAPES = ("minilm", "vit-s", "roberta-base")
TIED = ("cp r=8", "tensor_train r=8", "tucker r=8", "lotr r=8")
PEFT = "PEFT LoRA r=8"
NAMED = {  # rows of the records, as pages call them
    PEFT: PEFT,
    "lora r=8": "LoRA r=8",
    "cp r=8": "CP r=8",
    "tensor_train r=8": "tensor-train r=8",
    "tucker r=8": "Tucker r=8",
    "cp r=64": "CP r=64",
    "cp n≤": "CP, LoRA r=8's count",
    "tucker n≤": "Tucker, LoRA r=8's count",
    "vera r=256": "VeRA r=256",
    "PEFT VeRA r=256": "PEFT's VeRA r=256",
    "full": "full fine-tuning",
}
COSTS = {
    "training step": lambda row: row["step"]["median"],
    "memory of a step": lambda row: row["step_peak_bytes"],
    "attach": lambda row: row["attach_seconds"],
    "save": lambda row: row["save_seconds"],
    "load": lambda row: row["load_seconds"],
    "size of the file": lambda row: row["saved_bytes"],
    "AdamW's state": lambda row: row["optimizer_bytes"],
}
MANY = ("10 PEFT LoRA", "10 CP", "100 PEFT LoRA", "100 LoRA", "100 CP", "1,000 LoRA", "1,000 CP")  # rows of its table


def speed(shape: str) -> Any:
    return read(f"{RECORDS}/speed-{shape}-cpu-1.json")


def measured(shape: str, name: str) -> Row:
    """Return a row of a shape's record, where a name that ends in "≤" has as many parameters as LoRA r=8."""
    record = speed(shape)
    rows = record["competitors"]
    row = rows[f"{name}{rows[PEFT]['n_params']:,}" if name.endswith("≤") else name]
    more = (row["step_peak_bytes"] - record["frozen_peak_bytes"]) / 1e6
    return row | {"time": row["step"]["median"], "more": more}


def steps(_: Any) -> Iterator[Row]:
    """Yield each row's step on the three shapes."""
    for name, shown in NAMED.items():
        rows = {shape: measured(shape, name) for shape in SHAPES}
        found = {f"{key} {shape}": row[key] for shape, row in rows.items() for key in ("time", "more")}
        yield {"name": shown, "n_params": rows["minilm"]["n_params"], **found}


def over_peft(_: Any) -> Iterator[Row]:
    """Yield by how much tied tensors of rank 8 cost more or less than PEFT's LoRA r=8."""
    for what, cost in COSTS.items():
        ratios = [cost(measured(shape, name)) / cost(measured(shape, PEFT)) for shape in SHAPES for name in TIED]
        yield {"what": what, "range": f"{min(ratios):.2f} to {max(ratios):.2f}"}
    hundred = read(f"{RECORDS}/many_adapters.json")["counts"]["100"]
    ratio = hundred["CP (LoRTA)"]["load_ms"] / hundred["PEFT LoRA"]["load_ms"]
    yield {"what": "load one more where 100 are loaded, CP r=4", "range": f"{ratio:.2f}"}


SPEED_CARDS = {"training step": "time of a step", "size of the file": "bytes of the file", "load": "time to load"}


def speed_cards() -> str:
    """Return cards with what tied tensors of rank 8 cost, in units of PEFT's LoRA r=8."""
    rows, made = {row["what"]: row["range"] for row in over_peft(None)}, []
    for what, called in SPEED_CARDS.items():
        made += [f":::{{grid-item-card}} {rows[what]} ×", "", f"{called}, over PEFT's LoRA r=8", ":::", ""]
    return grid(made)


def setup(_: Any) -> Iterator[Row]:
    """Yield what is paid once on MiniLM's shape, in milliseconds and kB."""
    for name in (PEFT, "lora r=8", *TIED[:3]):
        row = measured("minilm", name)
        times = {what: 1000 * row[f"{what}_seconds"] for what in ("attach", "save", "load", "use")}
        yield {"name": NAMED[name], **times, **{what: row[f"{what}_bytes"] / 1e3 for what in ("saved", "optimizer")}}


def many(record: Row) -> Iterator[Row]:
    """Yield what a batch of several adapters costs."""
    for number, _, name in (row.partition(" ") for row in MANY):
        row = record["counts"][number]["CP (LoRTA)" if name == "CP" else name]
        yield row | {
            "number": number,
            "name": name,
            "batch": row["mixed"]["median"],
            "kib": row["grown_bytes_each"] / 1024,
        }


# Rates, steps and rules

OPTIMIZERS = ("equal", "adamw", "paper")


def best_rates(_: Any) -> Iterator[Row]:
    """Yield how far best rates lie apart, and what one rate for all loses, for each optimizer in a column."""
    table = benchmark("best_rate").table(60)
    rows = {
        "best rates": lambda of: f"{min(of['rates'].values()):.4f} to {max(of['rates'].values()):.4f}",
        "apart": lambda of: f"{float(format(of['spread'], '.2g')):g}",
        "one rate for all": lambda of: f"{of['one rate']:.4f}",
        "accuracy lost there against each cell's own best": lambda of: f"{of['accuracy']:.3f}",
    }
    for name, text in rows.items():
        yield {"name": name, **{optimizer: text(table[optimizer]) for optimizer in OPTIMIZERS}}


def first_steps(rows: list[Row]) -> Iterator[Row]:
    """Yield how many settings are within a band of LoRA's step at the matched scale."""
    table = pd.DataFrame(rows).query("scale == 'matched' and (axis != 'rank' or value <= 96)")
    means = table.groupby(["axis", "value", "row", "step"])["rms_ratio_to_lora"].mean().unstack()
    first = means.drop("lr")[1]
    later = means.drop("lr")[[10, 100]].apply(lambda ratios: ratios.between(0.5, 2)).sum()
    by_rate = means.loc["lr"][100].between(0.5, 2).groupby("value").agg(["sum", "count"])
    near = int(first.between(0.9, 1.1).sum())
    yield {"what": "first step, r at most an eighth of the width", "within": "10 %", "n": f"{near} of {len(first)}"}
    counts = f"{later[10]}; {later[100]} of {means.drop('lr')[100].notna().sum()}"
    yield {"what": "10 steps; 100 steps", "within": "a factor of 2", "n": counts}
    counts = "; ".join(map(str, by_rate["sum"])) + f" of {by_rate['count'].iloc[-1]}"
    yield {"what": "100 steps at 1e-5; 1e-4; 1e-3; 1e-2", "within": "a factor of 2", "n": counts}


RULED = {
    "CP r=64": "CP r=64, `layer proj : head dim : model`",
    "Tensor-train r=32": "Tensor-train r=32, the same layout",
    "CP r=9, tied over layers": "CP r=9, `layer : out : in`",
}
RULES, RULED_TASKS = ("AdamW", "whitened", "preconditioned", "balanced"), ("snippets", "sst2", "stsb")


def rules(rows: list[Row]) -> Iterator[Row]:
    """Yield AdamW's mean scores, and of other rules what they gain over it, with Holm's p."""
    means = benchmark("learning_rules").means(pd.DataFrame(rows))
    table = {(row.network, row.rule, row.task): row for row in means.itertuples()}
    for network, shown in RULED.items():
        for rule in [rule for rule in RULES if (network, rule, "snippets") in table]:
            cells = {task: ruled(table.get((network, rule, task))) for task in RULED_TASKS}
            seeds = table[network, rule, "snippets"].seeds
            yield {"name": shown if rule == "AdamW" else "", "rule": rule, "seeds": seeds, **cells}


def ruled(row: Any) -> str:
    """Return a cell of the rules."""
    if row is None:
        return "not run"
    p = "1" if row.rule != "AdamW" and row.p_holm > 0.995 else f"{row.p_holm:.2f}"
    return f"{row.score:.3f}" if row.rule == "AdamW" else f"{row.gain:+.3f} ({p})"


# LoRTA

MULTIPLIERS = {
    "LoRTA, paper's scale, AdamW": "multiplier 16 / r, AdamW at 4e-4",
    "LoRTA, matched scale, AdamW": "matched scale, AdamW at 1.5e-3",
    "LoRTA, matched scale, equal steps": "matched, equal steps at 1.5e-3",
}
RANKS = (1, 8, 64, 256)
UNTOLD = {  # a task of not_here.csv: as it is called, and the score of what knows nothing, where that is no run
    "ultrafeedback": ("SmolLM2, UltraFeedback, 38 pairs", 0.5),
    "polyreactivity": ("AntiBERTy, polyreactivity, ROC area, 86 sequences", 0.5),
    "antibody-mlm": ("AntiBERTy, masked residues, nats, 96 sequences", None),
    "rte": ("MiniLM, RTE, 277 pairs", 0.527),
}


def ranks(runs: list[Row]) -> Iterator[Row]:
    """Yield the likelihood at each rank, and the difference of the largest to the smallest."""
    means = pd.DataFrame(runs).groupby(["method", "rank"])["test"].mean()
    gaps = {row["method"]: row for row in read("docs/results/instruct/ranks/differences.csv") if row["size"] == "r=256"}
    for method, name in MULTIPLIERS.items():
        at = {f"r{rank}": means[method, rank] for rank in RANKS}
        yield {"name": name, **at, **{key: gaps[method][key] for key in ("difference", "low", "high")}}


def cannot_tell(rows: list[Row]) -> Iterator[Row]:
    """Yield the tasks on which LoRA r=8 is not shown to learn."""
    for task, (name, chance) in UNTOLD.items():
        own = [row | {"mean": mean_of(row["scores"])} for row in rows if row["task"] == task]
        by_method = {row["method"]: row["mean"] for row in own}
        lora = ", ".join(f"{row['mean']:.3f} ({row['steps']})" for row in own if row["method"] == "lora")
        full = f"{by_method['full fine-tuning']:.3f}" if "full fine-tuning" in by_method else "not run"
        nothing = by_method["frozen base + head"] if chance is None else chance
        yield {"name": name, "nothing": nothing, "lora": lora, "full": full}


def mean_of(scores: str) -> float:
    """Return the mean of scores that stand in one cell."""
    return statistics.fmean(map(float, str(scores).strip("'").split()))


# Other pages


def reads(run: Row) -> str:
    """Return what the fitted head of a run reads; "" for a model without a head."""
    if pd.isna(run["n_head"]) or not run["n_head"]:
        return ""
    return "mean of tokens" if run["readout"] == "mean" else "its classifier's"


def floors(runs: list[Row]) -> list[Row]:
    rows = sorted(runs, key=lambda run: (run["model"], run["task"], str(run["readout"])))
    return [run | {"reads": reads(run)} for run in rows]


def by_arm(rows: list[Row]) -> list[Row]:
    """Return the means over seeds of Tucker's two starts, ranks together."""
    means = pd.DataFrame(rows).groupby(["rank", "arm"])[["quarter", "half", "accuracy"]].mean().reset_index()
    order = ["LoRA", "CP", "Tucker", "Tucker, core at zero", "Tucker, core at zero, rates x10"]
    every = [{str(key): value for key, value in row.items()} for row in means.to_dict("records")]
    return sorted(every, key=lambda row: (row["rank"], order.index(row["arm"])))


SAME = "docs/examples/same-function/"
SAME_NAMES = {"lora": "LoRA", "CP": "CP", "Tensor-train": "Tensor-train", "Tucker": "Tucker", "Kronecker": "Kronecker"}


def same(rows: Sequence[Row], leave_out: str, also: str = "") -> Iterator[Row]:
    """Yield parameterizations of one set of updates, with the scores at one rate where that is another file."""
    one_rate = {row["method"]: row for row in read(also)} if also else {}
    found = {row["method"]: row for row in rows}
    for method, name in SAME_NAMES.items():
        if name != leave_out:
            row = found[method] | {"name": name, "rate": 1e3 * found[method]["lr"]}
            yield row | {f"one_{key}": value for key, value in one_rate.get(method, {}).items()}


def scaled(rows: list[Row]) -> Iterator[Row]:
    """Yield the processor seconds of each part of a sweep at three numbers of runs, and the memory at the largest."""
    for what in ("dry run", "resume", "status", "results"):
        own = [row for row in rows if row["what"] == what]
        yield {"what": what, "MiB": own[-1]["MiB_peak"], **{f"n{row['runs']}": row["processor_seconds"] for row in own}}


SPEEDS = f"{RECORDS}/speed-minilm-cpu-1.json"
ACCURACY = "{mean:.3f} ({low:.3f} to {high:.3f})"
WITH_RATE = {"rate of its own (1e-3):": "{rate:.1f}", "accuracy at it": ACCURACY}
BY_FILE: dict[str, Table] = {
    "known": of_verdicts(SHORT, of("rated sentences", *KNOWN), note=True),
    "unseen": of_verdicts(WIDE, of(UNSEEN), note=True),
    "sentences": of_verdicts(WIDE, of("rated sentences"), note=True),
    "sst2": of_verdicts(WIDE, of("SST-2"), note=True),
    "cola": of_verdicts(WIDE, of("CoLA"), note=True),
    "mpnet-sentences": of_verdicts(WIDE, of("rated sentences, MPNet"), note=True),
    "mpnet-sst2": of_verdicts(WIDE, of("SST-2, MPNet"), note=True),
    "cifar10": of_verdicts(WIDE, of("CIFAR-10"), note=True),
    "alpaca": of_verdicts(WIDE, of("Alpaca"), note=True),
    "front": of_verdicts(FRONT, of(UNSEEN)),
    "which": of_verdicts(
        {"parameters": "about {about}", "take": "{take} ({n_params:,})"}
        | SCORE
        | POINTS
        | SHARE
        | {"LoRA of as many parameters": "{beside_in_points}"}
        | VERDICT,
        taken,
        note=True,
    ),
    "lortas-layout": of_verdicts(
        {"over LoRTA's layout": "{name}"}
        | COUNT
        | {"to LoRA r=8 (95 %)": "{difference:+.3f} ({low:+.3f} to {high:+.3f})", "verdict": "{said}"},
        over_lortas_layout,
    ),
    "floors": Table(
        "docs/results/floors/records.csv",
        {"model": "{model}", "task": "{task}", "what the head reads": "{reads}"}
        | {"test:": "{score:.3f}", "validation:": "{validation:.3f}"},
        floors,
    ),
    "over-peft": Table(
        SPEEDS,
        {"CP, tensor-train, Tucker and LoTR of rank 8, three models": "{what}", "over PEFT's LoRA r=8:": "{range}"},
        over_peft,
    ),
    "steps": Table(
        SPEEDS,
        {"": "{name}", "parameters, MiniLM:": "{n_params:,}", "time, MiniLM:": "{time minilm:.2f}"}
        | {"time, ViT-S:": "{time vit-s:.2f}", "time, RoBERTa-base:": "{time roberta-base:.2f}"}
        | {"MB more, MiniLM:": "{more minilm:.0f}", "MB more, ViT-S:": "{more vit-s:.0f}"}
        | {"MB more, RoBERTa-base:": "{more roberta-base:.0f}"},
        steps,
    ),
    "setup": Table(
        SPEEDS,
        {"": "{name}", "attach:": "{attach:.0f}", "save:": "{save:.0f}", "load:": "{load:.0f}", "switch:": "{use:.1f}"}
        | {"file:": "{saved:,.0f}", "AdamW's state:": "{optimizer:,.0f}"},
        setup,
    ),
    "many-adapters": Table(
        f"{RECORDS}/many_adapters.json",
        {"adapters:": "{number}", "": "{name}", "batch:": "{batch:.2f}", "load one more, ms:": "{load_ms:.0f}"}
        | {"switch, ms:": "{switch_ms:.1f}", "memory each, KiB:": "{kib:.0f}"},
        many,
    ),
    "best-rates": Table(
        f"{RECORDS}/best_rate.csv",
        {"": "{name}", "equal steps, two seeds:": "{equal}", "AdamW, matched scale, two seeds:": "{adamw}"}
        | {"AdamW, papers' scales, one seed:": "{paper}"},
        best_rates,
    ),
    "first-steps": Table(
        f"{RECORDS}/step_size.csv",
        {"matched scale": "{what}", "within": "{within}", "settings:": "{n}"},
        first_steps,
    ),
    "rules": Table(
        f"{RECORDS}/learning_rules.csv",
        {"": "{name}", "rule": "{rule}", "seeds:": "{seeds}"}
        | {"movie-review sentences:": "{snippets}", "SST-2:": "{sst2}", "STS-B:": "{stsb}"},
        rules,
    ),
    "ranks": Table(
        "docs/results/instruct/ranks/records.csv",
        {"": "{name}", **{f"rank {rank}:": f"{{r{rank}:.3f}}" for rank in RANKS}}
        | {"256 to 1 (95 %)": "{difference:+.3f} ({low:+.3f} to {high:+.3f})"},
        ranks,
    ),
    "cannot-tell": Table(
        f"{RECORDS}/not_here.csv",
        {"task": "{name}", "knows nothing:": "{nothing:.3f}", "LoRA r=8 (steps)": "{lora}"}
        | {"full fine-tuning:": "{full}"},
        cannot_tell,
    ),
    "tucker-start": Table(
        f"{RECORDS}/tucker_start.csv",
        {"": "{arm}", "rank:": "{rank}", "a quarter:": "{quarter:.3f}", "a half:": "{half:.3f}"}
        | {"all of the steps:": "{accuracy:.3f}"},
        by_arm,
    ),
    "same-rank-1": Table(
        f"{SAME}rank1.csv",
        {"rank 1": "{name}", "parameters:": "{n_params:,}"}
        | {"accuracy at the rate 2e-3": "{one_mean:.3f} ({one_low:.3f} to {one_high:.3f})"}
        | WITH_RATE,
        partial(same, leave_out="Tensor-train", also=f"{SAME}rank1-one-rate.csv"),
    ),
    "same-rank-8": Table(
        f"{SAME}rank8.csv",
        {"rank 8": "{name}", "parameters:": "{n_params:,}"} | WITH_RATE,
        partial(same, leave_out="Kronecker"),
    ),
    "scale": Table(
        f"{RECORDS}/sweep_scale.csv",
        {"what": "{what}", "100:": "{n100:.0f}", "1,000:": "{n1000:.0f}", "10,000:": "{n10000:.0f}"}
        | {"memory:": "{MiB:,} MiB"},
        scaled,
    ),
}
TABLES: dict[str, Callable[[], str]] = {name: table.text for name, table in BY_FILE.items()} | {
    "answer": unseen_answer,
    "cards": cards,
    "speed-cards": speed_cards,
    "task-cards": task_cards,
    "lorta-cards": lorta_cards,
    "trained-library": lambda: str(benchmark("trained_library").table_markdown()),
    "numerics": lambda: "\n".join(benchmark("numerics").table(read(f"{RECORDS}/numerics.json")["errors"])),
}

"""Compress LoRAs that were trained on real tasks: bytes an adapter costs against the score it loses.

    python benchmarks/trained_library.py --train FOLDER --part 0/2    # what is there is kept
    python benchmarks/trained_library.py --score FOLDER    # by parts too; writes records/trained_library.csv
    python benchmarks/trained_library.py                   # prints the table of docs/results/libraries.md

24 LoRAs of MiniLM's q, k, v, o: rated sentences, SST-2, MRPC and STS-B, ranks 2, 4 and 8, two runs each, 100 equal
steps. With ``--seeds own``, the default, each adapter is drawn by a seed of its own; with ``--seeds shared`` by the
number of its run, so that the A of four tasks of one rank and run start alike. The head and the order of the data are
drawn by the number of the run both times. Each adapter is compressed alone, and all as one tensor with a mode `task`;
their factors are kept in 8 bits with a scale of 16 bits for each row, those of the LoRAs themselves in 16 bits too. The
heads stay as they were trained and are not counted, as every form has them whole. GLUE's files are read from
TENSORADAPT_DATA.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from measure import RECORDS, append, options, part_of, place, read

FOLDER = {"type": Path, "metavar": "FOLDER"}
OWN_OR_SHARED = {"choices": ("own", "shared"), "default": "own"}
ASKED = options(__name__, __doc__, train=FOLDER, score=FOLDER, seeds=OWN_OR_SHARED, part="0/1")

import pandas as pd
import torch
from minilm import Bench, Setting
from scipy import stats
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.lab.tasks.classification import head_of

CSV = place(ASKED, "trained_library.csv")
SETTING = Setting(2 if ASKED.quick else 100, n_train=4000, n_validation=100, n_test=400, batch=16)
TASKS, RANKS, RUNS, LR = ("snippets", "sst2", "mrpc", "stsb"), (2, 4, 8), (0, 1), 2e-3
ADAPTERS = tuple(f"{task}-{rank}-{run}" for run in RUNS for rank in RANKS for task in TASKS)
SEEDS = ("own", "shared")
OWN = 1000  # the first seed of those that adapters have for themselves


class Form(NamedTuple):
    """A way to compress: each adapter by itself or all together, over a layout, by a method, to a size."""

    label: str
    name: str
    together: bool
    layout: str
    method: str
    size: Mapping[str, Any]


SIDES = {"options": {"only": ("out", "in")}}
ONE, ALL, MATRIX = "layer proj : out : in", "task layer proj : out : in", "task : out : in"
TUCKER = f"all, `{MATRIX}`, Tucker of sides"
FORMS = [
    Form(f"{TUCKER} r=16", "Tucker for each matrix", True, MATRIX, "tucker", {"rank": 16, **SIDES}),
    Form(f"{TUCKER} r=8", "Tucker for each matrix", True, MATRIX, "tucker", {"rank": 8, **SIDES}),
    Form(f"all, `{ALL}`, tensor-train", "Tensor-train", True, ALL, "tensor_train", {"budget": 24 * 16_000}),
    Form("each, LoRA r=1", "LoRA of lower rank", False, ": out : in", "lora", {"rank": 1}),
    Form(f"each, `{ONE}`, Tucker", "Tucker", False, ONE, "tucker", {"budget": 16_000}),
]
WANTED: list[tuple[Form | None, int]] = [(None, 16), (None, 8), *((form, 8) for form in FORMS)]
bench = cache(Bench)


def bench_of(name: str) -> Bench:
    """Return the model and data of an adapter's task and run; adapters are called TASK-RANK-RUN."""
    task, _, run = name.split("-")
    return bench(SETTING, int(run), task)


def seed_of(name: str, seeds: str) -> int:
    """Return the seed that draws an adapter's factors."""
    return OWN + ADAPTERS.index(name) if seeds == "own" else bench_of(name).seed


def train(folder: Path, name: str, seeds: str) -> None:
    """Train one adapter and write its LoRA folder and its head."""
    its, rank = bench_of(name), int(name.split("-")[1])
    model = its.fresh()
    ta.attach(model, ta.plan(model, "lora", rank=rank), seed=seed_of(name, seeds))
    its.fit(model, LR)
    model.eval()
    ta.export_lora(model, folder / name, heads="leave")
    torch.save(head(model).state_dict(), folder / f"{name}.head")
    print(name, f"{its.score(model):.4f}", flush=True)


def head(model: nn.Module) -> nn.Module:
    """Return the classifier's head."""
    (name,) = head_of(model)
    return model.get_submodule(name)


def quantised(value: Tensor, bits: int) -> Tensor:
    """Round to a number of bits: 16 by dtype, 8 in steps of each row's largest entry over 127."""
    if bits == 16:
        return value.bfloat16().to(value)
    step = value.abs().amax(-1, keepdim=True).half().to(value).clamp_min(1e-7) / 127
    return (value / step).round().clamp(-127, 127) * step


def n_bytes(values: Sequence[Tensor], bits: int) -> int:
    """Return what tensors take: their numbers, and at 8 bits a scale of 16 bits for each row."""
    rows = sum(value.numel() // value.shape[-1] for value in values) if bits == 8 else 0
    return sum(value.numel() for value in values) * bits // 8 + 2 * rows


def scores(folder: Path, form: Form | None, bits: int, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a row for each of the wanted adapters, compressed by a form, or as it was trained."""
    every = {name: str(folder / name) for name in ADAPTERS}
    together = form and form.together and compressed(form, every)
    for name in wanted:
        model = bench_of(name).fresh()
        own = Form("", "", False, ": out : in", "lora", {"rank": int(name.split("-")[1])})
        made = together or compressed(form or own, every[name])
        adapter = made.attach(model)
        bytes_each = rounded(adapter, bits) / (len(every) if together else 1)
        if together:
            adapter.select(task=name)
        head(model).load_state_dict(torch.load(folder / f"{name}.head"))
        error = made.task_errors[name] if together else made.error
        reached = bench_of(name).score(model.eval())
        yield {"adapter": name, "bytes": round(bytes_each), "error": f"{error:.4f}", "score": f"{reached:.4f}"}


@cache
def sites() -> Any:
    """Return the matrices that are adapted."""
    return ta.find_sites(bench_of(ADAPTERS[0]).fresh(), ["q", "k", "v", "o"])


def compressed(form: Form, source: Any) -> Any:
    """Compress an adapter, or a library of them."""
    return ta.compress(source, sites(), form.layout, form.method, **form.size)


@torch.no_grad()
def rounded(adapter: nn.Module, bits: int) -> int:
    """Round the adapter's factors in place; returns their bytes."""
    values = list(adapter.parameters())
    for value in values:
        value.copy_(quantised(value, bits))
    return n_bytes(values, bits)


def score_all(folder: Path, seeds: str) -> None:
    """Append the rows that are missing of a part of the forms."""
    for form, bits in part_of(WANTED, ASKED.part):
        key = {"seeds": seeds, **named(form, bits)}
        done = {row["adapter"] for row in read(CSV) if key.items() <= row.items()}
        if missing := [name for name in ADAPTERS if name not in done]:
            for row in scores(folder, form, bits, missing):
                append(CSV, {**key, **row})


def named(form: Form | None, bits: int) -> dict[str, str]:
    """Return the columns that say which form a row is of."""
    if form is None:
        return {"form": "as trained", "of": "each", "size": "", "bits": str(bits)}
    size = str(form.size.get("budget") or form.size["rank"])
    return {"form": form.name, "of": "all" if form.together else "each", "size": size, "bits": str(bits)}


def table_markdown() -> str:
    """Return the guide's table: each form's bytes, errors and points lost, with own seeds and with shared ones."""
    columns: tuple[str, ...] = ("compressed", "bytes per adapter", "error, own seeds", "error, shared")
    columns += ("points lost, own seeds", "points lost, shared", "difference")
    lines = [f"| {' | '.join(columns)} |", "|---|--:|--:|--:|---|---|---|"]
    every = losses()
    for form, bits in WANTED:
        own, shared = (every.loc[(seeds, *named(form, bits).values())] for seeds in SEEDS)
        assert len(own) == len(shared) == len(ADAPTERS), f"rows are missing of {form} at {bits} bits"
        label, n = form.label if form else f"as trained, {bits} bits", f"{own['bytes'].mean():,.0f}"
        lost = [interval(x) for x in (own["loss"], shared["loss"], own["loss"] - shared["loss"])]
        cells = [label, n, *(f"{x['error'].mean():.2f}" for x in (own, shared)), *lost]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def losses() -> pd.DataFrame:
    """Return the record with the points that an adapter loses against itself in 16 bits, by all other columns."""
    rows = pd.DataFrame(read(RECORDS / "trained_library.csv")).astype({"bytes": int, "error": float, "score": float})
    whole = rows[(rows["form"] == "as trained") & (rows["bits"] == "16")]
    best = whole.set_index(["seeds", "adapter"])["score"]
    reached = best.loc[pd.MultiIndex.from_frame(rows[["seeds", "adapter"]])].to_numpy()
    rows["loss"] = 100 * (reached - rows["score"])
    return rows.set_index(["seeds", "form", "of", "size", "bits", "adapter"]).sort_index()


def interval(points: pd.Series) -> str:
    """Return the mean over adapters with its 95 % interval of Student's t."""
    half = stats.t.ppf(0.975, len(points) - 1) * points.sem()
    return f"{points.mean():z.1f} ({points.mean() - half:z.1f} to {points.mean() + half:z.1f})"


def main() -> None:
    """Train a part, score a part, or print the table."""
    if ASKED.score:
        score_all(ASKED.score / ASKED.seeds, ASKED.seeds)
    elif ASKED.train:
        folder = ASKED.train / ASKED.seeds
        missing = [name for name in ADAPTERS if not (folder / f"{name}.head").exists()]
        for name in part_of(missing, ASKED.part)[: 1 if ASKED.quick else None]:
            train(folder, name, ASKED.seeds)
    else:
        print(table_markdown())


if __name__ == "__main__":
    main()

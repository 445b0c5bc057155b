"""Compress LoRAs that were trained on real tasks: bytes an adapter costs against the score it loses.

    python benchmarks/trained_library.py train FOLDER --part 0/2   # parts run side by side; what is there is kept
    python benchmarks/trained_library.py score FOLDER              # by parts too; writes records/trained_library.csv
    python benchmarks/trained_library.py                           # prints the means of the record

24 LoRAs of MiniLM's q, k, v, o: rated sentences, SST-2, MRPC and STS-B, ranks 2, 4 and 8, two seeds each, 100 equal
steps. With ``--of smollm2`` 12 of SmolLM2-135M-Instruct, as a classifier: rated sentences and SST-2, ranks 4 and 8,
three seeds each, 40 equal steps in bf16; writes records/trained_library_smollm2.csv. Each is compressed alone, and all
as one tensor with a mode `task`; their factors are kept in 8 bits with a scale of 16 bits for each row, those of the
LoRAs themselves in 16 bits too. The heads stay as they were trained and are not counted, as every form has them whole.
GLUE's files are read from TENSORADAPT_DATA.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from kept import append, read
from minilm import Bench, Setting
from scipy import stats
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.tasks.classification import head_of
from tensoradapt.training.fit import autocast

RECORDS = Path(__file__).parent / "records"
SIDES = {"options": {"only": ("out", "in")}}
ONE, ALL = "layer proj : out : in", "task layer proj : out : in"


class Form(NamedTuple):
    """A way to compress: each adapter by itself or all together, over a layout, by a method, to a size."""

    name: str
    together: bool
    layout: str
    method: str
    size: Mapping[str, Any]


class Library(NamedTuple):
    """Adapters of one model, how they are trained, and the forms that they are compressed to."""

    model: str
    setting: Setting
    tasks: tuple[str, ...]
    ranks: tuple[int, ...]
    seeds: tuple[int, ...]
    lr: float
    fit: Mapping[str, Any]  # further arguments
    forms: Sequence[Form]
    csv: Path

    def adapters(self) -> list[str]:
        """The names of the adapters, TASK-RANK-SEED."""
        return [f"{task}-{rank}-{seed}" for seed in self.seeds for rank in self.ranks for task in self.tasks]

    def bench(self, name: str) -> Bench:
        """Return the model and data of an adapter's task and seed."""
        task, _, seed = name.split("-")
        return _bench(self.setting, int(seed), task, self.model)


_bench = cache(Bench)
RANK_ONE = Form("LoRA of lower rank", False, ": out : in", "lora", {"rank": 1})
BONDS = {"task": 12, "layer": 6, "proj": 4, "out": 32, "in": 32}
MINILM = Library(
    "all-minilm-l6-v2",
    Setting(steps=100, n_train=4000, n_validation=100, n_test=400, batch=16),
    ("snippets", "sst2", "mrpc", "stsb"),
    (2, 4, 8),
    (0, 1),
    2e-3,
    {},
    [
        RANK_ONE,
        *(Form("Tucker", False, ONE, "tucker", {"budget": n}) for n in (8_000, 16_000, 32_000)),
        *(Form("Tensor-train", False, ONE, "tensor_train", {"budget": n}) for n in (8_000, 16_000)),
        *(Form("Tucker of rows and columns", True, ALL, "tucker", {"rank": r, **SIDES}) for r in (16, 32, 48)),
        *(Form("Tucker for each matrix", True, "task : out : in", "tucker", {"rank": r, **SIDES}) for r in (8, 16)),
        Form("Tucker of all modes", True, ALL, "tucker", {"rank": BONDS}),
        Form("Tensor-train", True, ALL, "tensor_train", {"budget": 24 * 16_000}),
    ],
    RECORDS / "trained_library.csv",
)
SMOLLM2 = Library(
    "smollm2-135m-instruct",
    Setting(steps=40, n_train=2000, n_validation=100, n_test=200, batch=16),
    ("snippets", "sst2"),
    (4, 8),
    (0, 1, 2),
    1e-3,
    {"head_lr": 1e-3, "precision": "bf16"},
    [
        RANK_ONE,
        Form("Tucker", False, ONE, "tucker", {"budget": 100_000}),
        Form("Tucker of rows and columns", True, ALL, "tucker", {"rank": 48, **SIDES}),
        *(Form("Tucker for each matrix", True, "task : out : in", "tucker", {"rank": r, **SIDES}) for r in (8, 16, 24)),
    ],
    RECORDS / "trained_library_smollm2.csv",
)
LIBRARIES = {"minilm": MINILM, "smollm2": SMOLLM2}


def train(library: Library, folder: Path, name: str) -> None:
    """Train one adapter and write its LoRA folder and its head."""
    its, rank = library.bench(name), int(name.split("-")[1])
    model = its.fresh()
    ta.attach(model, ta.plan(model, "lora", rank=rank), seed=its.seed)
    its.fit(model, library.lr, **library.fit)
    model.eval()
    ta.export_lora(model, folder / name, heads="leave")
    torch.save(head(model).state_dict(), folder / f"{name}.head")
    print(name, f"{score(library, name, model):.4f}", flush=True)


def head(model: nn.Module) -> nn.Module:
    """Return the classifier's head."""
    (name,) = head_of(model)
    return model.get_submodule(name)


def score(library: Library, name: str, model: nn.Module) -> float:
    """Return an adapter's score on its task, computed in the precision that it was trained in."""
    with autocast(library.fit.get("precision", "fp32"), "cpu"):
        return library.bench(name).score(model)


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


def scores(
    library: Library, folder: Path, form: Form | None, bits: int, wanted: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each of the wanted adapters, compressed by a form, or as it was trained."""
    every = {name: str(folder / name) for name in library.adapters()}
    together = form and form.together and compressed(library, form, every)
    for name in wanted:
        model = library.bench(name).fresh()
        own = Form("", False, ": out : in", "lora", {"rank": int(name.split("-")[1])})
        made = together or compressed(library, form or own, every[name])
        adapter = made.attach(model)
        bytes_each = rounded(adapter, bits) / (len(every) if together else 1)
        if together:
            adapter.select(task=name)
        head(model).load_state_dict(torch.load(folder / f"{name}.head"))
        error = made.task_errors[name] if together else made.error
        reached = score(library, name, model.eval())
        yield {"adapter": name, "bytes": round(bytes_each), "error": f"{error:.4f}", "score": f"{reached:.4f}"}


def compressed(library: Library, form: Form, source: Any) -> Any:
    """Compress an adapter, or a library of them."""
    sites = ta.find_sites(library.bench(library.adapters()[0]).fresh(), ["q", "k", "v", "o"])
    return ta.compress(source, sites, form.layout, form.method, **form.size)


@torch.no_grad()
def rounded(adapter: nn.Module, bits: int) -> int:
    """Round the adapter's factors in place; returns their bytes."""
    values = list(adapter.parameters())
    for value in values:
        value.copy_(quantised(value, bits))
    return n_bytes(values, bits)


def score_all(library: Library, folder: Path, at: int, of: int) -> None:
    """Append the rows that are missing of a part of the forms."""
    wanted = [(None, 16), *((form, 8) for form in (None, *library.forms))]
    for form, bits in wanted[at::of]:
        key = named(form, bits)
        done = {row["adapter"] for row in read(library.csv) if key.items() <= row.items()}
        if missing := [name for name in library.adapters() if name not in done]:
            for row in scores(library, folder, form, bits, missing):
                append(library.csv, {**key, **row})


def named(form: Form | None, bits: int) -> dict[str, str]:
    """Return the columns that say which form a row is of."""
    if form is None:
        return {"form": "as trained", "of": "each", "size": "", "bits": str(bits)}
    given = form.size.get("budget") or form.size["rank"]
    size = f"rank {given['out']}" if isinstance(given, dict) else str(given)
    return {"form": form.name, "of": "all" if form.together else "each", "size": size, "bits": str(bits)}


def table(library: Library = MINILM) -> pd.DataFrame:
    """Return a row for each form, size and bits: bytes an adapter, error, and the mean loss with its 95 % interval."""
    rows = pd.DataFrame(read(library.csv)).astype({"bytes": int, "error": float, "score": float})
    best = rows[(rows["form"] == "as trained") & (rows["bits"] == "16")].set_index("adapter")["score"]
    rows["loss"] = rows["adapter"].map(best) - rows["score"]
    grouped = rows.groupby(["form", "of", "size", "bits"], sort=False)
    cells = {"bytes": ("bytes", "mean"), "error": ("error", "mean"), "loss": ("loss", "mean")}
    made = grouped.agg(**cells, sem=("loss", "sem"), n=("loss", "size"))
    half = stats.t.ppf(0.975, made["n"] - 1) * made["sem"]
    return made.assign(low=made["loss"] - half, high=made["loss"] + half).drop(columns="sem").reset_index()


def main() -> None:
    """Train a part, score all, or print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["train", "score"])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--of", choices=list(LIBRARIES), default="minilm")
    parser.add_argument("--part", default="0/1", help="K/N: every N-th adapter or form from the K-th")
    args = parser.parse_args()
    library, (at, of) = LIBRARIES[args.of], map(int, args.part.split("/"))
    if args.what == "train":
        for name in library.adapters()[at::of]:
            if not (args.folder / f"{name}.head").exists():
                train(library, args.folder, name)
    elif args.what == "score":
        score_all(library, args.folder, at, of)
    else:
        print(table(library).round(4).to_string(index=False))


if __name__ == "__main__":
    main()

"""Write the numbers of pages from the files they come from: ``python docs/make/page_numbers.py``.

A page has ``<!-- begin numbers NAME -->`` and ``<!-- end numbers NAME -->``; what stands between them is written here,
by the function of that name. ``tests/test_numbers.py`` fails where this would change a page.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from tensoradapt.lab.analysis.names import display

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
BLOCK = re.compile(r"(<!-- begin numbers (.+?) -->\n\n?)(.*?)(\n?<!-- end numbers \2 -->)", re.DOTALL)
Row = dict[str, Any]
Column = tuple[str, str, Callable[[Row], str]]  # heading, alignment, and the text of a row
PLACES = {"headline/linear": " on all linear layers"}


@cache
def verdicts() -> tuple[Row, ...]:
    """The rows of ``docs/results/verdicts.csv``."""
    table = pd.read_csv(RESULTS / "verdicts.csv")
    return tuple({str(key): value for key, value in row.items()} for row in table.to_dict("records"))


def of(family: str, *keep: tuple[str, int]) -> list[Row]:
    """The comparisons of a family by size; of these the given methods and counts alone, where any are given."""
    rows = [row for row in verdicts() if row["family"] == family]
    kept = [row for row in rows if not keep or (row["method"], row["n_params"]) in keep]
    return sorted(kept, key=lambda row: (row["n_params"], row["method"]))


def named(row: Row) -> str:
    """The method of a comparison, with its rank if it is LoRA, and the matrices where they are not q, k, v, o."""
    rank = f" {row['size']}" if str(row["size"]).startswith("r=") else ""
    return display(row["method"]) + rank + PLACES.get(row["folder"], "")


def gap(row: Row, value: str, low: str, high: str) -> str:
    """A difference with its interval."""
    return "" if pd.isna(row[value]) else f"{row[value]:+.4f} ({row[low]:+.4f} to {row[high]:+.4f})"


def beside(row: Row) -> str:
    """LoRA at the nearest count, and what a size has more than it."""
    if pd.isna(row["control_difference"]):
        return ""
    name, n = str(row["control"]).replace("lora", "LoRA"), int(row["control_n_params"])
    return f"{name}, {n:,}: {row['control_difference']:+.4f}, p {p_text(row['control_p_holm'])}"


def p_text(p: float) -> str:
    """A p value with three digits.

    >>> p_text(0.0123), p_text(0.00004), p_text(1.0)
    ('0.012', '< 0.001', '1')
    """
    return "< 0.001" if p < 0.001 else "1" if p > 0.9995 else f"{p:.3f}"


SIZE: Column = ("", "---", named)
COUNT: Column = ("parameters", "--:", lambda row: f"{row['n_params']:,}")
SCORE: Column = ("score", "--:", lambda row: f"{row['mean']:.3f}")
TEST: Column = ("to LoRA r=8, test", "---", lambda row: gap(row, "difference", "low", "high"))
CHECKED: Column = (
    "on validation",
    "---",
    lambda row: gap(row, "validation", "validation_low", "validation_high"),
)
SHARE: Column = ("of its gain", "--:", lambda row: "" if pd.isna(row["share"]) else f"{100 * row['share']:.0f} %")
SEEDS: Column = ("seeds", "--:", lambda row: f"{row['n_seeds']}")
CONTROL: Column = ("LoRA of as many parameters", "---", beside)
VERDICT: Column = ("verdict", "---", lambda row: str(row["verdict"]))
WIDE = (SIZE, COUNT, SCORE, TEST, CHECKED, SHARE, SEEDS, CONTROL, VERDICT)
NARROW = (SIZE, COUNT, SCORE, TEST, CHECKED, SHARE, CONTROL, VERDICT)


def table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    """Rows as a table of Markdown."""
    head = [f"| {' | '.join(title for title, _, _ in columns)} |", f"|{'|'.join(side for _, side, _ in columns)}|"]
    return "\n".join([*head, *(f"| {' | '.join(text(row) for _, _, text in columns)} |" for row in rows)])


def family(name: str, columns: Sequence[Column] = NARROW, *keep: tuple[str, int]) -> str:
    """A family's table, and a sentence on what it was corrected for, its reference and its floor."""
    rows = of(name, *keep)
    if not rows:
        return "The runs of its specification are not finished, so there is no table yet."
    first = rows[0]
    shown = "" if len(rows) == first["compared"] else f", of which {len(rows)} are shown"
    reference, floor = first["mean"] - first["difference"], first["floor"]
    sentences = [f"LoRA r=8 with {first['reference_n_params']:,} parameters has {reference:.3f}."]
    if not pd.isna(floor):
        share = f"{100 * first['margin_share']:.0f} %"
        sentences += [f"The floor is {floor:.3f}, so 0.01 is {share} of what LoRA r=8 gains over it."]
    sentences += [
        f"Holm's correction is over the {first['compared']} sizes that were compared with it on this task and "
        f"model{shown}; that of LoRA of as many parameters is over those comparisons."
    ]
    return f"{table(rows, columns)}\n\n{textwrap.fill(' '.join(sentences), 120)}"


TAKE = {  # a number of parameters to spend, and the size that is taken: its method, count and layout
    "1,600": ("Tensor-train", 1636, "layer proj : out : in"),
    "6,000": ("CP", 6192, "layer : out : in"),
    "18,000": ("lora", 18432, ""),
    "37,000": ("CP", 37152, "layer : out : in"),
}


def which() -> str:
    """What to take for a number of parameters, with its difference to LoRA r=8 and to LoRA of as many parameters."""
    lines = ["| parameters | take | score | to LoRA r=8 | of its gain | LoRA of as many parameters | verdict |"]
    lines += ["|---|---|--:|---|--:|---|---|"]
    for about, (method, n, layout) in TAKE.items():
        (row,) = of("rated sentences", (method, n))
        name = f"{named(row)} over `{layout}`" if layout else named(row)
        cells = [f"about {about}", f"{name} ({n:,})", *(column[2](row) for column in (SCORE, TEST, SHARE, CONTROL))]
        lines.append(f"| {' | '.join([*cells, row['verdict']])} |")
    return "\n".join(lines)


def reads(run: Row) -> str:
    """What the fitted head of a run reads; "" for a model without a head."""
    if pd.isna(run["n_head"]) or not run["n_head"]:
        return ""
    return "mean of tokens" if run["readout"] == "mean" else "its classifier's"


def front() -> str:
    """The front page's table: a few sizes, each with LoRA of as many parameters."""
    rows = of("rated sentences", ("CP", 6192), ("lora", 18432), ("CP", 18576), ("lora", 36864), ("CP", 37152))
    return table(rows, (SIZE, COUNT, SCORE, TEST, CONTROL, VERDICT))


def floors() -> str:
    """The fitted heads on frozen bases."""
    runs = pd.read_csv(RESULTS / "floors" / "records.csv").sort_values(["model", "task", "readout"])
    columns: tuple[Column, ...] = (
        ("model", "---", lambda row: str(row["model"])),
        ("task", "---", lambda row: str(row["task"])),
        ("what the head reads", "---", reads),
        ("test", "--:", lambda row: f"{row['score']:.3f}"),
        ("validation", "--:", lambda row: f"{row['validation']:.3f}"),
    )
    return table(runs.to_dict("records"), columns)


def library() -> str:
    """The table of trained adapters that are compressed, from ``benchmarks/trained_library.py``."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from trained_library import table_markdown

    return str(table_markdown())


KNOWN = (("CP", 6192), ("Tensor-train", 17616), ("lora", 18432), ("CP", 18576), ("CP by HiRA's rule", 18576))
KNOWN += (("lora", 36864), ("Tucker", 36840), ("CP", 37152), ("CP by HiRA's rule", 37152))
SHORT = (SIZE, COUNT, SCORE, TEST, CHECKED, CONTROL, VERDICT)
MADE: dict[str, Callable[[], str]] = {
    "known": partial(family, "rated sentences", SHORT, *KNOWN),
    "unseen": partial(family, "unseen sentences", WIDE),
    "sentences": partial(family, "rated sentences", WIDE),
    "sst2": partial(family, "SST-2", WIDE),
    "cola": partial(family, "CoLA", WIDE),
    "mpnet-sentences": partial(family, "rated sentences, MPNet", WIDE),
    "mpnet-sst2": partial(family, "SST-2, MPNet", WIDE),
    "cifar10": partial(family, "CIFAR-10", WIDE),
    "alpaca": partial(family, "Alpaca", WIDE),
    "floors": floors,
    "front": front,
    "which": which,
    "trained-library": library,
}


def pages() -> list[Path]:
    """The pages that have numbers between markers."""
    every = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in every if BLOCK.search(path.read_text(encoding="utf-8"))]


def written(text: str) -> str:
    """A page with its numbers as the files have them; raises KeyError for a name that no function has."""
    return BLOCK.sub(lambda found: f"{found[1]}{MADE[found[2]]()}\n{found[4].lstrip()}", text)


if __name__ == "__main__":
    for path in pages():
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")

"""Draw the pictures that pages of docs show, from tables and records in git: ``python docs/make/draw_figures.py``.

    python docs/make/draw_figures.py            # all but the README's, which is in git
    python docs/make/draw_figures.py vision     # those whose path has "vision" in it, the README's too

A picture is called KIND.png or TASK-KIND.png and is drawn from the CSV file of its name, or else from means.csv,
runs.csv or records.csv beside it; concepts are drawn from networks, and some pictures by scripts of benchmarks. Each is
drawn light and dark, those of runs wide and narrow too (``variants.py``). Nothing is trained.
"""

from __future__ import annotations

import csv
import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

HERE = Path(__file__).resolve().parent
DOCS, BENCHMARKS = HERE.parent, HERE.parents[1] / "benchmarks"
FOLDERS = map(str, (HERE, BENCHMARKS, BENCHMARKS / "paper"))
sys.path[:0] = [name for name in FOLDERS if name not in sys.path]

import concept_figures  # noqa: E402  # beside this file
import figure_style  # noqa: E402  # in benchmarks
import number_tables  # noqa: E402
import report  # noqa: E402  # in benchmarks/paper
import result_figures  # noqa: E402
import variants  # noqa: E402

from tensoradapt.errors import TensorAdaptError  # noqa: E402
from tensoradapt.lab.analysis.verdict import verdict  # noqa: E402

SHOWN = re.compile(r"!\[[^\]]*\]\(([^)\s]+\.png)\)|^```\{image\} (\S+\.png)$", re.MULTILINE)
MADE = ("gallery", "notebooks", "reference")  # folders whose pages bring pictures of their own, or none
KEPT = "results/headline/fresh/frontier.png"  # the README shows it, so it is in git
NAMES = ("means.csv", "runs.csv", "records.csv")  # of tables beside a picture, without one of its own name
OPTIONS: dict[str, dict[str, Any]] = {
    "examples/layouts/layouts.png": {"reference": "cp over layer proj : head dim : model"},
    "start/first.png": {"caption": False},  # as the lines of its page draw it
    "examples/around/frontier.png": {"headline": False},  # their pages say what is to be seen
    "results/headline/papers/frontier.png": {"headline": False},
}


def by_benchmark(module: str, draw: Callable[[Any], Any]) -> Callable[[], Any]:
    """Return what imports a module of benchmarks and lets it draw."""
    return lambda: draw(importlib.import_module(module))


def records(name: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file of benchmarks/records."""
    with (BENCHMARKS / "records" / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


OF_RECORDS: dict[str, Callable[[], Any]] = {
    "concepts/figures/alignment.png": by_benchmark("alignment", lambda of: of.figure()),
    "guides/figures/compression.png": by_benchmark("compression", lambda of: of.figure()),
    "results/figures/best_rate.png": by_benchmark("best_rate", lambda of: of.figure(60)),
    "results/figures/speed.png": by_benchmark("speed", lambda of: of.draw(of.recorded(), of.FIGURE)),
    "results/figures/step_size.png": by_benchmark("step_size", lambda of: of.draw(records("step_size.csv"))),
}
STACKED = {  # those whose panels stand one below the other in a narrow variant
    "concepts/figures/alignment.png",
    "guides/figures/compression.png",
    "results/figures/best_rate.png",
}


class Picture(NamedTuple):
    """A picture of runs: its path below docs, the kind of figure, its table, and the task of a table of several."""

    path: str
    kind: str
    table: Path
    task: str = ""

    def runs(self) -> pd.DataFrame:
        runs = read(self.table)
        return runs[runs["task"] == self.task] if self.task else runs


def shown(docs: Path = DOCS) -> list[str]:
    """Return the pictures that handwritten pages show, as paths below docs."""
    pages = [path for path in docs.rglob("*.md") if path.relative_to(docs).parts[0] not in MADE]
    links = [(page.parent, "".join(link)) for page in pages for link in SHOWN.findall(page.read_text(encoding="utf-8"))]
    return sorted({(folder / link).resolve().relative_to(docs.resolve()).as_posix() for folder, link in links})


def of_runs(docs: Path = DOCS) -> list[Picture]:
    """Return the pictures of runs; raise TensorAdaptError for one that nothing draws."""
    others = {
        *OF_RECORDS,
        *result_figures.FIGURES,
        *(f"concepts/figures/{name}.png" for name in concept_figures.FIGURES),
    }
    return [picture(docs, path) for path in shown(docs) if path not in others]


def picture(docs: Path, path: str) -> Picture:
    """Return how a picture of runs is drawn."""
    file = docs / path
    tables = [table for table in (file.with_suffix(".csv"), *map(file.with_name, NAMES)) if table.is_file()]
    if not tables:
        raise TensorAdaptError(f"a page shows {path}, which has no table; expected one of {', '.join(NAMES)} beside it")
    if tables[0].stem == file.stem:
        return Picture(path, "frontier", tables[0])
    task, _, kind = file.stem.rpartition("-")
    if kind not in report.FIGURES:
        raise TensorAdaptError(f"a page shows {path}; expected KIND.png with a kind of {', '.join(report.FIGURES)}")
    return Picture(path, kind, tables[0], task)


def read(path: Path) -> pd.DataFrame:
    """Return the runs of a table: of means those of its column ``scores``, else a run for each row."""
    table = pd.read_csv(path, low_memory=False)
    return report.runs_of_means(table) if "scores" in table else table


def settled(one: Picture, runs: pd.DataFrame) -> dict[str, Any]:
    """Return the verdicts of a picture's runs as an option, where docs/results/verdicts.csv has them.

    These are over test examples too, whose scores are not in git, and over all sizes of the task.
    """
    known = pd.read_csv(DOCS / "results" / "verdicts.csv")
    folder = one.table.parent.relative_to(DOCS / "results").as_posix() if DOCS / "results" in one.table.parents else ""
    known = known[known["folder"] == folder].set_index(["method", "n_params"])
    if known.empty or one.kind not in ("frontier", "differences"):
        return {}
    found = verdict(runs.query("kind == 'adapter'"), "lora")
    keys = list(zip(found["method"], found["n_params"], strict=True))
    for name in ("difference", "low", "high", "verdict"):
        found[name] = [known[name][key] for key in keys]
    found["outcome"] = [number_tables.outcome_of(words) for words in found["verdict"]]
    more = {"caption": False} if len(found) < known["compared"].iloc[0] else {}  # it would name too few sizes
    return {"verdicts": found.assign(over="seeds and test examples"), **more}


def draw_runs(one: Picture, docs: Path, keep: bool = False) -> None:
    """Draw the variants of a picture of runs; to ``keep`` it the one in git stays as it is."""
    runs = one.runs()
    options = settled(one, runs) | OPTIONS.get(one.path, {})

    def draw(path: Path, width: float) -> None:
        if not (keep and path == docs / one.path):
            report.draw(runs, one.kind, path.with_suffix(""), figsize=width, **options)

    variants.all_four(docs / one.path, draw)


def draw_records(path: str, draw: Callable[[], Any]) -> None:
    """Draw a picture of a script of benchmarks, light and dark; of several panels narrow too."""
    (DOCS / path).parent.mkdir(parents=True, exist_ok=True)
    for suffix in ("", "_narrow") if path in STACKED else ("",):
        with figure_style.suffixed(suffix):
            draw()
        with figure_style.suffixed(f"{suffix}_dark"), variants.dark():
            draw()


def main(wanted: str = "", docs: Path = DOCS) -> None:
    """Draw the pictures whose path has ``wanted`` in it."""
    for one in of_runs(docs):
        if wanted in one.path:
            draw_runs(one, docs, keep=one.path == KEPT and not wanted)
            print(one.path)
    for path, draw in OF_RECORDS.items():
        if wanted in path:
            draw_records(path, draw)
            print(path)
    for path, make in result_figures.FIGURES.items():
        if wanted in path:
            (docs / path).parent.mkdir(parents=True, exist_ok=True)
            variants.all_four(docs / path, make)
    names = [name for name in concept_figures.FIGURES if wanted in f"concepts/figures/{name}.png"]
    concept_figures.write_figures(docs / "concepts" / "figures", names)


if __name__ == "__main__":
    main(*sys.argv[1:2])

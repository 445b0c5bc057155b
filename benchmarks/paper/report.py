"""What the runs of a family say, as files of docs/results/FAMILY and rows of two tables in docs/results.

``run.py --report`` writes them: ``records.csv`` with a row for each run, ``means.csv``, ``differences.csv`` (each size
against LoRA r=8, paired, with p and Holm's p) and figures of each task; for all folders together ``within.csv``, the
differences by margin, and ``pairs.csv``, sizes beside CP and LoRA r=1. Git keeps what pages are made of: not the means,
differences and figures.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import pyplot

from tensoradapt.files import replace_file
from tensoradapt.lab.analysis import paper, plots
from tensoradapt.lab.analysis.comparisons import compare, corrected
from tensoradapt.lab.analysis.names import display
from tensoradapt.lab.analysis.tables import reported, summarise
from tensoradapt.lab.runs.store import Run, load_runs
from tensoradapt.lab.sweeps.results import results
from tensoradapt.planning.size import Size

RESULTS = Path(__file__).parents[2] / "docs" / "results"
REFERENCE = ("lora", 8)
REFERENCE_NAME = f"{REFERENCE[0]} r={REFERENCE[1]}"
FIGURES: Mapping[str, tuple[str, Mapping[str, Any]]] = {  # by the name of a file: the figure and its options
    "frontier": ("frontier", {}),
    "ranks": ("curves", {"x": "rank"}),
    "steps": ("curves", {"x": "steps"}),
    "differences": ("differences", {"at": "budget"}),
    "layouts": ("layouts", {}),
    "forgetting": ("forgetting", {}),
}
DPI = 200
MARGINS = (0.01, 0.02)
PAIRS: tuple[tuple[str, int | str], ...] = (("CP", "budget"), ("lora", 1))  # references beside LoRA r=8
PAIR: tuple[str, ...] = ("task", "method", "n_params", "reference", "reference_n_params", "difference", "low", "high")
PAIR += ("p", "p_holm", "sd_examples")
WITHIN: tuple[str, ...] = ("task", "method", "size", "n_params", "n_head", "mean", "difference", "low", "high")
WITHIN += ("n_seeds", "p_holm", "decided", "margin", "p_within_holm", "within", "seeds_within", "sd_examples")
Row = dict[str, Any]


def write_records(out: Path, folder: Path) -> pd.DataFrame:
    """Write a row for each run of ``out`` into ``folder``; returns the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = records(out)
    paper.write(runs.drop(columns="path").dropna(axis=1, how="all"), folder / "records.csv")
    return runs


def write(out: Path, folder: Path, figure: str = "frontier") -> Path:
    """Write a family's files into ``folder`` from the finished runs of ``out``; returns the former."""
    runs = write_records(out, folder)
    paper.write(summarise(runs).drop(columns="paths"), folder / "means.csv")
    if rows := list(differences(runs)):
        paper.write(pd.DataFrame(rows), folder / "differences.csv")
    for stem, own in _by_task(reported(runs), figure):
        draw(own, figure, folder / stem)
    return folder


def _by_task(runs: pd.DataFrame, figure: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the runs of each task with several sizes, under the name of its figure."""
    by_task = runs.groupby("task")
    tasks = [(task, own) for task, own in by_task if own["n_params"][own["kind"] == "adapter"].nunique() > 1]
    for task, own in tasks:
        yield f"{task}-{figure}" if len(tasks) > 1 else figure, own


def write_within(out: Path, folder: Path) -> None:
    """Write a folder's rows of ``within.csv``, for each margin and size whether it is within LoRA r=8, or how many
    seeds that takes, and its ``differences.png``, of several tasks one for each; nothing where no run is of LoRA r=8.
    """
    runs = reported(records(out))
    if not has_reference(runs):
        return
    means = {row["runs"][0]: row for row in _rows(summarise(runs))}
    heads = dict(zip(runs["id"], runs["n_head"], strict=True))
    method, rank = REFERENCE
    found = [row for margin in MARGINS for row in _rows(compare(runs, method, at=rank, margin=margin))]
    told = [{**row, "size": Size.of(row).text, "n_head": heads[row["runs"][0]]} for row in found]
    rows = [{**row, "mean": means[row["runs"][0]]["mean"]} for row in told]
    table = pd.DataFrame(rows)[list(WITHIN)].sort_values(["margin", "task", "n_params"], kind="stable")
    write_rows(table.round(6).astype({"seeds_within": "Int64"}), folder, "within.csv")
    for stem, own in _by_task(runs, "differences"):
        draw(own, "differences", folder / stem, at=rank)


def write_pairs(out: Path, folder: Path) -> None:
    """Write a folder's rows of ``pairs.csv``: what others gain over CP at one budget, and all sizes beside LoRA r=1, if
    it was run.
    """
    runs = reported(records(out))
    tables = [compare(runs, name, at=at) for name, at in PAIRS if has_reference(runs, name, at)]
    if not tables:
        return
    write_rows(pd.concat(tables)[list(PAIR)].round(6), folder, "pairs.csv")


def write_rows(table: pd.DataFrame, folder: Path, file: str) -> None:
    """Write the rows of a folder into a table of all, in place of those that it has; others stay as they are."""
    path, name = RESULTS / file, folder.relative_to(RESULTS).as_posix()
    own = table.assign(folder=name)[["folder", *table.columns]].astype(object)
    others = pd.read_csv(path, dtype=str).query("folder != @name") if path.is_file() else own.head(0)
    joined = pd.concat([others, own]).sort_values("folder", kind="stable")
    replace_file(path, joined.to_csv(index=False, lineterminator="\n").encode())


def records(out: Path) -> pd.DataFrame:
    """Return a row for each run, with all its test metrics, its machine and the numbers of its head."""
    table = results(out, tuning=True)
    more = {run.name: (_metrics(run), machine(run), run.result["n_trained_base"]) for run in load_runs(out)}
    columns = {"test_metrics": "object", "machine": "object", "n_head": "Int64"}
    added = pd.DataFrame([more.get(name, ("", "", None)) for name in table["id"]], table.index, list(columns))
    return table.assign(**added.astype(columns))


def _metrics(run: Run) -> str:
    return " ".join(f"{name}={value:.6g}" for name, value in sorted(run.result["test"].items()))


def machine(run: Run) -> str:
    """The card or processor of a run, and its threads."""
    measured = run.measurements
    return str(measured.get("device_name") or f"{run.provenance['cpu']}, {measured['threads']} thread(s)")


def runs_of_means(means: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each seed of rows of means; a star marks a score at chance or of a run that diverged.

    The n-th score of each row is of one seed, as the records of a specification have them.
    """
    kept = ["task", "metric", "method", "parameterization", "layout", "rank", "budget", "n_params", "lr", "scores"]
    runs = means[[name for name in kept if name in means]].rename(columns={"scores": "score"})
    runs = runs.assign(score=runs["score"].astype(str).str.strip("'").str.split()).explode("score")
    runs = runs.assign(seed=runs.groupby(level=0).cumcount()).reset_index(drop=True)
    return runs.assign(lost=runs["score"].str.endswith("*"), score=runs["score"].str.rstrip("*").astype(float))


def draw(runs: pd.DataFrame, name: str, stem: Path, formats: Sequence[str] = ("png",), **more: Any) -> list[Path]:
    """Draw a figure of ``FIGURES`` with its answer and its caption, and ``more`` options; return its files' paths."""
    figure, options = FIGURES[name]
    axes = plots.figure(figure)(runs, **{"headline": True, "caption": True, **options, **more})
    drawn = (axes if hasattr(axes, "get_figure") else axes[0]).get_figure(root=True)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in formats]
    for path in paths:
        undated = {"png": {"Software": None}, "pdf": {"CreationDate": None}}[path.suffix[1:]]  # the same bytes
        drawn.savefig(path, dpi=DPI, metadata=undated)
    pyplot.close(drawn)
    return paths


def differences(runs: pd.DataFrame) -> Iterator[Row]:
    """Yield each size's paired difference to LoRA r=8 on each task, or without one to the smallest of its method.

    ``low`` and ``high``: its 95 % interval over seeds and, where runs have scores of test examples, these;
    ``low_seeds``: the lower limit over seeds alone; p and what holds are those of ``compare``, which corrects over
    all comparisons of a task. ``steps``, which a size shares with its reference, is there where a task has several.

    Args:
        runs: of ``records``, or of its file.
    """
    table = reported(runs)
    heads = dict(zip(table["id"], table["n_head"], strict=True))
    for _, own in table.groupby("task"):
        both = comparisons(own), comparisons(own.assign(path=None))
        for row, over_seeds in zip(*both, strict=True):
            several = {"steps": row["steps"]} if own["steps"].nunique() > 1 else {}
            yield {**several, **rounded_row(row, over_seeds["low"], int(heads[row["runs"][0]]))}


def comparisons(own: pd.DataFrame) -> list[Row]:
    """Return the rows of ``compare`` of one task."""
    method, rank = REFERENCE
    if has_reference(own):
        return _rows(compare(own, method, at=rank))
    adapters = own[own["kind"] == "adapter"].sort_values("n_params", kind="stable")
    found = [compare(of, name, at=int(of["rank"].iloc[0])) for name, of in adapters.groupby("method", sort=False)]
    rows = [row for table in found for row in _rows(table)]
    return corrected(sorted(rows, key=lambda row: (row["n_params"], row["method"])))


def has_reference(runs: pd.DataFrame, method: str = REFERENCE[0], at: int | str = REFERENCE[1]) -> bool:
    """Whether runs have what sizes are compared with: LoRA r=8, or a method at a rank or at any budget."""
    of_method = runs["method"].map(display).eq(display(method))
    return bool((of_method & (runs["budget"].notna() if at == "budget" else runs["rank"].eq(at))).any())


def _rows(table: pd.DataFrame) -> list[Row]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def rounded_row(row: Row, low_seeds: float, head: int) -> Row:
    """Return a comparison as ``differences.csv`` has it."""
    counts = int(row["n_params"]), int(row["reference_n_params"])
    reference = {"rank": row["reference_rank"], "budget": None}
    ends = {"difference": row["difference"], "low": row["low"], "high": row["high"], "low_seeds": low_seeds}
    return {
        **{"task": row["task"], "method": row["method"], "size": Size.of(row).text, "n_params": counts[0]},
        **{"n_head": head, "reference": f"{row['reference']} {Size.of(reference).text}"},
        "times_fewer": rounded(counts[1] / counts[0]),
        "times_fewer_trained": rounded((counts[1] + head) / (counts[0] + head)),
        **{"metric": row["metric"], **{key: round(value, 4) for key, value in ends.items()}, "n_seeds": row["n_seeds"]},
        **{key: rounded(row[key]) for key in ("p", "p_within", "p_holm")},
        **{"decided": bool(row["decided"]), "p_within_holm": rounded(row["p_within_holm"])},
        "within": bool(row["within"]),
    }


def rounded(value: float) -> float:
    """To three digits."""
    return float(f"{value:.3g}")


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))

"""All comparisons of docs/results with LoRA r=8, one family for each task and model: docs/results/verdicts.csv.

    python benchmarks/paper/verdicts.py            # writes the file from the committed runs, intervals and floors

Holm's correction is over all sizes that were compared with LoRA r=8 on a task and model, whatever specification ran
them. Scores of test examples are not committed; what they add follows from the committed intervals (``committed.py``).
Three families are corrected apart: worse or better, within 0.01, and within 0.02, each at 0.05 (two-sided) or 0.025.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from committed import apart_by_seed, errors

from tensoradapt.lab.analysis import paper
from tensoradapt.lab.analysis.comparisons import LEVEL, gains
from tensoradapt.lab.analysis.statistics.intervals import t_interval
from tensoradapt.lab.analysis.statistics.significance import holm, paired_p
from tensoradapt.lab.analysis.tables import Row
from tensoradapt.lab.analysis.verdict import outcome, words

RESULTS = Path(__file__).parents[2] / "docs" / "results"
MARGINS = (0.01, 0.02)
NO_POINTS = ("cola", "alpaca-answers")  # a correlation and nats are no shares


class Family(NamedTuple):
    """The comparisons of one task and model: its name, the folders that hold them, and the readout of its heads."""

    name: str
    model: str
    task: str
    folders: tuple[str, ...]
    readout: str = "model"


SENTENCES = ("headline", "headline/small", "headline/others", "headline/linear", "headline/papers")
FAMILIES = (
    Family("unseen sentences", "all-minilm-l6-v2", "snippets-fresh", ("headline/fresh",), "mean"),
    Family("rated sentences", "all-minilm-l6-v2", "snippets", SENTENCES),
    Family("SST-2", "all-minilm-l6-v2", "sst2", ("glue",)),
    Family("CoLA", "all-minilm-l6-v2", "cola", ("cola",)),
    Family("rated sentences, MPNet", "all-mpnet-base-v2", "snippets", ("headline/mpnet", "headline/mpnet-sentences")),
    Family("SST-2, MPNet", "all-mpnet-base-v2", "sst2", ("headline/mpnet", "headline/mpnet-more")),
    Family("CIFAR-10", "dinov2-small-focus", "cifar10", ("vision",)),
    Family("Alpaca", "smollm2-135m-instruct", "alpaca-answers", ("instruct",)),
)


def verdicts() -> pd.DataFrame:
    """Return a row for each comparison of all families whose folders are there."""
    there = [family for family in FAMILIES if all((RESULTS / folder).is_dir() for folder in family.folders)]
    return pd.concat([pd.DataFrame(_corrected(_of_family(family))) for family in there], ignore_index=True)


def _of_family(family: Family) -> list[Row]:
    rows = [row for folder in family.folders for row in _of_folder(family, folder)]
    sizes = [row for row in rows if row["lora"]] + [_reference_row(family)]
    for row in rows:
        row |= _control(row, sizes)
        row |= _crossed_control(row)
    return rows


def _of_folder(family: Family, folder: str) -> Iterator[Row]:
    """Yield the comparisons of a folder: p values of each alone, validation, and its share of the gain."""
    runs, table = _runs(folder, family.task), pd.read_csv(RESULTS / "within.csv")
    reference = runs[runs["method"].eq("lora") & runs["rank"].astype(float).eq(8)]
    n_reference = int(reference["n_params"].iloc[0])
    table = table[table["folder"].eq(folder) & table["task"].eq(family.task) & table["margin"].eq(MARGINS[0])]
    for row in table.to_dict("records"):
        apart = apart_by_seed(runs, row, "lora", n_reference)
        known = errors(row, apart)
        own = runs[runs["method"].eq(row["method"]) & runs["n_params"].eq(row["n_params"])].set_index("seed")
        checked = (own["validation"] - reference.set_index("seed")["validation"]).dropna()
        interval = t_interval(checked.to_numpy())
        found = {
            **{
                "family": family.name,
                "task": family.task,
                "folder": folder,
                "method": row["method"],
                "size": row["size"],
            },
            **{"n_params": row["n_params"], "reference_n_params": n_reference, "n_seeds": len(apart)},
            **{"n_lost": int(own["lost"].sum())},
            **{"mean": row["mean"], "difference": row["difference"], "low": row["low"], "high": row["high"]},
            **{"p": 2 * known.p_above(abs(row["difference"]))},
            **{f"p_{margin}": known.p_above(row["difference"] + margin) for margin in MARGINS},
            **{"validation": interval.mean, "validation_low": interval.low, "validation_high": interval.high},
            **gains(row["mean"], row["mean"] - row["difference"], floor_of(family), MARGINS[0]),
            **{"lora": row["method"] == "lora" or "LoRA on" in row["method"], "scores": own["score"].to_dict()},
        }
        yield found


def _runs(folder: str, task: str) -> pd.DataFrame:
    runs = pd.read_csv(RESULTS / folder / "records.csv", low_memory=False)
    return runs[~runs["tuning"].astype(bool) & runs["task"].eq(task)]


def floor_of(family: Family) -> float:
    """Return the score of the fitted head on a family's frozen base, the higher one of both readouts."""
    runs = pd.read_csv(RESULTS / "floors" / "records.csv")
    if family.task == "snippets-fresh":
        runs = _runs("headline/fresh", family.task)
        return float(runs[runs["kind"].eq("head")]["score"].mean())
    own = runs[runs["model"].eq(family.model) & runs["task"].eq(family.task)]
    return float(own["score"].max()) if len(own) else math.nan


def _reference_row(family: Family) -> Row:
    runs = _runs(family.folders[0], family.task)
    own = runs[runs["method"].eq("lora") & runs["rank"].astype(float).eq(8)]
    return {"method": "lora", "size": "r=8", "n_params": int(own["n_params"].iloc[0]), "scores": _by_seed(own)}


def _by_seed(runs: pd.DataFrame) -> dict[int, float]:
    return runs.set_index("seed")["score"].to_dict()


def _control(row: Row, sizes: Sequence[Row]) -> Row:
    """Return LoRA at the nearest count, and what a tensor has more than it over the seeds that both have."""
    if row["lora"]:
        return {}
    nearest = min(sizes, key=lambda one: abs(math.log(one["n_params"] / row["n_params"])))
    seeds = [seed for seed in row["scores"] if seed in nearest["scores"]]
    gaps = np.array([row["scores"][seed] - nearest["scores"][seed] for seed in seeds])
    interval = t_interval(gaps)
    return {
        **{"control": f"{nearest['method']} {nearest['size']}".replace("lora", "LoRA")},
        **{"control_n_params": nearest["n_params"], "control_seeds": len(gaps), "control_difference": interval.mean},
        **{"control_low": interval.low, "control_high": interval.high, "control_p": paired_p(gaps)},
    }


def _crossed_control(row: Row) -> Row:
    """Return the same over test examples too, where ``pairs.csv`` has that comparison."""
    if row["lora"]:
        return {}
    pairs = pd.read_csv(RESULTS / "pairs.csv")
    asked = {name: row[name] for name in ("folder", "task", "method", "n_params")}
    asked |= {"reference": "lora", "reference_n_params": row["control_n_params"]}
    found = pairs[(pairs[list(asked)] == pd.Series(asked)).all(axis=1)]
    names = ("difference", "low", "high", "p")
    return {f"control_{name}": float(found[name].iloc[0]) for name in names} if len(found) else {}


def _corrected(rows: list[Row]) -> list[Row]:
    """Return the rows of one family with Holm's p values over all of them, and a verdict."""
    for name in ("p", *(f"p_{margin}" for margin in MARGINS)):
        for row, value in zip(rows, holm([min(row[name], 1.0) for row in rows]), strict=True):
            row[f"{name}_holm"] = float(value)
    controlled = [row for row in rows if "control_p" in row]
    for row, value in zip(controlled, holm([row["control_p"] for row in controlled]), strict=True):
        row["control_p_holm"] = float(value)
    kept = [{key: value for key, value in row.items() if key not in ("lora", "scores")} for row in rows]
    return [{**row, "compared": len(rows), "verdict": verdict(row)} for row in kept]


def verdict(row: Row) -> str:
    """Return the words of ``ta.verdict`` for a comparison; nothing that validation contradicts."""
    decided = row["p_holm"] < LEVEL and row["validation"] * row["difference"] > 0
    within, twice = (row[f"p_{one}_holm"] < LEVEL / 2 and row["validation"] > -one for one in MARGINS)
    told = {
        "decided": decided,
        "within": within,
        "within_twice": twice,
        "margin": MARGINS[0],
        "points": math.nan if row["task"] in NO_POINTS else 100,
    }
    known = {**row, **told, "reference_lost": 0}
    return words({**known, "outcome": outcome(known)})


def main() -> None:
    """Write the file."""
    table = verdicts()
    digits = dict.fromkeys(table.select_dtypes("number"), 6)
    whole = ("n_params", "reference_n_params", "control_n_params", "n_seeds", "control_seeds", "compared")
    kinds = {name: "Int64" for name in whole if name in table}
    paper.write(table.round(digits).astype(kinds), RESULTS / "verdicts.csv")


if __name__ == "__main__":
    main()

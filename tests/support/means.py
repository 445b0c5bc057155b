"""The runs behind a CSV file of means, as docs has them: a table of runs like one of somebody's own."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

DOCS = Path(__file__).parents[2] / "docs"
KINDS = {"frozen base + head": "head", "full fine-tuning": "full"}
DROPPED = ("mean", "sd", "low", "high", "cost", "on_frontier", "p_frontier", "above_head")


def runs_of(name: str, task: str | None = None) -> pd.DataFrame:
    """Return a row for each score in the column ``scores`` of a file below docs (a star: lost), of one task or all."""
    means = pd.read_csv(DOCS / name)
    means["score"] = means["scores"].astype(str).str.strip("'").str.split()
    means = means.drop(
        columns=[c for c in means if c in DROPPED or c.startswith(("diff_", "n_at", "n_div", "n_seeds"))]
    )
    runs = means.explode("score")
    runs["lost"] = runs["score"].str.endswith("*")
    runs["status"] = runs["lost"].map({True: "at chance", False: "finished"})
    runs["score"] = runs["score"].str.rstrip("*").astype(float)
    runs["seed"] = runs.groupby(level=0).cumcount()
    runs["kind"] = runs["method"].map(KINDS).fillna("adapter")
    if "task" not in runs:
        runs["task"] = "snippets"
    return (
        (runs if task is None else runs[runs["task"] == task]).drop(columns=["scores", "runs"]).reset_index(drop=True)
    )

"""What `tensoradapt frontier --quick` must have left in a folder; run by CI with that folder as the argument."""

import csv
import sys
from pathlib import Path

import numpy as np

from tensoradapt.lab.runs.store import load_runs
from tensoradapt.lab.sweeps.frontier import preset
from tensoradapt.lab.sweeps.spec import read_spec


def main(out: Path) -> None:
    runs = load_runs(out)
    found = sorted(run.row["method"] for run in runs)
    quick = read_spec({**preset("quick"), "model": "any", "task": "snippets"})
    expected = [method.name for method in quick.methods for _ in method.adapters]
    assert found == sorted(expected), found
    for run in runs:
        scores, labels = run.array("predictions"), run.array("labels")
        assert scores.shape == (run.row["n_test"], 2) and np.isfinite(scores).all()
        accuracy = float((scores.argmax(1) == labels).mean())
        assert abs(accuracy - run.result["test"]["accuracy"]) < 1e-9, (run.name, accuracy)
        assert run.provenance and run.measurements["seconds"] > 0
    with (out / "frontier.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(runs)
    assert (out / "frontier.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "frontier.pdf").read_bytes().startswith(b"%PDF")
    assert not list(out.glob(".*.tmp")), "temporary folders were left behind"
    print(f"{out}: {len(runs)} runs, figure, table and predictions are there and agree")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

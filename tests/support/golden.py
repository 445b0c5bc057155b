"""Golden files: the facts of plans and of tiny runs, written before a change of records and compared after it.

``python tests/support/golden.py`` writes them again, which only a change that is meant to change results may do.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError
from tensoradapt.planning.record import plan_record

FOLDER = Path(__file__).parents[1] / "golden"
BERT = SimpleNamespace(
    model_type="bert", hidden_size=384, num_attention_heads=12, num_hidden_layers=4, intermediate_size=1536
)
SHORT: dict[str, Any] = {
    "model": "tiny-random-bert",
    "task": "planted",
    "lr": 5e-3,
    "head_lr": 5e-3,
    "seed": 3,
    "steps": 6,
    "batch": 16,
    "n_train": 64,
    "n_validation": 32,
    "n_test": 32,
}
SWEEPS: dict[str, dict[str, Any]] = {
    "starts and rules": {
        "rank": 2,
        "optimizer": "adamw",
        "method": [
            {"name": "zero", "method": "cp"},
            {"name": "subtract", "method": "cp", "start": "subtract"},
            {"name": "dora", "method": "lora", "rule": "dora"},
            {"name": "scale", "method": "tucker", "scale": 0.5},
            "pissa",
            {"name": "options", "method": "tensor_train", "projections": ["q", "up"]},
        ],
        "reference": ["head", "full"],
    },
    "equal steps, packed": {
        "budget": 700,
        "method": ["lora", "lorta", "lotr"],
        "warmup": 0.5,
        "precision": "bf16",
    },
    "as in the paper": {"rank": 2, "method": "rslora", "paper": True},
}


def digest(value: Any) -> str:
    """Return 16 digits of the hash of a value in JSON's types."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def facts_of_plan(adapter: dict[str, Any]) -> dict[str, Any]:
    """Return a plan's counts and the hashes of its networks and its printed text, or the error that refuses it."""
    try:
        plan = ta.plan(BERT, **adapter)
    except TensorAdaptError as error:
        return {"error": str(error)}
    record = plan_record(plan)
    return {
        "n_params": plan.n_params,
        "networks": digest(record["networks"]),
        "groups": digest(record["groups"]),
        "text": digest(str(plan).splitlines()[1:]),
    }


def facts_of_runs() -> dict[str, Any]:
    """Return losses, predictions and scores of the tiny runs, by their sweep and name."""
    found: dict[str, Any] = {}
    for name, settings in SWEEPS.items():
        with tempfile.TemporaryDirectory() as folder:
            ta.sweep({**SHORT, **settings}, folder, executor="inline", device="cpu", probe=False, say=lambda _: None)
            for run in ta.load_runs(folder):
                row = {key: run.result[key] for key in ("status", "n_params", "validation", "test")}
                arrays = {key: np.round(run.array(key).astype(float), 7).tolist() for key in ("losses", "predictions")}
                found[f"{name}: {run.row['method']}"] = {**row, **arrays}
    return found


def main() -> None:
    """Write the golden files of the adapters that plans.json lists."""
    plans = json.loads((FOLDER / "plans.json").read_text())
    lines = [json.dumps([adapter, facts_of_plan(adapter)]) for adapter, _ in plans]
    (FOLDER / "plans.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
    (FOLDER / "runs.json").write_text(json.dumps(facts_of_runs(), indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Compress a library of synthetic LoRA folders: time, peak memory, error, and what an adapter costs.

    python benchmarks/library.py             # 10, 100 and 1,000 adapters of MiniLM, each in a process of its own
    python benchmarks/library.py --n 100

Adapters of rank 4 on q, k, v, o (73,728 numbers) are drawn around bases of 24 rows and columns that all share, with
noise of a tenth of their norm. Writes records/library.csv.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import append, options, place

ONE = {"nargs": 2, "metavar": ("FOLDER", "FORM"), "help": "of a folder that is there, in this process"}
ASKED = options(__name__, __doc__, n=[10, 100, 1000], one=ONE)

import numpy as np
import torch
from peft import LoraConfig
from safetensors.torch import save_file

import tensoradapt as ta

MODEL, RANK, SHARED, NOISE = "all-minilm-l6-v2", 4, 24, 0.1
FORMS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "Tucker": ("tucker", {"task": 32, "layer": 6, "proj": 4, "out": 32, "in": 32}, {}),
    "Tucker of rows and columns": ("tucker", 24, {"only": ("out", "in")}),
}


def write(folder: Path, n: int) -> None:
    """Write LoRA folders as PEFT saves them."""
    g, sites = np.random.default_rng(0), ta.find_sites(MODEL, ["q", "k", "v", "o"])
    bases = [np.linalg.qr(g.standard_normal((384, SHARED)))[0] for _ in range(2)]
    targets = sorted({site.module.rpartition(".")[2] for site in sites})
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets, base_model_name_or_path=MODEL)
    for i in range(n):
        tensors = {}
        for site in sites:
            for side, basis, shape in (("A", bases[1], (RANK, 384)), ("B", bases[0], (384, RANK))):
                value = g.standard_normal((RANK, SHARED)) @ basis.T
                value += NOISE * np.linalg.norm(value) / np.sqrt(value.size) * g.standard_normal(value.shape)
                made = torch.from_numpy(value if side == "A" else value.T).float().contiguous().view(shape)
                tensors[f"base_model.model.{site.module}.lora_{side}.weight"] = made
        (folder / f"a{i:04}").mkdir(parents=True)
        config.save_pretrained(str(folder / f"a{i:04}"))
        save_file(tensors, folder / f"a{i:04}" / "adapter_model.safetensors")


def measure(folder: Path, form: str) -> None:
    """Compress the folders by one form, and append the row."""
    (method, rank, options), n = FORMS[form], len(list(folder.iterdir()))
    rank = {**rank, "task": min(rank["task"], n)} if isinstance(rank, dict) else rank
    folders, before = sorted(folder.iterdir()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    made = ta.compress(
        folders, ta.find_sites(MODEL, ["q", "k", "v", "o"]), "task layer proj : out : in", method, rank, options=options
    )
    seconds, peak = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = {"form": form, "adapters": len(folders), "seconds": f"{seconds:.1f}", "MiB_before": before // 1024}
    row |= {"MiB_peak": peak // 1024, "error": f"{made.error:.4f}", "worst": f"{max(made.task_errors.values()):.4f}"}
    row |= {
        "bytes_each": 4 * made.n_params_each,
        "bytes_shared": 4 * (made.n_params - made.n_params_each * len(folders)),
    }
    row |= {"bytes_lora": 4 * made.n_source_params // len(folders)}
    print(made)
    append(place(ASKED, "library.csv"), row)


def main() -> None:
    """Run each size and form in a process of its own, as peak memory is of a process."""
    if ASKED.one:
        measure(Path(ASKED.one[0]), ASKED.one[1])
        return
    same = [*(["--quick"] if ASKED.quick else []), *(["--out", str(ASKED.out)] if ASKED.out else [])]
    for n in [3] if ASKED.quick else ASKED.n:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), n)
            for form in FORMS:
                subprocess.run([sys.executable, __file__, *same, "--one", folder, form], check=True)


if __name__ == "__main__":
    main()

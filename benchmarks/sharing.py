"""What trained updates have in common: which ties they would bear, by model, task, seed, kind and steps.

    python benchmarks/sharing.py --work FOLDER --only all-minilm-l6-v2    # trains, measures; goes on where it was cut
    python benchmarks/sharing.py --work FOLDER --together                 # ties of seeds, tasks and checkpoints

Full fine-tuning of q, k, v, o (AdamW, 5e-5) and LoRA r=16 on them are trained once for each model, task and seed, and
their updates after 10, 30, 100 and 300 steps are kept in the folder: --work has gigabytes. ``ta.sharing`` of each is
in records/sharing.csv, of several together in records/sharing-together.csv.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from measure import append, options, place, read

ASKED = options(__name__, __doc__, work={"type": Path, "required": True}, only="", part="0/1", together=False)

import numpy as np
from measure import part_of
from minilm import Bench, Setting

import tensoradapt as ta
from tensoradapt.compression.sources import read as read_updates
from tensoradapt.lab.sweeps.frontier import rate
from tensoradapt.lab.tasks.classification import head_of
from tensoradapt.lora.pair import LoraPair

CSV, TOGETHER = place(ASKED, "sharing.csv"), place(ASKED, "sharing-together.csv")
PROJECTIONS, RANK, RATE = "q k v o", 16, 5e-5
STEPS, SEEDS, TASKS = (10, 30, 100, 300), (0, 1, 2), ("snippets", "stsb", "cola")
MINILM, MPNET, SMOLLM = "all-minilm-l6-v2", "all-mpnet-base-v2", "smollm2-135m-instruct"
LONG = Setting(n_train=1000, n_validation=100, n_test=200, batch=8, max_length=160)  # of instructions
DRAWS = {MINILM: 20}  # of others 10, as a draw of them takes many times as long
Updates = Mapping[str, Any]


class Case(NamedTuple):
    """One training, whose updates are kept after each of some steps."""

    model: str
    task: str
    seed: int
    kind: str
    most: int

    @property
    def steps(self) -> list[int]:
        return [step for step in STEPS if step <= self.most]

    @property
    def score(self) -> Path:
        return self.file(self.most).with_suffix(".score")

    def file(self, steps: int) -> Path:
        return ASKED.work / f"{self.model}-{self.task}-{self.seed}-{self.kind}-{steps}.npz"


CASES = (
    *(Case(MINILM, task, seed, kind, 300) for seed, task, kind in product(SEEDS, TASKS, ("full", "lora"))),
    *(Case(MPNET, task, seed, "full", 100) for seed, task in product(SEEDS, TASKS)),
    *(Case(SMOLLM, "alpaca-answers", seed, "full", 100) for seed in SEEDS),
)


def main() -> None:
    """Train what the folder lacks, and measure what the record lacks."""
    ASKED.work.mkdir(parents=True, exist_ok=True)
    for case in part_of([case for case in CASES if case.model.startswith(ASKED.only)], ASKED.part):
        bench = Bench(LONG if case.model == SMOLLM else Setting(), case.seed, case.task, case.model)
        if not case.score.exists():
            train(case, bench)
        done = {tuple(row[name] for name in ("model", "task", "seed", "kind", "steps")) for row in read(CSV)}
        for steps in case.steps:
            if (case.model, case.task, str(case.seed), case.kind, str(steps)) not in done:
                measure(case, steps, bench)


def train(case: Case, bench: Bench) -> None:
    """Train once, and keep the updates after some steps."""
    model = bench.fresh()
    base = copy.deepcopy(model).eval()
    sites = ta.find_sites(model, PROJECTIONS)
    if case.kind == "lora":
        adapter = ta.attach(model, ta.plan(sites, layout=": out : in", method="lora", rank=RANK), seed=case.seed)
    else:
        model.requires_grad_(False)
        for site in sites:
            model.get_submodule(site.module).weight.requires_grad_(True)
    for head in head_of(model):
        model.get_submodule(head).requires_grad_(True)

    def keep(step: int, _: float) -> None:
        if step in case.steps:
            source = adapter if case.kind == "lora" else (model, base)
            np.savez(case.file(step), **_flat(read_updates(source, sites).updates[""]))

    fitted = bench.fit(model, rate("lora") if case.kind == "lora" else RATE, case.most, on_step=keep, progress=False)
    score = bench.score(model.eval())
    print(case.file(case.most).stem, fitted, f"{score:.4f}", flush=True)
    case.score.write_text(f"{score:.6f}")


def _flat(updates: Updates) -> dict[str, Any]:
    """Return arrays by site, of a pair two of them."""
    flat: dict[str, Any] = {}
    for name, update in updates.items():
        parts = {"A": update.a, "B": update.b} if isinstance(update, LoraPair) else {"W": update}
        flat |= {f"{name}|{part}": values.astype(np.float32) for part, values in parts.items()}
    return flat


def load(path: Path) -> Updates:
    """Return the updates of a file, as ``ta.sharing`` takes them."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, values in np.load(path).items():
        name, part = key.split("|")
        found.setdefault(name, {})[part] = values
    return {name: (own["A"], own["B"]) if "A" in own else own["W"] for name, own in found.items()}


def measure(case: Case, steps: int, bench: Bench) -> None:
    """Append the rows of one update: the ties of its layers and projections."""
    began, sites = time.perf_counter(), ta.find_sites(bench.fresh(), PROJECTIONS)
    table = ta.sharing(load(case.file(steps)), sites, draws=DRAWS.get(case.model, 10))
    own = {"model": case.model, "task": case.task, "seed": case.seed, "kind": case.kind, "steps": steps}
    own |= {"score": case.score.read_text() if steps == case.most else ""}
    for row in table.to_dict("records"):
        append(CSV, {**own, **_short(row), "seconds": round(time.perf_counter() - began, 1)})


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    """Write numbers in four digits."""
    return {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in row.items()}


def together() -> None:
    """Append the ties of several updates of one model: of seeds, of tasks and of checkpoints."""
    for case in CASES:
        sets = {
            "seeds": [case._replace(seed=seed) for seed in SEEDS] if case.seed == SEEDS[0] else [],
            "tasks": [case._replace(task=task) for task in TASKS] if case.task == TASKS[0] else [],
        }
        files = {what: {str(i): one.file(one.most) for i, one in enumerate(own)} for what, own in sets.items()}
        files["checkpoints"] = {str(steps): case.file(steps) for steps in case.steps[1:]}
        for what, own in files.items():
            key = {"what": what, **{name: str(getattr(case, name)) for name in ("model", "task", "seed", "kind")}}
            is_done = any(key.items() <= row.items() for row in read(TOGETHER))
            if len(own) < 2 or is_done or not all(path.exists() for path in own.values()):
                continue
            draws, bench = DRAWS.get(case.model, 10), Bench(Setting(), case.seed, case.task, case.model)
            sites = ta.find_sites(bench.fresh(), PROJECTIONS)
            with warnings.catch_warnings():  # of adapters whose A agree, as those of one seed do
                warnings.simplefilter("ignore")
                table = ta.sharing({name: load(path) for name, path in own.items()}, sites, "task", draws=draws)
            for row in table.to_dict("records"):
                append(TOGETHER, {**key, **_short(row)})


if __name__ == "__main__":
    together() if ASKED.together else main()

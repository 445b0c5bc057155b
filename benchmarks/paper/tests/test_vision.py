"""Vision: what its specifications adapt, and a real DINOv2 on CIFAR-10 and on handwritten digits."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers
from scipy.stats import binomtest
from support.pictures import write_digits

import tensoradapt as ta
from tensoradapt.lab.runs.execute import execute
from tensoradapt.lab.runs.store import load_runs
from tensoradapt.lab.sweeps.due import due
from tensoradapt.lab.sweeps.frontier import frontier_spec
from tensoradapt.lab.sweeps.plan_sweep import plan_sweep
from tensoradapt.lab.sweeps.spec import read_spec
from tensoradapt.lab.tasks import registry
from tensoradapt.planning.resolve import resolve
from tensoradapt_paper.dinov2 import SHAPE

MODEL = "dinov2-small-focus"
SPECIFICATION = Path(__file__).parents[1] / "vision-here.toml"
SPEC = {"method": ["lora", "cp"], "seed": 0, "batch": 8}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", {})


def sweep(out: str, **changes: Any) -> Any:
    return ta.sweep({**SPEC, **changes}, out, executor="inline", device="cpu")


def test_the_specification_of_vision_adapts_the_same_matrices_with_counts_that_differ() -> None:
    spec = read_spec(SPECIFICATION)
    assert (spec.model, *spec.task) == (MODEL, "cifar10")
    shape = transformers.Dinov2Config(**SHAPE, mlp_ratio=4)
    shape.save_pretrained("my-dino")
    planned = plan_sweep(replace(spec, model="my-dino"), Path()).cells
    assert not [cell.empty for cell in planned if cell.empty]
    counts = {(cell.method, cell.size.rank or cell.size.budget): cell.n_params for cell in planned}
    # attention has 4 L square matrices, the MLP 2 L of four squares each; CaRA has 6 d biases
    n, width, heads, inner = 12, 384, 6, 64
    assert counts["lora", 8] == 8 * n * (4 * 2 * width + 2 * 5 * width)
    assert counts["fact-tt", 8] == 2 * width * 8 + 12 * n * 8**2
    assert counts["cara", 16] == 16 * (3 * n + width + heads + inner) + 16 * (9 * n + 2 * width) + 2 * 16 + 6 * width
    resolved = [resolve(method.adapters[0]).spec for method in spec.method]
    assert {(adapter.scale, adapter.projections) for adapter in resolved} == {("matched", ("all",))}
    own = {"CP": 23 * (4 * (n + 2 * width) + 2 * (n + 5 * width)), "lora": n * (4 * 2 * width + 2 * 5 * width)}
    assert (counts["CP", 166_000], counts["lora", 1]) == tuple(own.values())


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TENSORADAPT_DATA"), reason="TENSORADAPT_DATA names no folder with CIFAR-10")
def test_a_real_dinov2_learns_real_pictures_beyond_chance() -> None:
    assert "pixel_values 3 x 112 x 112" in registry.resolve("cifar10")[0].described(MODEL)
    sizes = {"rank": 4, "steps": 30, "lr": 1.5e-3, "head_lr": 3e-3, "n_validation": 10}
    ended = sweep("runs", model=MODEL, task="cifar10", n_train=200, n_test=100, **sizes)
    assert ended.complete
    for run in load_runs(Path("runs")):
        hits = (run.array("predictions").argmax(1) == run.array("labels")).sum()
        assert len(run.array("labels")) == 100 and run.result["metric"]["chance"] >= 0.1
        assert binomtest(int(hits), 100).proportion_ci(0.95).low > run.result["metric"]["chance"], run.result


@pytest.mark.slow
@pytest.mark.nightly
def test_a_quick_frontier_of_handwritten_digits_needs_no_options() -> None:
    """LoRA and the head alone, at the rates that the command takes for a picture model by itself."""
    write_digits("digits", 600)
    spec = frontier_spec("quick", model=MODEL, task="digits", method="lora")
    lora, head = (
        next(config for config in due(plan_sweep(spec, Path())).configs
             if (config.kind, config.adapter and config.adapter.rank) == case)
        for case in (("adapter", 8), ("head", None))
    )  # fmt: skip
    assert execute(lora, "cpu")["result"]["test"]["accuracy"] > 0.6
    alone = execute(head, "cpu")["result"]
    assert alone["test"]["accuracy"] > 0.5 and "loss rose" not in alone["note"]

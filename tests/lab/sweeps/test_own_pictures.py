"""Sweeps and frontiers over folders of pictures, end to end with small models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.pictures import SIZE, dinov2, save_model, vit, write

import tensoradapt as ta
from tensoradapt.lab.data import models
from tensoradapt.lab.runs.store import load_runs
from tensoradapt.lab.tasks import registry

SPEC = {
    "method": ["lora", "cp"],
    "rank": 2,
    "lr": 1e-2,
    "seed": 0,
    "steps": 15,
    "batch": 8,
}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", {})


def sweep(out: str, **changes: Any) -> tuple[str, Any]:
    said: list[str] = []
    ended = ta.sweep({**SPEC, **changes}, out, executor="inline", device="cpu", say=said.append)
    return "\n".join(said), ended


@pytest.mark.parametrize("model", [vit, dinov2])
def test_two_methods_learn_the_colours_of_pictures_and_leave_results(model: Any) -> None:
    write("pets", 25)
    name = save_model("my-model", model())
    said, ended = sweep("runs", model=name, task="pets")
    assert ended.complete and ended.total == 2
    assert "task pets: 35 train, 5 validation, 10 test; classes blue, red; test and validation drawn" in said
    assert f"a picture becomes pixel_values 3 x {SIZE} x {SIZE} by the image processor of my-model" in said
    assert "head trained with each adapter: classifier" in said
    test = registry.resolve("pets")[0].load().test
    counts = set()
    for run in load_runs(Path("runs")):
        assert run.result["test"]["accuracy"] == 1.0 and run.result["metric"]["chance"] == 0.5
        assert run.array("predictions").shape == (10, 2) and np.array_equal(run.array("labels"), test.labels)
        # DINOv2 classifies by its class token and the mean of its patches
        assert run.result["n_trained_base"] == 2 * 24 * (2 if model is dinov2 else 1) + 2
        counts.add(run.result["n_params"])
    # rank 2 of q, k, v and o in two layers, 24 wide: pairs, or CP's rows for places, heads, head's axes and model
    assert counts == {2 * 8 * 48, 2 * (8 + 2 + 12 + 24) - 4}
    assert sweep("runs", model=name, task="pets") == ("", ended)  # nothing is left to do


@pytest.mark.parametrize("task", ["pets", "a.csv", "planted"])
def test_a_model_of_another_kind_is_refused_before_anything_is_planned(task: str) -> None:
    write("pets", 25)
    Path("a.csv").write_text("\n".join(["text,label", *(f"word {i},{('no', 'yes')[i % 2]}" for i in range(40))]))
    model = models.TINY if task == "pets" else save_model("my-vit", vit())
    what = "pictures" if task == "pets" else "texts"
    with pytest.raises(ta.TensorAdaptError, match=f"transformers has no classifier of {what}.* the task has {what}"):
        sweep("runs", model=model, task=[task])
    assert not Path("runs").exists()

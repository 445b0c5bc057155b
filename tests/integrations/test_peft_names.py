"""TensorConfig takes LoraConfig's names, a folder says what loads it, and export_lora writes what PEFT reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from support.models import inputs, make, perturb

import tensoradapt as ta
from tensoradapt.integrations.peft import TensorConfig

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
FAMILIES = {"llama": {}, "gpt2": {}, "bert": {"start": "subtract"}}


def adapted(family: str, **changes: Any) -> Any:
    config = TensorConfig(layout="layer proj : head dim : model", method="cp", r=3, **changes)
    model = get_peft_model(make(family, torch.float32), config).eval()
    perturb(model.base_model.tensoradapt_bank["default"])
    return model


@torch.no_grad()
def logits(model: Any, family: str) -> torch.Tensor:
    return model(**inputs(family, torch.float32)).logits


@pytest.mark.thorough
@pytest.mark.parametrize("family", FAMILIES)
def test_the_folder_computes_what_the_peft_model_does(family: str, tmp_path: Path) -> None:
    model = adapted(family, **FAMILIES[family])
    report = ta.export_lora(model, tmp_path)
    theirs = PeftModel.from_pretrained(make(family, torch.float32), str(tmp_path)).eval()
    torch.testing.assert_close(logits(theirs, family), logits(model, family), rtol=1e-5, atol=1e-5)
    assert len(report.modules) == len({site.module for site in model.base_model.tensoradapt_bank["default"].plan.sites})
    own = ta.export_lora(make(family, torch.float32), tmp_path, adapter=model.base_model.tensoradapt_bank["default"])
    assert str(own) == str(report)  # own is made of the bank's adapter and a base without one


def test_the_active_adapter_is_exported_and_two_of_them_are_refused(tmp_path: Path) -> None:
    model = adapted("llama")
    model.add_adapter("other", TensorConfig(r=1, method="lora"))
    assert ta.export_lora(model, tmp_path).rank > 1
    model.set_adapter("other")
    assert ta.export_lora(model, tmp_path).rank == 1
    model.base_model.set_adapter(["default", "other"])
    with pytest.raises(ta.TensorAdaptError, match=r"2 of the adapters default, other are active.*set_adapter"):
        ta.export_lora(model, tmp_path)


def test_heads_and_biases_are_refused_or_said(tmp_path: Path) -> None:
    model = adapted("bert", modules_to_save=["classifier"], bias="all")
    with pytest.raises(ta.TensorAdaptError, match="trains the modules classifier and biases"):
        ta.export_lora(model, tmp_path)
    report = ta.export_lora(model, tmp_path, heads="leave")
    assert report.left_out == ("the modules classifier", "biases (bias='all')")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == ["attention.output.dense", "key", "query", "value"]


def test_loras_names_are_other_names_of_the_same_arguments(tmp_path: Path) -> None:
    given = TensorConfig(r=3, lora_alpha=8, lora_dropout=0.25, target_modules=["query"], modules_to_save=["classifier"])
    same = TensorConfig(rank=3, alpha=8, dropout=0.25, target_modules=["query"], modules_to_save=["classifier"])
    assert given == same and not {"r", "lora_alpha"} & given.to_dict().keys()
    given.save_pretrained(str(tmp_path))
    assert TensorConfig.from_pretrained(str(tmp_path)).to_dict() == same.to_dict()
    assert TensorConfig(r=3, rank=3).rank == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"r": 3, "rank": 4}, "r=3 and rank=4 were given, and both are rank"),
        ({"lora_alpha": 8, "alpha": 4.0}, "lora_alpha=8 and alpha=4.0 were given"),
        ({"use_dora": True}, "TensorConfig has no use_dora; give rule=.dora."),
        ({"use_rslora": True}, "no use_rslora; give method=.rslora. and paper=True"),
        ({"init_lora_weights": False}, "no init_lora_weights; give start="),
        ({"fan_in_fan_out": True}, "no fan_in_fan_out; how a layer stores its weight is read from the layer"),
    ],
)
def test_names_that_do_not_fit_are_refused_with_the_one_that_does(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=message):
        TensorConfig(**arguments)

"""Adapters of models without a head: PEFT's own names by default, those of the served model with a prefix."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
from safetensors.torch import load_file
from support.exports import assert_same, updates
from support.lora_readers import llama_cpp, tgi, vllm
from support.models import inputs, make, perturb
from torch import nn

import tensoradapt as ta

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
HELD = {"llama": "model", "bert": "bert", "gpt2": "transformer"}


def bare(family: str) -> tuple[nn.Module, nn.Module, ta.Adapter]:
    """The model with its head, the bare one inside it with an adapter on a copy, and the adapter."""
    whole = make(family)
    model = copy.deepcopy(whole.get_submodule(HELD[family]))
    plan = ta.plan(ta.find_sites(model, ("q", "v")), ": out : in", "lora", 2)
    adapter = ta.attach(model, plan, seed=7)
    perturb(adapter.double())
    return whole, model, adapter


@pytest.mark.parametrize("family", HELD)
def test_peft_and_servers_of_the_model_with_its_head_read_a_prefixed_folder(family: str, tmp_path: Path) -> None:
    whole, model, adapter = bare(family)
    report = ta.export_lora(model, tmp_path, prefix=HELD[family], dtype="float64")
    assert report.held_as == "" and "no head" not in str(report)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["auto_mapping"] is None  # the class that is served is not this one, and is not known
    assert all(one.module.startswith(f"{HELD[family]}.") for one in report.modules)
    base = copy.deepcopy(whole.get_submodule(HELD[family]))
    expected = {f"{HELD[family]}.{name}": dense for name, dense in updates(adapter, base).items()}
    names = {name.rpartition(".")[2] for name in expected}
    assert_same(vllm(tmp_path, names), expected, 1e-13)
    assert_same(llama_cpp(tmp_path), expected, 1e-13)
    by_projection = [[site.module for site in ta.find_sites(whole, (proj,))] for proj in ("q", "v")]
    served, unused = tgi(tmp_path, by_projection)
    assert not unused
    assert_same(served, expected, 1e-13)
    whole.set_submodule(HELD[family], model)
    wanted = whole(**inputs(family)).logits
    theirs = peft.PeftModel.from_pretrained(make(family), str(tmp_path)).eval()
    found = theirs(**inputs(family)).logits
    assert (found - wanted).norm() <= 1e-6 * wanted.norm()
    assert (make(family)(**inputs(family)).logits - wanted).norm() > 1e-3 * wanted.norm()


@pytest.mark.parametrize("family", HELD)
def test_without_a_prefix_the_names_are_those_that_peft_writes_and_the_report_says_so(
    family: str, tmp_path: Path
) -> None:
    whole, model, adapter = bare(family)
    base = whole.get_submodule(HELD[family])
    report = ta.export_lora(model, tmp_path / "ours", dtype="float64")
    leaves = sorted({site.module.rpartition(".")[2] for site in adapter.plan.sites})
    config = peft.LoraConfig(r=2, target_modules=leaves, fan_in_fan_out=family == "gpt2")
    peft.get_peft_model(base, config).save_pretrained(str(tmp_path / "theirs"))
    keys = [set(load_file(tmp_path / one / "adapter_model.safetensors")) for one in ("ours", "theirs")]
    assert keys[0] == keys[1]
    assert f"export_lora(model, path, prefix={HELD[family]!r})" in str(report)
    assert f"--prefix {HELD[family]}" in str(report)


WRONG: list[Any] = [".model", "model.", "model..x", "base_model/model", "a b", "../x", None, 3, ("model",)]


@pytest.mark.parametrize("prefix", WRONG)
def test_a_prefix_that_is_no_path_of_modules_is_refused(prefix: Any, tmp_path: Path) -> None:
    _, model, _ = bare("llama")
    with pytest.raises(ta.TensorAdaptError, match=r"prefix is .*; expected the path of this model .* prefix='model'"):
        ta.export_lora(model, tmp_path / "lora", prefix=prefix)
    assert not list(tmp_path.iterdir())

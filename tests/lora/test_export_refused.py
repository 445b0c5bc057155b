"""What an export refuses, with nothing written; what it may replace; and the command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from support.exports import TIED, assert_same, attached, products, updates
from support.models import ENCODER, inputs, make, perturb
from torch import nn

import tensoradapt as ta
from tensoradapt.lab.cli.main import main
from tensoradapt.lora import pair as lora_pairs
from tensoradapt.lora.export import max_lora_rank
from tensoradapt.lora.pair import LoraPair

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
Case = tuple[nn.Module, ta.Adapter]


def with_head() -> Case:
    model = make("bert")
    plan = ta.plan(model, layout=TIED[0], method="cp", rank=2, train=("classifier",))
    return model, ta.attach(model, plan)


def with_biases() -> Case:
    config = transformers.ViTConfig(**{**ENCODER, "intermediate_size": 60}, image_size=16, patch_size=8)
    model = transformers.ViTForImageClassification(config)
    return model, ta.attach(model, ta.plan(model, method="cara", paper=True, rank=2, train=()))


def with_tasks(layout: str = "layer task proj : out : in", tasks: Any = ("rte", "cola")) -> Case:
    model = make("bert")
    plan = ta.plan(ta.find_sites(model), layout, "cp", 2, tasks=tasks, train=())
    return model, ta.attach(model, plan)


def rooms() -> Case:
    return with_tasks("scene env : out : in", {"scene": ("hall", "loft"), "env": ("day", "night")})


def with_another_rule() -> Case:
    model, adapter = attached("bert")
    adapter.plan = replace(adapter.plan, spec=replace(adapter.plan.spec, rule="dora"))
    return model, adapter


def diverged() -> Case:
    model, adapter = attached("bert")
    with torch.no_grad():
        adapter.factored[0].trained["layer"][1] = torch.nan
    return model, adapter


def large() -> Case:
    model, adapter = attached("bert")
    with torch.no_grad():
        adapter.factored[0].trained["layer"] *= 1e8
    return model, adapter


def elsewhere() -> Case:
    return make("llama"), attached("bert")[1]


REFUSED: dict[str, tuple[Callable[[], Case], dict[str, Any], list[str]]] = {
    "a head": (
        with_head,
        {},
        ["the adapter trains the modules classifier", "ta.merge_and_unload(model)", "heads='leave'"],
    ),
    "biases": (with_biases, {}, ["the adapter trains the shared biases of o, up, down", "heads='leave'"]),
    "no task": (with_tasks, {}, ["the adapter has tasks rte, cola", "holds one; pass task='rte'"]),
    "no task of two modes": (
        rooms,
        {"task": "hall"},
        ["scenes hall, loft and envs day, night", "task={'scene': 'hall'"],
    ),
    "a mode too few": (rooms, {"task": {"scene": "hall"}}, ["no env is selected; give one of day, night too"]),
    "a task too much": (lambda: attached("bert"), {"task": "rte"}, ["task='rte' was given", "has no tasks"]),
    "another rule": (with_another_rule, {}, ["rule 'dora', and a LoRA can only add"]),
    "NaN": (diverged, {}, ["the update of module bert.encoder.layer.1.attention.self.query has non-finite entries"]),
    "float16": (
        large,
        {"dtype": "float16"},
        ["has entries up to", "above float16's largest number 6.55e+04", "float32"],
    ),
    "heads": (lambda: attached("bert"), {"heads": "leaves"}, ["heads is 'leaves'", 'did you mean "leave"?']),
    "rank above all": (lambda: attached("llama"), {"rank": 25}, ["rank is 25", "from 1 to 24, the shorter side"]),
    "task type": (lambda: attached("bert"), {"task_type": "CAUSAL"}, ['did you mean "CAUSAL_LM"?']),
    "another model": (
        elsewhere,
        {},
        ["LlamaForCausalLM has no module 'bert.encoder.layer.0.", "made for another model"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    case, options, parts = REFUSED[name]
    model, adapter = case()
    with pytest.raises(ta.TensorAdaptError) as error:
        ta.export_lora(model, tmp_path / "lora", adapter=adapter, **options)
    assert [part for part in parts if part not in str(error.value)] == []
    assert not list(tmp_path.iterdir())


def test_a_pair_that_is_not_the_update_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = attached("gpt2", projections=("q", "k"))
    monkeypatch.setattr(lora_pairs, "merged", lambda pair: LoraPair(pair.a[:3], pair.b[:, :3]))
    with pytest.raises(ta.TensorAdaptError, match=r"c_attn is .* away from the adapter's update, of norm .*report"):
        ta.export_lora(model, tmp_path / "lora")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", [with_head, with_biases])
def test_what_a_lora_cannot_hold_is_left_out_on_request(case: Callable[[], Case], tmp_path: Path) -> None:
    model, adapter = case()
    perturb(adapter.double())
    report = ta.export_lora(model, tmp_path, heads="leave", dtype="float64")
    (left_out,) = report.left_out
    assert f"left out: {left_out}" in str(report)
    ta.detach(model)
    assert_same(products(tmp_path), updates(adapter, model.double()), 1e-13)


def test_a_head_that_is_left_out_stays_the_base_models(tmp_path: Path) -> None:
    model, adapter = with_head()
    perturb(adapter)
    with torch.no_grad():
        model.classifier.weight.mul_(2)
    expected = model(**inputs("bert")).logits
    ta.export_lora(model, tmp_path, heads="leave")
    base = make("bert")
    base.classifier.load_state_dict(model.classifier.state_dict())
    theirs = peft.PeftModel.from_pretrained(base, str(tmp_path)).eval()
    found = theirs(**inputs("bert")).logits
    assert (found - expected).norm() <= 1e-6 * expected.norm()


def test_only_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    model, adapter = attached("bert")
    (tmp_path / "empty").mkdir()
    ta.export_lora(model, tmp_path / "empty", rank=1)
    first = products(tmp_path / "empty")
    (tmp_path / "empty" / "README.md").write_text("mine")
    ta.export_lora(model, tmp_path / "empty")
    assert (tmp_path / "empty" / "README.md").read_text() == "mine"
    again = products(tmp_path / "empty")
    assert all(not torch.allclose(again[name], dense) for name, dense in first.items())
    peft.get_peft_model(make("bert"), peft.LoraConfig(target_modules=["query"])).save_pretrained(str(tmp_path / "peft"))
    adapter.save(tmp_path / "saved")
    (tmp_path / "file").write_text("text")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name, found in (("peft", "README.md, adapter_config.json"), ("saved", "adapter.json, adapter.safetensors")):
        with pytest.raises(ta.TensorAdaptError, match=f"{name} holds {found}.*; expected a new or empty folder"):
            ta.export_lora(model, tmp_path / name)
    with pytest.raises(ta.TensorAdaptError, match=r"file is no folder to export to \(Not a directory\)"):
        ta.export_lora(model, tmp_path / "file")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_vllms_ranks() -> None:
    assert [max_lora_rank(n) for n in (1, 2, 8, 9, 257, 321, 512, 513)] == [1, 8, 8, 16, 320, 512, 512, None]


def test_the_command_exports_a_saved_adapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, adapter = attached("gpt2", "subtract")
    adapter.save(tmp_path / "saved")
    model.config.architectures = ["GPT2LMHeadModel"]
    model.config.save_pretrained(tmp_path / "base")
    command = ["export", *map(str, (tmp_path / "saved", "--model", tmp_path / "base", "--out", tmp_path / "lora"))]
    assert main([*command, "--dtype", "float64"]) == 0
    printed = capsys.readouterr().out
    assert "LoRA of 12 modules in" in printed and "vLLM needs --max-lora-rank 32" in printed
    assert_same(products(tmp_path / "lora"), updates(adapter, make("gpt2")), 1e-6)  # saved factors are float32 in use
    assert main([*command, "--rank", "2", "--round-up"]) == 0
    assert "r = lora_alpha = 8, float32, truncated" in capsys.readouterr().out

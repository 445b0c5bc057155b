"""What an export refuses, with nothing written; what it may replace; and the command."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
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


def with_tasks() -> Case:
    model = make("bert")
    plan = ta.plan(ta.find_sites(model), "layer task proj : out : in", "cp", 2, tasks=("rte", "cola"), train=())
    return model, ta.attach(model, plan)


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
    "another task": (with_tasks, {"task": "sst"}, ["task 'sst' is not in this adapter", "Valid: rte, cola"]),
    "a task too much": (lambda: attached("bert"), {"task": "rte"}, ["task='rte' was given", "has no tasks"]),
    "another rule": (with_another_rule, {}, ["rule 'dora', and a LoRA can only add"]),
    "NaN": (diverged, {}, ["the update of module bert.encoder.layer.1.attention.self.query has non-finite entries"]),
    "float16": (
        large,
        {"dtype": "float16"},
        ["has entries up to", "above float16's largest number 6.55e+04", "float32"],
    ),
    "dtype": (lambda: attached("bert"), {"dtype": torch.int8}, ["dtype is 'int8'", "Valid: float32, float16"]),
    "heads": (lambda: attached("bert"), {"heads": "leaves"}, ["heads is 'leaves'", 'did you mean "leave"?']),
    "rank 0": (lambda: attached("bert"), {"rank": 0}, ["rank is 0; expected a whole number from 1 to 30"]),
    "rank True": (lambda: attached("bert"), {"rank": True}, ["rank is True; expected a whole number from 1 to 30"]),
    "rank not whole": (lambda: attached("bert"), {"rank": 2.0}, ["rank is 2.0; expected a whole number"]),
    "rank above all": (lambda: attached("llama"), {"rank": 25}, ["rank is 25", "from 1 to 24, the shorter side"]),
    "task type": (lambda: attached("bert"), {"task_type": "CAUSAL"}, ['did you mean "CAUSAL_LM"?']),
    "task type with a head": (
        lambda: attached("bert"),
        {"task_type": "SEQ_CLS"},
        ["task_type 'SEQ_CLS' makes PEFT look for a trained head", "leave it out"],
    ),
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


def test_a_model_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ta.TensorAdaptError, match="has no adapter attached"):
        ta.export_lora(make("bert"), tmp_path)


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


def test_a_config_that_is_a_pipe_or_endless_is_no_earlier_export(tmp_path: Path) -> None:
    model, _ = attached("bert")
    for name, put in (("pipe", os.mkfifo), ("device", lambda path: Path(path).symlink_to("/dev/zero"))):
        (tmp_path / name).mkdir()
        put(tmp_path / name / "adapter_config.json")
        with pytest.raises(ta.TensorAdaptError, match=f"{name} holds adapter_config.json; expected a new or empty"):
            ta.export_lora(model, tmp_path / name)
    ta.export_lora(model, tmp_path / "deep")
    (tmp_path / "deep" / "adapter_config.json").write_text("[" * 100_000)
    with pytest.raises(ta.TensorAdaptError, match=r"deep holds .*; expected a new or empty"):
        ta.export_lora(model, tmp_path / "deep")


def test_rows_are_merged_where_they_are_multiples_and_nowhere_else() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, 6)), rng.standard_normal((5, 7))
    a = np.stack([a[0], a[1], -3 * a[0], np.zeros(6), a[2], 1e-3 * a[1], a[0] + 1e-6 * a[3]])
    found = lora_pairs.merged(LoraPair(a, b))
    np.testing.assert_allclose(found.b @ found.a, b @ a, atol=1e-13)
    assert found.rank == 5  # two multiples are gone; the zeros, and what is only near another, are not
    turned = lora_pairs.merged(LoraPair(b.T, a.T))
    np.testing.assert_allclose(turned.b @ turned.a, (b @ a).T, atol=1e-13)
    assert turned.rank == 5


def test_the_norms_of_a_pair_are_those_of_its_product() -> None:
    rng = np.random.default_rng(1)
    for shape in ((3, 7, 5), (6, 4, 5), (2, 9, 9)):
        rank, out, in_ = shape
        pair = LoraPair(rng.standard_normal((rank, in_)), rng.standard_normal((out, rank)))
        assert pair.norm == pytest.approx(np.linalg.norm(pair.b @ pair.a), rel=1e-12)
        assert pair.minus(pair).norm < 1e-14 * pair.size
        near = LoraPair(pair.a.astype(np.float32), pair.b.astype(np.float32))
        error = np.linalg.norm(near.b.astype(np.float64) @ near.a.astype(np.float64) - pair.b @ pair.a)
        assert pair.rounded(near) == pytest.approx(error, rel=1e-6) and pair.rounded(pair) == 0
        assert pair.padded(12).rank == 12 and pair.padded(12).minus(pair).norm < 1e-14 * pair.size


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


def test_the_command_says_which_class_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, adapter = with_head()
    adapter.save(tmp_path / "saved")
    model.config.save_pretrained(tmp_path / "base")
    command = ["export", *map(str, (tmp_path / "saved", "--model", tmp_path / "base", "--out", tmp_path / "lora"))]
    for words, message in (
        ([], "names no architecture"),
        (["--architecture", "BertForNothing"], "'BertForNothing' is no model class of transformers"),
        (["--architecture", "BertForSequenceClassification"], "the modules classifier"),
        (["--architecture", "BertModel", "--leave-heads"], "BertModel has no module 'bert.encoder"),
    ):
        assert main([*command, *words]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert main([*command, "--architecture", "BertForSequenceClassification", "--leave-heads"]) == 0
    assert "left out: the modules classifier" in capsys.readouterr().out

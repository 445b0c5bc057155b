"""export_lora: what is read back, by PEFT and by the rules of the servers, is what the adapter computes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from support.exports import FAMILIES, WAYS, assert_same, attached, products, updates
from support.families import planned
from support.lora_readers import llama_cpp, tgi, vllm
from support.models import assert_identical, inputs, make, perturb
from torch import nn

import tensoradapt as ta
from tensoradapt.lora.read_folder import read_lora

pytestmark = [
    pytest.mark.usefixtures("double"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


@pytest.mark.thorough
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_peft_computes_the_adapters_outputs(family: str, way: str, tmp_path: Path) -> None:
    model, _ = attached(family, way)
    ta.export_lora(model, tmp_path)
    theirs = peft.PeftModel.from_pretrained(make(family), str(tmp_path)).eval()
    found, expected = (one(**inputs(family)).logits for one in (theirs, model))
    assert (found - expected).norm() <= 1e-6 * expected.norm()
    assert (make(family)(**inputs(family)).logits - expected).norm() > 1e-3 * expected.norm()


@pytest.mark.parametrize("parameterization", ta.parameterizations.names())
@pytest.mark.parametrize("family", ["bert", "gpt2", "qwen2"])  # some take square matrices alone
def test_every_parameterization_is_read_back_exactly(family: str, parameterization: str, tmp_path: Path) -> None:
    model = make(family)
    adapter = ta.attach(model, planned(ta.find_sites(model, "all"), parameterization, rank=2, train=()), seed=7)
    perturb(adapter)
    report = ta.export_lora(model, tmp_path, dtype="float64")
    assert_same(products(tmp_path), updates(adapter, make(family)), 1e-13)
    assert report.exact and {pair.rank for pair in read_lora(tmp_path).values()} == {report.rank}
    if family != "gpt2":  # where no module is stacked from several sites
        cuts = {member.site.module: group.network.cut.rank for group in adapter.plan.groups for member in group.members}
        assert {one.module: one.rank for one in report.modules} == cuts


@pytest.mark.parametrize("way", ["cp", "subtract", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_server_serves_the_adapters_updates(family: str, way: str, tmp_path: Path) -> None:
    model, adapter = attached(family, way, ("q", "v", "o", "down"), layers=(0, 2))
    report = ta.export_lora(model, tmp_path, dtype="float64")
    base = make(family)
    expected, projections = updates(adapter, base), layers_of_each(base)
    supported = {name.rpartition(".")[2] for modules in projections for name in modules}
    served, unused = tgi(tmp_path, projections)
    assert not unused
    assert report.max_lora_rank == (8 if report.rank <= 8 else 16)
    turned = tmp_path if family != "gpt2" else tmp_path / "turned"
    again = report if family != "gpt2" else ta.export_lora(model, turned, dtype="float64", target="llama.cpp")
    assert len(again.modules) == len(report.modules)
    for found in (served, vllm(tmp_path, supported, report.max_lora_rank), llama_cpp(turned, stored_transposed(base))):
        assert len(found) == 3 * len(expected) // 2  # the layer between the two has zeros
        assert_same(found, expected, 1e-13)


def stored_transposed(base: nn.Module) -> dict[str, tuple[int, int]]:
    """The (out, in) of the modules that a model stores as (in, out)."""
    shapes = {name: tuple(m.weight.shape) for name, m in base.named_modules() if type(m).__name__ == "Conv1D"}
    return {name: (out, in_) for name, (in_, out) in shapes.items()}


def test_llama_cpp_reads_conv1d_modules_of_a_folder_for_every_reader_wrong_or_not_at_all(tmp_path: Path) -> None:
    base, square = make("gpt2"), tmp_path / "square"
    model, adapter = attached("gpt2", projections=("o",))  # a square matrix
    report = ta.export_lora(model, square, dtype="float64")
    found, expected = llama_cpp(square, stored_transposed(base)), updates(adapter, base)
    assert all((found[module] - delta).norm() > 0.1 * delta.norm() for module, delta in expected.items())
    assert "llama.cpp turns the pairs of Conv1D modules (c_proj)" in str(report)
    ta.export_lora(attached("gpt2", projections=("q",))[0], tmp_path / "rectangular")
    with pytest.raises(ValueError, match="incorrect shape"):
        llama_cpp(tmp_path / "rectangular", stored_transposed(base))
    turned = ta.export_lora(model, square, dtype="float64", target="llama.cpp")
    assert_same(llama_cpp(square, stored_transposed(base)), expected, 1e-13)
    assert "turned for llama.cpp alone" in str(turned)


def layers_of_each(base: nn.Module) -> list[list[str]]:
    """Modules of each projection in the order of layers, a fused module once."""
    found: dict[str, list[str]] = {}
    for site in ta.find_sites(base, "all"):
        found.setdefault(str(site.coord["proj"]), []).append(site.module)
    return [list(modules) for modules in {tuple(modules) for modules in found.values()}]


def test_the_folder_says_what_every_reader_takes_alike(tmp_path: Path) -> None:
    model, _ = attached("llama", "loha")
    model.config._name_or_path = "someone/a-llama"
    report = ta.export_lora(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == report.rank == 4
    assert (config["task_type"], config["base_model_name_or_path"]) == ("CAUSAL_LM", "someone/a-llama")
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    assert config["bias"] == "none" and config["modules_to_save"] is None and config["inference_mode"]
    assert not (config["use_dora"] or config["use_rslora"] or config["fan_in_fan_out"])
    assert config["target_modules"] == sorted(f"{n}_proj" for n in ("q", "k", "v", "o", "gate", "up", "down"))
    known = set(peft.LoraConfig(target_modules=["x"]).to_dict())
    assert not set(config) - known
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    a, b = (tensors[f"base_model.model.model.layers.1.self_attn.k_proj.lora_{side}.weight"] for side in "AB")
    assert (a.shape, b.shape, a.dtype) == ((4, 24), (16, 4), torch.float32)


def test_peft_has_the_head_that_was_trained_with_the_adapter(tmp_path: Path) -> None:
    model = make("bert")
    perturb(ta.attach(model, ta.plan(model, "cp", rank=2, train=("classifier",))))
    with torch.no_grad():
        model.classifier.weight.mul_(3)
    report = ta.export_lora(model, tmp_path, target="peft")
    assert not report.left_out
    theirs = peft.PeftModel.from_pretrained(make("bert"), str(tmp_path)).eval()
    torch.testing.assert_close(theirs(**inputs("bert")).logits, model.eval()(**inputs("bert")).logits)
    ta.export_lora(model, tmp_path, target="peft", heads="leave")  # an earlier export is replaced
    assert json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"] is None


TARGETS = {
    ("q", "o", "down"): ["output.dense", "query"],
    ("o",): ["attention.output.dense"],
    ("down",): ["0.output.dense", "1.output.dense", "2.output.dense"],  # output.dense is the attention's too
}


@pytest.mark.parametrize("projections", TARGETS)
def test_targets_match_the_exported_modules_and_no_others(projections: tuple[str, ...], tmp_path: Path) -> None:
    model, adapter = attached("bert", projections=projections)
    ta.export_lora(model, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == TARGETS[projections]
    theirs = peft.PeftModel.from_pretrained(make("bert"), str(tmp_path)).base_model.model
    wrapped = {name for name, module in theirs.named_modules() if hasattr(module, "lora_A")}
    assert wrapped == {site.module for site in adapter.plan.sites}


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize(("family", "way"), [("bert", "loha"), ("gpt2", "lora"), ("llama", "subtract")])
def test_the_truncation_error_is_the_true_and_the_least_one(family: str, way: str, rank: int, tmp_path: Path) -> None:
    model, adapter = attached(family, way)
    report = ta.export_lora(model, tmp_path, rank=rank, dtype="float64")
    found, expected = products(tmp_path), updates(adapter, make(family))
    assert not report.exact and report.rank == rank
    for one in report.modules:
        dense, values = expected[one.module], torch.linalg.svdvals(expected[one.module])
        error = float((dense - found[one.module]).norm() / dense.norm())
        assert one.rank == min(rank, exact_rank(one.module, way)) and one.rounding < 1e-14
        assert one.truncation == pytest.approx(error, rel=1e-9, abs=1e-14)
        assert error == pytest.approx(float(values[rank:].norm() / values.norm()), rel=1e-9, abs=1e-14)


def exact_rank(module: str, way: str) -> int:
    return {"loha": 4, "subtract": 6, "lora": 6 if module.endswith("c_attn") else 2}[way]


@pytest.mark.parametrize("dtype", [torch.float16, "bfloat16", "float32"])
def test_the_rounding_error_is_what_the_dtype_changed(dtype: Any, tmp_path: Path) -> None:
    model, adapter = attached("bert")
    report = ta.export_lora(model, tmp_path, dtype=dtype)
    found, expected = products(tmp_path), updates(adapter, make("bert"))
    stored = load_file(tmp_path / "adapter_model.safetensors").values()
    assert {str(tensor.dtype) for tensor in stored} == {f"torch.{report.dtype}"}
    assert report.n_bytes == sum(tensor.nbytes for tensor in stored)
    for one in report.modules:
        dense = expected[one.module]
        error = float((dense - found[one.module]).norm() / dense.norm())
        assert one.truncation == 0 and one.rounding == pytest.approx(error, rel=1e-5)
        assert one.rounding < {"float16": 1e-3, "bfloat16": 1e-2, "float32": 1e-7}[report.dtype]


def test_ranks_are_rounded_up_on_request(tmp_path: Path) -> None:
    model, adapter = attached("bert")
    plain, rounded = (ta.export_lora(model, tmp_path / str(up), round_up=up, dtype="float64") for up in (False, True))
    assert (plain.rank, rounded.rank, plain.max_lora_rank, rounded.max_lora_rank) == (3, 8, 8, 8)
    assert {one.rank for one in rounded.modules} == {3}
    assert_same(products(tmp_path / "True"), updates(adapter, make("bert")))


def test_each_task_is_a_folder_of_its_own(tmp_path: Path) -> None:
    model, tasks = make("bert"), ("rte", "cola")
    plan = ta.plan(ta.find_sites(model), "layer task proj : out : in", "tensor_train", 3, tasks=tasks, train=())
    adapter = ta.attach(model, plan)
    perturb(adapter)
    for task in tasks:
        ta.export_lora(model, tmp_path / task, task=task, dtype="float64")
    with pytest.raises(ta.TensorAdaptError, match="no task is selected"):  # the adapter's own choice is left alone
        adapter.delta(adapter.plan.sites[0])
    for task in tasks:
        adapter.select(task=task)
        assert_same(products(tmp_path / task), updates(adapter, make("bert")))


def test_a_value_of_each_mode_is_a_folder(tmp_path: Path) -> None:
    model, names = make("bert"), {"scene": ("kitchen", "hall"), "env": ("day", "night")}
    adapter = ta.attach(model, ta.plan(model, "cp", "env proj scene : out : in", 2, tasks=names, train=()))
    perturb(adapter)
    ta.export_lora(model, tmp_path / "lora", task={"env": "night", "scene": "kitchen"}, dtype="float64")
    adapter.select(scene="kitchen", env="night")
    assert_same(products(tmp_path / "lora"), updates(adapter, make("bert")))


def test_whatever_state_the_adapter_is_in_the_updates_are_the_same(tmp_path: Path) -> None:
    model, adapter = attached("gpt2")
    base, expected = make("gpt2"), updates(adapter, make("gpt2"))
    ta.export_lora(model, tmp_path / "plain", dtype="float64")
    ta.merge(model)
    merged = copy.deepcopy(model.state_dict())
    ta.export_lora(model, tmp_path / "merged", dtype="float64")
    assert all(torch.equal(value, merged[name]) for name, value in model.state_dict().items())
    with ta.disabled(unmerged(model)):
        ta.export_lora(model, tmp_path / "disabled", dtype="float64")
    ta.detach(model)
    assert_identical(model, base)
    ta.export_lora(model, tmp_path / "detached", adapter=adapter, dtype="float64")
    with torch.device("meta"):
        skeleton = transformers.GPT2LMHeadModel(base.config)
    ta.export_lora(skeleton, tmp_path / "meta", adapter=adapter, dtype="float64")
    files = {path.read_bytes() for path in tmp_path.glob("*/adapter_model.safetensors")}
    assert len(files) == 1 and len(list(tmp_path.iterdir())) == 5
    assert_same(products(tmp_path / "meta"), expected)


def unmerged(model: nn.Module) -> nn.Module:
    ta.unmerge(model)
    return model


def test_the_report_says_what_it_cost_and_what_servers_need(tmp_path: Path) -> None:
    model, adapter = attached("llama", "vera", ("q", "v"), layers=(1,))
    adapter.float()
    report = ta.export_lora(model, tmp_path / "lora")
    assert report.n_bytes_native == 4 * (2 * 6 + 48 + 16)
    assert report.n_bytes == 4 * 6 * 3 * (24 + 48 + 24 + 16)
    assert [one.module for one in report.modules[:2]] == [
        f"model.layers.0.self_attn.{name}_proj" for name in ("q", "v")
    ]
    assert [one.rank for one in report.modules] == [0, 0, 6, 6, 0, 0]
    text = str(report)
    assert f"LoRA of 6 modules in {tmp_path / 'lora'}: r = lora_alpha = 6, float32, exact but for rounding" in text
    assert "304 bytes native, 8,064 exported (26.5 times)" in text
    assert "vLLM needs --max-lora-rank 8" in text
    assert "model.layers.1.self_attn.q_proj  6     0" in text


def test_adapters_in_use_are_one_lora_with_their_pairs_below_one_another(tmp_path: Path) -> None:
    model = make("bert")
    sites = ta.find_sites(model)
    plans = [ta.plan(sites, "lora", rank=1, train=()), ta.plan(sites, "cp", "layer : out : in", rank=2, train=())]
    for one in (adapters := ta.attach(model, plans)):
        perturb(one)
    ta.use(model, {"lora": 0.5, "cp": 1.0})
    assert ta.export_lora(model, tmp_path, dtype="float64").rank == 3
    own, tied = (updates(one, make("bert")) for one in adapters)
    assert_same(products(tmp_path), {name: 0.5 * own[name] + tied[name] for name in own}, 1e-13)
    ta.use(model, samples=["lora", "cp"])
    with pytest.raises(ta.TensorAdaptError, match="of which 2 are in use; pass the one that is meant"):
        ta.export_lora(model, tmp_path)

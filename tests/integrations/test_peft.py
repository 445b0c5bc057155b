"""The PEFT plug-in computes what ``attach`` does, and PEFT's calls do with it what they do with PEFT's own methods."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, convert_to_lora, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from support.families import SPLIT
from support.models import assert_identical, inputs, make, perturb
from support.quantised_models import X, four_bits
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.integrations.peft import TensorConfig, parameter_groups

# PEFT asks transformers by the older name
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

TIED = "layer proj : head dim : model"
QKVO = ("q", "k", "v", "o")
CASES: dict[str, tuple[str, str | tuple[str, ...], dict[str, Any]]] = {
    "grouped queries": ("llama", QKVO, {"layout": TIED, "method": "cp", "rank": 3}),
    "a published row": ("llama", ("q", "v"), {"method": "lora", "paper": True, "rank": 2, "alpha": 5.0}),
    "fused and stored transposed": ("gpt2", QKVO, {"layout": TIED, "method": "tucker", "rank": 3}),
    "fused, with gates": ("phi3", "all", {"layout": ": out : in", "method": "lora", "rank": 2}),
    "frozen and random": ("bert", ("q", "v"), {"method": "vera", "rank": 3}),
    "from the base weights": ("bert", ("q", "v"), {"method": "lora_xs", "rank": 2}),
    "subtracted": ("bert", ("q", "v"), {"method": "lora", "rank": 2, "start": "subtract"}),
    "DoRA": ("bert", ("q", "v"), {"method": "lora", "rank": 2, "rule": "dora"}),
    "cut into blocks, with biases": ("dinov2", "all", {"method": "cara", "paper": True, "rank": 2}),
}
every_case = pytest.mark.parametrize("case", CASES)
SMALL = {"layout": TIED, "method": "cp", "rank": 3}


def model_of(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    return make(name, dtype)


def planned(name: str, projections: Any, config: dict[str, Any]) -> ta.Plan:
    sites = ta.find_sites(model_of(name), projections, blocks=config["method"] == "cara")
    return ta.plan(sites, train=(), **config)


def adapted(name: str, plan: ta.Plan, config: dict[str, Any], dtype: torch.dtype = torch.float32) -> Any:
    """A PEFT model in eval mode whose targets are the modules of the plan's sites."""
    targets = sorted({site.module for site in plan.sites})
    return get_peft_model(model_of(name, dtype), TensorConfig(target_modules=targets, **config)).eval()


def usual(name: str = "llama", dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """An adapted model whose targets are found out; its adapter is not zero."""
    own = changes.pop("adapter_name", "default")
    model = get_peft_model(model_of(name, dtype), TensorConfig(**{**SMALL, **changes}), own).eval()
    perturb(bank(model, own))
    return model


def bank(model: Any, name: str = "default") -> ta.Adapter:
    return model.base_model.tensoradapt_bank[name]


@torch.no_grad()
def logits(model: nn.Module, name: str = "llama", dtype: torch.dtype = torch.float32) -> Tensor:
    return model(**inputs(name, dtype)).logits


@every_case
def test_the_logits_are_those_of_attach(case: str) -> None:
    name, projections, config = CASES[case]
    plan = planned(name, projections, config)
    peft_model, model = adapted(name, plan, {**config, "seed": 3}), model_of(name)
    adapter = ta.attach(model, plan, seed=3)
    assert replace(bank(peft_model).plan, skipped=()) == replace(adapter.plan, skipped=())
    assert torch.equal(logits(peft_model, name), logits(model_of(name), name))
    for one in (adapter, bank(peft_model)):
        perturb(one)
    torch.testing.assert_close(logits(peft_model, name), logits(model, name))  # contracted site by site, and together


def test_pairs_are_contracted_once_in_a_step_and_once_in_all_for_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model, counts = usual().train(), []
    before = FactoredTensor.pairs_of
    monkeypatch.setattr(FactoredTensor, "pairs_of", lambda tensor, at: counts.append(len(at)) or before(tensor, at))
    tensors = len(bank(model).plan.groups)
    for _ in range(2):
        model(**inputs("llama")).logits.square().mean().backward()
        assert len(counts) == tensors
        counts.clear()
    ids = torch.tensor([[5, 6, 7]])
    model.eval().generate(input_ids=ids, max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0)
    assert len(counts) == tensors


@every_case
def test_what_trains_is_counted_once_and_saved_once(case: str, tmp_path: Path) -> None:
    name, projections, config = CASES[case]
    plan = planned(name, projections, config)
    model = adapted(name, plan, config)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == plan.n_params == model.get_nb_trainable_parameters()[0]
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    held = sum(value.numel() for tensor in bank(model).factored for value in tensor.held.values())
    assert sum(value.numel() for value in saved.values()) == plan.n_params + held + len(plan.groups)  # the multipliers


@every_case
def test_a_saved_adapter_computes_the_same_on_another_copy(case: str, tmp_path: Path) -> None:
    name, projections, config = CASES[case]
    model = adapted(name, planned(name, projections, config), config)
    perturb(bank(model))
    model.save_pretrained(tmp_path)
    for kwargs in ({}, {"low_cpu_mem_usage": True}):
        loaded = PeftModel.from_pretrained(model_of(name), str(tmp_path), **kwargs)
        assert torch.equal(logits(loaded, name), logits(model, name))
        assert not any(p.requires_grad or p.is_meta for p in loaded.parameters())


@every_case
def test_merged_equals_unmerged_and_unmerging_gives_back_every_bit(case: str) -> None:
    name, projections, config = CASES[case]
    model = adapted(name, planned(name, projections, config), config, torch.float64)
    perturb(bank(model))
    before, expected = weights(model), logits(model, name, torch.float64)
    for safe in (False, True):
        model.merge_adapter(safe_merge=safe)
        torch.testing.assert_close(logits(model, name, torch.float64), expected, rtol=0, atol=1e-5)
        assert not torch.equal(flat(weights(model)), flat(before))
        model.unmerge_adapter()
        assert_same(weights(model), before)
    plain = model.merge_and_unload()
    torch.testing.assert_close(logits(plain, name, torch.float64), expected, rtol=0, atol=1e-5)
    assert {*plain.state_dict()} == {*model_of(name).state_dict()}


def test_ten_merges_of_a_bf16_model_leave_no_trace() -> None:
    model = usual(dtype=torch.bfloat16)
    before = weights(model)
    for _ in range(10):
        model.merge_adapter()
        model.unmerge_adapter()
    assert_same(weights(model), before)


def test_adapters_are_switched_summed_and_deleted() -> None:
    model = usual()
    first = logits(model)
    model.add_adapter("other", TensorConfig(method="lora", rank=2, target_modules=["q_proj", "up_proj"]))
    perturb(bank(model, "other"))
    assert torch.equal(logits(model), first)
    model.set_adapter("other")
    second = logits(model)
    assert not torch.equal(second, first)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(model_of("llama")))
    model.base_model.set_adapter(["default", "other"])
    both = logits(model)
    model.merge_adapter()
    torch.testing.assert_close(logits(model), both, rtol=0, atol=1e-4)
    model.unmerge_adapter()
    model.set_adapter("default")
    assert torch.equal(logits(model), first)
    model.delete_adapter("other")
    assert torch.equal(logits(model), first)
    assert not [key for key in model.state_dict() if ".other" in key]


@torch.no_grad()
def test_each_sample_of_a_batch_has_its_own_adapter() -> None:
    model = usual()
    model.add_adapter("other", TensorConfig(**SMALL, target_modules=["q_proj", "v_proj"]))
    perturb(bank(model, "other"), 0.2)
    ids = inputs("llama")["input_ids"].repeat(2, 1)
    ids[2:, :2] += 1
    names = ["other", "__base__", "default", "other"]
    found = model(ids, adapter_names=names).logits
    for i, name in enumerate(names):
        model.set_adapter("other" if name == "other" else "default")
        alone = model_of("llama")(ids).logits if name == "__base__" else model(ids).logits
        torch.testing.assert_close(found[i], alone[i], rtol=1e-4, atol=1e-4)
    greedy = {"max_new_tokens": 3, "do_sample": False, "num_beams": 2, "pad_token_id": 1, "eos_token_id": 49}
    beams = model.generate(input_ids=ids, adapter_names=names, **greedy)
    model.set_adapter("other")
    assert torch.equal(beams[0], model.generate(input_ids=ids, **greedy)[0])


LOOSE = {"on_mismatch": "split"}  # no paper ties q with a narrower k


def test_training_moves_every_factor_and_nothing_of_the_base() -> None:
    model = get_peft_model(
        model_of("llama"), TensorConfig(task_type="CAUSAL_LM", method="lorta", paper=True, rank=8, **LOOSE)
    )
    before, start = weights(model), {name: p.clone() for name, p in bank(model).named_parameters()}
    batch = inputs("llama")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(6):
        loss = model(**batch, labels=batch["input_ids"]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert_same(weights(model), before)
    assert all(not torch.equal(p, start[name]) for name, p in bank(model).named_parameters())
    with model.disable_adapter():
        assert torch.equal(logits(model.eval()), logits(model_of("llama")))


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
def test_gradient_checkpointing_reaches_every_factor() -> None:
    model = usual().train()
    batch = inputs("llama")
    found = []
    for _ in range(2):
        model(**batch, labels=batch["input_ids"]).loss.backward()
        found.append([p.grad.clone() for p in bank(model).parameters()])
        model.zero_grad()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    for plain, checkpointed in zip(*found, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_a_published_row_is_on_equal_footing_unless_the_settings_of_its_paper_are_asked_for() -> None:
    for paper, scale, projections in ((False, "matched", {*QKVO}), (True, "paper", {"q", "v"})):
        model = usual(method="rslora", paper=paper, layout=None)
        assert (bank(model).plan.scale, projections_of(model)) == (scale, projections)


def projections_of(model: Any) -> set[Any]:
    return {site.coord["proj"] for site in bank(model).plan.sites}


class Tower(nn.Module):
    """No config, no recipe: layers of two shapes in a list, and one outside."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6)) for _ in range(3))
        self.out = nn.Linear(6, 4)
        self.attn = nn.MultiheadAttention(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_quantised_layer_is_merged_by_quantising_anew_and_given_back_bit_for_bit() -> None:
    config = TensorConfig(target_modules=["layers.0", "layers.1"], layout="layer : out : in", rank=3)
    model = get_peft_model(four_bits("nf4"), config)
    model.add_adapter("zero", config)
    before, codes = model(X), [layer.weight.clone() for layer in model.base_model.model.layers]
    perturb(bank(model), 0.4)
    adapted = model(X)
    model.merge_adapter()
    assert (model(X) - adapted).norm() < 0.2 * (adapted - before).norm()
    once = model(X)
    with pytest.warns(UserWarning, match="additionally merging zero"):
        model.merge_adapter(["zero"])
    assert torch.equal(model(X), once)
    model.unmerge_adapter()
    assert torch.equal(model(X), adapted)
    assert all(torch.equal(layer.weight, own) for layer, own in zip(model.base_model.model.layers, codes, strict=True))


@pytest.mark.parametrize("name", ta.parameterizations.names())
def test_every_parameterization_has_a_layout_for_layers_without_a_recipe(name: str) -> None:
    square = getattr(ta.parameterizations.get(name), "square", False)
    split = {axis: {4: (2, 2, 1), 6: (3, 2, 1), 8: (4, 2, 1)} for axis in ("out", "in")}
    parts = {"split": split} if name in SPLIT else {}
    if name in SPLIT and name not in ("tt_matrix", "loretta"):  # which take more than two parts
        parts = {"split": {axis: {w: own[:2] for w, own in split[axis].items()} for axis in split}}
    parts |= {"options": {"bottleneck": 2}} if name == "loretta" else {}
    parts |= {"layout": "layer : out : in"} if name in ("block_term", "loha", "tensor_ring") else {}
    targets = ["attn.out_proj"] if square else ["blocks.0.0", "blocks.1.0", "blocks.0.2", "blocks.1.2"]
    tower = Tower()
    tower.attn = nn.ModuleDict({"out_proj": nn.Linear(6, 6)})
    model = get_peft_model(tower, TensorConfig(target_modules=targets, method=name, rank=1, **parts))
    assert len(bank(model).plan.sites) == len(targets)


def test_modules_that_a_published_row_trains_are_saved_with_it(tmp_path: Path) -> None:
    split = {axis: {24: (6, 4), 48: (8, 6), 16: (4, 4)} for axis in ("in", "out")}
    config = TensorConfig(method="loretta-rep", paper=True, rank=1, split=split, options={"bottleneck": 2})
    model = get_peft_model(model_of("llama"), config).eval()
    trained = {name for name, p in model.named_parameters() if p.requires_grad and "bank" not in name}
    assert trained and all("norm" in name for name in trained)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.1 * (name in trained))
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(model_of("llama"), tmp_path)), logits(model))


def test_a_config_is_its_json(tmp_path: Path) -> None:
    config = TensorConfig(
        target_modules=["q_proj"],
        layout=[("layer : out1 out2 : in", ("q", "k")), ": out : in"],
        split={"out": {24: (6, 4), 8: (4, 2)}},
        options={"weights": True},
        rank={"r": 3},
        rates={"in": 2.0},
        scale=0.5,
    )
    config.save_pretrained(str(tmp_path))
    assert TensorConfig.from_pretrained(str(tmp_path)) == config
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "TENSORADAPT"


def test_saved_multipliers_are_used_and_not_solved_again(tmp_path: Path) -> None:
    model = usual()
    for tensor in bank(model).factored:
        tensor.scale *= 1 + 1e-15
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(model_of("llama"), tmp_path)
    assert [t.scale for t in bank(loaded).factored] == [t.scale for t in bank(model).factored]


def test_pefts_conversion_to_lora_gives_the_same_logits() -> None:
    model = usual(target_modules=["q_proj", "o_proj"])
    config, state = convert_to_lora(model, rank=3)
    lora = get_peft_model(model_of("llama"), config).eval()
    set_peft_model_state_dict(lora, state)
    torch.testing.assert_close(logits(lora), logits(model), rtol=0, atol=1e-4)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown mode": ({"layout": "layre : out : in"}, 'unknown index mode .layre.; did you mean "layer"'),
    "a target that is nowhere": ({"target_modules": ["queries"]}, "Target modules .*queries.* not found in the base"),
    "a layer of another kind": (
        {"target_modules": ["embed_tokens"]},
        "Target module model.embed_tokens .* is not",
    ),
    "heads where none are known": ({"target_modules": ["lm_head"]}, "site lm_head has none of the layouts"),
    "rank and budget": ({"budget": 1000}, "rank=3 and budget=1000 were given"),
    "a start from gradients": ({"start": "gradient"}, "needs batches of data, which no PEFT config can hold"),
    "an object as its method": ({"method": ta}, "a config that can be saved takes its name"),
    "layers of a text": (
        {"target_modules": ".*q_proj", "layers_to_transform": 1},
        "PEFT picks layers from a list of names only",
    ),
    "a bias PEFT does not know": ({"bias": "lora_only"}, "bias is .lora_only.; did you mean"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_and_the_model_is_as_it_was(what: str) -> None:
    changes, message = REFUSED[what]
    model = model_of("llama")
    with pytest.raises(ValueError, match=message):
        get_peft_model(model, TensorConfig(**{**SMALL, **changes}))
    assert_identical(model, model_of("llama"))


def test_without_peft_one_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['peft'] = None; import tensoradapt.integrations.peft"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stderr.strip().splitlines()[-1] == (
        "tensoradapt.errors.TensorAdaptError: tensoradapt.integrations.peft needs `peft`, which is not installed: run "
        'pip install "tensoradapt[peft]"'
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_layers_sharded_one_by_one_train_the_numbers_they_share(tmp_path: Path) -> None:
    """FSDP2 in one process: a layer that held the shared tensor itself would be refused, or train nothing."""
    from torch.distributed import destroy_process_group, device_mesh, init_process_group
    from torch.distributed.fsdp import fully_shard

    batch = inputs("llama")
    plain, sharded = usual().train(), usual().train()
    init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        mesh = device_mesh.init_device_mesh("cpu", (1,))
        for layer in (*sharded.base_model.model.model.layers, sharded):
            fully_shard(layer, mesh=mesh)
        for model in (plain, sharded):
            model(**batch, labels=batch["input_ids"]).loss.backward()
        found = {name: p.grad.full_tensor() for name, p in sharded.named_parameters() if p.grad is not None}
    finally:
        destroy_process_group()
    expected = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    torch.testing.assert_close(found, expected)


@pytest.mark.slow  # a new process takes seconds to import PEFT
def test_a_new_process_needs_one_import_to_load_an_adapter(tmp_path: Path) -> None:
    model = usual()
    model.save_pretrained(tmp_path)
    torch.save(logits(model), tmp_path / "logits")
    code = f"""
import sys, torch
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from support.models import inputs, make
import tensoradapt.integrations.peft
from peft import PeftModel
model = PeftModel.from_pretrained(make("llama", torch.float32), {str(tmp_path)!r})
assert torch.equal(model(**inputs("llama")).logits, torch.load({str(tmp_path / "logits")!r}))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def weights(model: Any) -> dict[str, Tensor]:
    """The numbers of the base model."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if "bank" not in name}


def flat(values: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in values.values()])


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_a_peft_model_takes_equal_steps() -> None:
    model = usual(rank=2)
    optimizer = ta.equal_steps(torch.optim.AdamW(parameter_groups(model, 1e-3)), model)
    (adapter,) = [module for module in model.modules() if isinstance(module, ta.Adapter)]

    def deltas() -> Tensor:
        return torch.cat([adapter.delta(site).detach().flatten() for site in adapter.plan.sites])

    for _ in range(2):
        before = deltas()
        model(**inputs("llama", torch.float32), labels=inputs("llama")["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        widths = [(site.out * site.in_, site.in_) for site in adapter.plan.sites]
        squares = sum(n * 4 * 8 / (3 * in_) for n, in_ in widths) / sum(n for n, _ in widths)
        moved = float((deltas() - before).square().mean().sqrt())
        assert moved == pytest.approx(1e-3 * squares**0.5, rel=1e-4)


def test_mixed_batches_that_cannot_be_are_refused() -> None:
    model = usual()
    batch = inputs("llama")
    with pytest.raises(ta.TensorAdaptError, match=r"adapter_names has 'defualt', .*; did you mean .default."):
        model(**batch, adapter_names=["defualt", "default"])
    with pytest.raises(ta.TensorAdaptError, match="adapter_names has 1 names and the batch 2; give each"):
        model(**batch, adapter_names=["default"])
    with pytest.raises(ta.TensorAdaptError, match="given in training mode"):
        model.train()(**batch, adapter_names=["default"] * 2)
    model.eval().merge_adapter()
    with pytest.raises(ta.TensorAdaptError, match="adapters are merged"):
        model(**batch, adapter_names=["default"] * 2)

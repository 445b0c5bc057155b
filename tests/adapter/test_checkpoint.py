"""Saved adapters: the same numbers come back, nothing is stored twice, and what is damaged is refused."""

import json
import math
import subprocess
import sys

import pytest
import torch
from support.checkpoints import IDS, bert, trained
from support.families import PLANNED
from support.models import assert_identical, inputs, make

import tensoradapt as ta
from tensoradapt.adapter import checkpoint

FAMILIES = PLANNED


NEW_PROCESS = """
import sys, torch
sys.path.insert(0, sys.argv[3])
import tensoradapt as ta
from support.checkpoints import IDS, bert
model = bert()
ta.load(model, sys.argv[1])
torch.save(model(IDS).logits.detach(), sys.argv[2])
"""


@pytest.mark.slow
def test_a_new_process_gets_the_same_logits_head_included(tmp_path, request):
    model = bert()
    trained(model, "vera").save(tmp_path / "saved")
    out = tmp_path / "logits.pt"
    tests = str(request.path.parents[1])
    subprocess.run(
        [sys.executable, "-c", NEW_PROCESS, str(tmp_path / "saved"), str(out), tests], check=True, timeout=120
    )
    assert torch.equal(torch.load(out), model(IDS).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_load_restores_factors_heads_scales_seed_and_dropout(tmp_path, family):
    model, again = bert(), bert()
    adapter = trained(model, family, dropout=0.25)
    adapter.save(tmp_path)
    loaded = ta.load(again, tmp_path)
    assert torch.equal(again(IDS).logits, model(IDS).logits)
    assert (loaded.seed, loaded.plan.spec.dropout) == (5, 0.25)
    assert [t.scale for t in loaded.tensors] == [t.scale for t in adapter.tensors]
    assert loaded.plan.groups == adapter.plan.groups
    ta.detach(again)
    assert all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), bert().state_dict().values(), strict=True)
    )


def tied():
    model = make("gpt2")
    model.lm_head.weight = model.transformer.wte.weight
    return model


def test_heads_that_share_a_weight_are_stored_once(tmp_path):
    model, again = tied(), tied()
    adapter = ta.attach(model, "lora", rank=2, train=("lm_head", "transformer.wte", "transformer.ln_f"))
    torch.nn.init.normal_(model.lm_head.weight)
    adapter.save(tmp_path)
    loaded = ta.load(again, tmp_path)
    names = ["lm_head.weight", "transformer.ln_f.weight", "transformer.ln_f.bias"]
    assert list(sizes(tmp_path, "trained/model.safetensors")[1]) == sorted(names)
    assert list(loaded.attachment.head_parameters()) == names
    assert torch.equal(again.transformer.wte.weight, model.lm_head.weight)
    assert again.lm_head.weight is again.transformer.wte.weight
    assert torch.equal(again(**inputs("gpt2")).logits, model(**inputs("gpt2")).logits)
    ta.detach(again)
    assert_identical(again, tied())


def sizes(path, name):
    """Bytes of a safetensors file's numbers, and numbers of each tensor by its name."""
    data = (path / name).read_bytes()
    header = int.from_bytes(data[:8], "little")
    tensors = json.loads(data[8 : 8 + header])
    return len(data) - 8 - header, {key: math.prod(one["shape"]) for key, one in tensors.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layers", [2, 9])
def test_the_file_holds_every_trained_number_and_base_once_and_a_header_at_any_depth(tmp_path, family, layers):
    adapter = trained(bert(layers), family)
    adapter.save(tmp_path)
    bases = sum(group.network.n_base for group in adapter.plan.groups)
    assert (bases > 0) == (family in ("lora_xs", "tinylora"))
    assert sizes(tmp_path, "adapter.safetensors")[0] == 4 * (adapter.n_params + bases)
    assert sizes(tmp_path, "trained/model.safetensors")[0] == 4 * adapter.plan.n_trained_base


def test_what_layers_share_takes_the_same_bytes_at_2_8_and_32_layers(tmp_path):
    """In CP over layers only the layer factor grows, by a row for each layer; its tensors stay as many."""
    found = {}
    for layers in (2, 8, 32):
        model = bert(layers)
        plan = ta.plan(ta.find_sites(model), "layer proj : head dim : model", "cp", rank=2)
        ta.attach(model, plan).save(tmp_path / str(layers))
        found[layers] = sizes(tmp_path / str(layers), "adapter.safetensors")
    shared = {2: {}, 8: {}, 32: {}}
    for layers, (n_bytes, tensors) in found.items():
        assert tensors.pop("0.layer") == 2 * layers
        shared[layers] = (n_bytes - 4 * 2 * layers, tensors)
    assert shared[2] == shared[8] == shared[32]


def test_another_base_is_refused_unless_asked_for(tmp_path):
    trained(bert(), "cp").save(tmp_path)
    other = bert()
    with torch.no_grad():
        other.bert.encoder.layer[1].attention.self.query.weight[0, 0] += 1
    with pytest.raises(ta.TensorAdaptError, match=r"not those the adapter .* was trained on .* strict=False"):
        ta.load(other, tmp_path)
    assert len(ta.load(other, tmp_path, strict=False).plan.sites) == 18


def test_merged_and_non_finite_adapters_are_not_saved(tmp_path):
    model = bert()
    adapter = trained(model, "cp")
    ta.merge(model)
    with pytest.raises(ta.TensorAdaptError, match=r"merged into the weights; call unmerge\(model\)"):
        adapter.save(tmp_path)
    ta.unmerge(model)
    with torch.no_grad():
        adapter.tensors[0].trained["model"][0, 0] = float("nan")
    with pytest.raises(ta.TensorAdaptError, match="non-finite"):
        adapter.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_save_while_another_thread_trains_is_whole_and_of_the_moment_of_its_call(tmp_path, monkeypatch):
    model, pack = bert(), checkpoint.pack_tensors
    adapter, expected = trained(model, "cp"), model(IDS).logits

    def after_a_step(tensors):
        with torch.no_grad():
            for parameter in (p for p in model.parameters() if p.requires_grad):
                parameter.add_(1.0)
        return pack(tensors)

    monkeypatch.setattr(checkpoint, "pack_tensors", after_a_step)
    adapter.save(tmp_path)
    again = bert()
    ta.load(again, tmp_path)
    assert torch.equal(again(IDS).logits, expected)

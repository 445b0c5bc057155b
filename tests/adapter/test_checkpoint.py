"""Saved adapters: the same numbers come back, nothing is stored twice, and what is damaged is refused."""

import json
import math
import os
import random
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import IDS, bert, state, trained
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


def seal(record):
    """The checksum that a forger would write too."""
    return {**record, "checksum": checkpoint.seal(record)}


def edit(path, change):
    record = json.loads((path / "adapter.json").read_text())
    change(record)
    (path / "adapter.json").write_text(json.dumps(seal(record)))


def flip(path):
    data = bytearray((path / "adapter.safetensors").read_bytes())
    data[-3] ^= 1
    (path / "adapter.safetensors").write_bytes(data)


def cut(path):
    data = (path / "adapter.safetensors").read_bytes()
    (path / "adapter.safetensors").write_bytes(data[: len(data) // 2])


def grow(name):
    def grown(path):
        with (path / name).open("ab") as file:
            file.truncate(2**40)  # sparse: nothing of it is on disk, and all of it would be in memory

    return grown


def pipe(path):
    (path / "adapter.json").unlink()
    os.mkfifo(path / "adapter.json")


def another_save(path):
    tensors = load_file(path / "adapter.safetensors")
    save_file({**tensors, "0.head": tensors["0.head"] + 1}, path / "adapter.safetensors")


def text_of(change):
    return lambda path: (path / "adapter.json").write_text(change((path / "adapter.json").read_text()))


def scales_of(value):
    return text_of(lambda _: f'{{"format":"tensoradapt","scales":[{value}]}}')


def bytes_of(data):
    return lambda path: (path / "adapter.safetensors").write_bytes(data)


def plan_of(change):
    return lambda record: change(record["plan"])


def network_of(change):
    return lambda record: change(record["plan"]["networks"][0])


def member_of(place, value):
    return lambda record: record["plan"]["groups"][0][1][0].__setitem__(place, value)


def factor_of(place, value, i=0):
    return lambda record: record["plan"]["networks"][0]["factors"][i].__setitem__(place, value)


# a change to adapter.json under a valid checksum, and what the refusal says
FORGED = {
    "a future schema": (lambda r: r.update(schema=6), "has schema 6, and this version reads 5; update tensoradapt"),
    "an old schema": (lambda r: r.update(schema=2), "has schema 2, .* train again, or export_lora it"),
    "a foreign file": (lambda r: r.update(format="other"), "is not a tensoradapt checkpoint"),
    "an unknown key": (lambda r: r.update(colour="red"), "unexpected keys colour"),
    "an unknown plan key": (plan_of(lambda p: p.update(colour="red")), "does not hold a plan .*colour"),
    "a seed of true": (lambda r: r.update(seed=True), "True is not a whole number from 0"),
    "a dropout of 1": (lambda r: r["plan"]["spec"].update(dropout=1), "dropout is 1; expected a number from 0"),
    "a lost scale": (lambda r: r["scales"].pop(), "scales are not a list of"),
    "a base of null": (lambda r: r.update(base=None), "base is None, not a hash"),
    "a path among the files": (lambda r: r["tensors"].update({"../x": {}}), "names the files .*'../x'"),
    "a lost tensor": (lambda r: r["tensors"]["adapter.safetensors"].popitem(), "lacks tensor '[a-z0-9.]*'"),
    "an unknown dtype": (
        lambda r: r["tensors"]["adapter.safetensors"]["0.head"].__setitem__(0, "int64"),
        "tensor '0.head' has dtype 'int64'",
    ),
    "half the bytes": (
        lambda r: r["tensors"]["adapter.safetensors"]["0.head"].__setitem__(0, "float16"),
        "bytes; expected .* truncated or of another save",
    ),
    "a boolean bond": (network_of(lambda n: n.update(bonds={"r": True})), "True is not a whole number from 1"),
    "an enormous bond": (
        network_of(lambda n: n.update(bonds={"r": 2**62})),
        "bytes; expected|needs .* for its numbers",
    ),
    "a mode of true": (network_of(lambda n: n["layout"][1].update(layer=True)), "size of mode 'layer' is True"),
    "a hundred factors": (network_of(lambda n: n.update(factors=n["factors"] * 20)), "a network of 100 factors"),
    "a factor twice": (network_of(lambda n: n.update(factors=n["factors"] * 2)), "two factors have one name"),
    "a path as a factor": (factor_of(0, "../../x"), "'../../x' is not a name without dots and slashes"),
    "a factor that is a method": (factor_of(0, "keys"), "'keys' has a name that torch's modules need"),
    "an unknown draw": (factor_of(3, ["evil", 1.0]), "has draw 'evil'"),
    "a trainable of 1": (factor_of(4, 1), "1 or no labels"),
    "an absolute path as a module": (member_of(1, "/etc/passwd"), "the adapter in .*has no module '/etc/passwd'"),
    "half a character": (member_of(1, "\ud800"), "is not a printable text"),
    "a width too large": (member_of(3, 10**15), "is not of the shape that it reads"),
    "rows backwards": (member_of(7, [9, 3]), "a block from 9 to 3"),
    "a path as a parameter": (member_of(9, [None, "../weight", None]), "is not a parameter's name"),
    "a position past the end": (member_of(10, {"layer": 99, "proj": 0}), "reads past the end|has no position"),
    "an orientation of 0": (member_of(11, 0), "for true or false"),
    "an unknown start": (plan_of(lambda p: p["spec"].update(start="soon")), "start is 'soon'"),
    "a bias of a terabyte": (
        plan_of(lambda p: p.update(biases=[["q", 2**40]])),
        "lacks tensor 'bias.q'|needs .* for its numbers",
    ),
    "no tensors": (plan_of(lambda p: p.update(groups=[])), "no tensor"),
    "a site twice": (plan_of(lambda p: p["groups"][0][1].append(p["groups"][0][1][0])), "two sites have one name"),
}
# a change to the files, and what the refusal says
DAMAGED = {
    "a flipped bit": (flip, "tensor '[a-z0-9.]*' has checksum .* it is damaged or of another save"),
    "a truncated file": (cut, "has .* bytes; expected .* It is truncated"),
    "a longer file": (grow("adapter.safetensors"), "has 1,099,511,627,776 bytes; expected"),
    "an endless header": (bytes_of(b"\xff" * 7 + b"\0{}"), "its header has .* and at most 67,108,864 are read"),
    "a pickle": (lambda path: torch.save({}, path / "adapter.safetensors"), "is a pickle, .* is never unpickled"),
    "a lost file": (lambda path: shutil.rmtree(path / "trained"), "cannot be read .*save it again"),
    "no adapter.json": (lambda path: (path / "adapter.json").unlink(), "expected a folder that adapter.save wrote"),
    "deep JSON": (text_of(lambda _: "[" * 10**6), "nested 1000000 deep, and at most 32"),
    "a JSON of a terabyte": (grow("adapter.json"), "has more than 67,108,864 bytes"),
    "a pipe": (pipe, "is not JSON"),
    "a key twice": (text_of(lambda text: text.replace("{", '{"seed":1,', 1)), "key 'seed' stands twice"),
    "NaN": (scales_of("NaN"), "NaN is not a finite number"),
    "a number of 5000 digits": (scales_of("9" * 5000), "is not JSON .*digits"),
    "an edited scale": (text_of(lambda text: text.replace('"scales":[', '"scales":[1')), "is damaged or was edited"),
    "tensors of another save": (another_save, "tensor '0.head' has checksum"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "cp"
    trained(bert(), "cp").save(path)
    return path


def assert_refused(path, says):
    model = bert()
    before = state(model)
    with pytest.raises(ta.TensorAdaptError, match=f"(?s){says}"):
        ta.load(model, path)
    assert list(before) == list(model.state_dict())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("damage", "says"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_checkpoint_is_refused_and_the_model_untouched(tmp_path, saved, damage, says):
    path = shutil.copytree(saved, tmp_path / "copy")
    damage(path)
    assert_refused(path, says)


@pytest.mark.parametrize(("change", "says"), FORGED.values(), ids=FORGED)
def test_a_forged_checkpoint_is_refused_and_the_model_untouched(tmp_path, saved, change, says):
    path = shutil.copytree(saved, tmp_path / "copy")
    edit(path, change)
    assert_refused(path, says)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], r"saved by PEFT: use compress\('"),
        (["adapter_config.json", "adapter_model.bin"], "safe_serialization=True: its adapter_model.bin is a pickle"),
        (["pytorch_model.bin"], "its pytorch_model.bin is a pickle, which can run code .* never unpickled"),
        (["readme.md"], "expected a folder that adapter.save wrote"),
    ],
)
def test_folders_of_others_are_named(tmp_path, names, says):
    for name in names:
        (tmp_path / name).write_bytes(b"\x80\x04")
    assert_refused(tmp_path, says)


def test_files_and_nothing_in_the_place_of_a_folder_are_named(tmp_path):
    torch.save({}, tmp_path / "adapter.pt")
    assert_refused(tmp_path / "adapter.pt", "adapter.pt is a pickle, .* never unpickled here; expected a folder")
    assert_refused(tmp_path / "absent", "expected a folder that adapter.save wrote")


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["adapter.json", "adapter.safetensors", "trained/model.safetensors"])
@pytest.mark.parametrize("how", ["cut", "flip"])
def test_any_cut_is_refused_and_any_flip_is_or_changes_no_number(tmp_path, saved, name, how):
    path = shutil.copytree(saved, tmp_path / "copy")
    data, model = (path / name).read_bytes(), bert()
    before, numbers = state(model), [t.clone() for t in ta.load(bert(), saved).parameters()]
    drawn = random.Random(0)
    places = {0, 1, 7, 8, 9, len(data) - 1, *(drawn.randrange(len(data)) for _ in range(150))}
    for place in sorted(places):
        bad = bytearray(data)
        bad[place] ^= 1 << drawn.randrange(8)
        (path / name).write_bytes(data[:place] if how == "cut" else bad)
        try:
            adapter = ta.load(model, path)
        except ta.TensorAdaptError:
            pass
        else:
            assert how == "flip"
            assert all(map(torch.equal, adapter.parameters(), numbers))
            ta.detach(model)
        assert list(before) == list(model.state_dict())
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def places(value, path=()):
    """Where in a record a value stands."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    yield from ((*path, key) for key, _ in children)
    for key, child in children if not isinstance(value, list) else enumerate(value[:12]):
        yield from places(child, (*path, key))


@pytest.mark.thorough
@pytest.mark.parametrize("family", ["cp", "vera"])
def test_any_value_in_the_place_of_any_other_is_refused_or_loads(tmp_path, family):
    """Types, signs and sizes that no save writes, under a valid checksum: never another exception."""
    trained(bert(), family).save(tmp_path)
    whole, model, drawn = (tmp_path / "adapter.json").read_text(), bert(), random.Random(0)
    before = state(model)
    values = [True, None, -1, 0, 2**70, 2**40, 1.5, -1e308, "", "../x", "keys", [], {}, [[[[]]]], [1, 2], {"a": 1}]
    every = [place for place in places(json.loads(whole)) if place[0] != "checksum"]
    for *path, last in drawn.choices(every, k=400):
        record = json.loads(whole)
        parent = record
        for key in path:
            parent = parent[key]
        parent[last] = drawn.choice(values)
        (tmp_path / "adapter.json").write_text(json.dumps(seal(record)))
        try:
            ta.load(model, tmp_path, strict=False)
        except ta.TensorAdaptError:
            pass
        else:
            ta.detach(model)
        assert list(before) == list(model.state_dict())
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_frozen_base_as_large_as_the_file_says_is_not_drawn(tmp_path):
    trained(bert(), "vera").save(tmp_path)

    def enlarge(record):
        network = record["plan"]["networks"][0]
        network["bonds"]["huge"] = 2**40
        for factor in [one for one in network["factors"] if not one[4]][:2]:
            factor[1].append("huge")

    edit(tmp_path, enlarge)
    assert_refused(tmp_path, "frozen factor '.*' has .* numbers; expected at most 268,435,456")

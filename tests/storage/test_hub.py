"""Adapters on a hub: pushed, read and used, and the card."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from support.fake_hub import FakeHub
from support.models import assert_identical, inputs, make, perturb
from torch import nn

import tensoradapt as ta
from tensoradapt.storage import hub as hub_module

OURS = {"adapter.json", "adapter.safetensors", "trained/model.safetensors"}
NAME = "me/my-adapter"


def trained(head: bool = True, seed: int = 7, **options: Any) -> tuple[nn.Module, ta.Adapter]:
    """A model with an adapter and a head that both changed."""
    model = make("bert", torch.float32)
    how = {"layout": "layer proj : head dim : model", "method": "cp", "rank": 2, **options}
    adapter = ta.attach(model, ta.plan(model, **how, train=("classifier",) if head else ()), seed=seed)
    perturb(adapter)
    with torch.no_grad():
        adapter.factored[0].trained["head"].mul_(1 + seed / 10)
        model.classifier.weight.mul_(1.5 if head else 1)
    return model, adapter


def logits(model: nn.Module) -> torch.Tensor:
    return model(**inputs("bert")).logits


def get(hub: FakeHub, path: Path, name: str = NAME, **options: Any) -> nn.Module:
    """A fresh base with what the hub has."""
    model = make("bert", torch.float32)
    ta.from_pretrained(model, name, endpoint=hub.url, cache_dir=path, **options)
    return model


def refuses(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=message) as error:
        call()
    assert len(str(error.value)) < 700


PUSHES: dict[str, Callable[..., Any]] = {
    "the adapter": lambda _, adapter, **options: ta.push_to_hub(adapter, NAME, **options),
    "the model": lambda model, _, **options: ta.push_to_hub(model, NAME, **options),
}


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("way", PUSHES)
def test_what_is_pushed_gives_the_same_bits_on_another_copy(hub: FakeHub, head: bool, way: str, tmp_path: Path) -> None:
    model, adapter = trained(head)
    info = PUSHES[way](model, adapter, endpoint=hub.url, license="mit")
    assert info.oid == hub.branches[NAME]["main"]
    expected = {".gitattributes", "README.md", *OURS} - (set() if head else {"trained/model.safetensors"})
    assert set(hub.files(NAME)) == expected
    assert torch.equal(logits(get(hub, tmp_path)), logits(model))
    assert not torch.equal(logits(make("bert", torch.float32)), logits(model))


def test_only_our_files_are_asked_for_and_downloaded(hub: FakeHub, tmp_path: Path) -> None:
    ta.push_to_hub(trained()[1], NAME, endpoint=hub.url)
    others = {
        "pytorch_model.bin": pickle.dumps("x"),
        "adapter_model.bin": pickle.dumps("y"),
        "model.safetensors": b"x" * 9**6,
    }
    hub.put(NAME, {**others, "trained/optimizer.pt": pickle.dumps("z"), "modeling_x.py": b"raise SystemExit"})
    get(hub, tmp_path)
    assert {path for _, path in hub.asked} == OURS
    assert sorted(path for command, path in hub.asked if command == "GET") == sorted(OURS)
    (snapshot,) = tmp_path.glob("*/snapshots/*")
    assert {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()} == OURS


def test_a_second_load_downloads_nothing_and_works_without_the_hub(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, adapter = trained()
    ta.push_to_hub(adapter, NAME, endpoint=hub.url)
    get(hub, tmp_path)
    hub.asked.clear()
    get(hub, tmp_path)
    assert not [path for command, path in hub.asked if command == "GET"]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert torch.equal(logits(get(hub, tmp_path)), logits(model))
    assert not hub.asked


def test_all_files_are_of_one_commit(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another push while the first is read changes nothing of what is read."""
    model, adapter = trained(seed=1)
    ta.push_to_hub(adapter, NAME, endpoint=hub.url)
    expected, download = logits(model), huggingface_hub.hf_hub_download
    second = trained(seed=2)[1]

    def racing(repo_id: str, name: str, **options: Any) -> Any:
        if name == "adapter.safetensors" and len(hub.commits[NAME]) == 2:
            ta.push_to_hub(second, NAME, endpoint=hub.url)
        return download(repo_id, name, **options)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", racing)
    assert torch.equal(logits(get(hub, tmp_path)), expected)
    assert len(hub.commits[NAME]) == 3
    assert not torch.equal(logits(get(hub, tmp_path)), expected)


def test_a_revision_is_honoured_both_ways(hub: FakeHub, tmp_path: Path) -> None:
    (one, first), (two, second), (three, third) = (trained(seed=seed) for seed in (1, 2, 3))
    oid = ta.push_to_hub(first, NAME, endpoint=hub.url).oid
    ta.push_to_hub(second, NAME, endpoint=hub.url)
    ta.push_to_hub(third, NAME, endpoint=hub.url, revision="trial")
    for revision, model in ((None, two), (oid, one), ("trial", three), ("main", two)):
        assert torch.equal(logits(get(hub, tmp_path, revision=revision)), logits(model))


def test_a_later_push_takes_heads_away_and_keeps_what_is_not_ours(hub: FakeHub, tmp_path: Path) -> None:
    ta.push_to_hub(trained()[1], NAME, endpoint=hub.url)
    hub.put(NAME, {"notes.txt": b"mine"})
    model, adapter = trained(head=False)
    ta.push_to_hub(adapter, NAME, endpoint=hub.url)
    assert set(hub.files(NAME)) == {".gitattributes", "README.md", "notes.txt", "adapter.json", "adapter.safetensors"}
    assert torch.equal(logits(get(hub, tmp_path)), logits(model))


def test_a_folder_is_loaded_without_the_hub(tmp_path: Path) -> None:
    model, adapter = trained()
    adapter.save(tmp_path)
    again = make("bert", torch.float32)
    ta.from_pretrained(again, tmp_path)
    assert torch.equal(logits(again), logits(model))
    refuses(
        lambda: ta.from_pretrained(make("bert"), tmp_path, revision="main"), "is a folder here, .* no revision 'main'"
    )


@pytest.mark.slow  # transformers is imported anew, with the hub's address in its environment
def test_the_cards_code_loads_the_adapter_as_it_stands(hub: FakeHub, tmp_path: Path) -> None:
    base = make("bert", torch.float32)
    base.save_pretrained(tmp_path / "base")
    hub.put("them/base", {p.name: p.read_bytes() for p in (tmp_path / "base").iterdir()})
    model, adapter = trained()
    ta.push_to_hub(adapter, NAME, endpoint=hub.url, base_model="them/base")
    (tmp_path / "inputs.json").write_text(json.dumps(inputs("bert")["input_ids"].tolist()))
    code = hub.files(NAME)["README.md"].decode().split("```python\n")[1].split("```")[0]
    code += (
        "\nimport json, torch\n"
        f"ids = torch.tensor(json.load(open({str(tmp_path / 'inputs.json')!r})))\n"
        f"torch.save(model.eval()(input_ids=ids).logits, {str(tmp_path / 'logits.pt')!r})\n"
    )
    home = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **home}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = model(input_ids=inputs("bert")["input_ids"]).logits
    assert torch.equal(torch.load(tmp_path / "logits.pt"), expected)


def flipped(hub: FakeHub, name: str) -> None:
    data = bytearray(hub.files(NAME)[name])
    data[len(data) - 5] ^= 1
    hub.put(NAME, {name: bytes(data)})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adapter.json", "me/my-adapter at [0-9a-f]{12}: .*adapter.json (is not JSON|has checksum)"),
        ("adapter.safetensors", "me/my-adapter at [0-9a-f]{12}: .* tensor .* has checksum"),
        ("trained/model.safetensors", "me/my-adapter at [0-9a-f]{12}: .* tensor .* has checksum"),
    ],
)
def test_a_flipped_bit_is_refused_and_the_model_left_alone(
    hub: FakeHub, name: str, message: str, tmp_path: Path
) -> None:
    ta.push_to_hub(trained()[1], NAME, endpoint=hub.url)
    flipped(hub, name)
    model = make("bert", torch.float32)
    refuses(lambda: ta.from_pretrained(model, NAME, endpoint=hub.url, cache_dir=tmp_path), message)
    assert_identical(model, make("bert", torch.float32))


def test_files_that_are_too_large_are_not_downloaded(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ta.push_to_hub(trained()[1], NAME, endpoint=hub.url)
    monkeypatch.setattr(hub_module, "LARGEST", 100)
    refuses(lambda: get(hub, tmp_path), "adapter.json of me/my-adapter has .* bytes, and at most 100 are an adapter's")
    monkeypatch.undo()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    hub.put(NAME, {"adapter.safetensors": b"x" * (65 * 2**20)})
    hub.asked.clear()
    refuses(lambda: get(hub, tmp_path), "adapter.safetensors of me/my-adapter has 68,157,440 bytes, .* not downloaded")
    assert ("GET", "adapter.safetensors") not in hub.asked


def test_heads_that_the_model_lacks_are_refused_before_they_are_downloaded(hub: FakeHub, tmp_path: Path) -> None:
    ta.push_to_hub(trained()[1], NAME, endpoint=hub.url)
    model = make("bert", torch.float32)
    model.classifier = nn.Linear(30, 7, bias=False)
    refuses(
        lambda: ta.from_pretrained(model, NAME, endpoint=hub.url, cache_dir=tmp_path),
        "unexpected tensor 'classifier.bias'",
    )
    assert [path for command, path in hub.asked if command == "GET"] == ["adapter.json"]


HELD = {  # what a repository without adapter.json holds, and what to do with it
    "a LoRA of PEFT": (
        {"adapter_config.json": b"{}", "adapter_model.safetensors": b""},
        r"me/other has no adapter.json: it holds an adapter of PEFT. Download .* compress\(folder, model",
    ),
    "a model": ({"config.json": b"{}", "model.safetensors": b""}, "holds a whole model. Load it with transformers"),
    "pickles": ({"weights.pt": b""}, "holds pickled files, which can run code .* one that push_to_hub wrote"),
    "something else": (
        {f"{i}.txt": b"" for i in range(9)},
        r"it holds .gitattributes, 0.txt, .* and 5 more. Check its name",
    ),
}


@pytest.mark.parametrize("case", HELD)
def test_a_repository_of_something_else_is_named_for_what_it_is(hub: FakeHub, case: str, tmp_path: Path) -> None:
    files, message = HELD[case]
    hub.put("me/other", files)
    refuses(lambda: get(hub, tmp_path, "me/other"), message)
    assert not [path for command, path in hub.asked if command == "GET"]
    before = dict(hub.commits["me/other"])
    adapter = trained()[1]
    refuses(
        lambda: ta.push_to_hub(adapter, "me/other", endpoint=hub.url),
        "me/other holds .*, and no adapter; expected a new or empty repository, .* Choose another repo_id",
    )
    assert hub.commits["me/other"] == before


def test_a_repository_that_lacks_a_listed_file_is_incomplete(hub: FakeHub, tmp_path: Path) -> None:
    ta.push_to_hub(trained()[1], NAME, endpoint=hub.url)
    files = {name: data for name, data in hub.files(NAME).items() if name != "trained/model.safetensors"}
    hub.commit(NAME, files, "main")
    refuses(lambda: get(hub, tmp_path), "me/my-adapter has no trained/model.safetensors, which its adapter.json lists")


def test_what_the_hub_does_not_have_is_named(hub: FakeHub, tmp_path: Path) -> None:
    ta.push_to_hub(trained()[1], NAME, endpoint=hub.url)
    refuses(
        lambda: get(hub, tmp_path, "me/none"),
        "'me/none' cannot be loaded from: the hub has no such repository, .* log in",
    )
    refuses(
        lambda: get(hub, tmp_path, revision="old"), "at revision 'old' cannot be loaded from: .* no such branch, tag or"
    )
    for name in ("no/such/folder", "./nowhere", "a b"):
        refuses(
            lambda name=name: get(hub, tmp_path, name), "it is no folder here, and no name on the hub, such as me/my"
        )
    refuses(
        lambda: ta.push_to_hub(trained()[1], "a/b/c", endpoint=hub.url), "'a/b/c' cannot be pushed to: it is no folder"
    )


def test_offline_and_unreachable_hubs_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = trained()[1]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refuses(
        lambda: ta.from_pretrained(make("bert"), NAME, cache_dir=tmp_path),
        "'me/my-adapter' cannot be loaded from: HF_HUB_OFFLINE is set, and it is not in the cache. Unset it",
    )
    refuses(lambda: ta.push_to_hub(adapter, NAME), "'me/my-adapter' cannot be pushed to: HF_HUB_OFFLINE is set")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    refuses(
        lambda: ta.push_to_hub(adapter, NAME, endpoint="http://127.0.0.1:9"), "the hub was not reached .*Check the netw"
    )


def test_nothing_reaches_the_hub_of_an_adapter_that_save_refuses(hub: FakeHub) -> None:
    model, adapter = trained()
    ta.merge(model)
    refuses(lambda: ta.push_to_hub(model, NAME, endpoint=hub.url), "merged into the weights; call unmerge")
    ta.unmerge(model)
    with torch.no_grad():
        adapter.factored[0].trained["layer"][1] = torch.nan
    refuses(lambda: ta.push_to_hub(model, NAME, endpoint=hub.url), "has non-finite entries")
    for wrong in (make("bert"), None, "me/my-adapter"):
        refuses(
            lambda wrong=wrong: ta.push_to_hub(wrong, NAME, endpoint=hub.url), "is no adapter and has none attached"
        )
    for options, message in (
        ({"card": 3}, "card is 3; expected a text that is not blank"),
        ({"private": "yes"}, "private is 'yes'; expected true or false"),
        ({"token": "hf_secret\n"}, "token is a str; expected a token's text, True, False or None"),
        ({"tags": "x"}, "tags is 'x'"),
        ({"license": ""}, "license is"),
    ):
        refuses(lambda options=options: ta.push_to_hub(model, NAME, endpoint=hub.url, **options), message)
    assert not hub.commits


def test_what_the_hub_refuses_is_said(hub: FakeHub) -> None:
    adapter = trained()[1]

    def push(**options: Any) -> Callable[[], Any]:
        return lambda: ta.push_to_hub(adapter, NAME, endpoint=hub.url, **options)

    refuses(push(license="mine"), 'cannot be pushed to: huggingface_hub refuses it .*"license" must be one of')
    refuses(push(message=""), "message is ''; expected a text that is not blank")
    assert set(hub.files(NAME)) == {".gitattributes"}
    hub.closed.add(NAME)
    refuses(push(), r"the hub does not let you \(403 .* log in with .hf auth login., or pass token=, as one who may")

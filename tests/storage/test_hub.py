"""push_to_hub and from_pretrained against a real HTTP server: what is sent, and what is read back."""

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
from support.models import inputs, make
from support.pushed import NAME, OURS, get, logits, refuses, trained

import tensoradapt as ta

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

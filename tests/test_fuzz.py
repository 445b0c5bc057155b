"""Public calls with wrong types and extreme values: each returns or raises a TensorAdaptError, soon and shortly."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fuzz import escapes, one_wrong, several_wrong
from transformers import BertConfig, BertForSequenceClassification

import tensoradapt as ta

CONFIG = BertConfig(
    hidden_size=16, num_attention_heads=4, num_hidden_layers=2, intermediate_size=24, vocab_size=40,
    max_position_embeddings=16,
)  # fmt: skip
IDS = torch.arange(8).view(2, 4)


def bert() -> torch.nn.Module:
    torch.manual_seed(0)
    return BertForSequenceClassification(CONFIG).eval()


def on_new(call: Callable[..., Any], **prepared: Callable[[torch.nn.Module], Any]) -> Callable[..., Any]:
    """The call on a model of its own with an adapter."""

    def fresh(**arguments: Any) -> Any:
        model = bert()
        ta.attach(model, ta.plan(model, ": out : in", "lora", 2))
        return call(model, **arguments)

    return fresh


def attach(**arguments: Any) -> Any:
    model = arguments.pop("model")
    return ta.attach(bert() if isinstance(model, str) and model == "bert" else model, **arguments)


def batches() -> list[dict[str, torch.Tensor]]:
    return [{"input_ids": IDS, "labels": torch.tensor([0, 1])}] * 2


PLAN = {
    "sites": ta.find_sites(CONFIG), "layout": ": out : in", "parameterization": "lora", "rank": 2, "rule": "add",
    "train": (), "tasks": (),
    **dict.fromkeys(
        ("published", "budget", "options", "split", "on_mismatch", "scale", "alpha", "start", "rates", "rank_pattern",
         "projections")
    ),
}  # fmt: skip
SITES = {
    "model_or_config": CONFIG, "projections": "attention", "layers": None, "exclude": (), "recipe": None,
    "blocks": False, "scope": None, "modules": (),
}  # fmt: skip
ATTACH = {
    "model": "bert", "plan": ta.plan(CONFIG, ": out : in", "lora", 2), "seed": 0, "dropout": 0.0, "rank_dropout": 0.0,
    "values": None, "batches": None, "loss": None, "name": "default",
}  # fmt: skip
FIT = {
    "batches": batches(), "lr": 1e-3, "steps": 1, "head_lr": None, "heads": (), "warmup": 0.1, "clip": 1.0,
    "weight_decay": 0.0, "loss": None, "optimizer": "adamw", "precondition": None, "precision": "fp32", "reduce": None,
    "on_step": None, "checkpoint": None,
}  # fmt: skip
CALLS: Mapping[str, tuple[Callable[..., Any], Mapping[str, Any]]] = {
    "plan": (ta.plan, PLAN),
    "plan of a published row": (ta.plan, {**PLAN, "published": "lorta", "layout": None, "parameterization": None}),
    "plan of a ring": (ta.plan, {**PLAN, "layout": "layer proj : out : in", "parameterization": "tensor_ring"}),
    "find_sites": (ta.find_sites, SITES),
    "attach": (attach, ATTACH),
    "use": (on_new(ta.use), {"names": "default", "samples": None, "every": False}),
    "use samples": (on_new(ta.use), {"names": None, "samples": ["default", None], "every": False}),
    "merge": (on_new(ta.merge), {"keep": True}),
    "detach": (on_new(ta.detach), {"name": None}),
    "fit": (on_new(ta.fit), FIT),
}


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """A call that asks for more fails, and so does the test."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", CALLS)
def test_one_wrong_argument(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    n, kinds, examples = escapes(one_wrong(*CALLS[name]))
    assert n > 50 and not kinds, {kind: (count, examples[kind]) for kind, count in kinds.most_common(20)}


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_several_wrong_arguments(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    n, kinds, examples = escapes(several_wrong(*CALLS[name], n=25_000 if "plan" in name or "find" in name else 300))
    print(f"{name}: {n:,} calls")
    assert not kinds, {kind: (count, examples[kind]) for kind, count in kinds.most_common(20)}

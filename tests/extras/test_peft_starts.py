"""PEFT's own starts on the same batches: PiSSA, MiCA, OLoRA, EVA and CorDA, on square and rectangular layers."""

from __future__ import annotations

import copy
from typing import Any

import peft
import pytest
import torch
from peft.tuners.lora import eva
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import preprocess_corda
from peft.utils.incremental_pca import IncrementalPCA
from support.models import inputs, make
from torch import Tensor, nn

import tensoradapt as ta

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
SIZES = {"r": 3, "lora_alpha": 3, "target_modules": r".*(query|intermediate\.dense)"}


def batches(n: int, samples: int) -> list[dict[str, Tensor]]:
    """As PEFT's CorDA takes them: samples one by one; its EVA: of more tokens than a rank."""
    generator = torch.Generator().manual_seed(7)
    ids = [torch.randint(2, 50, (samples, 12), generator=generator) for _ in range(n)]
    return [{"input_ids": one, "attention_mask": torch.ones_like(one)} for one in ids]


def ours(start: str, given: Any = None) -> ta.Adapter:
    model = make("bert", torch.float32)
    sites = ta.find_sites(model, ("q", "up"))
    plan = ta.plan(sites, ": out : in", start, 3, paper=True, train=())
    return ta.attach(model, plan, batches=given, loss=lambda model, batch: model(**batch))


def base() -> nn.Module:
    return make("bert", torch.float32)


def assert_theirs(adapter: ta.Adapter, theirs: nn.Module, sides: str = "AB", far: float = 1e-3) -> None:
    """Rows of A and columns of B are PEFT's but for the signs of directions, and B A is with its sign."""
    for tensor, site in zip(adapter.factored, adapter.plan.sites, strict=True):
        layer = theirs.base_model.model.get_submodule(site.module)
        a, b = layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach()
        for side, own, peers in (("A", tensor.factors["A"], a), ("B", tensor.factors["B"].T, b.T)):
            if side not in sides:
                assert not own.count_nonzero() and not peers.count_nonzero()
                continue
            signs = (own * peers).sum(1, keepdim=True).sign()
            torch.testing.assert_close(own.detach(), signs * peers, rtol=0, atol=far * float(peers.abs().max()))
        if sides == "AB":
            product = tensor.factors["B"].detach() @ tensor.factors["A"].detach()
            torch.testing.assert_close(product, b @ a, rtol=0, atol=far * float((b @ a).abs().max()))


@pytest.mark.parametrize(("start", "sides"), [("pissa", "AB"), ("olora", "AB"), ("mica", "B")])
def test_starts_from_weights_are_pefts(start: str, sides: str) -> None:
    theirs = peft.get_peft_model(base(), peft.LoraConfig(init_lora_weights=start, **SIZES))
    adapter = ours(start)
    assert_theirs(adapter, theirs, sides)
    n = sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    assert n == adapter.n_params  # MiCA's B is frozen there too
    with torch.no_grad():
        before, after = base()(**inputs("bert")).logits, theirs(**inputs("bert")).logits
    torch.testing.assert_close(before, after, rtol=0, atol=1e-4)


def test_eva_is_pefts(monkeypatch: pytest.MonkeyPatch) -> None:
    """With PEFT's exact decomposition: its random one is some percent off in close directions."""
    monkeypatch.setattr(eva, "IncrementalPCA", lambda n_components, **_: IncrementalPCA(n_components=n_components))
    [batch] = given = batches(1, 4)
    config = peft.LoraConfig(init_lora_weights="eva", eva_config=peft.EvaConfig(rho=1.0), **SIZES)
    theirs = peft.get_peft_model(base(), config)
    peft.initialize_lora_eva_weights(theirs, [batch, batch], show_progress_bar=False)
    assert_theirs(ours("eva", given), theirs, "A")


@pytest.mark.parametrize("mode", ["ipm", "kpm"])
def test_corda_is_pefts(mode: str) -> None:
    given = batches(8, 1)
    config = peft.LoraConfig(init_lora_weights="corda", corda_config=CordaConfig(corda_method=mode), **SIZES)
    model = base()
    preprocess_corda(model, config, run_model=lambda: [model(**batch) for batch in given])
    theirs = peft.get_peft_model(copy.deepcopy(model), config)
    assert_theirs(ours(f"corda-{mode}", given), theirs, far=2e-3)

"""A head's row of the head factor moves that head alone: its rows of q, k, v, its columns of o, its part of attention.

The published codes get this wrong in different ways; a layout in the residual orientation must not.
"""

from __future__ import annotations

import copy

import pytest
import torch
from support.families import FIRST, PLANNED
from support.models import GROUPED, make, perturb
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.networks.layout import Layout
from tensoradapt.sites.site import Site

LAYOUT = "layer proj : head dim : model"


def has_head_factor(parameterization: str) -> bool:
    """Whether the layout is one it takes, and the head mode is in a factor that is trained."""
    sizes = {"layer": 2, "proj": 2, "head": 2, "dim": 4, "model": 5}
    try:
        network = ta.parameterizations.get(parameterization).build(Layout.parse(LAYOUT, sizes), 2)
    except ta.TensorAdaptError:
        return False
    return any(factor.trainable and "head" in factor.labels for factor in network.factors)


HEADED = tuple(filter(has_head_factor, PLANNED))
HEAD = 1  # there is one in every model, for keys and values too


@pytest.mark.thorough
@pytest.mark.parametrize("mismatch", ["split", "crop"])
@pytest.mark.parametrize(
    ("name", "parameterization"),
    [
        (name, parameterization)
        for name in ("bert", "gpt2", "vit", *GROUPED)
        for parameterization in (HEADED if name in ("bert", "gpt2", "llama") else FIRST)
    ],
)
def test_zeroing_one_row_of_the_head_factor_moves_one_head_of_every_matrix(
    name: str, mismatch: str, parameterization: str
) -> None:
    model = make(name)
    plan = ta.plan(model, LAYOUT, parameterization, rank=3, on_mismatch=mismatch)
    adapter = ta.Adapter(plan)
    perturb(adapter)
    before = {site.name: adapter.delta(site) for site in plan.sites}
    zero_head(adapter)
    for site in plan.sites:
        head = block_of_head(site, torch.arange(before[site.name].numel()).reshape(before[site.name].shape))
        changed = (adapter.delta(site) != before[site.name]).flatten()
        assert set(changed.nonzero().flatten().tolist()) == set(head.flatten().tolist()), site.name
        assert not block_of_head(site, adapter.delta(site)).count_nonzero(), site.name


@pytest.mark.parametrize("parameterization", HEADED)
def test_zeroing_one_row_of_the_head_factor_moves_one_head_of_attention(parameterization: str) -> None:
    model = make("bert")
    sites = ta.find_sites(model, ("q", "k", "v"))
    perturbed = copy.deepcopy(model)
    adapter = ta.attach(perturbed, ta.plan(sites, LAYOUT, parameterization, rank=3))
    perturb(adapter)
    hidden = torch.randn(2, 7, 30, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    plain, whole = context(model, hidden), context(perturbed, hidden)
    assert ((whole - plain).abs().amax((0, 1, 3)) > 1e-6).all()
    zero_head(adapter)
    changed = context(perturbed, hidden)
    others = [head for head in range(5) if head != HEAD]
    torch.testing.assert_close(changed[:, :, HEAD], plain[:, :, HEAD], rtol=0, atol=1e-12)
    torch.testing.assert_close(changed[:, :, others], whole[:, :, others], rtol=0, atol=1e-12)


def test_the_head_factor_of_an_output_projection_weighs_what_it_reads_from_each_head() -> None:
    model = make("bert")
    adapter = ta.attach(model, ta.plan(ta.find_sites(model, ("o",)), LAYOUT, "cp", rank=3))
    perturb(adapter)
    zero_head(adapter)
    dense = model.get_submodule(adapter.plan.sites[0].module)
    heads = torch.eye(30, dtype=torch.float64).reshape(30, 5, 6)  # one input at a time, by head
    update = (dense(heads.reshape(30, 30)) - dense.base(heads.reshape(30, 30))).reshape(5, 6, 30)
    assert not update[HEAD].count_nonzero()
    assert all(update[head].abs().max() > 1e-6 for head in range(5) if head != HEAD)


def zero_head(adapter: ta.Adapter) -> None:
    for tensor in adapter.tensors:
        for factor in tensor.network.factors:
            if factor.trainable and "head" in factor.labels:
                with torch.no_grad():
                    tensor.factors[factor.name].select(factor.labels.index("head"), HEAD).zero_()


def block_of_head(site: Site, matrix: Tensor) -> Tensor:
    """What belongs to the head in a matrix as stored: its rows of q, k, v and its columns of o."""
    dim = dict(site.inner)["dim"]
    mine = slice(HEAD * dim, (HEAD + 1) * dim)
    return matrix[:, mine] if site.coord["proj"] == "o" else matrix[mine]


def context(model: nn.Module, hidden: Tensor) -> Tensor:  # (batch, tokens, heads, dim)
    """The first layer's attention before its output projection."""
    attention = model.get_submodule("bert.encoder.layer.0.attention.self")
    return attention(hidden)[0].detach().reshape(2, 7, 5, 6)

"""StoredMatrix reads a layer's logical matrix, writes one back, and knows its shape, for each kind of layer."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from support.models import make, perturb
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import tensoradapt as ta
from tensoradapt.layers.stored_matrix import StoredMatrix, stack
from tensoradapt.sites.site import Site
from tensoradapt.testing.laws import float64


class Experts(nn.Module):
    """Three matrices in one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(3, 4, 6))


LAYERS: dict[str, tuple[Callable[[], nn.Module], dict[str, object], Callable[[nn.Module], Tensor]]] = {
    # the layer; what names the matrix in it; the logical (4, 6) matrix as torch stores it
    "Linear": (lambda: nn.Linear(6, 4), {}, lambda layer: layer.weight),
    "Conv1D": (lambda: Conv1D(4, 6), {}, lambda layer: layer.weight.T),
    "Embedding": (lambda: nn.Embedding(6, 4), {}, lambda layer: layer.weight.T),
    "Conv2d": (lambda: nn.Conv2d(3, 4, (1, 2)), {}, lambda layer: layer.weight.reshape(4, 6)),
    "MultiheadAttention": (
        lambda: nn.MultiheadAttention(4, 2, kdim=6, vdim=6),
        {"parameter": "k_proj_weight"},
        lambda layer: layer.k_proj_weight,
    ),
    "stacked experts": (Experts, {"parameter": "up", "slot": 1}, lambda layer: layer.up[1]),
}


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_a_matrix_is_read_and_written_in_its_layers_order(name: str) -> None:
    make, where, logical = LAYERS[name]
    layer = make()
    before = copy.deepcopy(layer.state_dict())
    matrix = StoredMatrix.of(layer, Site("x", "x", (), 2, 6, (), rows=(1, 3), **where))
    assert matrix.kind.name == name
    assert matrix.shape == (4, 6)
    assert torch.equal(matrix.read(), logical(layer))
    assert torch.equal(matrix.block(), logical(layer)[1:3])
    matrix.write(matrix.read())
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
    new = torch.randn(4, 6)
    matrix.write(new)
    assert torch.equal(logical(layer), new)


def test_stacked_matrices_stand_where_their_sites_read() -> None:
    model = make("llama")
    plan = ta.plan(ta.find_sites(model), "layer proj : head dim : model", "cp", rank=2, on_mismatch="crop", scale=1.0)
    [group] = plan.groups
    with float64():
        adapter = ta.attach(model, plan)
    perturb(adapter)
    whole = stack(group, adapter.delta)
    full = adapter.factored[0].full().detach()
    for member in group.members:
        at = tuple(member.at.get(name, slice(None)) for name in group.network.layout.names)
        at = tuple(slice(v.start, v.stop) if isinstance(v, range) else v for v in at)
        torch.testing.assert_close(whole[at], full[at], rtol=1e-12, atol=1e-12)

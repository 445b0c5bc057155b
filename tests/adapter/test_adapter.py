"""An adapter refuses sites that it does not have, and positions outside its layout."""

from __future__ import annotations

import pytest
import torch
from support.models import make

import tensoradapt as ta


def tied() -> ta.Adapter:
    return ta.Adapter(ta.plan(make("bert"), "layer proj : head dim : model", "cp", rank=2))


def test_a_site_the_adapter_does_not_have_is_named_with_the_closest() -> None:
    adapter = tied()
    with pytest.raises(ta.TensorAdaptError, match=r"layer.0.attention.self.qery' is not in this adapter; did you mean"):
        adapter.delta("bert.encoder.layer.0.attention.self.qery")
    with pytest.raises(ta.TensorAdaptError, match=r"^site 0 is not in this adapter\. Valid: bert"):
        adapter.delta(0)


@pytest.mark.parametrize(
    "at",
    [
        {"layer": 3, "proj": 0},
        {"layer": -1, "proj": 0},
        {"layer": 1},
        {"layer": 1, "proj": 0, "head": 2},
        {"layer": 1, "proj": 0, "head": range(0, 6)},
        {"layer": 1, "proj": 0, "heads": range(2)},
    ],
)
def test_a_position_outside_the_layout_is_refused(at: dict[str, int | range]) -> None:
    tensor = tied().tensors[0]
    for ask in (tensor.delta, tensor.pair, lambda at: tensor.apply(torch.ones(30), at)):
        with pytest.raises(ta.TensorAdaptError, match=r"position .* layout 'layer proj : head dim : model'"):
            ask(at)

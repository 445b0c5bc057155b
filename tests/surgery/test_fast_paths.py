"""attach switches off torch's fused encoder layers where they would skip an adapter, and detach puts them back."""

from __future__ import annotations

import copy

import pytest
import torch
from support.models import assert_identical, perturb
from torch import Tensor, nn
from torch.func import functional_call

import tensoradapt as ta
from tensoradapt.sites.site import Site

pytestmark = pytest.mark.usefixtures("double")
X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Root(nn.Module):
    """A root around an encoder."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        return self.encoder(*args, **kwargs)


def encoder(nested: bool) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, dropout=0.0)
    return Root(nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)).eval()


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("part", ["self_attn", "linear1", "linear2"])
def test_torchs_fast_path_does_not_skip_an_adapter(part: str, nested: bool) -> None:
    model = encoder(nested)
    base = copy.deepcopy(model)
    name = f"encoder.layers.1.{part}"
    more = {"parameter": "in_proj_weight", "rows": (0, 8)} if part == "self_attn" else {}
    out = {"self_attn": 8, "linear1": 12, "linear2": 8}[part]
    one = Site(name, name, (("proj", "x"),), out, {"linear2": 12}.get(part, 8), (), **more)
    adapter = ta.attach(model, ta.plan([one], ": out : in", "lora", rank=2))
    perturb(adapter, 0.5)
    mask = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    for given in ({}, {"src_key_padding_mask": mask}):
        keep = slice(None) if not given else slice(0, 1)  # where all tokens are real: padding is whatever it is
        expected = functional_call(base.train(), weights_of(base, adapter), (X,), given)[keep]
        with torch.no_grad():
            found = model(X, **given)[keep]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
        assert not torch.allclose(found, base(X, **given)[keep])
    ta.detach(model)
    assert_identical(model, base.eval())
    assert vars(model.encoder)["use_nested_tensor"] == vars(base.encoder)["use_nested_tensor"]
    assert model.encoder.layers[1].activation_relu_or_gelu == base.encoder.layers[1].activation_relu_or_gelu == 1


def weights_of(base: nn.Module, adapter: ta.Adapter) -> dict[str, Tensor]:
    found = {name: p.detach().clone() for name, p in base.named_parameters()}
    for one in adapter.plan.sites:
        found[one.key][one.block] += adapter.delta(one).detach()
    return found

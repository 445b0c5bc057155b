"""The tiny models of the tests compute in float64 where they are made in it, so that 1e-10 tells right from wrong."""

from __future__ import annotations

import copy

import pytest
import torch
from support.models import FAMILIES, inputs, logits, make


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_weights_that_are_1e_12_apart_give_logits_that_are_about_so_far_apart(name: str) -> None:
    """A number that is rounded to float32 on the way would lie 6e-8 apart where it is near the middle of two."""
    model, generator = make(name), torch.Generator().manual_seed(0)
    for _ in range(5):
        other = copy.deepcopy(model)
        for weight in other.parameters():
            weight.mul_(1 + 1e-12 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))
        apart = (logits(other(**inputs(name))) - logits(model(**inputs(name)))).abs().max()
        assert 0 < apart < 2e-10

"""Methods that cut a matrix into blocks are exported as the LoRA of their pairs, whose rank is that of an update."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.exports import assert_same, products, updates
from support.models import perturb
from support.published_rows import BLOCKS, attached, tiny

import tensoradapt as ta
from tensoradapt.lora.read_folder import read_lora
from tensoradapt.testing.laws import float64

# the rank of 30 x 30 in blocks of 6 x 6, five a side; the others are of full rank
RANKS = {"lokr": 10, "miss-mini": 6, "miss": 6}


@pytest.mark.parametrize("name", [*BLOCKS, "miss"])
def test_an_export_has_the_updates(name: str, tmp_path: Path) -> None:
    base, model = tiny(), tiny()
    with float64():
        adapter = attached(name, model)
    perturb(adapter)
    ta.export_lora(model, tmp_path)
    assert_same(products(tmp_path), updates(adapter, base), 1e-6)  # in float32
    assert {pair.rank for pair in read_lora(tmp_path).values()} == {RANKS.get(name, 30)}

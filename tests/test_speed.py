"""What `benchmarks/speed.py` rests on: rows of the counts they claim, bytes, quartiles, and where ways cross."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import speed_costs
from random_models import base_of, shared, sites_of
from speed_rows import LEAST, SAME, Ours, Row, rows_of

import tensoradapt as ta

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # PEFT asks for it


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {row.name: row for row in rows_of(base_of("small", "cpu", "float32"))}


def test_rows_at_a_count_have_at_most_that_of_lora_and_more_than_half(rows: dict[str, Row]) -> None:
    base = base_of("small", "cpu", "float32")
    counts = {
        g: ta.plan(sites_of(base), method="lora", paper=True, rank=r).n_params for g, r in ((LEAST, 1), (SAME, 8))
    }
    found = []
    for row in rows.values():
        if row.group in counts and isinstance(row, Ours):
            try:
                n = row.plan(base).n_params
            except ta.TensorAdaptError:
                continue
            assert counts[row.group] / 2 <= n <= counts[row.group], row.name
            found.append((row.method, row.group))
    assert {("cp", LEAST), ("tucker", LEAST), ("tensor_train", SAME), ("lotr", SAME), ("vera", SAME)} <= set(found)


@pytest.mark.parametrize("name", ["PEFT LoRA r=8", "lora r=8", "vera r=256"])
def test_held_bytes_are_those_of_the_adapter_alone(name: str, rows: dict[str, Row]) -> None:
    base = base_of("small", "cpu", "float32")
    model = rows[name].attach(shared(base), rows[name].plan(base))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = 2 * 64 * 256 if name.startswith("vera") else 0  # A and B, once for all matrices
    assert speed_costs.added_bytes(model, base) == pytest.approx(4 * (trained + frozen), abs=8)  # a gate's share

"""What `benchmarks/speed.py` rests on: rows of the counts they claim, bytes, quartiles, and where ways cross."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import speed
import speed_figure
import speed_instructions
import speed_setup
import speed_table
import speed_ways
from speed_models import base_of, shared, sites_of
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


def test_a_row_that_cannot_come_near_a_count_says_how_far_it_comes(rows: dict[str, Row]) -> None:
    with pytest.raises(ta.TensorAdaptError, match="reaches 32 of 8,192 parameters"):
        rows["tinylora n≤8,192"].plan(base_of("small", "cpu", "float32"))


@pytest.mark.parametrize("name", ["PEFT LoRA r=8", "lora r=8", "vera r=256"])
def test_held_bytes_are_those_of_the_adapter_alone(name: str, rows: dict[str, Row]) -> None:
    base = base_of("small", "cpu", "float32")
    model = rows[name].attach(shared(base), rows[name].plan(base))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = 2 * 64 * 256 if name.startswith("vera") else 0  # A and B, once for all matrices
    assert speed_setup.added_bytes(model, base) == pytest.approx(4 * (trained + frozen), abs=8)  # a gate's share


def test_a_setup_times_what_its_package_can(rows: dict[str, Row]) -> None:
    base = base_of("small", "cpu", "float32")
    found = {name: speed_setup.setup(rows[name], base, "cpu", 1) for name in ("full", "PEFT LoRA r=8", "cp r=8")}
    theirs = {"attach_seconds", "save_seconds", "load_seconds", "use_seconds", "adapter_bytes", "saved_bytes"}
    assert not found["full"] and set(found["PEFT LoRA r=8"]) == theirs
    assert set(found["cp r=8"]) == theirs | {"plan_seconds"}


def test_optimizer_bytes_are_two_numbers_for_each_and_a_step() -> None:
    layer = torch.nn.Linear(5, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2, 5)).sum().backward()
    optimizer.step()
    assert speed_setup.optimizer_bytes(optimizer) == 4 * (2 * (15 + 3) + 2)


def test_quartiles_lie_within_what_was_measured() -> None:
    assert speed.spread([1.0, 2.0]) == {"median": 1.5, "low": 1.25, "high": 1.75}


def cells() -> list[dict[str, Any]]:
    first = {"width": 8, "rank": 2, "tokens": 64, "ratios": {"pair": 1.0, "W + delta": 1.5}}
    more = {"width": 8, "rank": 2, "tokens": 128, "ratios": {"pair": 1.5, "W + delta": 1.2}}
    return [
        first | {"best": "pair", "model": "pair", "loss": 0.0},
        more | {"best": "W + delta", "model": "pair", "loss": 0.25},
    ]


def test_ways_cross_where_the_fastest_changes() -> None:
    _, row = speed_ways.crossings(cells())
    assert row == ("8", "2", "64: pair; 128: W + delta", "64: pair", "25 %")


def test_what_each_way_loses_is_against_the_fastest() -> None:
    assert list(speed_ways.losses(cells())) == [
        "- The model chose the fastest of the ways in 1 of 2 cells.",
        "- the model's choice loses 12.5 % in the mean, 25 % at most.",
        "- pair everywhere loses 12.5 % in the mean, 25 % at most.",
        "- W + delta everywhere loses 25.0 % in the mean, 50 % at most.",
    ]


def test_instructions_are_read_from_what_callgrind_writes(tmp_path: Path) -> None:
    (tmp_path / "out.1").write_text("# callgrind format\nevents: Ir\nsummary: 15382307\n\n\nfn=(1)\ntotals: 15382307\n")
    assert speed_instructions.total(tmp_path / "out.1") == 15382307


def record() -> dict[str, Any]:
    spread = {"median": 1.1, "low": 1.0, "high": 1.2}
    what = {"step": spread, "forward": spread, "n_params": 1024, "operations": 250, "step_peak_bytes": 2e6}
    ours = {**what, "package": "tensoradapt", "method": "cp", "group": LEAST, "plan_seconds": 0.002, "saved_bytes": 900}
    frozen = {"frozen_operations": 200, "frozen_peak_bytes": 1e6, "frozen_seconds": {"step": 0.1, "forward": 0.05}}
    machine = {"device": "cpu", "threads": 1, "dtype": "float32", "provenance": {"cpu": "a processor"}}
    counted = {"instructions": {"frozen": 10_000_000, "cp n≤1,024": 12_500_000}}
    competitors = {"cp n≤1,024": ours, "cp n≤1,024, unfused": ours}
    return {"shape": "small", "refused": {"x": "why"}, "competitors": competitors, **frozen, **machine, **counted}


def test_tables_have_what_the_record_has() -> None:
    head, frozen, ours, _ = speed_table.of_steps(record())
    assert dict(zip(head, frozen, strict=True))["instructions"] == "10 M"
    assert ours[:3] == ("cp n≤1,024", "1,024", "1.10") and ours[-3:] == ("+50", "2.00 MB", "1.25")
    _, once = speed_table.of_setup(record())  # the row without a saving is attached as the other
    assert once[:3] == ("cp n≤1,024", "2", "") and once[-2:] == ("900 B", "")


def test_records_are_drawn_and_printed(tmp_path: Path) -> None:
    records = [record(), {**record(), "threads": 2}, {"ways": cells(), **record_of_ways()}]
    speed_figure.draw(records, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").exists()
    text = "\n".join(speed_figure.tables(records))
    assert "small, a processor, 2 threads, float32" in text and "refused: x: why" in text
    assert re.search(r"64: pair; 128: W \+ delta +64: pair +25 %", text)


def record_of_ways() -> dict[str, Any]:
    return {key: record()[key] for key in ("device", "threads", "dtype", "provenance")}

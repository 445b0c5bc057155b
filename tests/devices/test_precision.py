"""Precision "auto": bf16 where a device has units for it, fp32 elsewhere; a run has the same name on every machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.device_standin import standin
from support.sweeping import TINY, results

import tensoradapt as ta
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.execute import execute
from tensoradapt.lab.runs.store import load_runs
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.training.fit import computed_in
from tensoradapt.training.options import Training


def capable(monkeypatch: pytest.MonkeyPatch, major: int) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (major, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "stand-in")


@pytest.mark.parametrize(("major", "precision"), [(7, "fp32"), (8, "bf16"), (9, "bf16")])
def test_auto_is_what_the_device_has_units_for(major: int, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    capable(monkeypatch, major)
    assert computed_in("auto", "cuda:0") == precision
    assert computed_in("fp32", "cuda:0") == "fp32" and computed_in("bf16", "cpu") == "bf16"


@pytest.mark.parametrize(("units", "precision"), [(False, "fp32"), (True, "bf16")])
def test_auto_on_a_cpu_is_bf16_where_it_has_units_for_it(
    units: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: units)
    assert computed_in("auto", "cpu") == precision and computed_in("auto", "meta") == "fp32"


@pytest.mark.thorough
def test_a_run_keeps_auto_in_its_config_and_records_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    capable(monkeypatch, 9)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    training = Training(1e-3, 2, precision="auto")
    run = RunConfig("tiny-random-bert", "planted", training, adapter=AdapterSpec("lora", rank=2))
    with pytest.warns(UserWarning, match="CUDA is not available"), standin():  # torch without CUDA turns autocast off
        there = execute(run, "cuda")
    here = execute(run, "cpu")
    assert [parts["measurements"]["precision"] for parts in (there, here)] == ["bf16", "fp32"]
    assert there["config"] == here["config"] and here["config"]["training"]["precision"] == "auto"


@pytest.mark.thorough
def test_on_a_cpu_without_units_auto_gives_the_bytes_of_fp32_under_an_id_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    for name, more in (("plain", {}), ("auto", {"precision": "auto"})):
        assert ta.sweep({**TINY, **more}, tmp_path / name, executor="inline", device="cpu", say=[].append).complete
    plain, auto = (results(tmp_path / name) for name in ("plain", "auto"))
    assert not plain.keys() & auto.keys() and sorted(plain.values()) == sorted(auto.values())
    assert {run.row["precision"] for run in load_runs(tmp_path / "auto")} == {"fp32"}

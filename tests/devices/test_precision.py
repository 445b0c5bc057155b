"""Precision "auto": bf16 where a device has units for it, fp32 elsewhere; a run has the same name on every machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.device_standin import standin
from support.sweeping import TINY, results

import tensoradapt as ta
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.execute import execute
from tensoradapt.lab.runs.row import row_of
from tensoradapt.lab.runs.store import load_runs
from tensoradapt.lab.sweeps import frontier
from tensoradapt.lab.sweeps.executors.executor import Slots
from tensoradapt.lab.sweeps.messages import precision_text
from tensoradapt.lab.sweeps.spec import read_spec
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


def test_a_row_has_what_was_measured_or_what_a_run_of_an_earlier_version_asked_for() -> None:
    run = RunConfig("tiny-random-bert", "planted", Training(1e-3, 2, precision="bf16"), kind="head")
    parts = execute(run, "cpu")
    measured = parts["measurements"]
    before = {key: value for key, value in measured.items() if key != "precision"}
    for given, precision in ((measured, "bf16"), (before, "bf16"), ({**measured, "precision": "fp32"}, "fp32")):
        assert row_of(Path("run"), run, parts["result"], given)["precision"] == precision
    with pytest.raises(ta.TensorAdaptError, match=r"run/measurements\.json: .* precision is 'fp8'"):
        row_of(Path("run"), run, parts["result"], {**measured, "precision": "fp8"})


@pytest.mark.thorough
def test_a_new_frontier_takes_auto_and_a_folder_keeps_what_it_was_begun_with(tmp_path: Path) -> None:
    spec = frontier.frontier_spec("quick", model="tiny-random-bert", task="planted", method=["lora"], steps=2)
    new, old = tmp_path / "new", tmp_path / "old"

    def of(folder: Path) -> set[str | None]:
        return {method.training.get("precision") for method in frontier.with_precision(spec, folder).methods}

    assert of(new) == {"auto"}
    for folder, more in ((old, {}), (new, {"precision": "auto"})):
        ta.sweep({**TINY, **more}, folder, executor="inline", device="cpu", say=[].append)
    assert of(old) == {None} and of(new) == {"auto"}
    (next(old.glob("sweeps/*.json"))).write_text("{")
    assert of(old) == {"auto"}


def test_a_sweep_on_a_gpu_says_that_it_computes_in_fp32_unless_it_was_given_a_precision() -> None:
    spec, there = read_spec(TINY), Slots(1, 1, "cuda", ("0",))
    assert 'with precision = "auto" runs compute in bf16' in precision_text(spec, there)
    assert not precision_text(spec, replace(there, device="cpu"))
    assert not precision_text(read_spec({**TINY, "precision": "auto"}), there)

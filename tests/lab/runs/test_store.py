"""The run store: ids by meaning, folders whole or absent, damage named."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.configs import config_of
from support.sweeping import TINY
from support.synthetic_runs import sum_again, write_synthetic

import tensoradapt as ta
from tensoradapt import files
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.runs import provenance, store
from tensoradapt.lab.runs.batches import predict
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.execute import load_data
from tensoradapt.lab.runs.kept import path_of
from tensoradapt.lab.runs.store import SUMS, Run
from tensoradapt.lab.sweeps.spec import read_spec
from tensoradapt.records import digest

scalars = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5)
values = st.recursive(
    scalars | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
configs = st.dictionaries(st.text(max_size=5), values, max_size=5)
RESULT = {
    **{"status": "finished", "note": "", "n_params": 0, "validation": {"accuracy": 0.5}, "test": {"accuracy": 0.5}},
    "metric": {"name": "accuracy", "low": 0.0, "high": 1.0, "chance": 0.5},
}
CONFIG = config_of("tiny-random-bert", "planted", kind="head").as_dict()
EMPTY: dict[str, Any] = {"config": CONFIG, "result": RESULT, "measurements": {}, "provenance": {}, "arrays": {}}


def same_meaning(value: Any) -> Any:
    """The same value said differently: key order, tuples, numpy numbers, floats for whole numbers."""
    if isinstance(value, dict):
        return {key: same_meaning(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return tuple(map(same_meaning, value))
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value)
    return np.float64(value) if isinstance(value, float) else value


@given(configs)
def test_the_id_depends_on_meaning_alone(config: dict[str, Any]) -> None:
    assert digest(same_meaning(config)) == digest(config)
    assert len(digest(config)) == 16
    assert int(digest(config), 16) >= 0


@given(configs, st.integers())
def test_another_value_gives_another_id(config: dict[str, Any], value: int) -> None:
    assert digest({**config, "seed": value}) != digest({**config, "seed": value + 1})


def test_the_hash_is_the_same_on_every_machine() -> None:
    assert digest({"rank": 8, "lr": 0.001, "layout": "layer : out : in"}) == "7f41734bfa477758"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), np.float64("nan")])
def test_a_number_that_is_not_finite_has_no_id(bad: float) -> None:
    with pytest.raises(
        TensorAdaptError, match=r"config\['options'\]\['alpha'\] is (nan|inf); expected a finite number"
    ):
        digest({"options": {"alpha": bad}})


def test_a_run_reads_back_as_it_was_written(tmp_path: Path) -> None:
    predictions = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    path = store.write_run(
        tmp_path / "runs",
        "one",
        config={**CONFIG, "seed": np.int64(4), "own": {"layers": (1, 2)}},
        result={**RESULT, "test": {"accuracy": float("nan")}},
        measurements={"seconds": 2.5},
        provenance={"python": "3"},
        arrays={"predictions": predictions, "labels": np.arange(5)},
    )
    (run,) = store.load_runs(tmp_path / "runs")
    assert (run.name, run.path) == ("one", path)
    assert run.config == {**CONFIG, "seed": 4, "own": {"layers": [1, 2]}}
    assert run.result == {**RESULT, "test": {"accuracy": None}}
    assert (run.measurements, run.provenance) == ({"seconds": 2.5}, {"python": "3"})
    assert run.array("predictions").dtype == np.float32
    np.testing.assert_array_equal(run.array("predictions"), predictions)
    np.testing.assert_array_equal(run.array("labels"), np.arange(5))


def race(root: Path, barrier: Any, who: int) -> None:
    barrier.wait(30)
    for i in range(10):
        told = {"result": {**RESULT, "who": who}, "arrays": {"a": np.full(1000, who)}}
        store.write_run(root, f"x{i}", **{**EMPTY, **told})


@pytest.mark.thorough
def test_processes_that_race_leave_whole_runs_and_nothing_else(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    racers = [context.Process(target=race, args=(tmp_path, barrier, who)) for who in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0, 0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"x{i}" for i in range(10)]
    for run in store.load_runs(tmp_path):
        assert (run.array("a") == run.result["who"]).all()


def test_a_full_disk_leaves_no_trace_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(TensorAdaptError, match=r"run x cannot be written to .* \(No space left on device\)"):
        store.write_run(tmp_path, "x", **EMPTY)
    with pytest.raises(TensorAdaptError, match=r"table\.csv cannot be written \(No space left on device\)"):
        files.replace_file(tmp_path / "table.csv", b"x")
    assert list(tmp_path.iterdir()) == []


def test_everything_is_on_disk_before_the_folder_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def record(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        real(handle)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to see what was synced")
    monkeypatch.setattr(store.os, "fsync", record)
    store.write_run(tmp_path, "x", **{**EMPTY, "arrays": {"labels": np.arange(3)}})
    *files, folder, root = synced
    assert files == [*(f"{name}.json" for name in store.FILES), "labels.npy", SUMS]
    assert (folder.startswith(".x."), root) == (True, tmp_path.name)


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "/x"])
def test_a_name_that_is_not_a_folder_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TensorAdaptError, match="cannot be a folder; expected letters"):
        store.write_run(tmp_path, name, **EMPTY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arrays": {"a": np.array([None])}}, "array 'a' holds objects; expected numbers"),
        ({"arrays": {"../a": np.zeros(2)}}, "cannot be a file"),
        ({"config": {"lr": float("nan")}}, r"config\['lr'\] is nan"),
        ({"result": {"model": object()}}, r"result\['model'\] is a object"),
    ],
)
def test_bad_contents_are_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(TensorAdaptError, match=message):
        store.write_run(tmp_path / "runs", "x", **{**EMPTY, **change})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [("config.json", "{"), ("result.json", None), ("result.json", "[1]"), ("measurements.json", '{"a": NaN}')],
)
def test_a_damaged_run_is_named_with_what_to_do(tmp_path: Path, file: str, text: str | None) -> None:
    path = write_synthetic(tmp_path)
    (path / file).unlink()
    if text is not None:
        (path / file).write_text(text)
    with pytest.raises(
        TensorAdaptError, match=rf"{path / file} (cannot be read|was changed) .* delete the folder {path} to run it"
    ):
        store.load_runs(tmp_path)


def test_provenance_names_versions_but_no_folder_host_or_user(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["/home/me/bin/tensoradapt", "sweep", "--out=/data/me/runs", "/etc/spec.toml", "https://a.b/c", "a/b", "8"]
    monkeypatch.setattr(sys, "argv", argv)
    found = provenance.provenance()
    assert found["argv"] == ["tensoradapt", "sweep", "--out=runs", "spec.toml", "https://a.b/c", "a/b", "8"]
    assert found["packages"]["numpy"] == np.__version__
    assert found["cpu_count"] == os.cpu_count()
    text = json.dumps(found)
    assert os.uname().nodename not in text
    assert str(Path(store.__file__).parents[3]) not in text


@pytest.mark.thorough
def test_the_store_and_the_analysis_work_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import tensoradapt.lab.runs.store, tensoradapt.lab.analysis, tensoradapt.lab.analysis.tables\n"
        "assert 'matplotlib' not in sys.modules\n"
        "import tensoradapt.lab.analysis.plots\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_that_was_changed_after_its_run_is_noticed(tmp_path: Path) -> None:
    store.write_run(tmp_path, "x", **{**EMPTY, "arrays": {"labels": np.array([1])}})
    folder = tmp_path / "x"
    for name in ("result.json", "config.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("0", "9", 1) if "0" in text else text.replace(" ", "", 1))
        with pytest.raises(TensorAdaptError, match=f"{name} was changed after its run ended.*delete the folder"):
            store.load_runs(tmp_path)
        (folder / name).write_text(text)
    np.save(folder / "labels.npy", np.array([9]))
    with pytest.raises(TensorAdaptError, match=r"labels.npy was changed after its run ended"):
        store.load_runs(tmp_path)[0].array("labels")
    sum_again(folder)
    assert list(store.load_runs(tmp_path)[0].array("labels")) == [9]
    (folder / SUMS).unlink()
    with pytest.raises(TensorAdaptError, match=f"{SUMS} cannot be read .*; expected a JSON object .*delete the folder"):
        store.load_runs(tmp_path)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config", {"format": 0}, "format is 0; this version of tensoradapt reads format 1"),
        ("result", {"status": "collapsed"}, "status is 'collapsed'.* Valid: finished, at chance, diverged"),
        ("result", {"metric": {"name": "accuracy"}}, "metric.chance is missing"),
        ("result", {"test": {"accuracy": True}}, "test of 'accuracy' is True; expected a finite number"),
        ("measurements", {"seconds": "long"}, "seconds is 'long'; expected a finite number"),
    ],
)
def test_a_value_that_no_run_writes_is_named_with_file_and_key(
    tmp_path: Path, file: str, change: dict[str, Any], message: str
) -> None:
    store.write_run(tmp_path, "x", **{**EMPTY, file: {**EMPTY[file], **change}})
    with pytest.raises(TensorAdaptError, match=rf"x.{file}\.json: no run wrote it so; delete the folder.*{message}"):
        store.load_runs(tmp_path)
    store.write_run(tmp_path / "lacks", "x", **{**EMPTY, "result": {"status": "finished"}})
    with pytest.raises(TensorAdaptError, match=r"result\.json: .*: note is missing"):
        store.load_runs(tmp_path / "lacks")


def test_a_pipe_in_the_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    store.write_run(tmp_path, "x", **{**EMPTY, "arrays": {"labels": np.array([1])}})
    (tmp_path / "x" / "result.json").unlink()
    os.mkfifo(tmp_path / "x" / "result.json")
    with pytest.raises(TensorAdaptError, match="delete the folder"):
        store.read_run(tmp_path / "x")


def test_an_array_that_says_it_is_too_large_for_memory_is_refused(tmp_path: Path) -> None:
    store.write_run(tmp_path, "x", **{**EMPTY, "arrays": {"labels": np.array([1])}})
    path = tmp_path / "x" / "labels.npy"
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({10**14},), }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    sum_again(tmp_path / "x")
    with pytest.raises(TensorAdaptError, match=r"labels.npy cannot be read"):
        store.load_runs(tmp_path)[0].array("labels")


def test_a_config_that_its_folder_is_not_named_by_is_noticed_under_right_checksums(tmp_path: Path) -> None:
    config = config_of("tiny-random-bert", "planted", "cp", rank=4, named="mine")
    store.write_run(tmp_path, config.id, **{**EMPTY, "config": config.as_dict()})
    folder = tmp_path / config.id
    assert store.read_run(folder).row["rank"] == 4
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"rank": 4', '"rank": 8'))
    sum_again(folder)
    own = config_of("tiny-random-bert", "planted", "cp", rank=8).id
    with pytest.raises(TensorAdaptError, match=f"not the config that its folder is named by, but that of {own}"):
        store.load_runs(tmp_path)


SPEC = {**TINY, "method": ["cp", "lora"], "rank": [1, 2], "seed": [0, 1, 2], "steps": 5}


def sweep(out: Path, **more: Any) -> list[Run]:
    ta.sweep({**SPEC, **more}, out, executor="inline", device="cpu", probe=False, say=lambda line: None)
    return ta.load_runs(out)


def is_kept(out: Path, run: Run) -> bool:
    return (path_of(out, RunConfig.from_dict(run.config)) / "adapter.json").is_file()


def predictions(run: Run, trained: Any) -> np.ndarray:
    data = load_data(trained.config)
    rows = data.task.encode(data.test, trained.config.model, trained.config.data.max_length)
    return predict(trained.task, trained.model, rows, "cpu")


@pytest.mark.thorough
def test_of_each_method_and_size_the_best_on_validation_is_kept_and_has_its_predictions(tmp_path: Path) -> None:
    cells: dict[tuple[Any, Any], list[Run]] = {}
    for run in sweep(tmp_path, lr=[1e-3, 4e-3]):
        if run.row["kind"] == "adapter" and not run.config["tuning"]:
            cells.setdefault((run.row["method"], run.row["rank"]), []).append(run)
    assert len(cells) == 4 and all(len(runs) == 3 for runs in cells.values())
    assert len(list((tmp_path / "adapters").glob("*/*"))) == 4
    for runs in cells.values():
        (kept,) = (run for run in runs if is_kept(tmp_path, run))
        scores = {run.name: run.result["validation"]["accuracy"] for run in runs}
        assert scores[kept.name] == max(scores.values())
        trained = ta.load_run(tmp_path, kept)
        assert not trained.model.training and trained.adapter is not None
        np.testing.assert_allclose(predictions(kept, trained), kept.array("predictions"), atol=1e-6)


@pytest.mark.thorough
def test_a_run_is_trained_again_to_the_bit(tmp_path: Path) -> None:
    runs = [run for run in sweep(tmp_path, seed=0, rank=2) if run.row["kind"] == "adapter"]
    for run in runs:
        first, again = ta.load_run(tmp_path, run.name), ta.train(run.config)
        assert first.adapter is not None and again.adapter is not None
        for one, other in zip(first.model.parameters(), again.model.parameters(), strict=True):
            assert torch.equal(one, other)
        assert torch.equal(first.adapter.tensors[0].full(), again.adapter.tensors[0].full())


@pytest.mark.parametrize(("keep", "n"), [("all", 2), ("none", 0)])
def test_all_or_none_are_kept_and_no_result_depends_on_it(tmp_path: Path, keep: str, n: int) -> None:
    runs = sweep(tmp_path, method="cp", rank=1, seed=[0, 1], keep=keep)
    assert sum(is_kept(tmp_path, run) for run in runs) == n
    assert read_spec({**SPEC, "keep": keep}).id == read_spec(SPEC).id
    with pytest.raises(ta.TensorAdaptError, match=r"keep is 'last'\. Valid: best, all, none"):
        read_spec({**SPEC, "keep": "last"})

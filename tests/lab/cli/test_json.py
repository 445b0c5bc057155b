"""``--json``: one document on stdout and nothing else, with the numbers that tables show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import hostile_files
from support.sweeping import write_spec
from support.synthetic_runs import write_many

import tensoradapt as ta
from tensoradapt.lab.analysis.tables import compare, summarise
from tensoradapt.lab.cli.main import main
from tensoradapt.lab.data import models
from tensoradapt.lab.tasks import registry

TINY = "tiny-random-bert"
CURVES = {"cp": [(2, 300, 0.75), (4, 600, 0.9)], "lora": [(1, 300, 0.75), (2, 600, 0.8)]}


@pytest.fixture(scope="module", name="root")
def stored_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stored") / "runs"
    write_many(root, CURVES)
    return root


@pytest.fixture(name="document")
def printed_document(capsys: pytest.CaptureFixture[str]):
    """A function that gives the document which a command prints; all of stdout has to be it."""

    def document(*words: object, code: int = 0) -> Any:
        assert main([*map(str, words), "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return document


def test_a_plan_has_its_counts_and_every_site(document) -> None:
    found = document("plan", "--model", TINY, "--method", "lorta", "--rank", 2)
    planned = ta.plan(models.config(TINY), "lorta", rank=2)
    assert (found["n_params"], found["n_dense"]) == (planned.n_params, planned.n_dense)
    assert [site["name"] for tensor in found["tensors"] for site in tensor["sites"]] == [s.name for s in planned.sites]
    assert sum(tensor["n_params"] for tensor in found["tensors"]) == planned.n_params
    assert found["settings"]["rank"] == 2 and len(found["skipped"]) == len(planned.skipped)


@pytest.mark.parametrize(
    ("options", "table"),
    [([], ta.results), (["--means"], summarise), (["--compare"], compare)],
)
def test_results_have_the_rows_of_the_table(options: list[str], table: Any, root: Path, document) -> None:
    found, expected = document("results", root, *options), table(root)
    assert len(found["rows"]) == len(expected) and set(found["rows"][0]) == set(expected.columns)
    assert found["verdict"] and found["folder"] == str(root)
    score = next(name for name in ("mean", "difference", "score") if name in expected)
    assert [row[score] for row in found["rows"]] == pytest.approx(list(expected[score]))


@pytest.mark.thorough
def test_status_has_counts(document, root: Path, tmp_path: Path) -> None:
    assert main(["results", str(tmp_path), "--status", "--json"]) == 2  # holds no sweep
    spec = write_spec(tmp_path)
    swept = document("sweep", spec, "--out", tmp_path / "runs", "--executor", "inline", "--device", "cpu")
    assert swept["finished"] == swept["total"] == 4 and swept["complete"] and len(swept["means"]) >= 1
    rows = document("results", tmp_path / "runs", "--status")["rows"]
    assert sum(row["finished"] for row in rows) == 4


def test_a_dry_run_has_its_count_and_no_means(document, tmp_path: Path) -> None:
    words = ["--dry-run", "--no-probe", "--executor", "inline", "--device", "cpu"]
    found = document("sweep", write_spec(tmp_path), "--out", tmp_path / "runs", *words)
    assert found["total"] == 4 and found["finished"] == 0 and found["means"] == []


@pytest.mark.thorough
def test_files_that_are_written_are_listed(document, root: Path, tmp_path: Path) -> None:
    assert document("results", root, "--out", tmp_path / "t.csv")["files"] == [str(tmp_path / "t.csv")]
    drawn = document("plot", root, "all", "--format", "png", "--out", tmp_path)
    assert all(Path(file).is_file() for file in drawn["files"]) and drawn["left_out"]
    (page,) = document("report", root, "--out", tmp_path / "r.html")["files"]
    assert Path(page).is_file()


@pytest.mark.thorough
def test_methods_and_doctor(document) -> None:
    assert [row["name"] for row in document("methods")["methods"]] == ta.methods()["name"].tolist()
    three = document("choose", "--model", TINY, "--budget", "500", "--purpose", "many")["candidates"]
    assert [row["method"] for row in three] == ta.choose(TINY, 500, "many")["method"].tolist()
    assert {row["name"]: row["n_params"] for row in document("methods", "vera", "--model", TINY)["methods"]}["vera"]
    found = document("doctor")
    assert found["broken"] == 0 and {check["state"] for check in found["checks"]} <= {"ok", "note"}


def test_tasks_and_models(document, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", {})
    tasks = {row["name"]: row for row in document("tasks")["tasks"]}
    assert list(tasks) == [*registry.names()] and (tasks["sst2"]["metric"], tasks["sst2"]["classes"]) == ("accuracy", 2)
    assert tasks["stsb"]["classes"] is None
    rows = document("models")["models"]
    assert [row["name"] for row in rows] == [*models.names()] and all(row["holds"] for row in rows)
    for command, names in (("tasks", tasks), ("models", models.names())):
        assert main([command]) == 0
        shown = capsys.readouterr().out.splitlines()
        assert shown[0].startswith("name ") and [line.split()[0] for line in shown[1 : len(names) + 1]] == [*names]


def test_adapters_that_are_compressed_and_exported(document, tmp_path: Path) -> None:
    model = hostile_files.model_folder(tmp_path / "model", architectures=["BertForSequenceClassification"])
    lora, adapter = hostile_files.lora_folder(tmp_path / "lora"), hostile_files.adapter_folder(tmp_path / "adapter")
    made = document("compress", lora, "--model", model, "--method", "cp", "--rank", 2, "--out", tmp_path / "cp")
    assert made["n_params"] > 0 and 0 <= made["error"] <= 1 and made["saved"] == str(tmp_path / "cp")
    other = hostile_files.lora_folder(tmp_path / "other")
    layout = ("--layout", "task : out : in")
    several = document("compress", lora, other, "--model", model, "--method", "cp", "--rank", 2, *layout)
    assert list(several["task_errors"]) == ["lora", "other"] and several["n_params_each"] > 0
    sent = document("export", adapter, "--model", model, "--out", tmp_path / "sent")
    assert sent["rank"] >= 1 and sent["path"] == str(tmp_path / "sent") and sent["modules"]


def test_an_error_is_on_stderr_and_stdout_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--model", TINY, "--method", "cp", "--json"]) == 2
    shown = capsys.readouterr()
    assert not shown.out and shown.err.startswith("error: cp needs a size")

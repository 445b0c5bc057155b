"""``--json``: one document on stdout and nothing else, with the numbers that tables show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.sweeping import write_spec
from support.synthetic_runs import write_many

import tensoradapt as ta
from tensoradapt.lab.analysis.tables import summarise
from tensoradapt.lab.cli.main import main
from tensoradapt.lab.data import models

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
    [([], ta.results), (["--means"], summarise), (["--compare"], ta.verdict)],
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


def test_an_error_is_on_stderr_and_stdout_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--model", TINY, "--method", "cp", "--json"]) == 2
    shown = capsys.readouterr()
    assert not shown.out and shown.err.startswith("error: cp needs a size")

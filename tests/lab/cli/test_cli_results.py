"""The commands that read a folder of runs: what they print and write, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest
from support.configs import config_of
from support.synthetic_runs import sweep, write_many

from tensoradapt.lab.analysis import plots
from tensoradapt.lab.analysis.comparisons import compare
from tensoradapt.lab.analysis.tables import summarise
from tensoradapt.lab.analysis.verdict import lines, verdict
from tensoradapt.lab.cli.main import main
from tensoradapt.lab.runs.store import write_failure
from tensoradapt.lab.sweeps.results import results

CURVES = {"cp": [(2, 300, 0.75), (4, 600, 0.9)], "lora": [(1, 300, 0.75), (2, 600, 0.8)]}


@pytest.fixture(scope="module", name="root")
def stored_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stored") / "runs"
    write_many(root, CURVES)
    config = config_of("tiny-model", "rte", "vera", named="VeRA", steps=3).as_dict()
    write_failure(root, "broken", {"kind": "out of memory", "error": "no room", "config": config})
    return root


def run(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.mark.parametrize(("option", "n_rows"), [("", 6), ("--means", 6), ("--compare", 3), ("--runs", 19)])
def test_the_answer_is_on_top_of_every_table(
    root: Path, option: str, n_rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("results", root, *filter(None, [option])) == 0
    top, _, table = capsys.readouterr().out.partition("\n\n")
    (whole,) = lines(root)
    assert top == (whole if option == "--compare" else f"{whole.partition('. ')[0]}.") and table.startswith("method")
    assert len(table.splitlines()) == 1 + n_rows


def test_files_have_the_table_that_was_asked_for(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pyarrow", reason="an extra")
    out = [tmp_path / name for name in ("t.csv", "t.parquet")]
    for options, table in (
        ([], results(root, tuning=True)),
        (["--means"], summarise(root)),
        (["--compare", "--reference", "cp (lorta)"], verdict(root, "CP (LoRTA)")),
    ):
        assert run("results", root, *options, "--out", *out) == 0
        assert capsys.readouterr().out.split() == list(map(str, out))
        for read in (pandas.read_csv(out[0]), pandas.read_parquet(out[1])):
            assert list(read.columns) == list(table.columns) and len(read) == len(table)
            assert list(read["method"]) == list(table["method"])
            score = next(name for name in ("mean", "difference", "score") if name in table)
            assert list(read[score]) == pytest.approx(list(table[score]), nan_ok=True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["results", "{root}", "--out", "."], ". ends with ''. Valid: .csv, .parquet, .md, .tex, .html"),
        (["results", "{root}", "--compare", "--at", "large"], "at is 'large'; expected a rank, or one of"),
        (["results", "absent"], "absent does not exist; expected a folder of runs"),
        (["plot", "{root}", "--format", "gif"], "unknown format 'gif'. Valid: pdf, png, svg"),
        (["plot", "{root}", "--out", "x.png"], "the name of a picture; expected a folder, in which frontier.png and"),
        (["plot", "{root}", "--width", "3 feet"], "--width is '3 feet'; expected a length from 2in to 40in"),
        (["plot", "{root}", "differences", "--x", "seconds"], "differences has no option 'x'"),
    ],
)
def test_what_cannot_be_done_is_one_error(
    words: list[str], says: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path)] if words[0] == "plot" and "--out" not in words else []
    assert main([*(word.format(root=root) for word in words), *out]) == 2
    assert says in " ".join(capsys.readouterr().err.split()) and not list(tmp_path.iterdir())


@pytest.mark.thorough
def test_a_figure_is_written_as_it_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(tmp_path / "runs", ("sst2",))
    how = ["--out", tmp_path / "out", "--format", "svg, png", "--width", "84mm", "--style", "dark_background"]
    assert run("plot", tmp_path / "runs", "frontier", "differences", "--reference", "vera", *how) == 0
    names = [Path(line).name for line in capsys.readouterr().out.split()]
    assert names == [f"{kind}.{end}" for kind in ("frontier", "differences") for end in ("svg", "png", "csv", "txt")]
    path = tmp_path / "out" / "frontier.png"
    width = int.from_bytes(path.read_bytes()[16:20])
    assert width == pytest.approx(84 / 25.4 * 200, abs=1)
    assert set(pandas.read_csv(tmp_path / "out" / "differences.csv")["reference"]) == {"vera"}
    again = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert run("plot", tmp_path / "runs", "frontier", "differences", "--reference", "vera", *how) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == again
    assert run("plot", tmp_path / "runs", "--no-headline", *how) == 0
    before, after = (int.from_bytes(data[20:24]) for data in (again[path], path.read_bytes()))
    assert after < before, "the headline is left out, and its height"


def test_a_csv_file_of_runs_is_read_as_the_folder_is(root: Path, tmp_path: Path) -> None:
    path, table = tmp_path / "mine.csv", results(root, where="status!=failed")
    table.to_csv(path, index=False)
    for source in (path, str(path)):
        pandas.testing.assert_frame_equal(compare(results(source)), compare(table), check_dtype=False)
        pandas.testing.assert_frame_equal(summarise(source), summarise(table), check_dtype=False)
    assert plots.allowed(path) == plots.allowed(table) and results(path, where="method=cp")["rank"].isin([2, 4]).all()
    assert run("results", path, "--means") == 0
    assert run("plot", path, "--format", "png") == run("report", path) == 0
    assert {"frontier.png", "report.html", "mine.csv"} < {file.name for file in tmp_path.iterdir()}

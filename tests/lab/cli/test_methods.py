"""The command ``methods``: advice from the parameterizations' own files, factors, counts and diagrams."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

import tensoradapt as ta
from tensoradapt import parameterizations
from tensoradapt.lab.cli import methods
from tensoradapt.lab.cli.main import main
from tensoradapt.lab.methods import MINILM, Row, counted
from tensoradapt.published import registry as every

MODEL = "tiny-random-bert"
NAMES = parameterizations.names()


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["methods", *words]) == 0
    return capsys.readouterr().out


def test_the_list_has_the_advice_of_each_file(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys)
    advised = [name for name in NAMES if name != "dense"]  # a reference
    for name in advised:
        text = parameterizations.advice(name)
        assert text.startswith("Choose it ") and text in " ".join((parameterizations.get(name).__doc__ or "").split())
        assert re.search(rf"^{name} .* {re.escape(text.removeprefix('Choose it ').rstrip('.'))}$", shown, re.MULTILINE)
    assert len({parameterizations.advice(name) for name in advised}) == len(advised)
    assert "\ndense" in shown
    formulas = printed(capsys, "--kind", "parameterization")
    assert re.search(r"^cp +for the fewest .* +r times the sum of the mode sizes", formulas, re.MULTILINE)


def test_the_list_fits_a_screen_and_names_every_method(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = printed(capsys)
    assert len(shown.splitlines()) <= 60 and set(every.names()) <= set(shown.replace(",", " ").split())


@pytest.mark.parametrize("name", NAMES)
def test_one_parameterization_is_shown_with_its_factors_and_its_count(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = printed(capsys, name, "--model", "all-minilm-l6-v2", "--rank", "4").split("\n\n\n")[0]
    found = re.search(r"rank 4: ([0-9,]+) parameters in", shown)
    assert found, shown
    table = re.findall(
        r"^(\w+) +((?:\w+=\d+(?: x )?)+) +([0-9,]+) +(drawn|at zero|from the weights) *$", shown, re.MULTILINE
    )
    n_tensors = int(found_tensors[1]) if (found_tensors := re.search(r" in (\d+) tensors", shown)) else 1
    assert sum(int(n.replace(",", "")) for _, _, n, _ in table) * n_tensors == int(found[1].replace(",", ""))
    assert "Choose it" in shown or name == "dense"


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    return json.loads(printed(capsys, *words, "--json"))["methods"]


@pytest.mark.thorough
def test_a_budget_leaves_the_methods_that_fit_at_their_largest_rank(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["name"]: row for row in listed(capsys, "--budget", "20000", "--kind", "parameterization")}
    assert "cp" in rows and "dense" not in rows and all(row["n_params"] <= 20_000 for row in rows.values())
    assert rows["cp"]["n_params"] == ta.plan(MINILM, "cp", budget=20_000).n_params
    one_more = rows["cp"]["rank"] + 1
    assert ta.plan(MINILM, "cp", rank=one_more).n_params > 20_000
    shown = printed(capsys, "--budget", "20000").splitlines()
    assert shown[0].startswith("at most 20,000 parameters, counted at 6 layers, 384 wide")
    assert [line.split()[1] for line in shown if line.startswith("cp ")] == [f"{rows['cp']['n_params']:,}"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--kind", "publisehd"], 'did you mean "published"?'),
        (["--layout", "layer : out"], "expected exactly two"),
        (["--rank", "0"], "--rank is 0; expected a whole number"),
        (["cp", "--budget", "9"], "--budget chooses among all methods; leave cp out"),
        (["--draw", "x.png"], "name one, as in: methods cp --draw FILE"),
        (["--rank", "2", "--budget", "900"], "--rank and --budget were given; expected one of them"),
    ],
)
def test_what_cannot_be_listed_is_one_error(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", *words]) == 2
    assert says in " ".join(capsys.readouterr().err.split())


COUNTED: dict[str, list[Row]] = {}


def counted_once(rows: Sequence[Row], config: Any, size: Mapping[str, Any], layout: str | None = None) -> list[Row]:
    """The rows with their counts, which are copied where the same were asked for before."""
    asked = json.dumps([rows, size, layout])
    if asked not in COUNTED:
        COUNTED[asked] = counted(rows, config, size, layout)
    return [dict(row) for row in COUNTED[asked]]


@pytest.mark.thorough
@pytest.mark.parametrize("columns", [40, 60, 80, 120])
@pytest.mark.parametrize("words", [[], ["--budget", "20000"], ["--kind", "published"]])
def test_tables_fit_the_terminal_and_no_number_is_cut(
    columns: int, words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(methods, "counted", counted_once)  # which the width does not change
    shown = printed(capsys, *words)
    assert max(map(len, shown.splitlines())) <= columns
    if words[:1] == ["--budget"]:
        counts = {f"{row['n_params']:,}" for row in listed(capsys, *words)}
        assert counts <= set(shown.split())

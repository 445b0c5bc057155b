"""The command ``methods``: advice from the parameterizations' own files, factors, counts and diagrams."""

from __future__ import annotations

import re

import pytest

import tensoradapt as ta
from tensoradapt import parameterizations
from tensoradapt.cli.main import main
from tensoradapt.cli.methods import diagram, methods_page
from tensoradapt.data import models

MODEL = "tiny-random-bert"
SPLIT = {"kronecker", "loretta", "quanta", "tt_matrix"}  # whose layouts need a split
NAMES = parameterizations.names()


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["methods", *words]) == 0
    return capsys.readouterr().out


def test_the_list_and_the_page_have_the_advice_of_each_file(capsys: pytest.CaptureFixture[str]) -> None:
    shown, page = printed(capsys), methods_page()
    advised = [name for name in NAMES if name != "dense"]  # a reference
    for name in advised:
        text = parameterizations.advice(name)
        assert text.startswith("Choose it ") and text in " ".join((parameterizations.get(name).__doc__ or "").split())
        assert re.search(rf"^{name} +{re.escape(text)}$", shown, re.MULTILINE)
        assert text in page
    assert len({parameterizations.advice(name) for name in advised}) == len(advised)
    assert "\ndense " in shown


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


def test_one_published_adapter_is_shown_as_it_is_published(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "LoRTA", "--model", MODEL, "--rank", "2")
    n_params = ta.plan(models.config(MODEL), method="lorta", paper=True, rank=2).n_params
    assert "lorta: cp over layer proj : head dim : model  (q k v o)" in shown
    assert f"{MODEL}, rank 2: {n_params:,} parameters in one tensor" in shown


def test_a_name_that_both_have_shows_both_and_a_wrong_one_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "VeRA", "--model", MODEL).count("[d]--o") == 2
    assert main(["methods", "lortaa"]) == 2
    assert "unknown method 'lortaa'; did you mean" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in ("kronecker", "loretta", "quanta", "tt_matrix")]
)
def test_a_diagram_has_a_mark_at_each_bond_of_each_factor(name: str) -> None:
    network = ta.plan(models.config(MODEL), method=name, rank=2).groups[0].network
    head, *lines = diagram(network).splitlines() if network.bonds else ["", *diagram(network).splitlines()]
    column = {bond: head.index(f"{bond}={n}") for bond, n in network.bonds.items()}
    rows = dict(zip((f.name for f in network.factors), (line for line in lines if "[" in line), strict=True))
    for factor in network.factors:
        marked = {at for at, char in enumerate(rows[factor.name]) if char == "o" and at > rows[factor.name].index("]")}
        assert marked == {column[label] for label in factor.labels if label in column}
        assert all(
            f"{label}={network.sizes[label]}" in rows[factor.name] for label in factor.labels if label not in column
        )

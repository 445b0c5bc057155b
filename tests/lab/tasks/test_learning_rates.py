"""The head's learning rate: by kind of model and task, the same in a frontier, a sweep and its frozen base."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import transformers
from support.pictures import save_model, vit, write
from support.sweeping import TINY

import tensoradapt as ta
from tensoradapt.lab.cli.main import main
from tensoradapt.lab.data import models
from tensoradapt.lab.runs.config import REFERENCES, RunConfig
from tensoradapt.lab.sweeps.due import cells, due, with_head_rates
from tensoradapt.lab.sweeps.frontier import frontier_spec, preset, rate
from tensoradapt.lab.sweeps.spec import read_spec
from tensoradapt.lab.tasks import get
from tensoradapt.lab.tasks.language.instruct import Instruct
from tensoradapt.lab.tasks.rates import CAUSAL, ENCODER, HEAD_RATES, PICTURES, SHARES, head_rate, kind_of, shares
from tensoradapt.lab.tasks.vision.task import Pictures

RECORD = Path(__file__).parents[3] / "benchmarks" / "records" / "head_rates.csv"
CONFIGS = {
    "bert": (transformers.BertConfig, ENCODER),
    "roberta": (transformers.RobertaConfig, ENCODER),
    "electra": (transformers.ElectraConfig, ENCODER),
    "gpt2": (transformers.GPT2Config, CAUSAL),
    "llama": (transformers.LlamaConfig, CAUSAL),
    "qwen3": (transformers.Qwen3Config, CAUSAL),
}


def configs(spec: Any) -> tuple[RunConfig, ...]:
    spec = with_head_rates(spec)
    return due(spec, cells(spec, models.config(spec.model)), Path("no-such-folder")).configs


def swept(**changes: Any) -> tuple[RunConfig, ...]:
    return configs(read_spec({**TINY, "reference": ["head", "full"], **changes}))


def heads(found: tuple[RunConfig, ...]) -> dict[str, float | None]:
    """The rate at which the head of each kind of run trains."""
    return {config.kind: config.training.head_lr for config in found}


@pytest.mark.parametrize("name", CONFIGS)
def test_texts_are_read_by_an_encoder_or_a_causal_model(name: str, tmp_path: Path) -> None:
    config, kind = CONFIGS[name]
    config().save_pretrained(tmp_path / name)
    assert kind_of(get("planted"), str(tmp_path / name)) == kind
    assert head_rate(get("planted"), str(tmp_path / name)) == HEAD_RATES[kind, "classification"]
    assert head_rate(get("stsb"), str(tmp_path / name)) == HEAD_RATES[kind, "regression"]


def test_pictures_have_their_own_rate_and_a_language_model_has_no_head() -> None:
    pictures = Pictures("pets", 2, "accuracy")
    assert kind_of(pictures, "any") == PICTURES and head_rate(pictures, "any") == HEAD_RATES[PICTURES, "classification"]
    answers = Instruct("answers", lambda: pytest.fail("loaded"))
    assert head_rate(answers, "no such model") is None
    assert shares(answers, "no such model") == (1.0, 1.0)


def test_another_kind_of_model_takes_a_share_of_the_rates_of_adapters(tmp_path: Path) -> None:
    write(tmp_path / "pets", 20)
    name = save_model(tmp_path / "vit", vit())
    spec = frontier_spec("quick", model=name, task=str(tmp_path / "pets"))
    part, of_full = SHARES[PICTURES]
    assert {method.lr for method in spec.method} == {(round(part * preset("quick")["lr"], 9),)}
    assert spec.reference[-1].lr == (round(of_full * rate("full"), 9),)
    assert spec.head_rates == {"pets": HEAD_RATES[PICTURES, "classification"]}


@pytest.mark.parametrize("case", HEAD_RATES)
def test_every_head_rate_is_the_best_that_was_tried_on_the_frozen_base(case: tuple[str, str]) -> None:
    """Five were tried: the best has the highest mean over seeds on validation in the record of head_rates.py."""
    with RECORD.open(newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["kind"], row["task"]) == case and row["method"] == REFERENCES["head"]
        ]
    rates = {float(row["head_lr"]) for row in rows}
    means = {r: fmean(float(row["validation"]) for row in rows if float(row["head_lr"]) == r) for r in rates}
    assert len(rates) == 5 and HEAD_RATES[case] == max(means, key=lambda r: means[r])


def test_the_frozen_base_and_the_adapters_train_their_head_alike() -> None:
    rate = HEAD_RATES[ENCODER, "classification"]
    assert heads(swept()) == {"adapter": rate, "head": rate, "full": rate}
    assert {config.training.lr for config in swept() if config.kind == "head"} == {rate}
    grid = swept(lr=[1e-3, 3e-3], tuning={"at": "method", "seed": 7, "extend": 0})
    assert [config.tuning for config in grid if config.kind == "head"] == [False], "a head with one rate was tuned"


def test_an_explicit_rate_wins() -> None:
    assert heads(swept(head_lr=0.5)) == {"adapter": 0.5, "head": 0.5, "full": 0.5}
    by_method = {"lora": 1e-3, "lorta": [1e-3], "full": 1e-3, "head": 0.2}
    assert heads(swept(lr=by_method))["head"] == 0.2
    assert heads(swept(lr=by_method, head_lr=0.5)) == {"adapter": 0.5, "head": 0.2, "full": 0.5}


@pytest.mark.parametrize("given", [{}, {"head_lr": 0.01}])
def test_a_frontier_and_a_sweep_of_the_same_methods_are_the_same_runs(given: dict[str, float]) -> None:
    """One recipe for the head's rate, targets and scale, so both commands compute the same of a method."""
    changes = {"model": TINY["model"], "task": "planted", "rank": [1, 2], **given}
    changes["method"] = ["cp", "lora", "vera", "lotr", "metatt-4d"]
    of_frontier = configs(frontier_spec("quick", **changes))
    spec: dict[str, Any] = {**preset("quick"), **changes, "reference": "head"}
    assert {c.id for c in of_frontier if c.kind != "full"} == {c.id for c in configs(read_spec(spec))}


def test_the_plan_prints_the_rate_and_why(tmp_path: Path) -> None:
    said: list[str] = []
    ta.sweep(TINY, tmp_path, executor="inline", device="cpu", say=said.append, dry_run=True, probe=False)
    assert "learning rate of the head: 0.06, measured for text encoders and classification" in "\n".join(said)
    ta.sweep({**TINY, "head_lr": 0.5}, tmp_path, device="cpu", say=said.append, dry_run=True, probe=False)
    assert "learning rate of the head: 0.5\n" in said[-2] + "\n"


def test_published_adapters_are_split_by_shape_as_parameterizations_are() -> None:
    found = read_spec({**TINY, "method": "lotr", "projections": ["all"]})
    assert cells(found, models.config(found.model))[0].n_params


@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf"])
def test_a_head_rate_that_is_no_positive_number_is_refused(value: str, capsys: Any, tmp_path: Path) -> None:
    command = ["frontier", "--model", "tiny-random-bert", "--task", "planted", "--out", str(tmp_path / "runs")]
    assert main([*command, f"--head-lr={value}"]) == 2
    assert re.search(r"head_lr is \S+; expected a finite number above 0", capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()

"""The head's learning rate: by kind of model and task, the same in a frontier, a sweep and its frozen base."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import fmean

import pytest
import transformers

from tensoradapt.lab.runs.config import REFERENCES
from tensoradapt.lab.tasks import get
from tensoradapt.lab.tasks.rates import CAUSAL, ENCODER, HEAD_RATES, head_rate, kind_of

RECORD = Path(__file__).parents[3] / "benchmarks" / "records" / "head_rates.csv"
CONFIGS = {
    "bert": (transformers.BertConfig, ENCODER),
    "roberta": (transformers.RobertaConfig, ENCODER),
    "electra": (transformers.ElectraConfig, ENCODER),
    "gpt2": (transformers.GPT2Config, CAUSAL),
    "llama": (transformers.LlamaConfig, CAUSAL),
    "qwen3": (transformers.Qwen3Config, CAUSAL),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_texts_are_read_by_an_encoder_or_a_causal_model(name: str, tmp_path: Path) -> None:
    config, kind = CONFIGS[name]
    config().save_pretrained(tmp_path / name)
    assert kind_of(get("planted"), str(tmp_path / name)) == kind
    assert head_rate(get("planted"), str(tmp_path / name)) == HEAD_RATES[kind, "classification"]
    assert head_rate(get("stsb"), str(tmp_path / name)) == HEAD_RATES[kind, "regression"]


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

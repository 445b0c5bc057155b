"""The floor of a comparison: a head that is fitted on frozen features, and what happens where none can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from sklearn.linear_model import LogisticRegression
from support.models import DECODER, ENCODER, TEXT

import tensoradapt as ta
from tensoradapt.lab.runs.fitted_head import Features
from tensoradapt.lab.tasks.classification import Classification

SPEC = {"model": "tiny-random-bert", "task": "planted", "lr": 1e-2, "seed": 0, "steps": 3, "reference": "head"}
QUIET: dict[str, Any] = {"executor": "inline", "probe": False, "say": lambda line: None}
IDS = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 10, 1, 1]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def test_a_reference_head_is_fitted_and_scores_as_scikit_learns_on_the_same_features(tmp_path: Path) -> None:
    ta.sweep(SPEC, tmp_path, **QUIET)
    (run,) = ta.load_runs(tmp_path)
    strength = float(run.result["note"].partition("C = ")[2].split()[0])
    data = ta.load_task("planted").task.load("tiny-random-bert")
    torch.manual_seed(0)
    model: Any = data.task.model("tiny-random-bert").eval()
    tokens = [data.task.encode(part, "tiny-random-bert", 64) for part in data.parts]
    with torch.no_grad():
        batches = [data.task.collate(part, model, "cpu") for part in tokens]
        x = [model.bert(b["input_ids"], b["attention_mask"]).pooler_output.numpy() for b in batches]
    mean, spread = x[0].mean(0), x[0].std(0)
    oracle = LogisticRegression(C=strength, max_iter=1000).fit((x[0] - mean) / spread, data.train.labels)
    assert run.result["test"]["accuracy"] == pytest.approx(oracle.score((x[2] - mean) / spread, data.test.labels))
    assert (run.result["n_trained_base"], run.result["n_params"]) == (2 * (x[0].shape[1] + 1), 0)


def test_a_number_is_fitted_by_ridge_regression(tmp_path: Path) -> None:
    words = [{"text": f"word{i % 7} word{i % 5}", "label": float(i % 7) + 0.5} for i in range(140)]
    ta.sweep({**SPEC, "task": {"name": "numbers", "train": words}}, tmp_path, **QUIET)
    (run,) = ta.load_runs(tmp_path)
    assert run.array("predictions").shape == (len(run.array("labels")), 1)
    assert "fitted on frozen features" in run.result["note"] and run.result["n_trained_base"] == 25


@pytest.mark.parametrize("name", ["roberta", "llama"])
def test_features_are_of_the_token_that_the_classifier_reads(name: str) -> None:
    torch.manual_seed(0)
    if name == "roberta":
        model: Any = transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**ENCODER, **TEXT)).eval()
    else:
        config = transformers.LlamaConfig(**DECODER | {"num_labels": 7, "pad_token_id": 1})
        model = transformers.LlamaForSequenceClassification(config).eval()
    reader = Features(Classification("any"), model.get_submodule("classifier" if name == "roberta" else "score"))
    with torch.no_grad():
        found = reader.predict(model, {"input_ids": IDS, "attention_mask": MASK})
        hidden = model.base_model(input_ids=IDS, attention_mask=MASK).last_hidden_state
    expected = hidden[:, 0] if name == "roberta" else torch.stack([hidden[0, 4], hidden[1, 2]])
    torch.testing.assert_close(found, expected)

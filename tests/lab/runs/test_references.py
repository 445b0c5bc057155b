"""What is reported of runs without an adapter: what of the model each trains, and the floor, a fitted head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from sklearn.linear_model import LogisticRegression
from support.chat_models import saved_chat_model
from support.models import DECODER, ENCODER, TEXT

import tensoradapt as ta
from tensoradapt.lab.runs.config import REFERENCES, RunConfig
from tensoradapt.lab.runs.execute import execution, load_data, prepare
from tensoradapt.lab.runs.fitted_head import Features
from tensoradapt.lab.tasks import registry
from tensoradapt.lab.tasks.classification import Classification
from tensoradapt.training.options import Training


def config(kind: str) -> RunConfig:
    return RunConfig("tiny-random-bert", "planted", Training(1e-2, 3), kind=kind)


def in_head(name: str) -> bool:
    return name.startswith("classifier.")


TRAINED = {
    "head": in_head,
    "full": lambda name: True,
    "bitfit": lambda name: in_head(name) or name.endswith(".bias"),
}


@pytest.mark.parametrize("kind", REFERENCES)
def test_a_reference_changes_what_it_trains_and_counts_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    models = []
    monkeypatch.setattr(
        "tensoradapt.lab.runs.execute.prepare", lambda *given: models.append(prepare(*given)) or models[-1]
    )
    run = config(kind)
    found = execution(run, "cpu")
    ((model, plan),) = models
    before, _ = prepare(load_data(run).task, run)
    trained = {name: p for name, p in model.named_parameters() if TRAINED[kind](name)}
    assert plan is None and {name for name, p in model.named_parameters() if p.requires_grad} == {*trained}
    old = dict(before.named_parameters())
    changed = {name for name, p in model.named_parameters() if not p.equal(old[name])}
    assert changed and changed <= {*trained} and {"classifier.weight", "classifier.bias"} <= changed
    assert kind == "head" or any(name.endswith("query.bias") for name in changed)
    counts = [sum(p.numel() for name, p in trained.items() if in_head(name) == part) for part in (False, True)]
    assert [found["result"]["n_params"], found["result"]["n_trained_base"]] == counts
    assert kind != "bitfit" or 0 < counts[0] < sum(p.numel() for p in model.parameters()) / 10


def test_a_model_without_biases_is_refused(tmp_path: Path) -> None:
    model, texts = saved_chat_model(tmp_path / "llama"), tmp_path / "without_biases.csv"
    texts.write_text("text,label\n" + "".join(f"word {i},{i % 2}\n" for i in range(60)))
    task, record = registry.resolve(str(texts))
    run = RunConfig(model, task.name, Training(1e-3, 1), kind="bitfit", own=record)
    with pytest.raises(ta.TensorAdaptError) as refused:
        prepare(task, run)
    assert str(refused.value) == f"reference 'bitfit' trains the biases of a model, and {model} has none; leave it out"


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

"""Runs without an adapter: what of the model each of them trains, and what of it changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.chat_models import saved_chat_model

import tensoradapt as ta
from tensoradapt.lab.runs.config import REFERENCES, RunConfig
from tensoradapt.lab.runs.execute import execution, load_data, prepare
from tensoradapt.lab.tasks import registry
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

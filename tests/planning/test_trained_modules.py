"""train="auto": the head of a classifier is trained beside the adapter, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

import tensoradapt as ta
from tensoradapt.planning.trained_modules import with_heads

SIZES = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3}
BERT = hf.BertConfig(vocab_size=30, **SIZES)
VISION = {"vision_config": {**SIZES, "image_size": 8, "patch_size": 4}}
SMALL = {"method": "cp", "rank": 2}


@pytest.mark.parametrize(
    ("architecture", "config", "heads"),
    [
        ("BertForSequenceClassification", BERT, ("classifier",)),
        ("BertForQuestionAnswering", BERT, ("qa_outputs",)),
        ("BertForMultipleChoice", BERT, ("classifier",)),
        ("DistilBertForSequenceClassification", hf.DistilBertConfig(dim=12), ("pre_classifier", "classifier")),
        ("LlamaForSequenceClassification", hf.LlamaConfig(**SIZES), ("score",)),
        ("BartForSequenceClassification", hf.BartConfig(d_model=16), ("classification_head",)),
        ("SiglipForImageClassification", hf.SiglipConfig(**VISION), ("classifier",)),
        ("BertForMaskedLM", BERT, ()),
        ("LlamaForCausalLM", hf.LlamaConfig(**SIZES), ()),
        ("BertModel", BERT, ()),
    ],
)
def test_the_heads_of_transformers(architecture: str, config: Any, heads: tuple[str, ...]) -> None:
    with torch.device("meta"):
        model = getattr(hf, architecture)(config)
    assert with_heads(model, ("auto",), ()) == heads
    assert with_heads(model, ("auto", "*norm*"), ()) == (*heads, "*norm*")
    assert with_heads(model, (), ()) == ()


@pytest.mark.parametrize("of", [lambda model: model, ta.find_sites])
def test_attach_trains_a_fresh_head_and_the_plan_says_so(of: Any) -> None:
    model = hf.BertForSequenceClassification(BERT)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    plan = ta.plan(of(model), **SMALL)
    assert "trained in place: " + ("classifier (26" if of(model) is model else "the head, if") in str(plan)
    adapter = ta.attach(model, plan)
    assert adapter.plan.train == ("classifier",)
    assert adapter.plan.n_trained_base == 26
    assert "trained in place: classifier (26 parameters, not in the figure above)" in str(adapter.plan)
    factors = {id(parameter) for parameter in adapter.parameters()}
    others = {name for name, p in model.named_parameters() if p.requires_grad and id(p) not in factors}
    assert others == {"classifier.weight", "classifier.bias"}
    ta.detach(model)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags


def test_nothing_is_trained_beside_the_adapter_where_that_is_asked() -> None:
    model = hf.BertForSequenceClassification(BERT)
    adapter = ta.attach(model, ta.plan(model, train=(), **SMALL))
    assert adapter.plan.n_trained_base == 0
    assert not model.classifier.weight.requires_grad

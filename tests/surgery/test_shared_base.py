"""Models around shared parameters: what is the same is one tensor, and what a run trains is its own."""

from __future__ import annotations

import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from tensoradapt.surgery.shared_base import SharedBase, own, sharing

SIZES = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}


def classifier(labels: int) -> nn.Module:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SIZES, num_labels=labels))


def test_models_of_two_heads_share_their_base():
    base = SharedBase()
    two, three = base.model("two", lambda: classifier(2)), base.model("three", lambda: classifier(3))
    assert all(a is b for a, b in zip(two.bert.parameters(), three.bert.parameters(), strict=True))
    assert two.classifier.weight.shape != three.classifier.weight.shape
    assert all(a is not b for a, b in zip(two.modules(), three.modules(), strict=True))
    assert all(a is not b for a, b in zip(two.buffers(), three.buffers(), strict=True))


def test_each_key_is_loaded_once_and_what_a_run_trains_is_its_own_and_begins_as_loaded():
    base, loaded = SharedBase(), []
    models = [base.model("one", lambda: loaded.append(classifier(2)) or loaded[-1]) for _ in range(2)]
    assert len(loaded) == 1
    for model in models:
        model.requires_grad_(False)
        model.classifier.requires_grad_(True)
        base.separate(model)
    heads = [model.classifier.weight for model in models]
    assert heads[0] is not heads[1] and torch.equal(*heads) and all(head.requires_grad for head in heads)
    assert not any(p.requires_grad for p in loaded[0].parameters())
    with torch.no_grad():
        heads[0].zero_()
    assert torch.equal(heads[1], classifier(2).classifier.weight)
    assert models[0].bert.pooler.dense.weight is models[1].bert.pooler.dense.weight


def test_a_tied_parameter_stays_one():
    model = BertForMaskedLM(BertConfig(**SIZES)).requires_grad_(False)
    copied = sharing(model, model)
    table = copied.bert.embeddings.word_embeddings
    assert table.weight is model.bert.embeddings.word_embeddings.weight is copied.cls.predictions.decoder.weight
    own(copied, [(table.weight, table.weight + 1)])
    assert table.weight is copied.cls.predictions.decoder.weight is not model.cls.predictions.decoder.weight
    assert torch.equal(table.weight, model.cls.predictions.decoder.weight + 1)

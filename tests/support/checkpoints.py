"""A small BERT and a trained adapter of it."""

from __future__ import annotations

import torch
from support.copies import made_once
from support.families import planned
from transformers import BertConfig, BertForSequenceClassification

import tensoradapt as ta


@made_once
def bert(layers=3):
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=24,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=40,
        vocab_size=50,
        num_labels=3,
    )
    return BertForSequenceClassification(config).eval()


def trained(model, family, dropout=0.0):
    plan = planned(ta.find_sites(model, "all"), family, rank=2, train=("classifier",), dropout=dropout)
    adapter = ta.attach(model, plan, seed=5)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return adapter


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


IDS = torch.arange(14).reshape(2, 7)

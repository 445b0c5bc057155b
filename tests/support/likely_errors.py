"""The ten errors that users are likeliest to meet, each with what raises it; docs/reference/errors.md explains them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pandas
import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

import tensoradapt as ta
from tensoradapt.lab.analysis.paper import write

SIZES = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 6, "vocab_size": 50}
TIED = "layer proj : head dim : model"


def bert(seed: int = 0) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    return BertForSequenceClassification(BertConfig(**SIZES))


def adapted() -> BertForSequenceClassification:
    model = bert()
    ta.attach(model, ta.plan(model, TIED, "cp", rank=2))
    return model


def second_of_a_name() -> None:
    model = adapted()
    ta.attach(model, ta.plan(bert(), TIED, "cp", rank=2))


def load_on_another_base() -> None:
    ta.adapters(adapted())["default"].save("my-adapter")
    ta.load(bert(seed=1), "my-adapter")


def grouped_queries() -> None:
    ta.plan(LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2)), method="lorta", paper=True, rank=2)


def own_data_without_a_label() -> None:
    Path("reviews.csv").write_text("review,verdict\nA film to see twice.,good\n")
    ta.register_task("reviews", train="reviews.csv", text="review", label="sentiment")


def without_pyarrow() -> None:
    table = pandas.DataFrame({"method": ["lora"]})
    table.rename(columns=str)  # pandas, which has seen pyarrow, loads what it needs of it when it is first used
    with mock.patch.dict(sys.modules, pyarrow=None, fastparquet=None):
        write(table, "table.parquet")


LIKELY: dict[
    str, Callable[[], Any]
] = {  # by the heading of its section in docs/reference/errors.md; in a folder of their own
    "A name that is spelled otherwise": lambda: ta.plan(bert(), TIED, "tuker", rank=2),
    "Neither a rank nor a budget": lambda: ta.plan(bert(), TIED, "cp"),
    "A budget below the smallest adapter": lambda: ta.plan(bert(), TIED, "cp", budget=20),
    "A mode that is not known": lambda: ta.plan(bert(), "layer proj : heads dim : model", "cp", rank=2),
    "A paper's adapter on grouped queries": grouped_queries,
    "A second adapter under the same name": second_of_a_name,
    "Another base than the adapter was trained on": load_on_another_base,
    "An export of an adapter with a trained head": lambda: ta.export_lora(adapted(), "lora"),
    "A column that the file does not have": own_data_without_a_label,
    "An extra that is not installed": without_pyarrow,
}

"""What a mathematician writes: a symmetric CP of her own, from its file to a checkpoint and a sweep.

Its first form has two factors of one name, as in the formula; the second has a name for each.
"""

import functools
import json
import types

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

import tensoradapt as ta
from tensoradapt.testing import laws


def symmetric(first, second):
    """Return CP, sum_k of outer products, whose factors of the first row and the first column have these names."""

    def called(layout):
        names = {name: name for name in layout.names}
        return names | {layout.rows[0].name: first, layout.cols[0].name: second}

    def build(layout, rank):
        start = {layout.rows[0].name: ("zero",)}
        factors = [ta.Factor(name, (mode, "r"), *start.get(mode, ())) for mode, name in called(layout).items()]
        return ta.Network(layout, tuple(factors), {"r": rank})

    def count(layout, rank):
        return rank * sum(layout.shape)

    def oracle(layout, factors):
        columns = [factors[name] for name in called(layout).values()]
        return sum(functools.reduce(np.multiply.outer, [c[:, k] for c in columns]) for k in range(columns[0].shape[1]))

    return types.SimpleNamespace(__name__="symmetric", label="Symmetric CP", build=build, count=count, oracle=oracle)


own = symmetric("a", "b")  # what the entry point of her package names

if __name__ == "__main__":
    config = BertConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, vocab_size=50)
    try:
        ta.plan(config, layout="layer : out : in", method=symmetric("a", "a"), rank=3)
    except ta.TensorAdaptError as error:
        refused = str(error)
    laws(own, examples=10)
    torch.manual_seed(0)
    base = BertForSequenceClassification(config)
    state = {name: value.clone() for name, value in base.state_dict().items()}
    adapter = ta.attach(base, layout="layer : out : in", method=own, rank=3)
    batch = {"input_ids": torch.arange(12).reshape(2, 6), "labels": torch.tensor([0, 1])}
    ta.fit(base, [batch] * 5, lr=1e-2, steps=5)
    adapter.save("mine")
    again = BertForSequenceClassification(config).eval()
    again.load_state_dict(state)
    ta.load(again, "mine")
    same = torch.equal(base(**batch).logits, again(**batch).logits)
    spec = {"model": "tiny-random-bert", "task": "planted", "method": ["symmetric", "lora"], "rank": 2, "lr": 1e-3}
    ta.sweep({**spec, "seed": [0, 1], "steps": 5, "keep": "all"}, "runs", probe=False)
    table = ta.results("runs")
    loaded = ta.load_run("runs", table.query("method == 'symmetric'").id.iloc[0])
    facts = {"refused": refused, "n_params": adapter.n_params, "same": same, "compared": len(ta.compare(table))}
    print(json.dumps({**facts, "of_run": loaded.adapter.n_params}))

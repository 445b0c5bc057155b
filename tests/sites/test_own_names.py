"""Projections may have the names of the model's own modules; those of other families are answered with ours."""

from __future__ import annotations

import pytest
from transformers import BertConfig, GPT2Config

import tensoradapt as ta

BERT = BertConfig(hidden_size=24, num_attention_heads=4, num_hidden_layers=2, intermediate_size=32)
GPT2 = GPT2Config(n_embd=24, n_head=4, n_layer=2)


def projections(config: object, *names: str) -> set[str]:
    return {str(site.coord["proj"]) for site in ta.find_sites(config, names)}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("query", "value"), {"q", "v"}),
        (("self.query",), {"q"}),
        (("attention.output.dense",), {"o"}),
        (("dense",), {"o", "up", "down"}),
        (("all-linear",), {"q", "k", "v", "o", "up", "down"}),
        (("query", "v"), {"q", "v"}),
    ],
)
def test_a_name_of_the_models_own_is_understood(names: tuple[str, ...], found: set[str]) -> None:
    assert projections(BERT, *names) == found


def test_a_module_that_holds_several_projections_is_all_of_them() -> None:
    assert projections(GPT2, "c_attn") == {"q", "k", "v"}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("q_proj", "what other models call so is 'q' here"),
        ("c_attn", "what other models call so is 'q' and 'k' and 'v' here"),
        ("qeury", 'did you mean "query"?'),
        ("nonsense", "matches nothing in bert by recipe bert"),
    ],
)
def test_a_name_of_another_family_is_answered(name: str, says: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=says.replace("?", r"\?")):
        ta.find_sites(BERT, name)

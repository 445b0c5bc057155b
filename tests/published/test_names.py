"""Every spelling and label is understood wherever a parameterization or a published adapter is named."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

import tensoradapt as ta
from tensoradapt import parameterizations, published
from tensoradapt.parameterizations import spelling

MODEL = transformers.BertConfig(hidden_size=24, num_attention_heads=4, num_hidden_layers=2, intermediate_size=48)


@pytest.mark.parametrize("name", parameterizations.names())
def test_every_parameterization_is_found_by_its_label_and_in_any_spelling(name: str) -> None:
    label = getattr(parameterizations.get(name), "label", name)
    for text in (name, label, label.upper(), name.replace("_", " ").title(), name.replace("_", "-")):
        assert parameterizations.name_of(text) == name
        assert parameterizations.get(text) is parameterizations.get(name)


@pytest.mark.parametrize("name", published.names())
def test_every_published_adapter_is_found_in_any_spelling(name: str) -> None:
    for text in (name, name.upper(), name.replace("-", " "), name.replace("-", "_"), f"Its family ({name})"):
        assert published.get(text).name == name


def test_no_two_names_are_one_spelling() -> None:
    for names in (parameterizations.names(), published.names()):
        assert len({spelling(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"method": "CP (LoRTA)"}, {"method": "cp"}),
        ({"method": "Tensor-train"}, {"method": "tensor_train"}),
        ({"method": "LoRA", "paper": True}, {"method": "lora", "paper": True}),
        ({"method": "CP (LoRTA)", "paper": True}, {"method": "lorta", "paper": True}),
    ],
)
def test_a_plan_and_what_is_written_of_it_have_the_name_itself(given: Any, name: Any) -> None:
    assert ta.plan(MODEL, rank=2, **given) == ta.plan(MODEL, rank=2, **name)


def test_a_frontier_is_of_the_names_themselves_whatever_their_spelling() -> None:
    from tensoradapt.published.methods import spelled

    assert [*map(spelled, ("LoRA", "CP (LoRTA)", "Tucker", "LoRTA", "MetaTT 4D", "nope"))] == [
        *("lora", "cp", "tucker", "lorta", "metatt-4d", "nope")
    ]


@pytest.mark.parametrize(
    ("name", "what"), [("lokr", "decompose_both"), ("tinylora", "weight_tying"), ("loha", "ranks")]
)
def test_what_of_peft_a_row_cannot_express_is_said_in_the_list(name: str, what: str) -> None:
    row = published.get(name)
    assert what in f"{row.source} {row.note}" and "not expressible" in f"{row.source} {row.note}"
    if name == "loha":
        bound = 24 * 24 // (2 * (24 + 24))  # o i / 2(o + i)
        assert ta.plan(MODEL, method=name, paper=True, rank=bound).n_params == 4 * 24 * 24  # as many as are dense
        with pytest.raises(ta.TensorAdaptError, match="the 4 matrices themselves have only"):
            ta.plan(MODEL, method=name, paper=True, rank=bound + 1)

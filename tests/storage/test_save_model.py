"""A saved model goes on working: its folder has weights, names of classes, the tokenizer and a card."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import make

import tensoradapt as ta


class Unsaved:
    """A tokenizer that cannot be saved."""

    def save_pretrained(self, path: Path) -> None:
        raise NotImplementedError("slow tokenizers only")


def merged() -> Any:
    model = make("bert")
    ta.attach(model, "cp", rank=2)
    return ta.merge_and_unload(model)


def test_it_warns_where_no_tokenizer_is_known(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"no tokenizer was written into .*model; a pipeline would .* answer nonsense"):
        ta.save_model(merged(), tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert 'model = BertForSequenceClassification.from_pretrained("model")' in card and "processor" not in card


def test_nothing_is_written_without_a_tokenizer_that_can_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ta.TensorAdaptError, match=r"cannot be written \(slow tokenizers only\); expected a folder"):
        ta.save_model(merged(), tmp_path / "model", Unsaved())
    with pytest.raises(ta.TensorAdaptError, match="tokenizer is 'bert'; expected a tokenizer or image processor"):
        ta.save_model(merged(), tmp_path / "model", "bert")
    assert not (tmp_path / "model").exists()


def test_adapters_and_other_modules_are_refused(tmp_path: Path) -> None:
    model = make("bert")
    ta.attach(model, "cp", rank=2)
    with pytest.raises(ta.TensorAdaptError, match=r"the model has adapters; call ta\.merge_and_unload\(model\) first"):
        ta.save_model(model, tmp_path)
    with pytest.raises(ta.TensorAdaptError, match="expected a model of transformers"):
        ta.save_model(torch.nn.Linear(2, 2), tmp_path)


def test_tied_embeddings_stay_tied(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=30, num_key_value_heads=3, tie_word_embeddings=True, **sizes))
    ta.attach(model.eval(), "lora", rank=1, start="subtract")
    ids = torch.arange(6)[None]
    with warnings.catch_warnings(action="ignore"):
        ta.save_model(ta.merge_and_unload(model), tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.model.embed_tokens.weight
    torch.testing.assert_close(again(ids).logits, model(ids).logits)


def test_names_of_classes_are_saved_with_an_adapter_and_go_with_it(tmp_path: Path) -> None:
    model = make("bert")
    own = {number: f"class {number}" for number in model.config.id2label}
    model.config.id2label, model.config.label2id = own, {name: number for number, name in own.items()}
    ta.attach(model, "cp", rank=2, train=("classifier",)).save(tmp_path)
    again = make("bert")
    before = dict(again.config.id2label)
    ta.load(again, tmp_path).save(tmp_path / "second")
    assert again.config.id2label == own and again.config.label2id["class 1"] == 1
    ta.detach(again)
    assert again.config.id2label == before
    ta.load(again, tmp_path)
    assert ta.merge_and_unload(again).config.id2label == own
    named = make("bert")
    named.config.id2label = {number: f"other {number}" for number in own}
    ta.load(named, tmp_path / "second")
    assert named.config.id2label[1] == "other 1"  # the model's own names stay

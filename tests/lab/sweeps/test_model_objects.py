"""A sweep of a model object: saved once under the hash of its content, then a model by its folder as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.sweeping import TINY
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

import tensoradapt as ta
from tensoradapt.lab.data import models

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}


def model(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = transformers.BertConfig(**SIZES, vocab_size=64, initializer_range=0.2)
    return transformers.BertForSequenceClassification(config)


def tokenizer() -> Any:
    words = {"[PAD]": 0, "[UNK]": 1} | {word: 2 + i for i, word in enumerate("good bad film very not".split())}
    made = Tokenizer(WordLevel(words, "[UNK]"))
    made.pre_tokenizer = Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    rows = [f"{'very ' * (i % 7)}{'good' if i % 2 else 'bad'} film {i},{i % 2}" for i in range(80)]
    path = tmp_path / "reviews.csv"
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


def test_a_sweep_takes_a_model_and_its_tokenizer_and_leaves_them_as_they_are(tmp_path: Path, reviews: Path) -> None:
    mine, before = model(), {name: value.clone() for name, value in model().state_dict().items()}
    changes = {"method": "lora", "rank": 1, "n_train": 40, "n_validation": 4, "n_test": 10}
    spec = {**TINY, **changes, "task": [str(reviews)], "model": mine, "tokenizer": tokenizer()}
    ended = ta.sweep(spec, tmp_path / "runs", executor="inline", say=lambda line: None)
    assert ended.complete
    again = ta.sweep(spec, tmp_path / "runs", executor="inline", say=lambda line: None)
    assert again == ended
    folder = ta.load_runs(tmp_path / "runs")[0].config["model"]
    assert [path.name for path in (tmp_path / "runs" / "models").iterdir()] == [Path(folder).name]
    saved = models.from_pretrained(transformers.AutoModelForSequenceClassification, folder).state_dict()
    for name, value in before.items():
        assert torch.equal(mine.state_dict()[name], value)
        assert torch.equal(saved[name], value)


def adapted() -> Any:
    mine = model()
    ta.attach(mine, ta.plan(mine, "layer proj : head dim : model", "cp", 2))
    return mine


BAD = {
    "no model of transformers": ({"model": torch.nn.Linear(2, 2)}, "expected a name, a folder, or a model of transf"),
    "no tokenizer": ({"model": model()}, 'as {"model": model, "tokenizer": tokenizer}'),
    "a tokenizer that cannot be saved": ({"model": model(), "tokenizer": str.split}, "expected a tokenizer or image"),
    "a tokenizer of a name": ({"model": "my-model", "tokenizer": tokenizer()}, "expected it beside a model object"),
    "no values": ({"model": model().to("meta"), "tokenizer": tokenizer()}, "load its weights first"),
    "an adapted model": ({"model": adapted(), "tokenizer": tokenizer()}, "merge_and_unload"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_saved_is_refused_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    given, message = BAD[case]
    with pytest.raises(ta.TensorAdaptError) as error:
        ta.sweep({**TINY, **given}, tmp_path / "runs", say=lambda line: None)
    assert message in str(error.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]

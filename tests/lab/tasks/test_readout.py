"""The mean of the tokens as what a head reads: against an independent mean, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.models import DEBERTA, DECODER, ENCODER, T5, TEXT
from support.tasks import answers

import tensoradapt as ta
from tensoradapt.lab.tasks.readout import read_mean

IDS = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 10, 1, 1]])  # 1 pads
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
MAKES: dict[str, Any] = {
    "bert": lambda: transformers.BertForSequenceClassification(transformers.BertConfig(**ENCODER, **TEXT)),
    "roberta": lambda: transformers.RobertaForSequenceClassification(transformers.RobertaConfig(**ENCODER, **TEXT)),
    "deberta": lambda: transformers.DebertaV2ForSequenceClassification(
        transformers.DebertaV2Config(**ENCODER, **TEXT, **DEBERTA)
    ),
    "llama": lambda: transformers.LlamaForSequenceClassification(
        transformers.LlamaConfig(**DECODER | {"num_labels": 7, "pad_token_id": 1})
    ),
}


def made(name: str) -> Any:
    torch.manual_seed(0)
    return MAKES[name]().eval()


@pytest.mark.parametrize("name", MAKES)
def test_the_head_reads_the_mean_of_the_tokens_that_are_no_padding(name: str) -> None:
    model = read_mean(made(name))
    plain = made(name).base_model
    with torch.no_grad():
        logits = model(input_ids=IDS, attention_mask=MASK).logits
        for row, n in enumerate((5, 3)):
            tokens = plain(input_ids=IDS[row : row + 1, :n], attention_mask=MASK[row : row + 1, :n]).last_hidden_state
            mean = tokens.mean(1, keepdim=True)
            if name == "bert":
                expected = model.classifier(mean[:, 0])
            elif name == "deberta":
                expected = model.classifier(model.pooler(mean))
            else:
                expected = (model.classifier if name == "roberta" else model.score)(mean).reshape(1, -1)
            torch.testing.assert_close(logits[row : row + 1], expected)


def test_an_encoder_decoder_is_refused() -> None:
    model = transformers.T5ForSequenceClassification(transformers.T5Config(**T5, num_labels=3))
    with pytest.raises(ta.TensorAdaptError, match='readout is "mean", and T5ForSequenceClassification is an encoder'):
        read_mean(model)


def test_a_sweep_takes_the_readout_of_a_method_and_refuses_it_where_nothing_reads_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"model": "tiny-random-bert", "task": "planted", "rank": 2, "lr": 1e-2, "seed": 0, "steps": 3}
    methods = [{"method": "cp", "name": name, "readout": name} for name in ("model", "mean")]
    ta.sweep(spec | {"method": methods}, tmp_path, executor="inline", probe=False, say=lambda line: None)
    first, second = ta.load_runs(tmp_path)
    assert {first.row["readout"], second.row["readout"]} == {"model", "mean"}
    assert (first.array("predictions") != second.array("predictions")).any()
    with pytest.raises(ta.TensorAdaptError, match="readout is 'first'"):
        ta.sweep(spec | {"method": "cp", "readout": "first"}, tmp_path)
    monkeypatch.setattr(answers, "TASK", answers.TASKS["answers"], raising=False)
    prompts = {"task": "support.tasks.answers:TASK", "method": "cp", "readout": "mean"}
    with pytest.raises(ta.TensorAdaptError, match="readout is \"mean\", and task 'answers' has no classifier of texts"):
        ta.sweep(spec | prompts, tmp_path)


def test_the_start_of_a_run_is_kept_with_it(tmp_path: Path) -> None:
    spec = {"model": "tiny-random-bert", "task": "planted", "method": "cp", "rank": 2}
    spec |= {"lr": 1e-2, "seed": 0, "steps": 3}
    ta.sweep(spec, tmp_path, executor="inline", probe=False, say=lambda line: None)
    (run,) = ta.load_runs(tmp_path)
    begun = ta.results(tmp_path)["begun"].iloc[0]
    assert begun == run.measurements["begun"] and begun[:2] == "20" and begun[10] == "T" and len(begun) == 19

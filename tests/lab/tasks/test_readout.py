"""The mean of the tokens as what a head reads: against an independent mean, and what is refused."""

from typing import Any

import pytest
import torch
import transformers
from support.models import DEBERTA, DECODER, ENCODER, TEXT

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

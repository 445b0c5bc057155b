"""What the head of a text classifier reads: as transformers' classifier does, or the mean of an example's tokens.

Sentence encoders are trained for the mean (Reimers and Gurevych, arXiv 1908.10084, section 3), and the classifier of
transformers reads their first token, through a pooler that was trained for another task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tensoradapt.errors import TensorAdaptError

if TYPE_CHECKING:
    from torch import nn

READOUTS = ("model", "mean")


def read_mean(model: nn.Module) -> nn.Module:
    """Let the head of a transformers classifier of texts read the mean of the tokens; returns the model.

    The base model then returns the mean over unmasked tokens, (batch, width), in place of each token's features and of
    the pooled ones, so whichever of them a head reads, it reads the mean. Raises TensorAdaptError for an
    encoder-decoder, whose tokens are of two texts.
    """
    config: Any = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise TensorAdaptError(
            f'readout is "mean", and {type(model).__name__} is an encoder-decoder; expected readout = "model", or a '
            "model with one stack of layers, such as BERT or Llama"
        )
    base: Any = model.base_model
    base.register_forward_hook(_mean_of_tokens, with_kwargs=True)
    return model


def _mean_of_tokens(base: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
    features = output.last_hidden_state  # (batch, tokens, width)
    mask = named["attention_mask"].unsqueeze(-1).to(features.dtype)
    mean = (features * mask).sum(1) / mask.sum(1).clamp(min=1)
    output.last_hidden_state = mean.unsqueeze(1).expand_as(features)
    if getattr(output, "pooler_output", None) is not None:
        output.pooler_output = mean
    return output

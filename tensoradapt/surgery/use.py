"""use: which of a model's adapters compute, alone, in sum, or one for each sample of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.adapter.gate import Gate
from tensoradapt.checks import check_number
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.surgery.registry import Adapters, give_heads, required


def use(
    model: nn.Module,
    names: str | Sequence[str] | Mapping[str, float] | None = None,
    *,
    samples: Sequence[str | None] | None = None,
    every: bool = False,
) -> None:
    """Chooses the adapters of a model by name: one, several whose updates are summed, several with a factor each, or
    with ``samples`` one for each sample of the next batches (None: the base).

    The adapters named are trained, with their heads; the others are frozen. ``every``: all updates are computed and
    those not chosen multiplied by 0, so that a compiled model has one graph whatever is chosen; what is trained is left
    as it is then. Raises TensorAdaptError, with nothing changed, for unknown names, two adapters that trained the same
    head, and a merged model.

    >>> import torch
    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertModel
    >>> model = BertModel(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20))
    >>> sites = ta.find_sites(model)
    >>> a = ta.attach(model, ta.plan(sites, parameterization="lora", rank=2), name="a")
    >>> b = ta.attach(model, ta.plan(sites, parameterization="cp", rank=3), name="b")
    >>> ta.use(model, {"a": 0.5, "b": 0.5})
    >>> ta.use(model, samples=["a", None, "b"])
    >>> _ = model(torch.ones(3, 4, dtype=torch.long))
    """
    found = required(model)
    if found.merged:
        raise TensorAdaptError("the adapters in use are merged into the weights; call unmerge(model) first")
    shares = _per_sample(found, samples) if names is None else _shares(found, names)
    if (names is None) == (samples is None):
        raise TensorAdaptError("expected names or samples=, one of them")
    give_heads(model, shares)
    none = torch.zeros(()) if samples is None else torch.zeros(len(samples))
    for name, adapter in found.named().items():
        share = shares.get(name, none)
        adapter.gate.used = every or name in shares
        adapter.gate.by_share = every or isinstance(share, Tensor) or share != 1
        _set(adapter.gate, torch.as_tensor(share, dtype=torch.get_default_dtype()))
        if not every:
            for parameter in (*adapter.parameters(), *adapter.attachment.head_parameters().values()):
                parameter.requires_grad_(False)
    for name in () if every else shares:
        one = found.named()[name]
        for parameter in (*one.parameters(), *one.attachment.head_parameters().values()):
            parameter.requires_grad_(True)


def _set(gate: Gate, share: Tensor) -> None:
    """In place where it can be: a compiled graph reads that tensor."""
    if gate.share.shape == share.shape:
        gate.share.copy_(share)
    else:
        gate.share = share.to(gate.share.device, copy=True)  # none shares it with another


def _shares(found: Adapters, names: Any) -> dict[str, float]:
    given = names if isinstance(names, Mapping) else dict.fromkeys([names] if isinstance(names, str) else names, 1.0)
    if not given:
        raise TensorAdaptError(
            f"no adapter was named{did_you_mean('', found)}; for the base alone: with disabled(model)"
        )
    for name, share in given.items():
        _check_name(found, name)
        check_number(f"the factor of {name!r}", abs(share) if isinstance(share, int | float) else share, above=0)
    return dict(given)


def _per_sample(found: Adapters, samples: Sequence[str | None] | None) -> dict[str, Tensor]:
    if samples is None or isinstance(samples, str) or len(samples) == 0:
        raise TensorAdaptError(
            f"samples is {samples!r}; expected a sequence with a name, or None for the base, for each sample of the "
            "batch"
        )
    for name in samples:
        if name is not None:
            _check_name(found, name)
    names = [name for name in dict.fromkeys(samples) if name is not None]
    return {name: torch.tensor([float(one == name) for one in samples]) for name in names}


def _check_name(found: Adapters, name: Any) -> None:
    if name not in found.named():
        raise TensorAdaptError(f"the model has no adapter named {name!r}{did_you_mean(name, found.named())}")

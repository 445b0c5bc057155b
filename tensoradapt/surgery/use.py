"""use: choose which of a model's adapters compute: one, a sum of several, or one for each sample of a batch."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.adapter.chosen_updates import Gate
from tensoradapt.checks import check_number, flag, shown, strings
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.surgery.registry import Adapters, give_heads, required
from tensoradapt.surgery.transaction import Transaction, transaction


def use(
    model: nn.Module,
    names: str | Sequence[str] | Mapping[str, float] | None = None,
    *,
    samples: Sequence[str | None] | None = None,
    every: bool = False,
) -> None:
    """Choose the adapters of a model that compute; they and their heads are trained, the others are frozen.

    Args:
        model: a model with adapters, not merged.
        names: one adapter, several whose updates are summed, or a mapping with a factor for each.
        samples: instead of ``names``, an adapter for each sample of the next batches; None for the base.
        every: compute all updates and multiply those not chosen by 0, so that a compiled model has one graph whatever
            is chosen. What is trained stays as it is then.

    Raises:
        TensorAdaptError: with nothing changed, for unknown names, two adapters with the same head, and a merged model.

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
    registry, every = required(model), flag(every, "every")
    if registry.merged:
        raise TensorAdaptError("the adapters in use are merged into the weights; call unmerge(model) first")
    shares = _per_sample(registry, samples) if names is None else _shares(registry, names)
    if (names is None) == (samples is None):
        raise TensorAdaptError("expected names or samples=, one of them")
    with transaction(model) as change:
        choose(model, shares, change, every, 0 if samples is None else len(samples))


def choose(
    model: nn.Module, shares: Mapping[str, Any], change: Transaction, every: bool = False, n_samples: int = 0
) -> None:
    """Let these adapters compute, each times its share: a number, or one for each of ``n_samples``."""
    registry, zero = required(model), torch.zeros(n_samples) if n_samples else torch.zeros(())
    give_heads(model, shares, change.write)
    for name, adapter in registry.named().items():
        share = shares.get(name, zero)
        adapter.gate.used = every or name in shares
        adapter.gate.by_share = every or isinstance(share, Tensor) or share != 1
        _set(adapter.gate, torch.as_tensor(share, dtype=torch.get_default_dtype()), change)
    if not every:
        _train_only(registry, shares)


def _train_only(registry: Adapters, names: Container[str]) -> None:
    """Let the parameters and heads of these adapters require gradients, and no others'."""
    for name, adapter in sorted(registry.named().items(), key=lambda item: item[0] in names):  # those chosen last
        for parameter in (*adapter.parameters(), *adapter.attachment.head_parameters().values()):
            parameter.requires_grad_(name in names)


def _set(gate: Gate, share: Tensor, change: Transaction) -> None:
    """Set the share in place where its shape allows, because a compiled graph reads that tensor."""
    if gate.share.shape == share.shape:
        change.write(gate.share, share)
    else:
        gate.share = share.to(gate.share.device, copy=True)  # a copy, because gates may be given the same tensor


def _shares(registry: Adapters, names: Any) -> dict[str, float]:
    given = names if isinstance(names, Mapping) else dict.fromkeys(strings(names, "names"), 1.0)
    if not given:
        raise TensorAdaptError(
            f"no adapter was named{did_you_mean('', registry)}; for the base alone: with disabled(model)"
        )
    for name, share in given.items():
        _check_name(registry, name)
        check_number(f"the factor of {name!r}", abs(share) if isinstance(share, int | float) else share, above=0)
        most = torch.finfo(torch.get_default_dtype()).max
        if abs(share) > most:
            raise TensorAdaptError(
                f"the factor of {name!r} is {share!r}; expected one that updates can hold, up to {most:.3g}"
            )
    return dict(given)


def _per_sample(registry: Adapters, samples: Sequence[str | None] | None) -> dict[str, Tensor]:
    if not isinstance(samples, list | tuple) or len(samples) == 0:
        raise TensorAdaptError(
            f"samples is {shown(samples)}; expected a list with a name, or None for the base, for each sample of the "
            "batch"
        )
    for name in samples:
        if name is not None:
            _check_name(registry, name)
    names = [name for name in dict.fromkeys(samples) if name is not None]
    return {name: torch.tensor([float(sample == name) for sample in samples]) for name in names}


def _check_name(registry: Adapters, name: Any) -> None:
    if not isinstance(name, str) or name not in registry.named():
        raise TensorAdaptError(f"the model has no adapter named {shown(name)}{did_you_mean(name, registry.named())}")

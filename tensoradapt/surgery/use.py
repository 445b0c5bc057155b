"""use chooses which of a model's adapters compute: one, a sum of several, or one for each sample of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.chosen_updates import Gate, Samples
from tensoradapt.checks import check_number, flag, shown, strings
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.layers.wrapper import wrapped
from tensoradapt.surgery.registry import Adapters, give_heads, required, untouched
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
        samples: instead of ``names``, an adapter for each sample of the next batches; None for the base. Each adapter
            computes its own samples alone. Where those of one adapter lie side by side, the batch is not copied.
        every: compute all updates and multiply those not chosen by 0, so that a compiled model has one graph whatever
            is chosen. What is trained stays as it is then.

    Raises:
        TensorAdaptError: with nothing changed, for unknown names, two adapters with the same head, and a merged model.

    >>> import torch
    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertModel
    >>> model = BertModel(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20))
    >>> sites = ta.find_sites(model)
    >>> a = ta.attach(model, ta.plan(sites, "lora", rank=2), name="a")
    >>> b = ta.attach(model, ta.plan(sites, "cp", rank=3), name="b")
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
    with transaction(model, apart=() if every else untouched(model, *shares)) as change:
        choose(model, shares, change, samples, every)


def choose(
    model: nn.Module,
    shares: Mapping[str, float],
    change: Transaction,
    samples: Sequence[str | None] | None = None,
    every: bool = False,
) -> None:
    """Let these adapters compute, each times its share, or for the samples that name it.

    Only they and those that computed before are gone through, as the model may have thousands.
    """
    registry = required(model)
    give_heads(model, shares, change.write)
    before = registry.used
    chosen = {name: adapter for name, adapter in registry.named().items() if every or name in shares}
    for adapter in before.values():
        adapter.forward_pass.end()
        adapter.gate.samples, adapter.gate.by_share, adapter.averaged_by = None, False, 0
    if every:
        _by_share(chosen, shares if samples is None else _ones(samples, chosen), change)
    elif samples is not None:
        _by_group(chosen, samples)
    else:
        _by_share({name: adapter for name, adapter in chosen.items() if shares[name] != 1}, shares, change)
    registry.used = chosen
    for _, layer in wrapped(model):
        layer.choose(chosen.values())
    if not every:
        _train_only(before.values(), chosen.values(), change)


def _by_share(adapters: Mapping[str, Adapter], shares: Mapping[str, float | Tensor], change: Transaction) -> None:
    """Multiply the updates of these adapters by their shares, 0 where they have none."""
    zero = torch.zeros_like(torch.as_tensor(next(iter(shares.values()), 0.0)))
    for name, adapter in adapters.items():
        adapter.gate.by_share = True
        _set(adapter.gate, torch.as_tensor(shares.get(name, zero), dtype=torch.get_default_dtype()), change)


def _by_group(adapters: Mapping[str, Adapter], samples: Sequence[str | None]) -> None:
    """Let each adapter compute the samples that name it."""
    groups = None
    for name, adapter in adapters.items():
        groups = groups or Samples(samples)
        adapter.gate.samples, adapter.gate.group = groups, groups.number[name]


def _ones(samples: Sequence[str | None], names: Iterable[str]) -> dict[str, Tensor]:
    """Return for each adapter a tensor that is 1 at its samples and 0 at the others."""
    return {name: torch.tensor([float(sample == name) for sample in samples]) for name in names}


def _train_only(before: Iterable[Adapter], chosen: Iterable[Adapter], change: Transaction) -> None:
    """Let the parameters and heads of the chosen adapters require gradients, and not those of the ones before."""
    trained = {p for adapter in chosen for p in trained_by(adapter)}
    for parameter in trained.union(p for adapter in before for p in trained_by(adapter)):
        if parameter.requires_grad != (now := parameter in trained):
            change.undo.append(partial(parameter.requires_grad_, not now))
            parameter.requires_grad_(now)


def trained_by(adapter: Adapter) -> list[Tensor]:
    """Return an adapter's parameters, and those of the base modules that it trains."""
    return [*adapter.parameters(), *adapter.attachment.head_parameters().values()]


def _set(gate: Gate, share: Tensor, change: Transaction) -> None:
    """Set the share in place where its shape allows, because a compiled graph reads that tensor."""
    if gate.share.shape == share.shape:
        change.write(gate.share, share)
    else:
        gate.share = share.to(gate.share.device, copy=True)  # a copy, because gates may be given the same tensor


def _shares(registry: Adapters, names: Any) -> dict[str, float]:
    own = next((name for name, adapter in registry.named().items() if adapter is names), None)
    if own is not None:
        raise TensorAdaptError(f"names is an adapter of this model; expected its name: use(model, {own!r})")
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


def _per_sample(registry: Adapters, samples: Sequence[str | None] | None) -> dict[str, float]:
    if not isinstance(samples, list | tuple) or len(samples) == 0:
        raise TensorAdaptError(
            f"samples is {shown(samples)}; expected a list with a name, or None for the base, for each sample of the "
            "batch"
        )
    for name in samples:
        if name is not None:
            _check_name(registry, name)
    return dict.fromkeys((name for name in samples if name is not None), 1.0)


def _check_name(registry: Adapters, name: Any) -> None:
    if not isinstance(name, str) or name not in registry:
        raise TensorAdaptError(f"the model has no adapter named {shown(name)}{did_you_mean(name, registry.named())}")

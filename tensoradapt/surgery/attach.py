"""attach and detach put an adapter into a model and take it out; disabled switches all off for a while."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.attachment import Attachment, origin_of
from tensoradapt.adapter.sharding import refuse_sharded
from tensoradapt.checks import check_is, shown, strings
from tensoradapt.errors import TensorAdaptError
from tensoradapt.layers.stored_matrix import Matrices
from tensoradapt.layers.weight_change import lengths
from tensoradapt.layers.wrapper import Wrapped, wrapped
from tensoradapt.planning.build_plan import plan as plan_of
from tensoradapt.planning.plan import Plan
from tensoradapt.planning.scale import is_matched
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.planning.trained_modules import trained_modules, with_heads
from tensoradapt.records import keywords
from tensoradapt.sites.modules import ROOT
from tensoradapt.sites.site import Site
from tensoradapt.surgery.base_hash import base_hash, hash_when_saved
from tensoradapt.surgery.base_prefix import fitted
from tensoradapt.surgery.checks import Values, check_attach, given_values, on_meta
from tensoradapt.surgery.factors_from_model import checked_batches, values_from_model
from tensoradapt.surgery.fast_paths import switch_off_fast_paths
from tensoradapt.surgery.memory import CPU, check_memory
from tensoradapt.surgery.merge import merge, restore_weights
from tensoradapt.surgery.registry import (
    Adapters,
    adapters,
    attached,
    give_heads,
    guard,
    original_modules,
    registered,
    required,
    unguard,
    untouched,
)
from tensoradapt.surgery.same_model import check_same_model
from tensoradapt.surgery.transaction import Transaction, transaction
from tensoradapt.surgery.use import choose


@overload
def attach(model: nn.Module, plan: Sequence[Plan], **settings: Any) -> list[Adapter]: ...


@overload
def attach(model: nn.Module, plan: Plan | AdapterSpec | str | None = None, *size: Any, **settings: Any) -> Adapter: ...


@keywords(AdapterSpec)
def attach(
    model: nn.Module,
    plan: Plan | Sequence[Plan] | AdapterSpec | str | None = None,
    *size: Any,
    seed: int = 0,
    values: Sequence[Mapping[str, Tensor | np.ndarray]] | None = None,
    batches: Iterable[Any] | None = None,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    name: str | Sequence[str] = "default",
    **settings: Any,
) -> Any:
    """Wrap the plan's layers, register the adapter at the model's root, and freeze the base but for ``plan.train``.

    The output does not change, except with ``start="lora-sb"``, and with ``start="paper"`` where the paper does not
    start at zero. Factors have torch's default dtype (fp32), on the device of the first adapted weight. On a model on
    the meta device they have shapes and no values, and nothing is drawn, read or solved (docs/results/performance.md).

    Args:
        model: the base model; it may have other adapters.
        plan: a plan whose sites are this model's, or those of the base model in it; or what ``plan`` takes after the
            model, which is planned then: the name of a method, a layout, a rank, the fields below. A list of plans
            attaches an adapter for each, and all are in use: the update of a weight is their sum.
        size: layout and rank, where the plan is a method's name.
        seed: the seed of the factors that are drawn, from 0 to 2**63 - 1; the next plans of a list have the next seeds.
        values: for each tensor of the plan all its stored factors, in place of drawn ones; ``compress`` returns them.
            Frozen factors that are drawn from ``seed``, such as VeRA's A and B, may be given too, or alone; given ones
            are saved with the adapter, for each tensor. A matched scale is that of the draws which the values replace:
            with its plan and seed an adapter's own factors make its updates again, unless its start took them from the
            model or its ranks were reduced; ``load`` puts back any adapter. With ``start="subtract"`` training begins
            at the values of the trained factors, and a copy of these is held and subtracted.
        batches: with a start that reads gradients or inputs of layers (docs/guides/starts.md), those it reads.
        loss: ``loss(model, batch)`` for one of them; by default ``model(**batch).loss``.
        name: the adapter's name in the model. It is used alone until ``use`` is called, and a warning says so of the
            second. For a list of plans a name for each, by default those of their methods.
        {fields}

    Returns:
        The adapter, whose ``tensors`` hold the factors and ``delta(site)`` is an update (out, in); a list of adapters
        for a list of plans.

    Raises:
        TensorAdaptError: with the model unchanged, for a container as root, a taken name, a seed out of range, missing
            modules or shapes that are not the plan's, a plan of a model with other heads or layers, weights of which
            only some are on the meta device, quantised weights where factors come from them, values that do not fit
            the plan, and more numbers than there is free memory for.

    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> adapter = ta.attach(model, "cp", rank=2)
    >>> adapter.n_params, [name for name, one in model.named_parameters() if one.requires_grad][-2:]
    (50, ['tensoradapt.default.tensors.0.trained.model', 'tensoradapt.default.tensors.0.trained.proj'])
    """
    _check_model(model, plan)
    if isinstance(plan, list | tuple) and plan and all(isinstance(one, Plan) for one in plan):
        if size or settings or values is not None:
            raise TensorAdaptError("other settings were given with a list of plans; expected them in the plans")
        return _attach_all(model, plan, seed, batches, loss, name)
    planned, given = _planned(model, plan, size, settings), None
    if values is not None:
        planned, given = given_values(planned, values)
    adapter = attach_with(model, planned, seed, given, batches, loss, name=name)
    if len(every := adapters(model)) == 2:  # whoever attaches a third has read this
        warnings.warn(_at_rest(every), stacklevel=2)
    return adapter


def _attach_all(
    model: nn.Module,
    plans: Sequence[Plan],
    seed: int,
    batches: Iterable[Any] | None,
    loss: Callable[[nn.Module, Any], Tensor] | None,
    name: str | Sequence[str],
) -> list[Adapter]:
    """Attach an adapter for each plan, all or none, and use them together."""
    names = _names([plan.spec.name for plan in plans]) if name == "default" else strings(name, "name")
    if len(set(names)) < len(names) or len(names) != len(plans):
        raise TensorAdaptError(f"name is {shown(name)} for {len(plans)} plans; expected a name of its own for each")
    read = list(batches) if isinstance(batches, Iterable) else batches  # every plan reads them anew
    with transaction(model) as change:
        made = []
        for i, (plan, own) in enumerate(zip(plans, names, strict=True)):
            check_same_model(model, plan)
            made.append(attach_with(model, plan, seed + i, None, read, loss, name=own))
        choose(model, dict.fromkeys(names, 1.0), change)
    return made


def _names(methods: Sequence[str]) -> list[str]:
    """Return a name for each plan: its method's, and from the second of a method on with a number."""
    nth = [methods[:i].count(method) + 1 for i, method in enumerate(methods)]
    return [method if n == 1 else f"{method}{n}" for method, n in zip(methods, nth, strict=True)]


def _at_rest(two: Mapping[str, Adapter]) -> str:
    """Say that the second of two adapters computes alone, and how both do."""
    (first, one), (second, other) = two.items()
    both = f"to use both: ta.use(model, {{{first!r}: 1.0, {second!r}: 1.0}})"
    if one.attachment.head_parameters().keys() & other.attachment.head_parameters():
        both = "both train the model's head, so plan them with train=() to use both at once"
    return f"adapter {first!r} is at rest now, and {second!r} computes and trains alone; {both}"


def _check_model(model: Any, plan: Any) -> None:
    """Raise TensorAdaptError for a model's name or config, and for arguments in another order."""
    if isinstance(plan, nn.Module):
        raise TensorAdaptError(
            "the second argument is an Adapter; expected a plan. To put an adapter back that was taken out, call "
            "adapter.save(folder), then load(model, folder)"
            if isinstance(plan, Adapter)
            else "the second argument is a model; expected it first, as in attach(model, plan)"
        )
    if isinstance(model, str | os.PathLike) or (hasattr(model, "model_type") and not isinstance(model, nn.Module)):
        raise TensorAdaptError(
            f"the model is {shown(model)}; expected a module with weights, as "
            "transformers' AutoModelForSequenceClassification.from_pretrained(name) gives; plan takes a name or a "
            "config too"
        )
    check_is("model", model, nn.Module)


def _planned(model: nn.Module, plan: Any, size: Sequence[Any], settings: Mapping[str, Any]) -> Plan:
    """Return a plan as it is, and plan what was given in its place."""
    if not isinstance(plan, Plan):
        return plan_of(model, *(() if plan is None else (plan,)), *size, **settings)
    if size or settings:
        raise TensorAdaptError(
            f"{next(iter(settings), 'another argument')} was given with a plan, which has its settings; expected one "
            "of them: attach(model, plan), or attach(model, method, ...)"
        )
    check_same_model(model, plan)
    return plan


def attach_with(
    model: nn.Module,
    plan: Plan,
    seed: int,
    values: Values | None,
    batches: Iterable[Any] | None = None,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
    scales: Sequence[float] | None = None,
    name: Any = "default",
) -> Adapter:
    """Attach an adapter as ``attach`` does, with values for some factors only; the others are drawn.

    ``scales`` are multipliers that are known, so that they are not solved again.
    """
    check_is("model", model, nn.Module)
    check_is("plan", plan, Plan)
    modules, own = original_modules(model), values if scales is None else None  # that the caller gave
    plan = fitted(plan, model, modules)
    plan = replace(plan, train=with_heads(model, plan.train, plan.sites))
    reads = plan.needs_weights and values is None
    matrices = check_attach(model, modules, plan, seed, name, reads, values is not None)
    device, empty = matrices[plan.sites[0].name].weight.device, on_meta(matrices)
    given = checked_batches(plan, batches) if reads and not empty else []
    if not empty:
        check_memory(plan, [CPU, device])  # numbers are drawn on the CPU
    heads = trained_modules(model, plan.train, plan.paper)
    numbers = {id(p): p.numel() for head in heads.values() for p in head.parameters()}
    if reads and not empty:
        values, measured = values_from_model(model, matrices, plan, given, loss, seed)
    planned = replace(plan, spec=replace(plan.spec, method=plan.spec.name), n_trained_base=sum(numbers.values()))
    adapter = Adapter(planned, seed, values, scales, empty) if own is None else _of_values(planned, seed, own)
    if reads and not empty and plan.begins.finish:
        plan.begins.finish(adapter, measured)
    adapter.to(device)
    if not empty:
        _share_bases(adapter, adapters(model).values())
        set_magnitudes(adapter, matrices)
    base = "" if empty else base_hash(matrices)
    adapter.attachment = Attachment(heads, base, origin_of(model))
    with transaction(model, apart=untouched(model)) as change:
        new = registered(model) is None
        _register(model, name, adapter)
        adapter.attachment.base_now = partial(hash_when_saved, required(model), matrices, base)
        _wrap(model, adapter, matrices)
        required(model).changed += switch_off_fast_paths(model)
        choose(model, {name: 1.0}, change)
        if new:
            change.undo.append(required(model).unfollow)
            required(model).follow_passes(model)
    return adapter


def _of_values(plan: Plan, seed: int, values: Values) -> Adapter:
    """Make an adapter of values that the caller gave; a matched scale is that of the draws which they replace.

    Given frozen factors count, as trained ones do that no draw gives.
    """
    adapter = Adapter(plan, seed, values)
    adapter.given = True
    if is_matched(plan.scale):
        networks = [group.network for group in plan.groups]
        drawn = [{f.name for f in network.factors if f.trainable and f.source == "draw"} for network in networks]
        others = [{k: v for k, v in given.items() if k not in own} for given, own in zip(values, drawn, strict=True)]
        for tensor, own in zip(adapter.factored, Adapter(plan, seed, others).factored, strict=True):
            tensor.scale = own.scale
    return adapter


def _share_bases(adapter: Adapter, others: Iterable[Adapter]) -> None:
    """Hold random frozen matrices once for all adapters that drew the same ones, until one adapter is moved alone."""
    alike = [other.bases for other in others if other.seed == adapter.seed]
    for name in list(adapter.bases._buffers):
        adapter.bases.share(name, (bases._buffers.get(name) for bases in alike))


def _register(model: nn.Module, name: str, adapter: Adapter) -> None:
    if (registry := registered(model)) is None:
        model.add_module(ROOT, registry := Adapters(model))
        guard(model)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
    for key, parameter in adapter.attachment.head_parameters().items():
        registry.originals.setdefault(key, parameter.detach().clone())
    registry.head_modules.update(adapter.attachment.heads)
    registry[name] = adapter


def _wrap(model: nn.Module, adapter: Adapter, matrices: Matrices) -> None:
    by_module: dict[str, list[Site]] = {}
    for site in adapter.plan.sites:
        by_module.setdefault(site.module, []).append(site)
    for module, sites in by_module.items():
        if not isinstance(layer := model.get_submodule(module), Wrapped):
            model.set_submodule(module, layer := Wrapped(layer, matrices[sites[0].name]))
        layer.add(adapter, sites, matrices)


@torch.no_grad()
def set_magnitudes(adapter: Adapter, matrices: Matrices) -> None:
    """Start DoRA's magnitudes with the lengths of the rows of W + delta."""
    for row_block in adapter.plan.row_blocks:
        matrix = matrices[row_block.sites[0].name].read()
        magnitudes = lengths(adapter, row_block, matrix)
        if not torch.isfinite(magnitudes).all():
            raise TensorAdaptError(
                f'site {row_block.sites[0].name} has base weights that are not finite, and rule="dora" takes the '
                "lengths of their rows; load the base again"
            )
        adapter.magnitudes.of(row_block).copy_(magnitudes)


def detach(model: nn.Module, name: str | None = None) -> Adapter:
    """Take an adapter out of a model (docs/guides/several-adapters.md).

    Without its last adapter, the model's weights, heads, ``requires_grad`` flags and modules are bit for bit as before
    ``attach``. A merged model is unmerged first, unless ``keep=False`` gave up its original weights.

    Args:
        model: a model with an adapter.
        name: which adapter; needed where there are several.

    Returns:
        The adapter, with the heads that it trained.

    Raises:
        TensorAdaptError: with nothing changed, for a model without adapters and an unknown name.

    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> adapter = ta.attach(model, "cp", rank=2)
    >>> ta.detach(model) is adapter, ta.adapters(model)
    (True, {})
    """
    adapter = attached(model, name)
    refuse_sharded(model, "detach")
    registry = required(model)
    name = next(key for key, other in registry.named().items() if other is adapter)
    with transaction(model, apart=untouched(model, name)) as change:
        if registry.merged and registry.kept is not None:
            restore_weights(registry, change)
        give_heads(model, [key for key in registry.used if key != name], change.write)
        for module, layer in list(wrapped(model)):
            if not layer.remove(adapter):
                model.set_submodule(module, layer.base)
        del registry[name]
        registry.used.pop(name, None)
        adapter.gate.merged = False  # with keep=False the model keeps the update; the adapter still has it
        if not registry.named():
            _unregister(model, registry)
            _unfollow(model, registry, change)
    adapter.attachment.detached = True
    return adapter


def merge_and_unload(model: nn.Module) -> nn.Module:
    """Merge the adapters in use for good and take all adapters out (docs/guides/merge-and-save.md).

    Its outputs are those of the adapted model but for rounding, and trained heads stay. ``save_model`` saves it with
    its tokenizer; ``save_pretrained`` saves the model alone, as any other.

    Args:
        model: a model with an adapter.

    Returns:
        The same model, now a plain one.

    Raises:
        TensorAdaptError: with nothing changed, for what ``merge`` refuses.

    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> adapter = ta.attach(model, "cp", rank=2)
    >>> plain = ta.merge_and_unload(model)
    >>> plain is model, ta.adapters(model)
    (True, {})
    """
    registry = required(model)
    refuse_sharded(model, "merge_and_unload")
    with transaction(model) as change:
        if not registry.merged:
            merge(model, keep=False)
        for module, layer in list(wrapped(model)):
            model.set_submodule(module, layer.base)
        for adapter in registry.named().values():
            adapter.gate.merged = False
        registry.changed = [one for one in registry.changed if isinstance(one[0], nn.Module)]  # names of classes stay
        _unregister(model, registry)
        _unfollow(model, registry, change)
    for adapter in registry.named().values():
        adapter.attachment.detached = True
    return model


def _unregister(model: nn.Module, registry: Adapters) -> None:
    delattr(model, ROOT)
    unguard(model)
    for module, attribute, value in reversed(registry.changed):  # one may be in it twice
        setattr(module, attribute, value)
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(registry.flags.get(key, parameter.requires_grad))  # it may be newer than the adapter


def _unfollow(model: nn.Module, registry: Adapters, change: Transaction) -> None:
    change.undo.append(lambda: registry.follow_passes(model))
    registry.unfollow()


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Make the model compute, inside this context, what it did before ``attach`` (docs/guides/several-adapters.md).

    Args:
        model: a model with adapters, not merged; trained heads stay.

    Returns:
        The context; it gives nothing.

    Raises:
        TensorAdaptError: for a model without adapters, or a merged one.

    >>> import torch
    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> adapter = ta.attach(model, "cp", rank=2)
    >>> with ta.disabled(model):
    ...     scores = model(torch.ones(1, 4, dtype=torch.long)).logits
    """
    registry = required(model)
    if registry.merged:
        raise TensorAdaptError(
            "the adapter is merged into the weights and cannot be disabled; call unmerge(model) first"
        )
    with ExitStack() as held:
        for adapter in registry.named().values():
            held.enter_context(adapter.disabled())
        yield

"""fit_many trains several adapters of one model in turns, each as if it were alone, over one frozen base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from tensoradapt.adapter.sharding import refuse_sharded
from tensoradapt.checks import anything, checked, mapping, shown
from tensoradapt.checks import seed as checked_seed
from tensoradapt.errors import TensorAdaptError, did_you_mean, located
from tensoradapt.layers.wrapper import wrapped
from tensoradapt.surgery.registry import Adapters, required
from tensoradapt.surgery.shared_base import own, sharing
from tensoradapt.training.fit import FitResult, training
from tensoradapt.training.options import Training
from tensoradapt.training.turns import Turns, in_turns

OPTIONS = {field.name for field in fields(Training)}
ARGUMENTS = {"batches", "heads", "loss", "reduce", "on_step", "checkpoint"}  # what fit takes besides
KEYS = {**dict.fromkeys((*OPTIONS, *ARGUMENTS), anything), "seed": checked_seed}


def fit_many(model: nn.Module, runs: Mapping[str, Mapping[str, Any]]) -> dict[str, FitResult]:
    """Train several adapters of a model in one process, each to the bit as ``fit`` would train it alone.

    The adapters take turns, a step each. A run computes on modules of its own around the model's frozen parameters,
    with its own head, optimizer, schedule and random numbers, so no run sees another, and their batches, steps and
    losses may be of any kind. A run that diverges ends alone. In memory are one base, all adapters with the state of
    their optimizers, and the activations of one step. It saves memory and the time to load, not arithmetic.

    The adapters that are used stay so, and adapters and heads are left trained. Buffers that a training changes, such
    as running means, are a run's own and end with it.

    Args:
        model: a model with an adapter for each run, attached by name and not merged.
        runs: for each adapter's name the arguments of ``fit`` but ``progress``, and ``seed`` (default 0) of the random
            numbers that its training draws, for dropout for example: as after ``torch.manual_seed(seed)``.

    Returns:
        The result of each run.

    Raises:
        TensorAdaptError: before any step, for unknown adapters, what ``fit`` refuses, one iterator of batches or one
            checkpoint for two runs, merged adapters, and a model that is sharded, compiled or inside DDP. What a run
            raises in a step ends all of them.

    >>> import torch
    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> for rank in (1, 2):
    ...     adapter = ta.attach(model, ta.plan(model, "cp", rank=rank), name=f"rank{rank}")
    >>> batches = [{"input_ids": torch.ones(2, 4, dtype=torch.long), "labels": torch.tensor([0, 1])}] * 3
    >>> runs = {f"rank{rank}": {"batches": batches, "lr": 1e-3, "steps": 3} for rank in (1, 2)}
    >>> [len(result.losses) for result in ta.fit_many(model, runs).values()]
    [3, 3]
    """
    registry = required(model)
    _check(model, registry, runs)
    with _all_trained(registry, runs):
        views = {name: _view(model, name) for name in runs}
        works = {name: _training(views[name], name, settings) for name, settings in runs.items()}
        try:
            return in_turns({name: _seeded(work, runs[name].get("seed", 0)) for name, work in works.items()})
        finally:
            for name, view in views.items():
                _keep_heads(model, view, name)
            model.eval()


def _check(model: nn.Module, registry: Adapters, runs: Any) -> None:
    mapping(runs, "runs")
    if registry.merged:
        raise TensorAdaptError("the adapters in use are merged into the weights; call unmerge(model) first")
    refuse_sharded(model, "training several adapters at once", "Train them one after another by fit")
    if hasattr(model, "_orig_mod"):
        raise TensorAdaptError("the model is compiled, and each run needs modules of its own; give the model inside")
    for name, settings in runs.items():
        if name not in registry.named():
            raise TensorAdaptError(f"the model has no adapter named {shown(name)}{did_you_mean(name, registry)}")
        with located(f"run {name}"):
            checked(settings, KEYS, "")
            if lacking := [key for key in ("batches", "lr", "steps") if key not in settings]:
                raise TensorAdaptError(f"{lacking[0]} is missing; fit needs it")
    _check_apart(runs)


def _check_apart(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise TensorAdaptError where two runs would take batches or checkpoints from each other."""
    for what in ("batches", "checkpoint"):
        seen: dict[Any, str] = {}
        for name, settings in runs.items():
            given = settings.get(what)
            if given is None or (what == "batches" and not isinstance(given, Iterator)):
                continue  # a list or a loader, which begins anew for each run
            key = id(given) if what == "batches" else getattr(given, "path", id(given))
            if (other := seen.setdefault(key, name)) != name:
                raise TensorAdaptError(
                    f"runs {other!r} and {name!r} have the same {what}, of which each needs its own: an iterator, or a "
                    "file, that two of them use gives each a part"
                )


@contextmanager
def _all_trained(registry: Adapters, names: Mapping[str, Any]) -> Iterator[None]:
    """Let these adapters compute and train inside this context, as each would after ``use``; then put all back."""
    adapters = [registry.named()[name] for name in names]
    gates = [(a.gate, a.gate.samples, a.gate.by_share) for a in adapters]
    flags = [(a, {name: p.requires_grad for name, p in a.named_parameters()}) for a in adapters]
    for adapter in adapters:
        adapter.gate.samples, adapter.gate.by_share = None, False
        adapter.requires_grad_(True)
    try:
        yield
    finally:
        for gate, samples, by_share in gates:
            gate.samples, gate.by_share = samples, by_share
        for adapter, trained in flags:
            for name, parameter in adapter.named_parameters():
                parameter.requires_grad_(trained[name])
                parameter.grad = None


def _view(model: nn.Module, name: str) -> nn.Module:
    """Return the model with one of its adapters, the others left out, and with heads of its own for that adapter."""
    named = required(model).named()
    view, adapter = sharing(model, model, named.values()), named[name]
    registry = required(view)
    for module, layer in list(wrapped(view)):
        if adapter in layer.updates:
            layer.updates = {adapter: layer.updates[adapter]}
            layer.choose([adapter])
        else:
            view.set_submodule(module, layer.base)
    registry.used = {name: adapter}
    for other in named:
        if other != name:
            del registry[other]
    values = {**registry.originals, **adapter.attachment.head_tensors()}
    parameters = _parameters(view)
    own(view, [(parameters[key], values[key]) for key in registry.originals])
    for key, parameter in _parameters(view).items():
        if key in registry.originals:
            parameter.requires_grad_(key in adapter.attachment.head_parameters())
    return view


def _parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict(model.named_parameters(remove_duplicate=False))  # a head may be tied to an embedding


def _training(view: nn.Module, name: str, settings: Mapping[str, Any]) -> Turns[FitResult]:
    with located(f"run {name}"):
        options = Training(**{key: value for key, value in settings.items() if key in OPTIONS})
        return training(view, options=options, **{key: v for key, v in settings.items() if key in ARGUMENTS})


def _seeded(work: Turns[FitResult], seed: int) -> Turns[FitResult]:
    torch.manual_seed(seed)
    return (yield from work)


@torch.no_grad()
def _keep_heads(model: nn.Module, view: nn.Module, name: str) -> None:
    """Give trained heads to the model where it has this adapter's, else to the adapter."""
    registry, trained, live = required(model), _parameters(view), _parameters(model)
    attachment = registry.named()[name].attachment
    for key in attachment.head_parameters():
        if registry.owners.get(key) == name:
            live[key].copy_(trained[key])
        else:
            attachment.inactive_heads[key] = trained[key].detach().clone()

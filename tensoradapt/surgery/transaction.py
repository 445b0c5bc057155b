"""A transaction is a change of a model that leaves it as it was when it raises or is interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.adapter.attachment import Attachment
from tensoradapt.adapter.chosen_updates import TaskChoice

UNCHANGED = frozenset(name for name in vars(nn.Module()) if "hooks" in name)  # no call changes a model's hooks
PLAIN = frozenset((bool, int, float, str, type(None)))  # most attributes have these types, which are told quickly
CONTAINERS = (dict, list, set)
OWNERS = (Attachment, TaskChoice, nn.Module)
Undo = Callable[[], object]
_open: ContextVar[Transaction | None] = ContextVar("transaction", default=None)


class Transaction:
    """What has to be undone, beside the structure of the model, if a change fails."""

    def __init__(self) -> None:
        self.undo: list[Undo] = []

    @torch.no_grad()
    def write(self, tensor: Tensor, value: Tensor) -> None:
        """Copy numbers into a tensor; its old ones are kept until the change is complete."""
        kept = tensor.detach().clone()
        self.undo.append(lambda: _copy(tensor, kept))
        tensor.copy_(value)


@contextmanager
def transaction(
    *roots: nn.Module, optimizer: torch.optim.Optimizer | None = None, apart: Iterable[nn.Module] = ()
) -> Iterator[Transaction]:
    """Undo everything inside this context on any exception, Ctrl-C and out-of-memory too, and raise it again.

    Undone are changes to modules (children, parameters, buffers, modes, other attributes and the contents of
    those that are dicts, lists or sets), to parameters' ``requires_grad``, ``grad`` and ``data``, to an optimizer's
    groups and states, and numbers that ``Transaction.write`` wrote. No number is copied but those. ``apart``: modules
    that the change leaves alone, which cost nothing then.
    """
    modules = _modules(roots, apart)
    kept = _contents(modules, optimizer)
    found = {id(p): p for module in modules for p in module._parameters.values() if p is not None}
    parameters = [(p, _data(p), p.requires_grad, p.grad) for p in found.values()]
    change, outer = Transaction(), _open.get()
    token = _open.set(change)
    try:
        yield change
    except BaseException:
        for undo in reversed(change.undo):
            undo()
        _put_back(kept, parameters)
        raise
    else:
        if outer is not None:  # which may fail yet
            outer.undo += change.undo
    finally:
        _open.reset(token)


def _modules(roots: Iterable[nn.Module], apart: Iterable[nn.Module]) -> list[nn.Module]:
    memo = set(apart)
    return [module for root in roots for _, module in root.named_modules(memo)]


def _contents(modules: list[nn.Module], optimizer: torch.optim.Optimizer | None) -> list[tuple[Any, Any]]:
    """Return each container of a model that may change, and a copy of it.

    Few objects are made, because many would make Python collect garbage, which takes longer than all the rest.
    """
    found: dict[int, Any] = {id(module): module for module in modules}
    owners: list[Any] = list(modules)
    containers: list[Any] = []
    if optimizer is not None:
        containers += [optimizer.state, optimizer.param_groups, *optimizer.param_groups]
    for owner in owners:  # which grows while it is gone through, by objects of ours that are attributes
        attributes = vars(owner)
        containers.append(attributes)
        for key, value in attributes.items():
            if key in UNCHANGED or type(value) in PLAIN:
                continue
            if isinstance(value, CONTAINERS):
                containers.append(value)
            elif isinstance(value, OWNERS) and id(value) not in found:
                found[id(value)] = value
                owners.append(value)
    return [(container, container.copy() if container else None) for container in containers]


def _data(parameter: nn.Parameter) -> Tensor | None:
    """Return the tensor that a parameter refers to; None for those of quantised layers, which are replaced."""
    return parameter.data if type(parameter) is nn.Parameter else None


def _put_back(kept: list[tuple[Any, Any]], parameters: list[tuple[Any, Any, bool, Any]]) -> None:
    for container, contents in kept:
        container.clear()
        if contents is not None:
            (container.extend if isinstance(container, list) else container.update)(contents)
    for parameter, data, flag, grad in parameters:
        if data is not None and parameter.data_ptr() != data.data_ptr():
            parameter.data = data
        parameter.requires_grad_(flag)
        parameter.grad = grad


def _copy(tensor: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        tensor.copy_(value)

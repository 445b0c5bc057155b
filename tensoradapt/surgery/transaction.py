"""Transactions: a change of a model that raises, or is interrupted, leaves the model as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.adapter.attachment import Attachment
from tensoradapt.adapter.chosen_updates import TaskChoice

Undo = Callable[[], None]
_open: ContextVar[Transaction | None] = ContextVar("transaction", default=None)


class Transaction:
    """What has to be undone, beside the structure of the model, if the change fails."""

    def __init__(self) -> None:
        self.undo: list[Undo] = []

    @torch.no_grad()
    def write(self, tensor: Tensor, value: Tensor) -> None:
        """Copy numbers into a tensor; its old ones are kept until the change is complete."""
        kept = tensor.detach().clone()
        self.undo.append(lambda: _copy(tensor, kept))
        tensor.copy_(value)


@contextmanager
def transaction(*roots: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Iterator[Transaction]:
    """Within this context, undo everything on any exception, Ctrl-C and out-of-memory too, and raise it again.

    Undone are changes to modules (children, parameters, buffers, hooks, modes, other attributes and the contents of
    those that are dicts, lists or sets), to parameters' ``requires_grad``, ``grad`` and ``data``, to an optimizer's
    groups and states, and numbers that ``Transaction.write`` wrote. No number is copied but those.
    """
    restore = [*map(_attributes, _objects(roots)), *map(_parameter, _parameters(roots))]
    if optimizer is not None:
        held: list[Any] = [optimizer.state, optimizer.param_groups, *optimizer.param_groups]
        restore += map(_contents, held)
    change, outer = Transaction(), _open.get()
    token = _open.set(change)
    try:
        yield change
    except BaseException:
        for undo in (*reversed(change.undo), *restore):
            undo()
        raise
    else:
        if outer is not None:  # which may fail yet
            outer.undo += change.undo
    finally:
        _open.reset(token)


def _objects(roots: tuple[nn.Module, ...]) -> Iterator[Any]:
    """The modules, and objects of ours that are attributes of them."""
    found = {id(module): module for root in roots for module in root.modules()}
    yield from found.values()
    for module in found.values():
        for value in vars(module).values():
            if isinstance(value, Attachment | TaskChoice | nn.Module) and id(value) not in found:
                yield value


def _parameters(roots: tuple[nn.Module, ...]) -> Iterator[nn.Parameter]:
    return iter({id(p): p for root in roots for p in root.parameters()}.values())


def _attributes(owner: Any) -> Undo:
    attributes = vars(owner)
    kept = dict(attributes)
    contents = [_contents(value) for value in kept.values() if isinstance(value, dict | list | set)]

    def undo() -> None:
        attributes.clear()
        attributes.update(kept)
        for restore in contents:
            restore()

    return undo


def _contents(container: Any) -> Undo:
    kept = container.copy()

    def undo() -> None:
        container.clear()
        (container.extend if isinstance(container, list) else container.update)(kept)

    return undo


def _parameter(parameter: nn.Parameter) -> Undo:
    flag, grad = parameter.requires_grad, parameter.grad
    data = parameter.data if type(parameter) is nn.Parameter else None  # others, of quantised layers, are replaced

    def undo() -> None:
        if data is not None and parameter.data_ptr() != data.data_ptr():
            parameter.data = data
        parameter.requires_grad_(flag)
        parameter.grad = grad

    return undo


def _copy(tensor: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        tensor.copy_(value)

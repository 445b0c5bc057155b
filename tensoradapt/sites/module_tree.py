"""The layers of a model and the matrices in them, read from its module tree: which lists repeat, what they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

FUSED = dict.fromkeys(("qkv", "to_qkv", "qkv_proj", "Wqkv", "c_attn", "in_proj"), ("q", "k", "v"))
EXPERTS = "experts"  # the list whose places are experts, not layers


@dataclass(frozen=True)
class Matrix:
    """A logical (out, in) matrix, or a block of its rows: ``path`` from the root of the walk, ``role`` if one is
    certain from how it is stored.
    """

    path: str
    out: int
    in_: int
    role: str = ""
    rows: tuple[int, int] | None = None
    parameter: str = "weight"
    slot: int | None = None


def stacks(model: Any) -> list[tuple[str, dict[int, Any]]]:
    """The lists of repeated layers, as paths and layers by number, in model order.

    A list repeats if two or more of its modules are of one class or hold the same matrices. One whose layers differ is
    passed over for the lists inside it (the stages of a hierarchical model). Lists of one layer count if no other is
    there.
    """
    return list(_stacks(model, "", 2)) or list(_stacks(model, "", 1))


def matrices(module: Any, path: str = "") -> Iterator[Matrix]:
    """All matrices below a module that layers of a known kind hold, fused ones as their parts."""
    own = list(_own(module, path))
    yield from own
    if not own or own[0].slot is not None:
        for name, child in module.named_children():
            yield from matrices(child, f"{path}.{name}" if path else name)


def is_list(module: Any) -> bool:
    """Whether a module is a list of others."""
    from torch import nn

    return isinstance(module, nn.ModuleList | nn.Sequential)


def _stacks(module: Any, path: str, least: int) -> Iterator[tuple[str, dict[int, Any]]]:
    layers = _layers(module, least) if is_list(module) and path.rpartition(".")[2] != EXPERTS else {}
    children = [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]
    inner = [found for name, child in children for found in _stacks(child, name, least)] if not _alike(layers) else []
    if layers and not inner:
        yield path, layers
    yield from inner


def _layers(module: Any, least: int) -> dict[int, Any]:
    """A list's modules by place that hold matrices deeper inside, if enough of them are alike."""
    held = {n: child for n, child in enumerate(module) if any(True for _ in matrices(child))}
    if any(not list(child.children()) or list(_own(child, "")) for child in held.values()):
        return {}  # linear layers in a row are no layers of a transformer
    kinds = Counter(type(child) for child in held.values()) + Counter(map(_structure, held.values()))
    return held if max(kinds.values(), default=0) >= least else {}


def _alike(layers: dict[int, Any]) -> bool:
    """Whether all layers hold the same matrices, shapes included."""
    return len({_structure(layer) for layer in layers.values()}) == 1


def _structure(layer: Any) -> tuple[Matrix, ...]:
    return tuple(matrices(layer))


def _own(module: Any, path: str) -> Iterator[Matrix]:
    """What one module holds itself."""
    from torch import nn

    if isinstance(module, nn.MultiheadAttention):
        yield from _attention(module, path)
    elif isinstance(module, nn.Linear):
        yield from _parts(path, module.out_features, module.in_features)
    elif type(module).__name__ == "Conv1D" and getattr(getattr(module, "weight", None), "ndim", 0) == 2:
        yield from _parts(path, *reversed(module.weight.shape))
    else:
        yield from _stacked(module, path)


def _attention(module: Any, path: str) -> Iterator[Matrix]:
    width = module.embed_dim
    widths = {"q": width, "k": module.kdim, "v": module.vdim}
    for i, role in enumerate("qkv"):
        if module.in_proj_weight is None:
            yield Matrix(path, width, widths[role], role, None, f"{role}_proj_weight")
        else:
            yield Matrix(path, width, width, role, (i * width, (i + 1) * width), "in_proj_weight")
    yield Matrix(path, width, width, "o", None, "out_proj.weight")


def _parts(path: str, out: int, in_: int) -> Iterator[Matrix]:
    last = path.rpartition(".")[2]
    roles: tuple[str, ...] = FUSED.get(last, ()) if out == 3 * in_ else ()
    if last == "gate_up_proj" and out % 2 == 0:
        roles = ("gate", "up")
    if not roles:
        yield Matrix(path, out, in_)
    for i, role in enumerate(roles):
        n = out // len(roles)
        yield Matrix(path, n, in_, role, (i * n, (i + 1) * n))


def _stacked(module: Any, path: str) -> Iterator[Matrix]:
    """Experts in two parameters, (experts, gate and up, width) and (experts, width, inner), if the shapes say so."""
    gate_up, down = getattr(module, "gate_up_proj", None), getattr(module, "down_proj", None)
    if getattr(gate_up, "ndim", 0) != 3 or getattr(down, "ndim", 0) != 3:
        return
    (n, both, width), (_, out, ff) = gate_up.shape, down.shape  # type: ignore[union-attr]
    if both != 2 * ff or out != width or both == width:
        return
    for slot in range(n):
        yield Matrix(path, ff, width, "gate", (0, ff), "gate_up_proj", slot)
        yield Matrix(path, ff, width, "up", (ff, both), "gate_up_proj", slot)
        yield Matrix(path, width, ff, "down", None, "down_proj", slot)

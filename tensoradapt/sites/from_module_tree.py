"""The generic recipe: the sites of any model, from its module tree. A projection is called q, k, v, o, gate, up or down
only where its name and shape are certain, and by its path below the layer otherwise. No torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tensoradapt.sites.recipe import ATTENTION
from tensoradapt.sites.site import Candidate, Site

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


MLP = ("gate", "up", "down")
NAMES = {  # ends of paths; the longest that fits decides
    "q": "q_proj query q_lin query_proj q_linear to_q wq q",
    "k": "k_proj key k_lin key_proj k_linear to_k wk k",
    "v": "v_proj value v_lin value_proj v_linear to_v wv v",
    "o": "o_proj out_proj out_lin to_out to_out.0 attn.proj attn.c_proj attn.Wo attention.wo attention.dense "
    "attention.output.dense SelfAttention.o EncDecAttention.o",
    "gate": "gate_proj wi_0",
    "up": "up_proj fc1 linear1 lin1 wi wi_1 mlp.c_fc intermediate.dense dense_h_to_4h",
    "down": "down_proj fc2 linear2 lin2 DenseReluDense.wo mlp.c_proj output.dense dense_4h_to_h",
}
ROLES = {end: role for role, ends in NAMES.items() for end in ends.split()}
CROSS = ("encoder_attn", "EncDecAttention", "crossattention", "cross_attn", "cross_attention", "multihead_attn")
HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")


@dataclass(frozen=True)
class Found:
    """A matrix of a layer, and what the names around it say."""

    matrix: Matrix  # its path is below the layer
    proj: str
    cross: bool
    expert: int | None

    @property
    def place(self) -> tuple[Any, ...]:
        """What tells it from the others of the layer."""
        return self.proj, self.cross, self.expert


def sites_from_tree(model: Any) -> list[Candidate]:
    """The sites of all lists of repeated layers; none where there are no such lists."""
    found = stacks(model)
    candidates: list[Candidate] = []
    for path, layers in found:
        name = path if len(found) > 1 else None
        seen = {n: _in_layer(layer) for n, layer in layers.items()}
        crossed = any(one.cross for every in seen.values() for one in every)
        for n, every in seen.items():
            heads = _heads(model, layers[n], every)
            candidates += (_candidate(one, path, name, n, crossed, every, heads) for one in every)
    return candidates


def _in_layer(layer: Any) -> list[Found]:
    """A layer's matrices with their projections; those whose name two have are called by their paths."""
    own = [_expert(layer, matrix) for matrix in matrices(layer)]
    width = _width([matrix for matrix, _, _ in own])
    found = [
        Found(matrix, matrix.role or _role(matrix, width), bool(set(CROSS) & set(path.split("."))), expert)
        for matrix, path, expert in own
    ]
    counts = Counter(one.place for one in found)
    paths = [path for _, path, _ in own]
    return [_by_path(one, path, counts) for one, path in zip(found, paths, strict=True)]


def _by_path(one: Found, path: str, counts: Counter[tuple[Any, ...]]) -> Found:
    if one.proj and counts[one.place] == 1:
        return one
    return replace(one, proj=f"{path}.{one.matrix.role}" if one.matrix.role else path)


def _expert(layer: Any, matrix: Matrix) -> tuple[Matrix, str, int | None]:
    """The path without the place in a list of experts, and that place."""
    parts = matrix.path.split(".")
    if matrix.slot is not None or EXPERTS not in parts:
        return matrix, matrix.path, matrix.slot
    at = parts.index(EXPERTS) + 1
    if at == len(parts) or not is_list(layer.get_submodule(".".join(parts[:at]))):
        return matrix, matrix.path, None
    return matrix, ".".join([*parts[:at], *parts[at + 1 :]]), int(parts[at])


def _width(found: Sequence[Matrix]) -> int:
    """The width of the residual stream: the size that most matrices of a layer have a side of."""
    sides = Counter(side for matrix in found for side in dict.fromkeys((matrix.in_, matrix.out)))
    return max(sides, key=lambda side: sides[side], default=0)


def _role(matrix: Matrix, width: int) -> str:
    """What a path certainly names, if the matrix has the shape for it."""
    ends = [end for end in ROLES if f".{matrix.path}".endswith(f".{end}")]
    role = ROLES[max(ends, key=len)] if ends else ""
    across = matrix.out if role in ("o", "down") else matrix.in_
    return role if across == width else ""


def _heads(model: Any, layer: Any, every: Iterable[Found]) -> dict[bool, int]:
    """The width of a head of self and of cross attention, where the number of heads is known and divides q."""
    found = {}
    for one in (one for one in every if one.proj == "q"):
        parts = one.matrix.path.split(".")
        holders = [*(layer.get_submodule(".".join(parts[:i])) for i in range(len(parts), -1, -1)), model]
        n = next((n for holder in holders if (n := _count(holder) or _count(getattr(holder, "config", None)))), 0)
        if n and one.matrix.out % n == 0:
            found[one.cross] = one.matrix.out // n
    return found


def _count(holder: Any) -> int:
    """The number of heads that a module or config names."""
    values = (getattr(holder, name, None) for name in HEADS)
    return next((value for value in values if isinstance(value, int) and value > 0), 0)


def _candidate(
    one: Found, path: str, stack: str | None, layer: int, crossed: bool, every: Sequence[Found], heads: dict[bool, int]
) -> Candidate:
    matrix, attention = one.matrix, one.proj in ATTENTION
    module = ".".join(filter(None, (path, str(layer), matrix.path)))
    attn = ("cross" if one.cross else "self") if crossed and attention else None
    coords = {"stack": stack, "layer": layer, "attn": attn, "proj": one.proj, "expert": one.expert}
    label = ".".join(str(part) for part in (matrix.slot, matrix.role) if part not in (None, ""))
    reads = _reads(one, _width([other.matrix for other in every]))
    across = matrix.out if reads else matrix.in_
    site = Site(
        name=f"{module}[{label}]" if label else module,
        module=module,
        coords=tuple((key, value) for key, value in coords.items() if value is not None),
        out=matrix.out,
        in_=matrix.in_,
        inner=_inner(one, across, heads.get(one.cross, 0)),
        reads=reads,
        rows=matrix.rows,
        parameter=matrix.parameter,
        slot=matrix.slot,
    )
    known = "attention" if attention else "mlp" if one.proj in MLP else ""
    return Candidate(site, known if one.expert is None else "experts")


def _reads(one: Found, width: int) -> bool:
    if one.proj in (*ATTENTION, *MLP):
        return one.proj not in ("o", "down")
    return not (one.matrix.out == width != one.matrix.in_)


def _inner(one: Found, across: int, dim: int) -> tuple[tuple[str, int], ...]:
    if one.proj in MLP:
        return (("ff", across),)
    if one.proj in ATTENTION and dim and across % dim == 0:
        return (("head", across // dim), ("dim", dim))
    return ()

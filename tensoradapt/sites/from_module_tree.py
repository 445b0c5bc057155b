"""The generic recipe reads the sites of any model from its module tree. No torch at import.

A projection is called q, k, v, o, gate, up or down only where both its name and its shape say so; otherwise it has the
name of its path below the layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tensoradapt.errors import TensorAdaptError, few
from tensoradapt.sites.modules import is_list, linear_shape
from tensoradapt.sites.recipe import ATTENTION
from tensoradapt.sites.site import Candidate, Site

MLP = ("gate", "up", "down")
READS = ("q", "k", "v")
NAMES = {  # ends of paths; the longest that fits decides. Those of the attention fit in any case: Wq is wq
    "q": "q_proj query q_lin query_proj q_linear linear_q to_q wq w_q q",
    "k": "k_proj key k_lin key_proj k_linear linear_k to_k wk w_k k",
    "v": "v_proj value v_lin value_proj v_linear linear_v to_v wv w_v v",
    "o": "o_proj out_proj out_lin to_out to_out.0 attn.proj attn.c_proj attn.wo attention.wo attention.dense "
    "attention.output.dense selfattention.o encdecattention.o",
    "gate": "gate_proj wi_0",
    "up": "up_proj fc1 linear1 lin1 wi wi_1 mlp.c_fc intermediate.dense dense_h_to_4h",
    "down": "down_proj fc2 linear2 lin2 DenseReluDense.wo mlp.c_proj output.dense dense_4h_to_h",
}
ROLES = {end: role for role, ends in NAMES.items() for end in ends.split()}
# those that say o in the module of q, k or v alone
BESIDE = {
    *"o wo w_o o_lin o_linear out linear_o linear_out fc_out".split(),
    *"proj projection c_proj output_proj dense output output.dense".split(),
}
FUSED: dict[str, tuple[str, ...]] = dict.fromkeys(("qkv", "to_qkv", "qkv_proj", "wqkv", "c_attn", "in_proj"), READS)
FUSED |= dict.fromkeys(("kv", "to_kv", "kv_proj", "wkv"), ("k", "v"))
# what known models have in place of q, k and v: latent, interleaved, shared and deformable attention, and recurrence
WITHOUT = (
    "q_a_proj q_b_proj kv_a_proj_with_mqa kv_b_proj query_key_value query_key sampling_offsets attention_weights attn "
    "in_proj in_proj_qkvz in_proj_qkv in_proj_ba in_proj_z in_proj_b in_proj_a x_proj dt_proj"
).split()
CROSS = ("encoder_attn", "EncDecAttention", "crossattention", "cross_attn", "cross_attention", "multihead_attn")
HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads")
EXPERTS = "experts"  # the list whose modules are experts, not layers


@dataclass(frozen=True)
class Matrix:
    """A logical (out, in) matrix, or a block of its rows.

    ``path`` starts at the module that was searched. ``role`` is the projection where the way it is stored fixes it.
    """

    path: str
    out: int
    in_: int
    role: str = ""
    rows: tuple[int, int] | None = None
    parameter: str = "weight"
    slot: int | None = None


@dataclass(frozen=True)
class NamedMatrix:
    """A matrix of a layer, with its projection, attention and expert as the names around it give them."""

    matrix: Matrix  # its path is below the layer
    proj: str
    cross: bool
    expert: int | None

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells the matrix from others of its layer: (projection, cross, expert)."""
        return self.proj, self.cross, self.expert


def sites_from_tree(model: Any) -> list[Candidate]:
    """Return the sites in all lists of repeated layers; empty if the model has no such list."""
    stacks = list(_stacks(model, "", 2)) or list(_stacks(model, "", 1))  # lists of one layer if there is no other
    candidates: list[Candidate] = []
    for path, layers in stacks:
        name = path if len(stacks) > 1 else None
        named = {n: _in_layer(layer) for n, layer in layers.items()}
        names = list(model.get_submodule(path)._modules)  # numbers, or names where nn.Sequential was given them
        crossed = any(each.cross for every in named.values() for each in every)
        for n, every in named.items():
            heads, width = _heads(model, layers[n], every), _width([each.matrix for each in every])
            coords = {"stack": name, "layer": n}
            for each in every:
                attn = ("cross" if each.cross else "self") if crossed and each.proj in ATTENTION else None
                coords |= {"attn": attn, "proj": each.proj, "expert": each.expert}
                candidates.append(_candidate(each, f"{path}.{names[n]}" if path else names[n], coords, width, heads))
    return candidates


def matrices(module: Any, path: str = "") -> Iterator[Matrix]:
    """Yield all matrices below a module in layers of a known kind; a fused one as its parts."""
    held = list(_held(module, path))
    yield from held
    if not held or held[0].slot is not None:
        for name, child in module.named_children():
            yield from matrices(child, f"{path}.{name}" if path else name)


def _stacks(module: Any, path: str, least: int) -> Iterator[tuple[str, dict[int, Any]]]:
    """Yield the lists of repeated layers, as path and layers by number, in model order.

    A list counts if at least ``least`` of its modules are of one class or hold the same matrices. Where its layers
    differ, the lists inside it count instead (the stages of a hierarchical model).
    """
    layers = _layers(module, least) if is_list(module) and path.rpartition(".")[2] != EXPERTS else {}
    alike = len({tuple(matrices(layer)) for layer in layers.values()}) == 1
    children = [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]
    inner = [] if alike else [stack for name, child in children for stack in _stacks(child, name, least)]
    if layers and not inner:
        yield path, layers
    yield from inner


def _layers(module: Any, least: int) -> dict[int, Any]:
    """Return the modules of a list that hold matrices deeper inside, by index; none if too few of them are alike."""
    held = {n: child for n, child in enumerate(module) if any(True for _ in matrices(child))}
    if any(not list(child.children()) or list(_held(child, "")) for child in held.values()):
        return {}  # linear layers in a row are no layers of a transformer
    kinds: Counter[Any] = Counter(type(child) for child in held.values())
    kinds += Counter(tuple(matrices(child)) for child in held.values())
    return held if max(kinds.values(), default=0) >= least else {}


def _held(module: Any, path: str) -> Iterator[Matrix]:
    """Yield the matrices that one module holds itself."""
    from torch import nn

    if isinstance(module, nn.MultiheadAttention):
        yield from _attention(module, path)
    elif shape := linear_shape(module):
        yield from _parts(path, *shape)
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
    roles: tuple[str, ...] = FUSED.get(last.lower(), ())
    roles = roles if out == len(roles) * in_ else ()
    if last == "gate_up_proj" and out % 2 == 0:
        roles = ("gate", "up")
    if not roles:
        yield Matrix(path, out, in_)
    for i, role in enumerate(roles):
        n = out // len(roles)
        yield Matrix(path, n, in_, role, (i * n, (i + 1) * n))


def _stacked(module: Any, path: str) -> Iterator[Matrix]:
    """Yield experts stored in two parameters: (experts, gate and up, width) and (experts, width, inner)."""
    # nothing is yielded unless the shapes agree with that
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


def _in_layer(layer: Any) -> list[NamedMatrix]:
    """Return a layer's matrices with their projections; where two share a name, each is called by its path."""
    every = [(matrix, *_expert(layer, matrix)) for matrix in matrices(layer)]
    width = _width([matrix for matrix, _, _ in every])
    named = [
        NamedMatrix(matrix, matrix.role or _role(matrix, width), bool(set(CROSS) & set(path.split("."))), expert)
        for matrix, path, expert in every
    ]
    named = _with_outputs(named, width)
    counts = Counter(each.identity for each in named)
    return [
        each
        if each.proj and counts[each.identity] == 1
        else replace(each, proj=".".join(filter(None, (path, matrix.role))))
        for each, (matrix, path, _) in zip(named, every, strict=True)
    ]


def _with_outputs(named: Sequence[NamedMatrix], width: int) -> list[NamedMatrix]:
    """Name the one matrix o that has a name of ``BESIDE`` in the module of q, k or v, where none is called o there."""
    holders = {_parent(e.matrix.path) for e in named if e.proj in READS and e.matrix.parameter == "weight"}
    outputs = []
    for holder in holders - {_parent(e.matrix.path) for e in named if e.proj == "o"}:
        start = f"{holder}." if holder else ""
        ends = {e.matrix.path.removeprefix(start).lower(): e for e in named if e.matrix.path.startswith(start)}
        found = [e for end, e in ends.items() if end in BESIDE and e.matrix.out == width]
        outputs += found if len(found) == 1 else []
    return [replace(e, proj="o") if e in outputs else e for e in named]


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _expert(layer: Any, matrix: Matrix) -> tuple[str, int | None]:
    """Return the path without the number in a list of experts, and that number."""
    parts = matrix.path.split(".")
    if matrix.slot is not None or EXPERTS not in parts:
        return matrix.path, matrix.slot
    at = parts.index(EXPERTS) + 1
    if at == len(parts) or not (parts[at].isdecimal() and is_list(layer.get_submodule(".".join(parts[:at])))):
        return matrix.path, None
    return ".".join([*parts[:at], *parts[at + 1 :]]), int(parts[at])


def _width(held: Sequence[Matrix | Site]) -> int:
    """Return the width of the residual stream: the size that most matrices of a layer have as a side."""
    sides = Counter(side for matrix in held for side in dict.fromkeys((matrix.in_, matrix.out)))
    return max(sides, key=lambda side: sides[side], default=0)


def _role(matrix: Matrix, width: int) -> str:
    """Return the projection that a path names, if the matrix has the shape for it; else ""."""
    role = role_in(matrix.path)
    return role if _across(role, matrix) == width else ""


def role_in(path: str) -> str:
    """Return the projection that the end of a path names; "" if it names none."""
    folded = path.lower()
    ends = [e for e, role in ROLES.items() if f".{folded if role in ATTENTION else path}".endswith(f".{e}")]
    return ROLES[max(ends, key=len)] if ends else ""


def _across(role: str, matrix: Matrix | Site) -> int:
    """Return the size of the side of a matrix that faces the residual stream."""
    return matrix.out if role in ("o", "down") else matrix.in_


def why_unnamed(proj: str, every: Sequence[Candidate]) -> str:
    """Say why a module whose path names this projection is not called so; "" if there is no such module."""
    sites = [c.site for c in every if role_in(str(c.site.coord["proj"])) == proj]
    if not sites:
        return ""
    site, own = sites[0], sites[0].coord["proj"]
    width, end = _width([c.site for c in every]), "writes" if proj in ("o", "down") else "reads"
    why = f"it {end} {_across(proj, site)} where most matrices of a layer have a side of {width}"
    if _across(proj, site) == width:
        why = "its layer has several modules of that name"
    return f": {site.name} is {site.out} x {site.in_} and has no role, as {why}. It is called {own!r}"


def refuse_partial(every: Sequence[Candidate]) -> None:
    """Raise TensorAdaptError where a stack has only some of q, k, v and o, and other matrices that may be the rest."""
    stacks: dict[Any, list[Site]] = {}
    for site in (c.site for c in every):
        stacks.setdefault(site.coord.get("stack"), []).append(site)
    for sites in stacks.values():
        found = [site for site in sites if site.coord["proj"] in ATTENTION]
        have = tuple(proj for proj in ATTENTION if any(site.coord["proj"] == proj for site in found))
        others = _beside(found, sites) if 0 < len(have) < len(ATTENTION) else ()
        if others:
            raise TensorAdaptError(
                f"'attention' is only {', '.join(have)} here, and beside {found[0].name} are linear layers without a "
                f"role: {few(others)}. Adapt them too with projections={(*have, *others)}, leave them out with "
                f"projections={have}, or give them roles with recipe= (docs/guides/recipes.md)"
            )


def _beside(found: Sequence[Site], sites: Sequence[Site]) -> tuple[str, ...]:
    """Return the matrices without a role in the modules that hold q, k, v or o, other than those of ``WITHOUT``."""
    holders = {_parent(site.module) for site in found}
    free = [site for site in sites if site.coord["proj"] not in (*ATTENTION, *MLP) and "expert" not in site.coord]
    free = [site for site in free if any(site.module.startswith(f"{holder}.") for holder in holders)]
    return tuple(dict.fromkeys(str(s.coord["proj"]) for s in free if s.module.rpartition(".")[2] not in WITHOUT))


def _heads(model: Any, layer: Any, every: Iterable[NamedMatrix]) -> dict[bool, int]:
    """Return the width of a head of self (False) and cross (True) attention, if their number is known and fits."""
    widths = {}
    for each in (each for each in every if each.proj == "q"):
        parts = each.matrix.path.split(".")
        holders = [*(layer.get_submodule(".".join(parts[:i])) for i in range(len(parts), -1, -1)), model]
        n = next((n for holder in holders if (n := _count(holder) or _count(getattr(holder, "config", None)))), 0)
        if n and each.matrix.out % n == 0:
            widths[each.cross] = each.matrix.out // n
    return widths


def _count(holder: Any) -> int:
    """Return the number of heads that a module or config names; 0 where it names none."""
    values = (getattr(holder, name, None) for name in HEADS)
    return next((value for value in values if isinstance(value, int) and value > 0), 0)


def _candidate(named: NamedMatrix, layer: str, coords: dict[str, Any], width: int, heads: dict[bool, int]) -> Candidate:
    matrix = named.matrix
    module = ".".join(filter(None, (layer, matrix.path)))
    label = ".".join(str(part) for part in (matrix.slot, matrix.role) if part not in (None, ""))
    reads = _reads(named, width)
    site = Site(
        name=f"{module}[{label}]" if label else module,
        module=module,
        coords=tuple((key, value) for key, value in coords.items() if value is not None),
        out=matrix.out,
        in_=matrix.in_,
        inner=_inner(named, matrix.out if reads else matrix.in_, heads.get(named.cross, 0)),
        reads=reads,
        rows=matrix.rows,
        parameter=matrix.parameter,
        slot=matrix.slot,
    )
    kind = "attention" if named.proj in ATTENTION else "mlp" if named.proj in MLP else ""
    return Candidate(site, kind if named.expert is None else "experts")


def _reads(named: NamedMatrix, width: int) -> bool:
    if named.proj in (*ATTENTION, *MLP):
        return named.proj not in ("o", "down")
    return not (named.matrix.out == width != named.matrix.in_)


def _inner(named: NamedMatrix, across: int, dim: int) -> tuple[tuple[str, int], ...]:
    if named.proj in MLP:
        return (("ff", across),)
    if named.proj in ATTENTION and dim and across % dim == 0:
        return (("head", across // dim), ("dim", dim))
    return ()

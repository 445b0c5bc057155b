"""Sites by recipe: found in a model, or computed from its config. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tensoradapt.errors import TensorAdaptError
from tensoradapt.sites.recipe import ATTENTION, Dims, Part, Recipe, Stack, dims
from tensoradapt.sites.site import Candidate, Site

Paths = Mapping[tuple[Part, int], str]  # full module names


def sites_from_config(config: Any, row: Recipe) -> list[Candidate]:
    """Return the sites of all the recipe's stacks that the config has."""
    candidates: list[Candidate] = []
    for stack, stack_config in _stacks(config, row):
        size = dims(stack_config, dict(stack.sizes))
        prefix = stack.prefix + stack.layers[0]
        paths = {(part, n): f"{prefix.format(n)}.{part.paths[0]}" for part, n in _wanted(stack, stack_config, size)}
        candidates += _candidates(stack, size, paths)
    return candidates


def sites_in(model: str, names: Iterable[str], config: Any, row: Recipe, scope: str | None) -> list[Candidate]:
    """Return the sites among a model's module names, below any prefix.

    Args:
        model: the model's class, for messages.
        names: names of all its modules.
        config: its config.
        row: its recipe; the model may lack some of the stacks.
        scope: selects the stack where the recipe's paths occur in several places.

    Raises:
        TensorAdaptError: if modules of the recipe are missing, or occur in several places.
    """
    known = set(names)
    candidates: list[Candidate] = []
    for stack, stack_config in _stacks(config, row):
        size = dims(stack_config, dict(stack.sizes))
        wanted = _wanted(stack, stack_config, size)
        paths = _paths(model, known, stack, wanted, scope)
        if any(key in paths for key in wanted):
            _refuse_missing(model, row, stack, wanted, paths)
            candidates += _candidates(stack, size, {key: paths[key] for key in wanted})
    if not candidates:
        stack, stack_config = _stacks(config, row)[0]
        _refuse_missing(model, row, stack, _wanted(stack, stack_config, dims(stack_config, dict(stack.sizes))), {})
    return candidates


def _stacks(config: Any, row: Recipe) -> list[tuple[Stack, Any]]:
    """Return the stacks that the config has, with their configs."""
    inner = [getattr(config, stack.config, None) if stack.config else config for stack in row.every]
    stacks = [(stack, own) for stack, own in zip(row.every, inner, strict=True) if own is not None]
    if not stacks:
        raise TensorAdaptError(
            f"the config ({type(config).__name__}) has none of {', '.join(stack.config for stack in row.every)}; "
            f"expected that of a model for recipe {row.name}"
        )
    return stacks


def _wanted(stack: Stack, config: Any, size: Dims) -> list[tuple[Part, int]]:
    """Return part and layer of every projection, in model order."""
    return [(part, n) for n in range(size.layers) for part in stack.parts if not part.when or part.when(config, n)]


def _paths(model: str, names: set[str], stack: Stack, wanted: Sequence[tuple[Part, int]], scope: str | None) -> Paths:
    """Return the model's module names by part and layer."""
    first = dict(reversed(wanted))
    options = [(part, f"{layer}.{path}") for part in first for layer in stack.layers for path in part.paths]
    paths: dict[tuple[Part, int], str] = {}
    for part, path in options:
        end = path.format(first[part])
        prefixes = {name.removesuffix(end) for name in names if f".{name}".endswith(f".{end}")}
        if len(prefixes) > 1 and scope is not None:
            prefixes = {p for p in prefixes if f"{p}{end}".startswith(f"{scope}.") or f"{scope}.".startswith(p)}
        if len(prefixes) > 1:
            raise TensorAdaptError(
                f"{end} stands under {' and '.join(sorted(prefixes))} in {model}; "
                "expected one stack of layers. Choose the module that holds it with scope="
            )
        for prefix in prefixes:
            full = {(part, n): prefix + path.format(n) for other, n in wanted if other is part}
            paths |= {key: name for key, name in full.items() if name in names}
    return paths


def _refuse_missing(
    model: str, row: Recipe, stack: Stack, wanted: Iterable[tuple[Part, int]], paths: Mapping[Any, str]
) -> None:
    for part, n in wanted:
        if (part, n) not in paths:
            raise TensorAdaptError(
                f"{model} has no module {stack.layers[0].format(n)}.{part.paths[0]}, where recipe "
                f"{row.name} expects {part.proj} of layer {n}. Pass recipe= with this model's own names, or "
                'recipe="generic" to look in its module tree'
            )


def _candidates(stack: Stack, size: Dims, paths: Paths) -> Iterator[Candidate]:
    for (part, layer), module in paths.items():
        for slot in range(size.experts) if part.stacked else (None,):
            yield Candidate(_site(part, stack, layer, module, size, slot), part.kind)


def _site(part: Part, stack: Stack, layer: int, module: str, size: Dims, slot: int | None) -> Site:
    inner, width = _inner(part.proj, part, size), size.width
    across = math.prod(n for _, n in inner)
    label = part.proj if slot is None else f"{slot}.{part.proj}"
    rows, period = _rows(part, size) if part.fused else (None, None)
    coords = {"stack": stack.name, "layer": layer, "attn": part.attn, "proj": part.proj, "expert": slot}
    return Site(
        name=f"{module}[{label}]" if part.fused or part.stacked else module,
        module=module,
        coords=tuple((name, value) for name, value in coords.items() if value is not None),
        out=width if part.writes else across,
        in_=across if part.writes else width,
        inner=inner,
        reads=not part.writes,
        rows=rows,
        period=period,
        parameter=part.parameter,
        slot=slot,
    )


def _inner(proj: str, part: Part, size: Dims) -> tuple[tuple[str, int], ...]:
    if proj not in ATTENTION:
        return (("ff", getattr(size, part.width)),)
    return (("head", size.kv_heads if proj in ("k", "v") else size.heads), ("dim", size.head_dim))


def _rows(part: Part, size: Dims) -> tuple[tuple[int, int], int | None]:
    """Return the rows of a projection in its fused module, and the period after which they repeat."""
    at, n = part.fused.index(part.proj), size.head_dim
    if part.interleaved:
        return (at * n, (at + 1) * n), len(part.fused) * n
    widths = [math.prod(n for _, n in _inner(proj, part, size)) for proj in part.fused]
    return (sum(widths[:at]), sum(widths[: at + 1])), None

"""Sites of modules that the user names: embeddings, patch convolutions, heads, linear layers. No torch at import."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.sites.from_module_tree import matrices
from tensoradapt.sites.modules import INPUTS, input_modes, is_list, linear_shape, logical_shape
from tensoradapt.sites.site import Site


def module_sites(model: Any, patterns: Sequence[str], layers: set[str], projections: set[str]) -> list[Site]:
    """Return a site for each module outside the layers that a pattern names.

    Its projection is the last part of its name, or the whole name where another module, or one of the ``projections``
    of the layers, shares that part. Raises TensorAdaptError for a pattern that matches nothing, no layer of a kind that
    can be adapted, or only modules in the ``layers``.
    """
    named = dict(_named(model, ""))
    wanted: dict[str, Any] = {}
    for pattern in patterns:
        wanted |= _matching(pattern, named, layers, type(model).__name__)
    ordered = {name: module for name, module in named.items() if name in wanted}
    ends = {name: name.rpartition(".")[2] for name in ordered}
    unique = {end for end, n in Counter(ends.values()).items() if n == 1} - projections
    return [
        site
        for name, module in ordered.items()
        for site in _sites(name, ends[name] if ends[name] in unique else name, module)
    ]


def adaptable(model: Any) -> list[str]:
    """Return the names of all modules that ``module_sites`` has a site for."""
    return _outside(dict(_named(model, "")), set())


def _named(module: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield all modules by name, but those inside an attention module, whose weights are its own sites."""
    from torch import nn

    if path:
        yield path, module
    if not isinstance(module, nn.MultiheadAttention):
        for name, child in module.named_children():
            yield from _named(child, f"{path}.{name}" if path else name)


def _matching(pattern: str, named: dict[str, Any], layers: set[str], model: str) -> dict[str, Any]:
    hits = {name: module for name, module in named.items() if fnmatch.fnmatchcase(name, pattern)}
    if not hits:
        raise TensorAdaptError(
            f"modules pattern {pattern!r} matches nothing in {model}{did_you_mean(pattern, _outside(named, layers))}"
        )
    outside = {name: module for name, module in hits.items() if name not in layers}
    kept = {name: module for name, module in outside.items() if any(True for _ in _sites(name, name, module))}
    if kept:
        return kept
    if not outside:
        raise TensorAdaptError(
            f"modules pattern {pattern!r} matches {', '.join(list(hits)[:3])}, in the layers; ask for those with "
            "projections="
        )
    name, module = next(iter(outside.items()))
    kinds, close = ", ".join(f"an nn.{kind}" for kind in INPUTS), did_you_mean(pattern, _outside(named, layers))
    raise TensorAdaptError(
        f"modules pattern {pattern!r} matches {name}, a {type(module).__name__}; expected a linear layer, {kinds} or "
        f"an nn.MultiheadAttention{close}"
    )


def _outside(named: dict[str, Any], layers: set[str]) -> list[str]:
    return [name for name, module in named.items() if name not in layers and any(True for _ in _sites("", "", module))]


def _sites(name: str, proj: str, module: Any) -> Iterator[Site]:
    from torch import nn

    if kind := next((kind for kind in INPUTS if isinstance(module, getattr(nn, kind))), None):
        shape = module.weight.shape
        yield Site(name, name, (("proj", proj),), *logical_shape(kind, shape), input_modes(kind, shape), reads=False)
    elif not list(module.children()) or isinstance(module, nn.MultiheadAttention):
        for m in matrices(module, name):
            site_name, label = (f"{name}[{m.role}]", f"{proj}.{m.role}") if m.role else (name, proj)
            coords = (("proj", label),)
            yield Site(site_name, name, coords, m.out, m.in_, (), rows=m.rows, parameter=m.parameter)


def linear_site(model: Any, name: str, module: Any) -> Site:
    """Return the site of the linear layer ``module`` at ``name``, which no recipe knows.

    ``layer`` is its index in the nearest list of modules around it that are numbered (0 without one), ``proj`` its
    name without that index.
    """
    parts = name.split(".")
    numbered = [i for i, part in enumerate(parts) if part.isdecimal()]  # nn.Sequential may have names for its modules
    lists = [i for i in numbered if is_list(model.get_submodule(".".join(parts[:i])))]
    layer = int(parts.pop(lists[-1])) if lists else 0
    out, in_ = linear_shape(module) or (0, 0)
    return Site(name, name, (("layer", layer), ("proj", ".".join(parts))), out, in_, ())

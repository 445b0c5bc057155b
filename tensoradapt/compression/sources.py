"""Updates: what was trained, site by site, whatever form it came in; float64 arrays as the sites' matrices are stored.

A source is a LoRA folder, an adapter, a fine-tuned model and its base, or a mapping of site names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tensoradapt.adapter import checkpoint
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.errors import TensorAdaptError
from tensoradapt.layers.stored_matrix import StoredMatrix
from tensoradapt.lora.read_folder import Pair, read_lora
from tensoradapt.lora.update import Update, _numpy, in_double, update_of
from tensoradapt.sites.find import find_sites
from tensoradapt.sites.site import Site
from tensoradapt.surgery.checks import DEQUANTISE, check_readable


@dataclass(frozen=True)
class Source:
    """Updates by site name, the sites, how many numbers they were held in, and what else had changed."""

    updates: Mapping[str, Update]
    sites: Sequence[Site]
    n_params: int
    name: str
    left_out: tuple[str, ...] = ()
    adapter: Adapter | None = None


def read(source: Any, sites: Any = None) -> Source:
    """The updates of a source (see ``compress``) for ``sites``, which are found, or a model or config, or None.

    Raises TensorAdaptError where the source's modules and the sites are not the same, shapes do not fit, or an update
    is not finite.
    """
    if isinstance(source, str | Path):
        found = _from_folder(Path(source), sites)
    elif isinstance(source, Adapter):
        found = _from_adapter(source, sites)
    elif isinstance(source, Mapping):
        found = _from_mapping(source, sites)
    elif isinstance(source, tuple) and len(source) == 2 and all(isinstance(one, nn.Module) for one in source):
        found = _from_models(*source, sites)
    else:
        raise TensorAdaptError(
            f"the source is a {type(source).__name__}; expected the path of a LoRA folder, an Adapter, a pair "
            "(tuned_model, base_model), or a mapping of site names to (A, B) or dense updates"
        )
    for site in found.sites:
        _check(site, found.updates[site.name])
    return found


def _check(site: Site, update: Update) -> None:
    parts = [update.a] if update.b is None else [update.a, update.b]
    fits = all(part.ndim == 2 for part in parts) and update.shape == (site.out, site.in_)
    if not fits or (update.b is not None and update.b.shape[1] != len(update.a)):
        shapes = " and ".join(str(part.shape) for part in parts)
        raise TensorAdaptError(
            f"the update of site {site.name} has shape {shapes}; expected ({site.out}, {site.in_}), or "
            f"A (R, {site.in_}) and B ({site.out}, R)"
        )
    if not all(np.isfinite(part).all() for part in parts):
        raise TensorAdaptError(f"the update of site {site.name} has non-finite entries; the training has diverged")


def _from_folder(path: Path, sites: Any) -> Source:
    if (path / checkpoint.JSON).exists():
        raise TensorAdaptError(f"{path} was saved by tensoradapt; pass the adapter itself: load(model, {str(path)!r})")
    pairs = read_lora(path)
    if sites is None:
        raise TensorAdaptError(f"{path} does not say what model it is for: pass find_sites(model), a model or a config")
    found = _given(sites) or _sites_of(pairs, sites)
    of = _matched(found, pairs, path)
    _check_covered(found, of, path)
    updates = {site.name: _block(site, *of[site.module]) for site in found}
    return Source(updates, found, sum(a.numel() + b.numel() for a, b in pairs.values()), str(path))


def _sites_of(pairs: Mapping[str, Pair], source: Any) -> list[Site]:
    """The sites of a model or config that a folder has. A config does not know its model's prefix, the folder does."""
    found, from_model = [], hasattr(source, "named_modules")
    for site in find_sites(source, "all"):
        names = [name for name in pairs if _same(site.module, name)]
        renamed = names[0] if len(names) == 1 and not from_model else site.module
        if names:
            found.append(replace(site, module=renamed, name=renamed + site.name.removeprefix(site.module)))
    return found


def _same(module: str, name: str) -> bool:
    return f".{name}".endswith(f".{module}") or f".{module}".endswith(f".{name}")


def _matched(sites: Sequence[Site], pairs: Mapping[str, Pair], path: Path) -> dict[str, Pair]:
    """The pair of each site's module: by its name, or by the end of it where the model was wrapped or is not."""
    found: dict[str, str] = {}
    for module in dict.fromkeys(site.module for site in sites):
        names = [module] if module in pairs else [name for name in pairs if _same(module, name)]
        if len(names) > 1:
            raise TensorAdaptError(f"{path}: {' and '.join(names)} could both be module {module}; use the full names")
        if names:
            found[module] = names[0]
    alone = [site.name for site in sites if site.module not in found]
    extra = sorted(set(pairs) - set(found.values()))
    if alone or extra:
        raise TensorAdaptError(
            f"{path} and the sites are not the same: sites without a LoRA module: {_some(alone)}; LoRA modules without "
            f"a site: {_some(extra)}. Ask find_sites for the projections and layers that were trained"
        )
    return {module: pairs[name] for module, name in found.items()}


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}" if names else "none"


def _check_covered(sites: Sequence[Site], of: Mapping[str, Pair], path: Path) -> None:
    """A fused module's sites are to cover all of it: what they leave out would be lost without a word."""
    for module, (a, b) in of.items():
        own = [site for site in sites if site.module == module]
        covered = sum(site.out * site.in_ for site in own)
        whole = len(b) * a.shape[1]
        if covered < whole and (own[0].rows or own[0].cols):
            raise TensorAdaptError(
                f"{path}: module {module} is updated as a whole ({len(b)} x {a.shape[1]}), and only "
                f"{', '.join(site.name for site in own)} of it are sites; ask find_sites for all of its projections"
            )


def _block(site: Site, a: Tensor, b: Tensor) -> Update:
    rows, cols = site.block
    return Update(a[:, cols].numpy(), b[rows].numpy())


def _from_adapter(adapter: Adapter, sites: Any) -> Source:
    if adapter.plan.rule != "add":
        raise TensorAdaptError(
            f"the adapter has rule {adapter.plan.rule!r}, whose change of a weight is no sum of updates; merge(model) "
            "it, and pass the pair (model, base)"
        )
    plan, task = adapter.plan, adapter.task()
    own, twin = plan.sites, in_double(adapter, task)
    found = own if sites is None else _given(sites) or find_sites(sites, "all")
    _check_names([site.name for site in found], [site.name for site in own], "the adapter")
    updates = {site.name: update_of(twin, site) for site in own}
    name = f"{plan.parameterization} adapter{f', task {task}' if task else ''}"
    biases = tuple(f"bias.{proj}" for proj, _ in plan.biases if adapter.biases[proj].count_nonzero())
    return Source(updates, found, plan.n_params - plan.n_biases, name, biases, twin)


def _from_mapping(source: Mapping[str, Any], sites: Any) -> Source:
    found = _given(sites)
    if not found:
        raise TensorAdaptError("a mapping of updates needs sites= from find_sites, whose names are its keys")
    _check_names([site.name for site in found], list(source), "the mapping")
    pairs = {name: value if isinstance(value, tuple | list) else (value,) for name, value in source.items()}
    updates = {name: Update(*(_numpy(part) for part in parts)) for name, parts in pairs.items()}
    n_params = sum(part.size for u in updates.values() for part in (u.a, u.b) if part is not None)
    return Source(updates, found, n_params, f"{len(updates)} updates")


def _check_names(sites: Sequence[str], names: Sequence[str], what: str) -> None:
    alone, extra = [n for n in sites if n not in set(names)], [n for n in names if n not in set(sites)]
    if alone or extra:
        raise TensorAdaptError(
            f"{what} and the sites are not the same: sites without an update: {_some(alone)}; updates without a site: "
            f"{_some(extra)}"
        )


def _from_models(tuned: nn.Module, base: nn.Module, sites: Any) -> Source:
    found = _given(sites) or find_sites(base if sites is None else sites, "all")
    updates = {}
    for site in found:
        matrices = [StoredMatrix.of(_submodule(model, site), site) for model in (tuned, base)]
        for matrix in matrices:
            check_readable(matrix, "a difference of weights", f"{DEQUANTISE}, both of them")
        new, old = (matrix.block() for matrix in matrices)
        if new.shape != old.shape:
            raise TensorAdaptError(
                f"site {site.name} is {tuple(new.shape)} in the tuned model and {tuple(old.shape)} in the base"
            )
        updates[site.name] = Update(_numpy(new) - _numpy(old))
    covered = {site.key for site in found}
    others, own = dict(base.named_parameters()), dict(tuned.named_parameters())
    changed = [n for n, p in own.items() if n not in covered and (n not in others or not torch.equal(p, others[n]))]
    n_params = sum(site.out * site.in_ for site in found)
    return Source(updates, found, n_params, f"fine-tuned {type(tuned).__name__}", tuple(changed))


def _submodule(model: nn.Module, site: Site) -> nn.Module:
    try:
        return model.get_submodule(site.module)
    except AttributeError:
        raise TensorAdaptError(f"site {site.name}: {type(model).__name__} has no module {site.module!r}") from None


def _given(sites: Any) -> Sequence[Site]:
    """Sites that were passed as such; empty for a model, a config or None."""
    if isinstance(sites, Site):
        return (sites,)
    if sites is None or hasattr(sites, "named_modules") or hasattr(sites, "model_type"):
        return ()
    return sites

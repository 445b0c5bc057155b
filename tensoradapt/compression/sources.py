"""Read trained updates, site by site and in float64, from any source.

A source is a LoRA folder, an adapter, a fine-tuned model and its base, a mapping of site names, or several of these, of
one model: a library, whose adapters are read anew whenever they are asked for, so that one is in memory at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tensoradapt.adapter import checkpoint
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.checks import as_path, items, of_kind, shown
from tensoradapt.errors import TensorAdaptError, few
from tensoradapt.layers.stored_matrix import StoredMatrix
from tensoradapt.lora.pair import LoraPair, in_double
from tensoradapt.lora.read_folder import read_lora
from tensoradapt.sites.find import find_sites
from tensoradapt.sites.site import Site, Sites
from tensoradapt.surgery.checks import DEQUANTISE, check_readable

MOST_SITES = 1_000_000
MOST = float(np.finfo(np.float32).max)
LEAST = 1e-150  # squares of smaller norms are no longer exact in float64
Update = LoraPair | np.ndarray  # a site's update: dense (out, in) where its pair would be larger


@dataclass(frozen=True)
class TrainedUpdates:
    """The updates that a source holds, of each adapter by site name, and what it holds besides.

    The adapters of a library have names; a single one has the name "".
    """

    updates: Mapping[str, Mapping[str, Update]]
    sites: Sequence[Site]
    n_params: int  # numbers that the source holds them in
    name: str
    left_out: tuple[str, ...] = ()  # what else had changed, or adapters that were skipped
    adapter: Adapter | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the adapters of a library; none for a single one."""
        return tuple(name for name in self.updates if name)


def read(source: Any, sites: Any = None) -> TrainedUpdates:
    """Read the updates of a source for ``sites``; both as ``compress`` takes them.

    Raises TensorAdaptError where modules and sites differ, shapes do not fit, an update is not finite, or all are so
    small that their squares vanish.
    """
    if isinstance(source, str | os.PathLike):
        trained = _from_folder(as_path(source, "source"), sites)
    elif isinstance(source, Adapter):
        trained = _from_adapter(source, sites)
    elif isinstance(source, Mapping):
        trained = _from_mapping(source, sites)
    elif isinstance(source, tuple) and len(source) == 2 and all(isinstance(model, nn.Module) for model in source):
        trained = _from_models(*source, sites)
    else:
        raise TensorAdaptError(
            f"source is {shown(source)}; expected the path of a LoRA folder, an Adapter, a pair "
            "(tuned_model, base_model), or a mapping of site names to (A, B) or dense updates"
        )
    updates = trained.updates[""]
    for site in trained.sites:
        _check(site, updates[site.name])
    if all(norm_of(update) < LEAST for update in updates.values()) and any(map(_is_some, updates.values())):
        raise TensorAdaptError(
            f"all updates have norms below {LEAST:g}, whose squares float64 does not hold, and some are not zero; "
            "expected larger ones, or zeros"
        )
    return trained


def update_of(adapter: Adapter, site: Site, task: int | None = None) -> Update:
    """Return a site's update as an adapter computes it, for the task of a number."""
    a, b = map(_numpy, adapter.pair(site, task))
    return b @ a if len(a) >= min(site.out, site.in_) else LoraPair(a, b)


def norm_of(update: Update) -> float:
    """Return the Frobenius norm of an update."""
    return update.norm if isinstance(update, LoraPair) else float(np.linalg.norm(update))


def difference(update: Update, other: Update) -> Update:
    """Subtract one update from another; the result is a pair where that is smaller than the matrix."""
    if isinstance(update, LoraPair) and isinstance(other, LoraPair) and update.rank + other.rank < min(update.shape):
        return update.minus(other)
    minuend, subtrahend = (u.b @ u.a if isinstance(u, LoraPair) else u for u in (update, other))
    return minuend - subtrahend


def _numpy(values: Any) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def _check(site: Site, update: Update) -> None:
    parts = _parts(update)
    fits = all(part.ndim == 2 for part in parts) and update.shape == (site.out, site.in_)
    if not fits or (isinstance(update, LoraPair) and update.b.shape[1] != len(update.a)):
        shapes = " and ".join(str(part.shape) for part in parts)
        raise TensorAdaptError(
            f"the update of site {site.name} has shape {shapes}; expected ({site.out}, {site.in_}), or "
            f"A (R, {site.in_}) and B ({site.out}, R)"
        )
    if not all(np.isfinite(part).all() for part in parts):
        raise TensorAdaptError(f"the update of site {site.name} has non-finite entries; the training has diverged")
    with np.errstate(over="ignore"):
        norm = norm_of(update)
    if not norm <= MOST:
        raise TensorAdaptError(
            f"the update of site {site.name} has norm {norm:.3g}, and float32, in which adapters are held, goes up to "
            f"{MOST:.3g}; expected a smaller one. Has the training diverged?"
        )


def _is_some(update: Update) -> bool:
    """Say whether an update is other than zero, however small it is."""
    parts = [part / (np.abs(part).max(initial=0.0) or 1.0) for part in _parts(update)]
    return all(part.any() for part in parts) and bool((parts[-1] @ parts[0]).any() if parts[1:] else True)


def _parts(update: Update) -> tuple[np.ndarray, ...]:
    return (update.a, update.b) if isinstance(update, LoraPair) else (update,)


def _from_folder(path: Path, sites: Any) -> TrainedUpdates:
    if (path / checkpoint.JSON).exists():
        raise TensorAdaptError(f"{path} was saved by tensoradapt; pass the adapter itself: load(model, {str(path)!r})")
    pairs = read_lora(path)
    if sites is None:
        raise TensorAdaptError(f"{path} does not say what model it is for: pass find_sites(model), a model or a config")
    adapted = given(sites) or _sites_of(pairs, sites)
    matched = _matched(adapted, pairs, path)
    _check_covered(adapted, matched, path)
    updates = {site.name: _block(site, matched[site.module]) for site in adapted}
    n_params = sum(pair.a.size + pair.b.size for pair in pairs.values())
    return TrainedUpdates({"": updates}, adapted, n_params, str(path), pairs.whole)


def _sites_of(pairs: Mapping[str, LoraPair], source: Any) -> list[Site]:
    """Return those sites of a model or config that a folder has."""
    adapted, from_model = [], hasattr(source, "named_modules")
    # a config does not know the prefix of its model's names, and the folder does
    for site in find_sites(source, "all"):
        names = [name for name in pairs if _same(site.module, name)]
        renamed = names[0] if len(names) == 1 and not from_model else site.module
        if names:
            adapted.append(replace(site, module=renamed, name=renamed + site.name.removeprefix(site.module)))
    return adapted


def _same(module: str, name: str) -> bool:
    return f".{name}".endswith(f".{module}") or f".{module}".endswith(f".{name}")


def _matched(sites: Sequence[Site], pairs: Mapping[str, LoraPair], path: Path) -> dict[str, LoraPair]:
    """Return the pair of each site's module, found by the end of a name, as one of the models may have been wrapped."""
    name_of: dict[str, str] = {}
    for module in dict.fromkeys(site.module for site in sites):
        names = [module] if module in pairs else [name for name in pairs if _same(module, name)]
        if len(names) > 1:
            raise TensorAdaptError(f"{path}: {' and '.join(names)} could both be module {module}; use the full names")
        if names:
            name_of[module] = names[0]
    alone = [site.name for site in sites if site.module not in name_of]
    extra = sorted(set(pairs) - set(name_of.values()))
    if alone or extra:
        raise TensorAdaptError(
            f"{path} and the sites are not the same: sites without a LoRA module: {few(alone, 3) or 'none'}; LoRA "
            f"modules without a site: {few(extra, 3) or 'none'}. Ask find_sites for the projections and layers that "
            "were trained"
        )
    return {module: pairs[name] for module, name in name_of.items()}


def _check_covered(sites: Sequence[Site], pairs: Mapping[str, LoraPair], path: Path) -> None:
    """Raise TensorAdaptError where the sites of a fused module leave out a part, whose update would be lost."""
    for module, pair in pairs.items():
        parts = [site for site in sites if site.module == module]
        out, in_ = pair.shape
        if sum(site.out * site.in_ for site in parts) < out * in_ and (parts[0].rows or parts[0].cols):
            raise TensorAdaptError(
                f"{path}: module {module} is updated as a whole ({out} x {in_}), and only "
                f"{', '.join(site.name for site in parts)} of it are sites; ask find_sites for all of its projections"
            )


def _block(site: Site, pair: LoraPair) -> LoraPair:
    rows, cols = site.block
    return LoraPair(pair.a[:, cols], pair.b[rows])


def _from_adapter(adapter: Adapter, sites: Any) -> TrainedUpdates:
    if adapter.plan.spec.rule != "add":
        raise TensorAdaptError(
            f"the adapter has rule {adapter.plan.spec.rule!r}, whose change of a weight is no sum of updates; "
            "merge(model) it, and pass the pair (model, base)"
        )
    plan, task = adapter.plan, adapter.task()
    twin = in_double(adapter, task)
    asked = plan.sites if sites is None else given(sites) or find_sites(sites, "all")
    _check_names([site.name for site in asked], [site.name for site in plan.sites], "the adapter")
    updates = {site.name: update_of(twin, site) for site in plan.sites}
    name = f"{plan.parameterization} adapter{f', task {task}' if task else ''}"
    biases = tuple(f"bias.{proj}" for proj, _ in plan.biases if adapter.biases[proj].count_nonzero())
    return TrainedUpdates({"": updates}, asked, plan.n_params - plan.n_biases, name, biases, twin)


def _from_mapping(source: Mapping[str, Any], sites: Any) -> TrainedUpdates:
    asked = given(sites)
    if not asked:
        raise TensorAdaptError("a mapping of updates needs sites= from find_sites, whose names are its keys")
    if odd := [name for name in source if not isinstance(name, str)]:
        raise TensorAdaptError(f"the mapping has the key {shown(odd[0])}; expected names of sites, as in site.name")
    _check_names([site.name for site in asked], list(source), "the mapping")
    updates = {name: _update(value, name) for name, value in source.items()}
    n_params = sum(part.size for update in updates.values() for part in _parts(update))
    return TrainedUpdates({"": updates}, asked, n_params, f"{len(updates)} updates")


def _update(value: Any, site: str) -> Update:
    """Make an update of (A, B) or of a dense matrix, given as arrays or tensors."""
    given = value if isinstance(value, tuple | list) else (value,)
    try:
        parts = [_numpy(part) for part in given[:3] if isinstance(part, list | tuple) or hasattr(part, "__array__")]
    except (TypeError, ValueError, ArithmeticError, RuntimeError):  # what numpy and torch raise for other values
        parts = []
    if len(parts) != len(given) or len(parts) not in (1, 2):
        raise TensorAdaptError(f"the update of site {site} is {shown(value)}; expected (A, B), or a matrix (out, in)")
    return LoraPair(*parts) if len(parts) > 1 else parts[0]


def _check_names(sites: Sequence[str], names: Sequence[str], what: str) -> None:
    alone, extra = [n for n in sites if n not in set(names)], [n for n in names if n not in set(sites)]
    if alone or extra:
        raise TensorAdaptError(
            f"{what} and the sites are not the same: sites without an update: {few(alone, 3) or 'none'}; updates "
            f"without a site: {few(extra, 3) or 'none'}"
        )


def _from_models(tuned: nn.Module, base: nn.Module, sites: Any) -> TrainedUpdates:
    compared = given(sites) or find_sites(base if sites is None else sites, "all")
    updates: dict[str, Update] = {}
    for site in compared:
        matrices = [StoredMatrix.of(_submodule(model, site), site) for model in (tuned, base)]
        for matrix in matrices:
            check_readable(matrix, "a difference of weights", f"{DEQUANTISE}, both of them")
        new, old = (matrix.block() for matrix in matrices)
        if new.shape != old.shape:
            raise TensorAdaptError(
                f"site {site.name} is {tuple(new.shape)} in the tuned model and {tuple(old.shape)} in the base"
            )
        updates[site.name] = _numpy(new) - _numpy(old)
    n_params = sum(site.out * site.in_ for site in compared)
    name, others = f"fine-tuned {type(tuned).__name__}", tuple(_other_changes(tuned, base, compared))
    return TrainedUpdates({"": updates}, compared, n_params, name, others)


def _other_changes(tuned: nn.Module, base: nn.Module, sites: Sequence[Site]) -> Iterator[str]:
    """Name the parameters that differ elsewhere than in sites: whole ones, and the other rows of fused ones."""
    held: dict[str, list[Site]] = {}
    for site in sites:
        held.setdefault(site.key, []).append(site)
    before = dict(base.named_parameters())
    for name, parameter in tuned.named_parameters():
        if name not in held and (name not in before or not _equal(parameter, before[name])):
            yield name
    for name, own in held.items():
        if not _equal(*(_without(own, _submodule(model, own[0])) for model in (tuned, base))):
            yield f"{name} outside its sites"


def _without(sites: Sequence[Site], module: nn.Module) -> torch.Tensor:
    """Return a copy of the parameter that sites of a module are in, with zeros in their places."""
    matrices = [StoredMatrix.of(module, site) for site in sites]
    codes = matrices[0].quantisation is not None  # whose matrix is one, and made anew when it is read
    whole = matrices[0].read() if codes else matrices[0].parameter.detach()
    whole = whole.clone(memory_format=torch.contiguous_format)
    for matrix in matrices:
        (whole if codes else matrix.logical(whole))[matrix.site.block] = 0
    return whole


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one, other.to(one.device))


def _submodule(model: nn.Module, site: Site) -> nn.Module:
    try:
        return model.get_submodule(site.module)
    except AttributeError:
        raise TensorAdaptError(f"site {site.name}: {type(model).__name__} has no module {site.module!r}") from None


def given(sites: Any) -> Sequence[Site]:
    """Return the sites, if ``sites`` are such; nothing for a model, a config or None."""
    if isinstance(sites, Site):
        return (sites,)
    if sites is None or hasattr(sites, "named_modules") or hasattr(sites, "model_type"):
        return ()
    return sites if isinstance(sites, Sites) else items(of_kind(Site), sites, "sites", most=MOST_SITES)

"""The pair of every module that an export writes: adapted ones, and the same projection in the other layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.checks import is_whole
from tensoradapt.errors import TensorAdaptError
from tensoradapt.layers.kinds import CONV1D, LINEAR
from tensoradapt.layers.stored_matrix import StoredMatrix
from tensoradapt.lora.pair import LoraPair, Term, merged, reduced, stacked
from tensoradapt.lora.update import in_double
from tensoradapt.sites.site import Site

ROUNDING = 1e-10  # of a pair's own size: far above float64's rounding, far below float32's


@dataclass(frozen=True)
class Made:
    """One module's pair in float64: its update as the adapter has it, and as it is exported."""

    own: LoraPair
    pair: LoraPair
    lost: float = 0.0  # by truncation: the distance between the two


def module_pairs(
    adapter: Adapter, modules: Mapping[str, nn.Module], task: str | None, rank: int | None
) -> dict[str, Made]:
    """The pair of each adapted module, and zeros where another layer has one, in the model's order."""
    twin = in_double(adapter, task)
    sites: dict[str, list[Site]] = {}
    for site in adapter.plan.sites:
        sites.setdefault(site.module, []).append(site)
    first = [own[0] for own in sites.values()]
    wanted = {name: replace(one, name=name) for one in first for name in (*_in_other_layers(modules, one), one.module)}
    shapes = {name: _shape(wanted[name], module) for name, module in modules.items() if name in wanted}
    _check_rank(rank, max(map(min, shapes.values())))
    return {name: _of_module(twin, name, shape, sites.get(name, ()), rank) for name, shape in shapes.items()}


def _shape(site: Site, module: nn.Module) -> tuple[int, int]:
    matrix = StoredMatrix.of(module, site)
    if matrix.kind in (LINEAR, CONV1D):
        return matrix.shape
    raise TensorAdaptError(
        f"site {site.name} is a {matrix.kind.name}, and servers read LoRA of linear layers alone; export an "
        "adapter without it, or merge(model) and save the model"
    )


def _check_rank(rank: int | None, widest: int) -> None:
    if rank is not None and not is_whole(rank, 1, widest):
        raise TensorAdaptError(
            f"rank is {rank!r}; expected a whole number from 1 to {widest}, the shorter side of the largest matrix, or "
            "None for an exact export"
        )


def _in_other_layers(modules: Mapping[str, nn.Module], site: Site) -> Iterator[str]:
    """Modules of the same class at the same place of the other layers: in the list that the site's layer counts."""
    parts, layer = site.module.split("."), str(site.coord.get("layer"))
    for i, part in enumerate(parts):
        layers = modules.get(".".join(parts[:i]))
        if part == layer and isinstance(layers, nn.ModuleList):
            names = (".".join([*parts[:i], str(n), *parts[i + 1 :]]) for n in range(len(layers)))
            yield from (name for name in names if type(modules.get(name)) is type(modules[site.module]))
            return


def _of_module(twin: Adapter, name: str, shape: tuple[int, int], sites: Sequence[Site], rank: int | None) -> Made:
    terms = [term for site in sites for term in _terms(twin, site)]
    own = stacked(terms, shape)
    if not own.finite:
        raise TensorAdaptError(
            f"the update of module {name} has non-finite entries; nothing was written. Go back to a checkpoint from "
            "before training diverged"
        )
    pair, lost = merged(own) if len(terms) > 1 else own, 0.0
    if pair.rank > (most := min(*shape, rank or min(shape))):
        pair, lost = reduced(pair, most)
    away = 0.0 if pair is own else own.minus(pair).norm
    if not away <= lost + ROUNDING * own.size:
        raise TensorAdaptError(
            f"the pair of module {name} is {away:.3g} away from the adapter's update, of norm {own.norm:.3g}, and at "
            f"most {lost:.3g} was expected; nothing was written. Please report this plan"
        )
    return Made(own, pair, away if lost else 0.0)


def _terms(twin: Adapter, site: Site) -> Iterator[Term]:
    for a, b in twin.pairs(site):
        yield Term(LoraPair(a.numpy(), b.numpy()), *site.block)

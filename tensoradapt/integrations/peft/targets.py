"""Find the sites of targeted modules: those of the model's recipe, else one for each linear layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from tensoradapt import parameterizations
from tensoradapt.errors import TensorAdaptError, located
from tensoradapt.integrations.peft.config import TensorConfig
from tensoradapt.layers.stored_matrix import StoredMatrix
from tensoradapt.planning.build_plan import build_plan
from tensoradapt.planning.plan import Plan
from tensoradapt.planning.resolve import resolve
from tensoradapt.published.row import Published
from tensoradapt.sites.find import find_sites
from tensoradapt.sites.from_names import linear_site
from tensoradapt.sites.modules import linear_shape
from tensoradapt.sites.site import Site, Sites
from tensoradapt.surgery.checks import READ_BY, check_fits, check_readable

WHOLE = ": out : in"  # a layout that fits every matrix


def default_targets(model: nn.Module, config: TensorConfig) -> list[str]:
    """Return the names of the modules that the published row adapts, else of the attention's."""
    projections, layers = resolve(config.spec()).spec.projections, config.layers_to_transform  # modules in these layers
    layers = [layers] if isinstance(layers, int) else layers or None
    with located("target_modules was not given and could not be found out"):
        sites = find_sites(model, projections, layers=layers)
    return list(dict.fromkeys(site.module for site in sites))


def planned(
    model: nn.Module, targets: Mapping[str, nn.Module], config: TensorConfig
) -> tuple[Plan, dict[str, StoredMatrix]]:
    """Return the plan over the targeted modules, given by name, and the matrices of its sites.

    Raises TensorAdaptError for a module that is not a linear layer, and whatever ``plan`` raises.
    """
    for name, module in targets.items():
        _check_supported(model, name, module)
    spec = config.spec()
    row = resolve(spec).row
    known, why = _known(model, row)
    sites = [site for site in known if site.module in targets]
    have = {site.module for site in sites}
    others = [linear_site(model, name, module) for name, module in targets.items() if name not in have]
    skipped = tuple((site.name, "not among the target modules") for site in known if site.module not in targets)
    if spec.layout is None and row is None:
        spec = replace(spec, layout=_layouts(spec.method))
    try:
        result = build_plan(Sites((*sites, *others), skipped, getattr(known, "source", "")), spec)
    except TensorAdaptError as error:
        raise TensorAdaptError(f"{error}{f'. No heads are known here: {why}' if why else ''}") from None
    return result, {site.name: _checked(targets[site.module], site, result) for site in result.sites}


def _known(model: nn.Module, row: Published | None) -> tuple[Sequence[Site], str]:
    """Return the recipe's sites, cut into blocks where the published row cuts them; or none, and the reason."""
    try:
        sites = find_sites(model, "all")
        if row is None or not row.blocks:
            return sites, ""
        blocks = find_sites(model, row.projections, blocks=True)
    except TensorAdaptError as error:
        return (), str(error)
    cut = {site.module for site in blocks}
    return Sites((*blocks, *(site for site in sites if site.module not in cut)), (), blocks.source), ""


def _layouts(parameterization: str) -> Sequence[str]:
    usual = parameterizations.layouts_of(parameterization)
    split = any("*" in text or "1" in text for text in usual)
    return usual if split or WHOLE in usual else (*usual, WHOLE)


def _check_supported(model: nn.Module, name: str, module: nn.Module) -> None:
    # torch's MultiheadAttention reads the weight of its projection without calling it, so an adapter would not train
    uncalled = isinstance(model.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention)
    if uncalled or linear_shape(module) is None:
        raise TensorAdaptError(
            f"Target module {name} ({type(module).__name__}) is not supported. Currently, only torch.nn.Linear and "
            "transformers' Conv1D are; leave it out of target_modules, or name it in exclude_modules"
        )


def _checked(module: nn.Module, site: Site, made: Plan) -> StoredMatrix:
    matrix = StoredMatrix.of(module, site)
    if made.needs_weights or made.spec.rule in READ_BY:
        use = "a start or a rule that takes the base weights"
        check_readable(matrix, use, "Adapt the model before it is quantised, or plan without them")
    check_fits(matrix)
    return matrix

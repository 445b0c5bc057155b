"""Checks that attach and merge make, site by site, before they change anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from tensoradapt.adapter.sharding import ATTACH_FIRST, refuse_sharded
from tensoradapt.checks import check_whole, shown
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.layers.kinds import CONV1D, EMBEDDING, LINEAR
from tensoradapt.layers.stored_matrix import Matrices, StoredMatrix
from tensoradapt.planning.plan import Group, Plan
from tensoradapt.planning.trained_modules import trained_modules
from tensoradapt.sites.modules import unready, without_adapters
from tensoradapt.sites.select import refuse_tied, refuse_unready
from tensoradapt.sites.site import Site
from tensoradapt.surgery.registry import Adapters, registered

Values = Sequence[Mapping[str, Tensor]]
KNOWN_LINEARS = ("timm.layers.linear", "torch.nn.modules.linear")  # whose forward is the product all the same
READ_BY = {"dora": "takes the lengths of the rows", "hira": "multiplies the base weights"}  # rules that read these
DEQUANTISE = "Dequantise the model first (load it without its quantisation)"


def check_attach(
    model: nn.Module,
    modules: Mapping[str, nn.Module],  # as they are without adapters
    plan: Plan,
    seed: int,
    name: str,
    reads: bool,  # whether factors are made from the weights
    given: bool,  # whether values are given, which the meta device would lose
) -> dict[str, StoredMatrix]:
    """Make every check of ``attach``, and return the matrices of the plan's sites, by site name."""
    if isinstance(model, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        raise TensorAdaptError(
            f"the root is an nn.{type(model).__name__}, where a registered adapter would become one of its stages; "
            "wrap it in a module of your own and attach to that"
        )
    _check_name(model, name)
    if torch.is_inference_mode_enabled():
        raise TensorAdaptError(
            "attach was called in torch.inference_mode(), in which factors could never be trained; call it outside"
        )
    if registered(model) is None:
        refuse_unready(model, ())
    refuse_sharded(model, "attach", ATTACH_FIRST)
    check_whole("seed", seed, 0, 2**63 - 1)
    matrices = {site.name: check_site(modules, site, type(model).__name__) for site in plan.sites}
    if given or not on_meta(matrices):
        for matrix in matrices.values():
            _check_values(plan, matrix, reads)
    for matrix in matrices.values():
        _check_bias(plan, matrix)
        _check_rule(plan, matrix)
    _check_train(model, plan)
    _check_others(model, plan)
    refuse_tied(without_adapters(model), plan.sites)  # they may have been tied after the plan was made
    return matrices


def on_meta(matrices: Matrices) -> bool:
    """Say whether all matrices are on the meta device, and none is there because accelerate offloads it."""
    return all(m.parameter.is_meta and not hasattr(m.module, "_hf_hook") for m in matrices.values())


def _check_values(plan: Plan, matrix: StoredMatrix, reads: bool) -> None:
    """Raise TensorAdaptError for a weight without values, or whose values the plan cannot read."""
    if torch.get_default_device().type == "meta":
        raise TensorAdaptError(
            'the default device is "meta", on which factors would have no values; attach outside torch.device("meta")'
        )
    check_loaded(matrix)
    if reads or plan.spec.rule in READ_BY:
        check_readable(matrix, _use(plan), f"{DEQUANTISE}, or {_without(plan)}")
    if reads and plan.begins.reads == "inputs":
        _check_inputs(plan, matrix)
    if reads and plan.begins.reads == "gradients" and matrix.quantisation:
        raise TensorAdaptError(
            f"site {matrix.site.name} is a {matrix.quantisation.name} layer, whose codes have no gradient; "
            f'{DEQUANTISE}, or plan with start="zero"'
        )


def _check_inputs(plan: Plan, matrix: StoredMatrix) -> None:
    """Raise TensorAdaptError for a layer whose matrix is not what its inputs are multiplied by."""
    if matrix.kind not in (LINEAR, CONV1D):
        raise TensorAdaptError(
            f"site {matrix.site.name} is a {matrix.kind.name}, and start={plan.start!r} measures the inputs of Linear "
            'and Conv1D; leave it out with find_sites(model, exclude=[...]), or plan with start="zero"'
        )


def _check_name(model: nn.Module, name: str) -> None:
    """Raise TensorAdaptError for a name that an adapter cannot have, or that one of the model's already has."""
    reserved = name in dir(Adapters(nn.Module())) if isinstance(name, str) else True
    if reserved or not name.isidentifier():
        raise TensorAdaptError(
            f"name is {shown(name)}; expected one word of letters, digits and underscores that torch's modules do not "
            "use, such as 'summaries'"
        )
    if (registry := registered(model)) is None:
        return
    if name in registry:
        raise TensorAdaptError(
            f"{type(model).__name__} already has an adapter attached as {name!r}; attach this one with another name=, "
            f"or call detach(model, {name!r}) first"
        )
    if registry.merged:
        raise TensorAdaptError("an adapter is merged into the weights; call unmerge(model) before attaching another")


def check_site(modules: Mapping[str, nn.Module], site: Site, model: str) -> StoredMatrix:
    """Return the matrix of a site; raise TensorAdaptError for a module that is missing, of another shape, or codes."""
    if site.module not in modules:
        raise TensorAdaptError(
            f"site {site.name}: {model} has no module {site.module!r}. The plan was made for another model: "
            "make it from this one"
        )
    matrix = StoredMatrix.of(modules[site.module], site)
    if why := unready(matrix.parameter):
        raise TensorAdaptError(f"parameter {site.key} {why}")
    check_fits(matrix)
    if matrix.parameter.is_inference():
        raise TensorAdaptError(
            f"the weight of site {site.name} was made in torch.inference_mode(), and no gradient goes through such a "
            "tensor; make or load the model outside it, as under torch.no_grad()"
        )
    return matrix


def check_fits(matrix: StoredMatrix) -> None:
    """Raise TensorAdaptError for a matrix of another shape than its site's, or of whole numbers."""
    site, shape, dtype = matrix.site, matrix.shape, matrix.parameter.dtype
    if not dtype.is_floating_point and matrix.quantisation is None:
        raise TensorAdaptError(
            f"site {site.name} holds {dtype} weights; expected floating point ones. {DEQUANTISE}, or leave the "
            "site out with find_sites(model, exclude=[...])"
        )
    rows, cols = (
        list(range(n)[block]) if isinstance(block, slice) else block for n, block in zip(shape, site.block, strict=True)
    )
    if (len(rows), len(cols)) != (site.out, site.in_) or rows[-1] >= shape[0]:
        raise TensorAdaptError(
            f"site {site.name} is {site.out} x {site.in_} in the plan and the module's matrix is "
            f"{shape[0]} x {shape[1]}; make the plan from this model"
        )


def _check_bias(plan: Plan, matrix: StoredMatrix) -> None:
    site, kind = matrix.site, matrix.kind
    if site.coord.get("proj") in dict(plan.biases) and kind not in (LINEAR, CONV1D):
        raise TensorAdaptError(
            f"{plan.spec.name} with paper=True adds a bias after {site.name}, which is a {kind.name}; expected "
            "Linear or Conv1D. Plan it without paper=True"
        )


def _check_rule(plan: Plan, matrix: StoredMatrix) -> None:
    if plan.spec.rule == "hira" and matrix.kind is EMBEDDING:
        raise TensorAdaptError(
            f"site {matrix.site.name} is an Embedding, and rule='hira' changes weights that inputs are multiplied by. "
            "Leave it out with find_sites(model, exclude=[...]), or plan with rule='add'"
        )


def check_loaded(matrix: StoredMatrix) -> None:
    """Raise TensorAdaptError for a weight without values."""
    name = matrix.site.name
    if matrix.parameter.is_meta:
        if hasattr(matrix.module, "_hf_hook"):
            raise TensorAdaptError(
                f"site {name} is offloaded by accelerate: its weight has values only within a forward pass. Load "
                "the model with a device_map that keeps the adapted layers on devices, or attach to fewer layers"
            )
        raise TensorAdaptError(
            f"site {name} is on the meta device, where weights have shapes and no values; load the weights first, "
            "with from_pretrained or model.load_state_dict(weights, assign=True). (With all adapted weights there and "
            "no values= given, attach gives an adapter without values)"
        )


def check_readable(matrix: StoredMatrix, use: str, instead: str) -> None:
    """Raise TensorAdaptError for a weight whose entries are not the matrix: codes, or a class that packs values.

    Codes of a known quantisation can be read.
    """
    check_loaded(matrix)
    if matrix.quantisation is not None:
        return
    weight = matrix.parameter
    if type(weight) is Tensor and not is_parametrized(matrix.module):
        raise TensorAdaptError(
            f"the weight of site {matrix.site.name} is no Parameter: a hook makes it at each call, as "
            f"torch.nn.utils.prune and spectral_norm do, and {use} needs a Parameter. Make it one with prune.remove or "
            "remove_spectral_norm, or use the adapter unmerged"
        )
    plain = type(weight) is nn.Parameter and weight.is_floating_point() and weight.dtype.itemsize > 1
    if plain or is_parametrized(matrix.module):
        return _check_computes(matrix, use, instead)
    raise TensorAdaptError(
        f"site {matrix.site.name} holds its weight as a {type(weight).__module__}.{type(weight).__qualname__} of "
        f"{weight.dtype}; {use} needs a plain floating point Parameter of two bytes or more, whose entries are "
        f"the layer's matrix. {instead}"
    )


def _check_computes(matrix: StoredMatrix, use: str, instead: str) -> None:
    """Raise TensorAdaptError for a layer that may compute more than the product with its weight."""
    module, name = matrix.module, matrix.site.name
    fault = ""
    if is_parametrized(module):
        fault = "a weight that is computed from others at each call (torch's parametrizations)"
    elif matrix.kind is LINEAR and type(module).forward is not nn.Linear.forward:
        fault = "a forward of its own, which may compute more than the product with its weight"
    if fault and not type(module).__module__.startswith(KNOWN_LINEARS):
        raise TensorAdaptError(
            f"site {name} is a {type(module).__name__}, an nn.Linear with {fault}; {use} needs the plain "
            f"product. {instead}"
        )


def _use(plan: Plan) -> str:
    if plan.spec.rule in READ_BY and not plan.needs_weights:
        return f'rule="{plan.spec.rule}" {READ_BY[plan.spec.rule]}, and'
    what = "the first gradients" if plan.begins.reads == "gradients" else "factors from the base weights"
    return f"{plan.spec.name} with start={plan.start!r} takes {what}, and"


def _without(plan: Plan) -> str:
    """Advise on a plan that needs no weights: another rule or start where that is enough, else another method."""
    if plan.spec.rule in READ_BY and not plan.needs_weights:
        return 'plan with rule="add"'
    if any(factor.source == "base" for group in plan.groups for factor in group.network.factors):
        return 'plan a method that needs no base weights, such as method="lora" or method="cp"'
    return 'plan with start="zero"'


def _check_train(model: nn.Module, plan: Plan) -> None:
    for name in trained_modules(model, plan.train, plan.paper):
        if hit := [s.module for s in plan.sites if s.module == name or s.module.startswith(f"{name}.")]:
            raise TensorAdaptError(
                f"train names {name!r}, which holds the adapted module {hit[0]!r}; a weight is adapted or trained, "
                "not both"
            )


def _check_others(model: nn.Module, plan: Plan) -> None:
    """Raise TensorAdaptError where one of two adapters trains a module that the other adapts."""
    named = {} if (registry := registered(model)) is None else registry.named()
    trained = trained_modules(model, plan.train, plan.paper)
    for name, other in named.items():
        pairs = [(head, site, name, "this plan") for head in other.attachment.heads for site in plan.sites]
        pairs += [(head, site, "this plan", name) for head in trained for site in other.plan.sites]
        for head, site, trains, adapts in pairs:
            if site.module == head or site.module.startswith(f"{head}."):
                raise TensorAdaptError(
                    f"{trains} trains {head!r}, and {adapts} adapts {site.module!r} in it; a weight is adapted or "
                    "trained, not both: leave one out, or detach the other adapter first"
                )


def given_values(plan: Plan, values: Any) -> tuple[Plan, list[dict[str, Tensor]]]:
    """Return ``values`` as tensors on the CPU, and the plan in which frozen factors that have values are given."""
    n = len(plan.groups)
    if plan.spec.map:
        raise TensorAdaptError(
            f"values= was given, and a map makes the factors of the numbers that are trained ({plan.spec.map}); leave "
            "values= out, or plan without map="
        )
    if not isinstance(values, Sequence) or len(values) != n:
        fault = f"holds {len(values)} mappings" if isinstance(values, Sequence) else f"is a {type(values).__name__}"
        raise TensorAdaptError(
            f"values= {fault}, and the plan has {n} tensor{'s' * (n > 1)}; expected a list with a mapping of factor "
            "names to numbers for each, in the plan's order"
        )
    given = [_checked_factors(group, factors) for group, factors in zip(plan.groups, values, strict=True)]
    groups = tuple(replace(g, network=g.network.given(named)) for g, named in zip(plan.groups, given, strict=True))
    return replace(plan, groups=groups), given


def _checked_factors(group: Group, values: Any) -> dict[str, Tensor]:
    network, where = group.network, f"values of the tensor of site {group.members[0].site.name}"
    known = {factor.name: factor for factor in network.factors}
    frozen = {factor.name for factor in network.frozen_draws}
    if not isinstance(values, Mapping):
        raise TensorAdaptError(f"{where} are a {type(values).__name__}; expected a mapping of {', '.join(known)}")
    for name in values:
        if name not in known:
            raise TensorAdaptError(f"{where} name {name!r}, which it does not have{did_you_mean(name, known)}")
    alone = bool(values) and frozen.issuperset(values) and all(f.source != "base" for f in network.factors)
    needed = [] if alone else [name for name in known if name not in frozen]
    if lacking := [name for name in needed if name not in values]:
        raise TensorAdaptError(
            f"{where} lack factor {lacking[0]!r} {network.axes(known[lacking[0]])}; expected all of {', '.join(needed)}"
        )
    return {name: _as_tensor(value, f"{where}: {name!r}") for name, value in values.items()}


def _as_tensor(value: Any, where: str) -> Tensor:
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return torch.from_numpy(value.astype(np.float64))
    if isinstance(value, Tensor) and value.is_floating_point() and not value.is_meta:
        return value.detach().cpu()
    text = f"{type(value).__name__} of {value.dtype}" if isinstance(value, Tensor | np.ndarray) else repr(value)
    raise TensorAdaptError(f"{where} is a {text}; expected a floating point tensor or numpy array that holds values")

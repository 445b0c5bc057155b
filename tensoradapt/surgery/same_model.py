"""Refuse a plan that was made from a model or config with other numbers of heads or layers than the model it is put on.

Its modules and shapes may all be there: two layers of a model of three, or four heads where the model has six.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from tensoradapt.errors import TensorAdaptError
from tensoradapt.planning.plan import Plan
from tensoradapt.sites.find import every_site
from tensoradapt.sites.site import Site
from tensoradapt.surgery.base_prefix import fitted
from tensoradapt.surgery.registry import original_modules


def check_same_model(model: nn.Module, plan: Plan) -> None:
    """Raise TensorAdaptError where ``find_sites`` finds other heads or more layers in ``model`` than the plan's model.

    Only plans whose sites were found as those of ``model`` are: a plan of sites that were listed by hand, or found by
    another recipe, says nothing about the rest of its model. One that was saved does not have what it skips.
    """
    if not plan.source:
        return
    every, source = every_site(model)
    if source != plan.source:
        return
    plan = fitted(plan, model, original_modules(model))
    found = {site.name: site for site in every}
    for site in plan.sites:
        _check_inner(site, found.get(site.name, site), type(model).__name__)
    if plan.skipped:
        _check_layers(plan, every, type(model).__name__)


def _check_inner(planned: Site, found: Site, model: str) -> None:
    here, there = (" x ".join(f"{name} {n}" for name, n in site.inner) for site in (found, planned))
    if here != there and "block" not in planned.coord:
        raise TensorAdaptError(
            f"site {planned.name} is split into {there} in the plan and into {here} in {model}. The plan was made for "
            "another model: make it from this one"
        )


def _check_layers(plan: Plan, every: Iterable[Site], model: str) -> None:
    """Raise for a layer that the plan neither adapts nor skips, in a stack of which it adapts others."""
    known = {site.module for site in plan.sites} | {name for name, _ in plan.skipped}
    stacks = {_any_layer(site.module) for site in plan.sites}
    for site in every:
        if _any_layer(site.module) in stacks and known.isdisjoint((site.module, site.name)):
            raise TensorAdaptError(
                f"{model} has {site.module}, which the plan neither adapts nor skips. The plan was made for another "
                "model: make it from this one, with layers= of find_sites for some of its layers"
            )


def _any_layer(module: str) -> str:
    return re.sub(r"[.]\d+(?=[.])", ".*", module)

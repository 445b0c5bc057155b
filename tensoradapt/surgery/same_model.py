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
    plan, every = _fitted(model, plan)
    found = {site.name: site for site in every}
    for site in plan.sites:
        _check_inner(site, found.get(site.name, site), type(model).__name__)
    if plan.skipped is not None and (left := _left_out(plan, every)):
        raise TensorAdaptError(
            f"{type(model).__name__} has {left}, which the plan neither adapts nor skips. The plan was made for "
            "another model: make it from this one, with layers= of find_sites for some of its layers"
        )


def layer_left_out(model: nn.Module, plan: Plan) -> str:
    """Return a layer of ``model`` that a saved plan does not adapt, in a stack of which it adapts others; "" if none.

    Its own model may have had that layer too, as a saved plan does not have what it skips.
    """
    return _left_out(*_fitted(model, plan))


def _fitted(model: nn.Module, plan: Plan) -> tuple[Plan, list[Site]]:
    """Return a plan with the names of ``model``, and all its sites; none where the plan's were found in another way."""
    if not plan.source:
        return plan, []
    every, source = every_site(model)
    return (fitted(plan, model, original_modules(model)), every) if source == plan.source else (plan, [])


def _check_inner(planned: Site, found: Site, model: str) -> None:
    here, there = (" x ".join(f"{name} {n}" for name, n in site.inner) for site in (found, planned))
    if here != there and "block" not in planned.coord:
        raise TensorAdaptError(
            f"site {planned.name} is split into {there} in the plan and into {here} in {model}. The plan was made for "
            "another model: make it from this one"
        )


def _left_out(plan: Plan, every: Iterable[Site]) -> str:
    """Return a module that the plan neither adapts nor skips, in a stack of which it adapts others; "" if none."""
    known = {site.module for site in plan.sites} | {name for name, _ in plan.skipped or ()}
    stacks = {_any_layer(site.module) for site in plan.sites}
    left = (s.module for s in every if _any_layer(s.module) in stacks and known.isdisjoint((s.module, s.name)))
    return next(left, "")


def _any_layer(module: str) -> str:
    return re.sub(r"[.]\d+(?=[.])", ".*", module)

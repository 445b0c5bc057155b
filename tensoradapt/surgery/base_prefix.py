"""A plan of a base model on a model that holds it: names with the prefix that transformers gives the base, or without.

``plan`` of the name of a saved BERT without a head has names such as "encoder.layer.0.attention.self.query". A
classifier holds that model as an attribute, and its names begin with "bert.".
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from torch import nn

from tensoradapt.planning.plan import Plan
from tensoradapt.sites.site import Site


def fitted(plan: Plan, model: nn.Module, modules: Collection[str]) -> Plan:
    """Return a plan with its sites' names in ``model``; as it is where neither form of all names is there.

    Ranks by name pattern belong to the names they were planned with, so a plan that has some is returned as it is.
    """
    named = {site.module for site in plan.sites}
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    if named <= set(modules) or prefix == "." or plan.spec.rank_pattern:
        return plan
    renames: tuple[Callable[[str], str], ...] = (prefix.__add__, lambda name: name.removeprefix(prefix))
    found = (rename for rename in renames if {rename(name) for name in named} <= set(modules))
    rename = next(found, None)
    return plan if rename is None else _renamed(plan, rename)


def _renamed(plan: Plan, rename: Callable[[str], str]) -> Plan:
    """Return a plan of sites with other names."""

    def moved(site: Site) -> Site:
        return replace(site, name=rename(site.name), module=rename(site.module))

    groups = [
        replace(group, members=tuple(replace(member, site=moved(member.site)) for member in group.members))
        for group in plan.groups
    ]
    skipped = plan.skipped and tuple((rename(name), why) for name, why in plan.skipped)
    return replace(plan, groups=tuple(groups), skipped=skipped)

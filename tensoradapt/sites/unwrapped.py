"""A read-only view of a model without its adapters. No torch."""

from __future__ import annotations

import copy
from typing import Any

ROOT = "tensoradapt"  # the name of the adapters in their model


def without_adapters(model: Any) -> Any:
    """The model itself, or, where it has adapters, a copy of its module tree in which adapted layers are unwrapped.

    Layers and weights are shared; only the modules above wrapped layers are copied, shallowly.
    """
    return _unwrapped(model, {}) if hasattr(model, ROOT) else model


def _unwrapped(module: Any, done: dict[int, Any]) -> Any:
    if id(module) in done:
        return done[id(module)]
    done[id(module)] = module  # a module that holds itself ends here
    if getattr(type(module), "wraps", False):
        done[id(module)] = module.base
        return module.base
    parts = {name: part and _unwrapped(part, done) for name, part in module._modules.items() if name != ROOT}
    if parts != module._modules:
        done[id(module)] = copy.copy(module)
        done[id(module)].__dict__["_modules"] = parts
    return done[id(module)]

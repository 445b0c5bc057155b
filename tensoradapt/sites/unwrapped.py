"""A model as it is without its adapters, for what looks at its modules and changes nothing. No torch."""

from __future__ import annotations

import copy
from typing import Any

ROOT = "tensoradapt"  # the name of the adapters in their model


def without_adapters(model: Any) -> Any:
    """The model, or where it has adapters a tree of its own with the same layers, those that are wrapped bare.

    Layers and weights are the model's; only the modules above wrapped ones are copied, without what they hold.
    """
    return _bare(model, {}) if hasattr(model, ROOT) else model


def _bare(module: Any, made: dict[int, Any]) -> Any:
    if id(module) in made:
        return made[id(module)]
    made[id(module)] = found = module
    if getattr(type(module), "wraps", False):
        found = module.base
    else:
        parts = {name: part and _bare(part, made) for name, part in module._modules.items() if name != ROOT}
        if parts != module._modules:
            found = copy.copy(module)
            found.__dict__["_modules"] = parts
    made[id(module)] = found
    return found

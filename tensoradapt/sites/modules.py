"""Read a model's modules: how each kind of layer stores its weight, and the model without its adapters.

No torch at import. Only this file says how a layer of each kind stores its weight; sites and layers read it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

ROOT = "tensoradapt"  # the name of the adapters in their model
IN_FIRST = ("Conv1D", "Embedding")  # these kinds store (in, out); all others have the output first
INPUTS = {"Embedding": ("token",), "Conv2d": ("channel", "kh", "kw")}  # modes of layers that are not linear


def is_conv1d(module: Any) -> bool:
    """Say whether a module is GPT-2's Conv1D, by the name of its class: its type would need transformers."""
    return type(module).__name__ == "Conv1D" and getattr(getattr(module, "weight", None), "ndim", 0) == 2


def logical_shape(kind: str, shape: Sequence[int]) -> tuple[int, int]:
    """Return (out, in) of a weight stored in this shape; a convolution's channels and kernel are its inputs."""
    first, rest = shape[0], math.prod(shape[1:])
    return (rest, first) if kind in IN_FIRST else (first, rest)


def is_lazy(weight: Any) -> bool:
    """Say whether a parameter is of one of torch's lazy modules, before their first batch."""
    return hasattr(weight, "materialize")


def unready(weight: Any) -> str:
    """Say why a weight is no matrix that can be read, and what to do; "" where it is one."""
    if is_lazy(weight):
        return "has no shape before its first batch; run one through the model first"
    if str(weight.layout).startswith("torch.sparse"):
        return "is sparse, which torch does not view as a matrix; make it dense with to_dense(), or leave it out"
    return ""


def input_modes(kind: str, shape: Sequence[int]) -> tuple[tuple[str, int], ...]:
    """Return names and sizes of the input modes of a weight stored in this shape, for a kind of ``INPUTS``."""
    return tuple(zip(INPUTS[kind], shape[:1] if kind in IN_FIRST else shape[1:], strict=True))


def is_list(module: Any) -> bool:
    """Say whether a module is a list of others."""
    from torch import nn

    return isinstance(module, nn.ModuleList | nn.Sequential)


def linear_shape(module: Any) -> tuple[int, int] | None:
    """Return (out, in) of a linear layer, however its weight is packed; None for another module."""
    from torch import nn

    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    return logical_shape("Conv1D", module.weight.shape) if is_conv1d(module) else None


def named_modules(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the modules of a model with their names, without those of its adapters, which may be thousands."""
    return model.named_modules(memo={getattr(model, ROOT, None)})


def without_adapters(model: Any) -> Any:
    """Return the model, or, where it has adapters, a copy of its module tree with adapted layers unwrapped.

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

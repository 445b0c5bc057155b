"""The kinds of layers that can be adapted, and how each applies a pair (A, B)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tensoradapt.adapter.factored import apply_pair
from tensoradapt.adapter.forward_pass import Pair
from tensoradapt.errors import TensorAdaptError
from tensoradapt.sites.modules import IN_FIRST, is_conv1d
from tensoradapt.sites.site import Site


@dataclass(frozen=True)
class LayerKind:
    """A kind of layer: its name, and how it computes with an update.

    ``apply_pair`` computes ``x delta^T`` from a pair. It is None where the layer is computed as a whole, with W + delta
    in the place of W.
    """

    name: str
    apply_pair: Callable[[nn.Module, Tensor, Pair], Tensor] | None
    axis: int = -1  # the dimension of the layer's output that holds the matrix's rows

    def logical(self, weight: Tensor) -> Tensor:  # (out, in), a view where the memory allows
        """Return a stored weight, or its gradient, as the logical matrix."""
        matrix = weight.flatten(1)
        return matrix.T if self.name in IN_FIRST else matrix

    def stored(self, matrix: Tensor, shape: torch.Size) -> Tensor:
        """Return a logical (out, in) matrix in the weight's order and shape."""
        return (matrix.T if self.name in IN_FIRST else matrix).view(shape)


def _linear(_: nn.Module, x: Tensor, pair: Pair) -> Tensor:
    return apply_pair(x, pair)


def _embedding(module: nn.Module, ids: Tensor, pair: Pair) -> Tensor:
    """Look up rows of A^T, a padding row like any other; the dense (vocabulary x width) update is never formed."""
    dtype: torch.dtype = module.weight.dtype  # type: ignore[assignment]
    a, b = pair
    return F.linear(F.embedding(ids, a.T.to(dtype)), b.to(dtype))


def _conv2d(module: nn.Module, x: Tensor, pair: Pair) -> Tensor:
    """Convolve with A in the layer's own size, stride and padding into R channels, then with B in 1 x 1."""
    conv: nn.Conv2d = module  # type: ignore[assignment]
    a, b = pair
    inner = conv._conv_forward(x, a.to(x).view(len(a), conv.in_channels, *conv.kernel_size), None)
    return F.conv2d(inner, b.to(x)[:, :, None, None])


LINEAR = LayerKind("Linear", _linear)
CONV1D = LayerKind("Conv1D", _linear)
EMBEDDING = LayerKind("Embedding", _embedding)
CONV2D = LayerKind("Conv2d", _conv2d, axis=1)
ATTENTION = LayerKind("MultiheadAttention", None)
STACKED = LayerKind("stacked experts", None)
KINDS = (LINEAR, CONV1D, EMBEDDING, CONV2D, ATTENTION, STACKED)


def kind_of(module: nn.Module, site: Site) -> LayerKind:
    """Return the kind of a site's layer; raises TensorAdaptError for a layer of no known kind."""
    if site.slot is not None:
        return _stacked(module, site)
    if isinstance(module, nn.Linear):
        return LINEAR
    if is_conv1d(module):
        return CONV1D
    if isinstance(module, nn.MultiheadAttention):
        return ATTENTION
    if isinstance(module, nn.Embedding | nn.Conv2d):
        return _plain(module, site)
    raise TensorAdaptError(
        f"site {site.name} is a {type(module).__name__} ({type(module).__module__}.{type(module).__qualname__}); "
        f"expected one of {', '.join(kind.name for kind in KINDS)} (of torch.nn, of transformers). Attach to the model "
        "as it was before its layers were replaced (by quantising it, say), or "
        "leave the site out with find_sites(model, exclude=[...])"
    )


def _stacked(module: nn.Module, site: Site) -> LayerKind:
    weight = getattr(module, site.parameter, None)
    if isinstance(weight, Tensor) and weight.ndim == 3 and site.slot in range(len(weight)):
        return STACKED
    fault = f"shape {tuple(weight.shape)}" if isinstance(weight, Tensor) else f"no {site.parameter}"
    raise TensorAdaptError(
        f"site {site.name}: {type(module).__name__} has {fault}; expected {site.parameter} as (experts, out, in) with "
        f"an expert {site.slot}. Make the plan from this model"
    )


def _plain(module: nn.Embedding | nn.Conv2d, site: Site) -> LayerKind:
    """Return the kind of an embedding or convolution whose output is linear in its weight, each row by itself."""
    base = nn.Embedding if isinstance(module, nn.Embedding) else nn.Conv2d
    why = None
    if type(module).forward is not base.forward:
        why = f"computes more than an {base.__name__} does"
    elif isinstance(module, nn.Embedding) and module.max_norm is not None:
        why = "renormalises its weight (max_norm)"
    elif isinstance(module, nn.Conv2d) and module.groups > 1:
        why = f"has {module.groups} groups, so its matrix is block diagonal"
    if why:
        raise TensorAdaptError(
            f"site {site.name} is a {type(module).__name__} that {why}; expected a plain nn.{base.__name__}. Leave "
            "it out with find_sites(model, exclude=[...])"
        )
    return EMBEDDING if isinstance(module, nn.Embedding) else CONV2D

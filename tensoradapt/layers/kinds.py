"""Layer kinds: how each stores its logical (out, in) matrix and applies a pair. Storage order exists here alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tensoradapt.adapter.factored import apply_pairs
from tensoradapt.errors import TensorAdaptError
from tensoradapt.layers.quantised import quantised
from tensoradapt.sites.site import Site

Pairs = Sequence[tuple[Tensor, Tensor]]  # A: (R, in), B: (out, R)


@dataclass(frozen=True)
class Kind:
    """A row of the table below.

    ``logical`` views a stored weight as (out, in), ``stored`` gives such a matrix the weight's shape again.
    ``apply_pairs`` computes ``x delta^T`` from pairs; None where the layer is computed as a whole, with W + delta in
    the place of W.
    """

    name: str
    logical: Callable[[Tensor], Tensor]
    stored: Callable[[Tensor, torch.Size], Tensor]
    apply_pairs: Callable[[nn.Module, Tensor, Pairs], Tensor] | None
    axis: int = -1  # of the output, where the rows are


def _linear(_: nn.Module, x: Tensor, pairs: Pairs) -> Tensor:
    return apply_pairs(x, pairs)


def _embedding(module: nn.Module, ids: Tensor, pairs: Pairs) -> Tensor:
    """Rows of A^T are looked up, a padding row among them; the dense (vocabulary x width) update is never formed."""
    dtype: torch.dtype = module.weight.dtype  # type: ignore[assignment, union-attr]
    first, *rest = (F.linear(F.embedding(ids, a.T.to(dtype)), b.to(dtype)) for a, b in pairs)
    return sum(rest, first)


def _conv2d(module: nn.Module, x: Tensor, pairs: Pairs) -> Tensor:
    """A is a convolution of the layer's own size, stride and padding into R channels, B one of 1 x 1."""
    conv: nn.Conv2d = module  # type: ignore[assignment]
    size = (conv.in_channels, *conv.kernel_size)
    inner = ((conv._conv_forward(x, a.to(x).view(len(a), *size), None), b.to(x)) for a, b in pairs)
    first, *rest = (F.conv2d(h, b[:, :, None, None]) for h, b in inner)
    return sum(rest, first)


def _as_is(matrix: Tensor, _: torch.Size | None = None) -> Tensor:
    return matrix


def _transposed(matrix: Tensor, _: torch.Size | None = None) -> Tensor:
    return matrix.T


LINEAR = Kind("Linear", _as_is, _as_is, _linear)
CONV1D = Kind("Conv1D", _transposed, _transposed, _linear)
EMBEDDING = Kind("Embedding", _transposed, _transposed, _embedding)
CONV2D = Kind("Conv2d", lambda weight: weight.flatten(1), lambda matrix, shape: matrix.view(shape), _conv2d, 1)
ATTENTION = Kind("MultiheadAttention", _as_is, _as_is, None)
STACKED = Kind("stacked experts", _as_is, _as_is, None)
KINDS = (LINEAR, CONV1D, EMBEDDING, CONV2D, ATTENTION, STACKED)


def kind_of(module: nn.Module, site: Site | str) -> Kind:
    """The kind of a layer.

    GPT-2's Conv1D is known by its class name: importing transformers to compare classes would make it a dependency.
    """
    if isinstance(site, Site) and site.slot is not None:
        return _stacked(module, site)
    if isinstance(module, nn.Linear):
        return LINEAR
    if type(module).__name__ == "Conv1D" and getattr(module, "weight", None) is not None and module.weight.ndim == 2:
        return CONV1D
    if isinstance(module, nn.MultiheadAttention):
        return ATTENTION
    if isinstance(module, nn.Embedding | nn.Conv2d):
        return _plain(module, site)
    raise TensorAdaptError(
        f"site {_name(site)} is a {type(module).__name__} ({type(module).__module__}.{type(module).__qualname__}); "
        f"expected one of {', '.join(kind.name for kind in KINDS)} (of torch.nn, of transformers). Attach to the model "
        "as it was before its layers were replaced (by quantising it, say), or "
        "leave the site out with find_sites(model, exclude=[...])"
    )


def _name(site: Site | str) -> str:
    return site if isinstance(site, str) else site.name


def _stacked(module: nn.Module, site: Site) -> Kind:
    weight = getattr(module, site.parameter, None)
    if isinstance(weight, Tensor) and weight.ndim == 3 and site.slot in range(len(weight)):
        return STACKED
    found = f"shape {tuple(weight.shape)}" if isinstance(weight, Tensor) else f"no {site.parameter}"
    raise TensorAdaptError(
        f"site {site.name}: {type(module).__name__} has {found}; expected {site.parameter} as (experts, out, in) with "
        f"an expert {site.slot}. Make the plan from this model"
    )


def _plain(module: nn.Embedding | nn.Conv2d, site: Site | str) -> Kind:
    """An embedding or convolution whose output is linear in its weight and in which each row is its own."""
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
            f"site {_name(site)} is a {type(module).__name__} that {why}; expected a plain nn.{base.__name__}. Leave "
            "it out with find_sites(model, exclude=[...])"
        )
    return EMBEDDING if isinstance(module, nn.Embedding) else CONV2D


def parameter_of(module: nn.Module, site: Site) -> Tensor:
    """The parameter that holds the site's matrix, alone or among others."""
    kind_of(module, site)  # refuses a layer of another kind, and an expert that is not there
    owner, _, name = site.parameter.rpartition(".")
    weight = getattr(module.get_submodule(owner), name, None)
    if isinstance(weight, Tensor):
        return weight
    raise TensorAdaptError(
        f"site {site.name}: {type(module).__name__} has no parameter {site.parameter!r}; make the plan from this model"
    )


def weight_of(module: nn.Module, site: Site) -> Tensor:
    """The site's matrix as it is stored: all of its parameter, or its own of those that are stacked."""
    weight = parameter_of(module, site)
    return weight if site.slot is None else weight[site.slot]


def matrix_of(module: nn.Module, site: Site) -> Tensor:  # (out, in), a view where the layout allows
    """The logical matrix that the site is a block of; of a quantised layer as it computes with it, in fp32."""
    if (packed := quantised(module)) is not None:
        return packed.matrix(module)
    return kind_of(module, site).logical(weight_of(module, site))


def shape_of(module: nn.Module, site: Site) -> tuple[int, int]:
    """Rows and columns of that matrix, without making it."""
    if quantised(module) is not None:
        return module.out_features, module.in_features  # type: ignore[return-value]
    out, in_ = kind_of(module, site).logical(weight_of(module, site)).shape
    return out, in_


def block_of(module: nn.Module, site: Site) -> Tensor:  # (out, in) of the site
    """The site's rows and columns as stored."""
    return matrix_of(module, site)[site.block]

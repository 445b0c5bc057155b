"""Layer kinds: how each stores its logical (out, in) matrix. Storage order exists here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from tensoradapt.errors import TensorAdaptError
from tensoradapt.sites import Site


@dataclass(frozen=True)
class Kind:
    """``logical`` views a stored weight as (out, in); writing to the view writes to the weight."""

    name: str
    logical: Callable[[Tensor], Tensor]


def block_of(
    matrix: Tensor,  # a module's logical (out, in) matrix
    site: Site,
) -> Tensor:  # a view: writing to it writes to the matrix
    """The rows and columns that a site is."""
    rows, cols = (slice(None) if block is None else slice(*block) for block in (site.rows, site.cols))
    return matrix[rows, cols]


LINEAR = Kind("Linear", lambda weight: weight)
CONV1D = Kind("Conv1D", lambda weight: weight.T)


def kind_of(module: nn.Module, site: str) -> Kind:
    """The kind of a layer.

    GPT-2's Conv1D is known by its class name: importing transformers to compare classes would make it a dependency.
    """
    if isinstance(module, nn.Linear):
        return LINEAR
    if type(module).__name__ == "Conv1D" and getattr(module, "weight", None) is not None and module.weight.ndim == 2:
        return CONV1D
    raise TensorAdaptError(
        f"site {site} is a {type(module).__name__} ({type(module).__module__}.{type(module).__qualname__}); expected "
        "Linear or Conv1D (of torch.nn, of transformers). Attach to the model as it was before its layers were "
        "replaced (by quantising it, say), or leave the site out with find_sites(model, exclude=[...])"
    )

"""A StoredMatrix knows where one matrix of a model is stored and how; it reads, writes and measures it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tensoradapt.errors import TensorAdaptError
from tensoradapt.layers.kinds import LayerKind, kind_of
from tensoradapt.layers.quantised import Quantised, quantised
from tensoradapt.networks.layout import Layout
from tensoradapt.planning.plan import Group
from tensoradapt.sites.modules import logical_shape
from tensoradapt.sites.site import Site


@dataclass(frozen=True)
class StoredMatrix:
    """The (out, in) matrix that a site is a block of: a whole parameter, or one of several stacked in it.

    It is resolved once, when an adapter is attached. The values, and with them the quantisation, are read from the
    module each time: moving a model replaces parameters, and bitsandbytes quantises a weight as it is moved.
    """

    module: nn.Module
    kind: LayerKind
    site: Site  # names the parameter; other sites may be blocks of the same matrix

    @classmethod
    def of(cls, module: nn.Module, site: Site) -> StoredMatrix:
        """Resolve a site in its module; raises TensorAdaptError for an unknown kind of layer or a missing parameter."""
        matrix = cls(module, kind_of(module, site), site)
        _ = matrix.parameter
        return matrix

    @property
    def key(self) -> tuple[str, int | None]:
        """What tells it from others of its module: the parameter's name, and the index where several are stacked."""
        return self.site.parameter, self.site.slot

    @property
    def parameter(self) -> Tensor:
        """The parameter that holds the matrix."""
        owner, _, name = self.site.parameter.rpartition(".")
        parameter = getattr(self.module.get_submodule(owner), name, None)
        if isinstance(parameter, Tensor):
            return parameter
        raise TensorAdaptError(
            f"site {self.site.name}: {type(self.module).__name__} has no parameter {self.site.parameter!r}; make the "
            "plan from this model"
        )

    @property
    def weight(self) -> Tensor:
        """The matrix in the order in which it is stored."""
        return self.parameter if self.site.slot is None else self.parameter[self.site.slot]

    @property
    def quantisation(self) -> Quantised | None:
        """How the layer is quantised, None where it is not."""
        return quantised(self.module)

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and columns of the logical matrix, without making it."""
        if self.quantisation is not None:
            return self.module.out_features, self.module.in_features  # type: ignore[return-value]
        return logical_shape(self.kind.name, self.weight.shape)

    def read(self) -> Tensor:  # (out, in), a view where the memory allows
        """Return the logical matrix; that of a quantised layer is the one that it computes with, in fp32."""
        if (form := self.quantisation) is not None:
            return form.matrix(self.module)
        return self.logical(self.parameter)

    def wide(self) -> Tensor:  # (out, in)
        """Return the logical matrix in fp32 or wider, so that updates can be summed to it."""
        matrix = self.read()
        return matrix.to(torch.promote_types(matrix.dtype, torch.float32))

    def block(self) -> Tensor:  # the site's (out, in)
        """Return the site's rows and columns of the matrix."""
        return self.read()[self.site.block]

    def logical(self, parameter: Tensor) -> Tensor:  # (out, in)
        """Return the logical matrix in values of the parameter's shape, such as its gradient."""
        return self.kind.logical(parameter if self.site.slot is None else parameter[self.site.slot])

    def write(self, matrix: Tensor) -> None:
        """Store an (out, in) matrix, rounded to the weight's dtype or quantised in the layer's own way."""
        if (form := self.quantisation) is not None:
            form.store(self.module, matrix)  # type: ignore[misc]  # check_mergeable refuses layers without
        else:
            self.weight.copy_(self.kind.stored(matrix, self.weight.shape))


Matrices = Mapping[str, StoredMatrix]  # by site name


def stored_matrices(modules: Mapping[str, nn.Module], sites: Iterable[Site]) -> dict[str, StoredMatrix]:
    """Return the matrices of sites whose modules are there, by site name; attach refuses the others by name."""
    return {site.name: StoredMatrix.of(modules[site.module], site) for site in sites if site.module in modules}


def stack(
    group: Group,
    matrix: Callable[[Site], Tensor],  # a site's (out, in) matrix as stored
    layout: Layout | None = None,  # by default that of the group
) -> Tensor:  # layout.shape
    """Stack matrices of sites that share a tensor as its slices, in float64.

    Entries that no site reads (cropped, or of another task) are zero.
    """
    layout = layout or group.network.layout
    whole = torch.zeros(layout.shape, dtype=torch.float64)
    for member in group.members:
        values = matrix(member.site).detach().double().cpu()
        index = tuple(_index(member.at.get(name)) for name in layout.names)
        shape = whole[index].shape
        sides = layout.shape[len(layout.index) :]
        cropped = tuple(
            len(v) if isinstance(v := member.at.get(mode.name), range) else n
            for mode, n in zip((*layout.rows, *layout.cols), sides, strict=True)
        )
        whole[index] = (values.T if member.transposed else values).reshape(cropped).expand(shape)
    return whole


def _index(value: int | range | None) -> int | slice:
    if isinstance(value, range):
        return slice(value.start, value.stop)
    return slice(None) if value is None else value

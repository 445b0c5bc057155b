"""Scale: the rules of a tensor's multiplier, matched to LoRA's first step or a paper's own. No torch at import.

Adam's first step is the sign of each parameter's gradient J^T G, for J the tensor's Jacobian and G the loss's gradient
in the tensor. Where parameters overlap in the tensor (a factor with more columns than its mode has entries, cores that
all move at once) their signs agree and the step is longer than that of independent signs, by the arcsine law
E sign(a) sign(b) = 2/pi arcsin(corr(a, b)) (Van Vleck and Middleton, Proc. IEEE 54, 1966). So the step is probed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.contraction import Labels, compile_program, size
from tensoradapt.networks.network import Factor, Network

if TYPE_CHECKING:
    from torch import Tensor

LORA_RANK, LORA_ALPHA = 8, 16.0  # the reference whose first step "matched" means
SIGNS = 2**14  # drawn for an expectation: known to better than 1 % in all but the smallest networks
# Most entries of all probes. A larger tensor that cannot be reduced is probed in a corner, which overestimates how much
# factors overlap: by 7 % in TT-LoRA r=8 at width 2048, 12 % at 4096; up to width 1024 the whole tensor is probed.
ENTRIES = 2**20
PROBE, TENSOR = "probe*", "tensor*"  # axes of random gradients, and of tensors that are probed together


def first_step(in_: int, alpha: float | None = None) -> float:
    """Return how far Adam's first step of LoRA r=8, alpha=16 moves a matrix of ``in_`` columns.

    This is the root mean square over its entries, per unit learning rate.
    """
    return (alpha or LORA_ALPHA) / LORA_RANK * math.sqrt(LORA_RANK / (3 * in_))


def matched_scale(network: Network, factors: Mapping[str, Tensor], alpha: float | None = None) -> float:
    """Return the multiplier s with which the first Adam step per unit learning rate is that of LoRA r=8, alpha=16.

    Solves s^2 E ||sum_k rate_k J_k sign(J_k^T G)||^2 / numel = 4 * 8 / (3 d_in) from the drawn values: J_k is the exact
    Jacobian of the dense tensor in trainable factor k, G a gradient of independent normal entries. Raises
    TensorAdaptError where two factors are zero.
    """
    square = mean_square(network, factors)
    if not square > 0:
        zeros = [factor.name for factor in network.factors if not factors[factor.name].count_nonzero()]
        raise TensorAdaptError(
            f"the tensor {network.equation} has no first step: its factors {', '.join(zeros)} are zero, and nothing "
            'would ever move; expected one zero factor at most. Give other values, or scale="paper"'
        )
    return scale_of(square, network, alpha)


def scale_of(square: float, network: Network, alpha: float | None) -> float:
    """Return the matched scale of a tensor from its ``mean_square``."""
    return first_step(network.layout.in_, alpha) / math.sqrt(square)


def paper_scale(network: Network, alpha: float | None) -> float:
    """Return the paper's multiplier, times the deviation of its frozen factors, which are stored with unit variance."""
    frozen = math.prod(_deviation(f) for f in network.frozen_draws)
    return (network.alpha if alpha is None else alpha) / network.divisor * frozen


def _deviation(factor: Factor) -> float:
    if factor.source in ("own", "set"):  # held as it is
        return 1.0
    kind, value = factor.paper or ("normal", 1.0)
    return value / math.sqrt(3) if kind == "uniform" else value


def mean_square(network: Network, factors: Mapping[str, Tensor]) -> float:
    """Return ``E ||sum_k rate_k J_k sign(J_k^T G)||^2 / numel`` over independent standard normal entries of G.

    k runs over all trainable factors; with a zero start only the zero factor's Jacobian is not zero. Exact where a
    factor's parameters have orthogonal columns in J; otherwise a mean over fixed random G.
    """
    if not factors[network.zero.name].count_nonzero():
        return mean_squares_of_zero(network, {}, [factors])[0]
    moving = [factor for factor in network.factors if factor.trainable]
    reduced = ReducedNetwork(network, factors, moving)
    sizes = {**reduced.sizes, PROBE: reduced.n_probes}
    gradient = _gradient(tuple(sizes[x] for x in (PROBE, *reduced.modes)))
    step = gradient.new_zeros(gradient.shape)
    for factor in moving:
        signs = reduced.back(factor, gradient, sizes).sign()
        step += factor.rate * reduced.through(factor, signs, sizes)
    return float(step.square().sum()) / reduced.n_probes / reduced.numel


def mean_squares_of_zero(
    network: Network,
    shared: Mapping[str, Tensor],  # factors that have the same values in all tensors
    drawn: Sequence[Mapping[str, Tensor]],  # for each tensor the others
) -> list[float]:
    """Return ``mean_square`` of several tensors of one network whose zero factor is zero, probed together.

    They share the products with the probes, and no step is formed: its square is contracted from the labels.
    """
    import torch

    names = [f.name for f in network.factors if f.name not in shared and f is not network.zero]
    apart = {name: torch.stack([values[name] for values in drawn]) for name in names}
    reduced = ReducedNetwork(network, {**shared, **apart}, [network.zero], apart)
    sizes = {**reduced.sizes, PROBE: reduced.n_probes, TENSOR: len(drawn)}
    gradient = _gradient(tuple(sizes[x] for x in (PROBE, *reduced.modes)))
    signs = reduced.back(network.zero, gradient, sizes).sign()
    sums = network.zero.rate**2 * reduced.squares(network.zero, signs, sizes) / reduced.n_probes / reduced.numel
    return sums.expand(len(drawn)).tolist()


def together(network: Network) -> int:
    """Return how many tensors of a network to probe together, by the memory that this takes."""
    return max(1, ENTRIES // math.prod(network.layout.shape))


@lru_cache(maxsize=4)  # the matrices of a model mostly have as many shapes: q and o, k and v, gate and up, down
def _gradient(shape: tuple[int, ...]) -> Tensor:
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class ReducedNetwork:
    """A smaller network with the same expected step; only the corner of a large one changes it.

    A factor that does not move is replaced by the triangle of its QR over the modes that it alone has: an isometry. A
    mode that only the single moving factor has repeats the same matrix, and is taken once. Factors that are ``apart``
    hold the values of several tensors on a leading axis.
    """

    def __init__(
        self, network: Network, factors: Mapping[str, Tensor], moving: list[Factor], apart: Collection[str] = ()
    ) -> None:
        holders = Counter(label for factor in network.factors for label in factor.labels)
        self.sizes = dict(network.sizes)
        self.labels: dict[str, Labels] = {}
        self.values: dict[str, Tensor] = {}
        reduced: set[str] = set()
        repeats = 1
        for factor in network.factors:
            name, several = factor.name, (TENSOR,) if factor.name in apart else ()
            alone = tuple(x for x in factor.labels if holders[x] == 1)
            rest = tuple(x for x in factor.labels if x not in alone)
            if factor in moving and len(moving) == 1:
                self.labels[name], repeats = rest, size(alone, self.sizes)
                continue
            value = factors[name].detach().double()
            if factor not in moving and alone:
                value = triangle((*several, *factor.labels), value, alone)
                self.sizes[alone[0]] = value.shape[len(several)]
                reduced.add(alone[0])
                rest = (alone[0], *rest)
            else:
                rest = factor.labels
            self.labels[name], self.values[name] = (*several, *rest), value
        used = {x for labels in self.labels.values() for x in labels}
        self.modes = tuple(x for x in network.layout.names if x in used)
        self.numel = math.prod(network.layout.shape) / repeats
        self._corner([x for x in self.modes if x not in reduced])
        n_moving = sum(size(self.labels[factor.name], self.sizes) for factor in moving)
        self.n_probes = max(1, min(SIGNS // n_moving, ENTRIES // size(self.modes, self.sizes)))

    def _corner(self, whole: list[str]) -> None:
        while size(self.modes, self.sizes) > ENTRIES and (most := max(whole, key=self.sizes.__getitem__, default="")):
            if self.sizes[most] == 1:
                return
            n = self.sizes[most] // 2
            self.numel *= n / self.sizes[most]
            self.sizes[most] = n
            for name, value in self.values.items():
                if most in self.labels[name]:
                    self.values[name] = value.narrow(self.labels[name].index(most), 0, n)

    def back(self, factor: Factor, gradient: Tensor, sizes: Mapping[str, int]) -> Tensor:
        """Compute ``J_k^T G`` for every probe."""
        output = (*self._several(factor), PROBE, *self.labels[factor.name])
        return self._run(factor, [((PROBE, *self.modes), gradient)], output, sizes)

    def through(self, factor: Factor, step: Tensor, sizes: Mapping[str, int]) -> Tensor:
        """Compute ``J_k s`` for every probe."""
        return self._run(factor, [((PROBE, *self.labels[factor.name]), step)], (PROBE, *self.modes), sizes)

    def squares(self, factor: Factor, step: Tensor, sizes: Mapping[str, int]) -> Tensor:  # (tensors,), () if all share
        """Compute the sum of ``||J_k s||^2`` over the probes, which costs less than ``J_k s``: bonds occur twice."""
        several = self._several(factor)
        held = (*several, PROBE, *self.labels[factor.name])
        kept = {TENSOR, PROBE, *self.modes}

        def twin(labels: Labels) -> Labels:
            return tuple(x if x in kept else f"{x}~" for x in labels)

        others = [(twin(self.labels[name]), value) for name, value in self.values.items() if name != factor.name]
        sizes = {**sizes, **{f"{x}~": n for x, n in sizes.items()}}
        return self._run(factor, [(held, step), (twin(held), step), *others], several, sizes)

    def _several(self, leave: Factor) -> Labels:
        """Return the label of the axis of tensors if a factor besides ``leave`` has values for each, else none."""
        return (TENSOR,) if any(TENSOR in self.labels[name] for name in self.values if name != leave.name) else ()

    def _run(
        self, leave: Factor, given: Sequence[tuple[Labels, Tensor]], output: Labels, sizes: Mapping[str, int]
    ) -> Tensor:
        """Contract all factors but ``leave`` with the given tensors."""
        import torch

        others = [(self.labels[name], value) for name, value in self.values.items() if name != leave.name]
        labels, values = zip(*others, *given, strict=True)
        return compile_program(labels, output, sizes).run(values, torch.einsum)


def triangle(labels: Labels, value: Tensor, alone: Labels) -> Tensor:  # (k, *rest), after an axis of tensors
    """Return R of a factor's QR decomposition over the modes ``alone``, or the factor itself where it is wide."""
    import torch

    if labels[0] == TENSOR:
        return torch.stack([triangle(labels[1:], one, alone) for one in value])
    first = [labels.index(x) for x in alone]
    rest = [i for i in range(len(labels)) if i not in first]
    flat = value.permute(*first, *rest).reshape(math.prod(value.shape[i] for i in first), -1)
    reduced = torch.linalg.qr(flat, mode="r").R if len(flat) > flat.shape[1] else flat
    return reduced.reshape(-1, *(value.shape[i] for i in rest))


@dataclass(frozen=True)
class ScaleRule:
    """How a named scale is solved from a network, its factors and alpha.

    ``matched``: its factors are drawn by the matched rule, not as the paper's, and it is that of each stored matrix.
    """

    solve: Callable[[Network, Mapping[str, Tensor], float | None], float]
    matched: bool = False


# to add a scale, write its rule above and name it here
SCALES: Mapping[str, ScaleRule] = {
    "matched": ScaleRule(matched_scale, matched=True),
    "paper": ScaleRule(lambda network, _, alpha: paper_scale(network, alpha)),
}


def is_matched(scale: str | float) -> bool:
    """Return whether a scale, the name of a rule or a number, is a matched scale."""
    return isinstance(scale, str) and SCALES[scale].matched


def solve(scale: str | float, network: Network, factors: Mapping[str, Tensor], alpha: float | None) -> float:
    """Return the multiplier that a scale (the name of a rule, or a number) gives a tensor."""
    return SCALES[scale].solve(network, factors, alpha) if isinstance(scale, str) else float(scale)

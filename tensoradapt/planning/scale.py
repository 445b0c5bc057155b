"""Scale: the rules of a tensor's multiplier, matched to LoRA's first step or a paper's own. No torch at import.

Adam's first step is the sign of each parameter's gradient J^T G, for J the tensor's Jacobian and G the loss's gradient
in the tensor. Where parameters overlap in the tensor (a factor with more columns than its mode has entries, cores that
all move at once) their signs agree and the step is longer than that of independent signs, by the arcsine law
E sign(a) sign(b) = 2/pi arcsin(corr(a, b)) (Van Vleck and Middleton, Proc. IEEE 54, 1966). So the step is probed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
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
# factors overlap: by 8 % in TT-LoRA r=4 at width 4096, 5 % at r=8; up to width 1024 the whole tensor is probed.
ENTRIES = 2**20
PROBE = "probe*"


def first_step(in_: int, alpha: float | None = None) -> float:
    """Return the root mean square that LoRA r=8, alpha=16 moves a matrix of ``in_`` columns in Adam's first step, per
    unit learning rate.
    """
    return (alpha or LORA_ALPHA) / LORA_RANK * math.sqrt(LORA_RANK / (3 * in_))


def matched_scale(network: Network, factors: Mapping[str, Tensor], alpha: float | None = None) -> float:
    """Return the multiplier s with which the first Adam step per unit learning rate is that of LoRA r=8, alpha=16.

    Solves s^2 E ||sum_k rate_k J_k sign(J_k^T G)||^2 / numel = 4 * 8 / (3 d_in) from the drawn values: J_k is the exact
    Jacobian of the dense tensor in trainable factor k, G a gradient of independent normal entries. Raises
    TensorAdaptError where two factors are zero.
    """
    target = first_step(network.layout.in_, alpha)
    power = mean_square(network, factors)
    if not power > 0:
        zeros = [factor.name for factor in network.factors if not factors[factor.name].count_nonzero()]
        raise TensorAdaptError(
            f"the tensor {network.equation} has no first step: its factors {', '.join(zeros)} are zero, and nothing "
            'would ever move; expected one zero factor at most. Give other values, or scale="paper"'
        )
    return target / math.sqrt(power)


def paper_scale(network: Network, alpha: float | None) -> float:
    """Return the paper's multiplier, times the deviation of its frozen factors, which are stored with unit variance."""
    frozen = math.prod(_deviation(f) for f in network.frozen_draws)
    return (network.alpha if alpha is None else alpha) / network.divisor * frozen


def _deviation(factor: Factor) -> float:
    kind, value = factor.paper or ("normal", 1.0)
    return value / math.sqrt(3) if kind == "uniform" else value


def mean_square(network: Network, factors: Mapping[str, Tensor]) -> float:
    """Return ``E ||sum_k rate_k J_k sign(J_k^T G)||^2 / numel`` over independent standard normal entries of G.

    k runs over all trainable factors; with a zero start only the zero factor's Jacobian is not zero. Exact where a
    factor's parameters have orthogonal columns in J; otherwise a mean over fixed random G.
    """
    still = not factors[network.zero.name].count_nonzero()
    moving = [network.zero] if still else [factor for factor in network.factors if factor.trainable]
    reduced = ReducedNetwork(network, factors, moving)
    n = max(1, min(SIGNS // reduced.n_moving, ENTRIES // size(reduced.modes, reduced.sizes)))
    sizes = {**reduced.sizes, PROBE: n}
    gradient = _gradient(tuple(sizes[x] for x in (PROBE, *reduced.modes)))
    step = gradient.new_zeros(gradient.shape)
    for factor in moving:
        signs = reduced.back(factor, gradient, sizes).sign()
        step += factor.rate * reduced.through(factor, signs, sizes)
    return float(step.square().sum()) / n / reduced.numel


@lru_cache(maxsize=4)  # the matrices of a model mostly have as many shapes: q and o, k and v, gate and up, down
def _gradient(shape: tuple[int, ...]) -> Tensor:
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class ReducedNetwork:
    """A smaller network with the same expected step; only the corner of a large one changes it.

    A factor that does not move is replaced by the triangle of its QR over the modes that it alone has: an isometry. A
    mode that only the single moving factor has repeats the same matrix, and is taken once.
    """

    def __init__(self, network: Network, factors: Mapping[str, Tensor], moving: list[Factor]) -> None:
        holders = Counter(label for factor in network.factors for label in factor.labels)
        self.sizes = dict(network.sizes)
        self.labels: dict[str, Labels] = {}
        self.values: dict[str, Tensor] = {}
        reduced: set[str] = set()
        repeats = 1
        for factor in network.factors:
            alone = tuple(x for x in factor.labels if holders[x] == 1)
            value = factors[factor.name].detach().double()
            rest = tuple(x for x in factor.labels if x not in alone)
            if factor not in moving and alone:
                value = triangle(factor.labels, value, alone)
                self.sizes[alone[0]] = len(value)
                reduced.add(alone[0])
                rest = (alone[0], *rest)
            elif len(moving) == 1 and factor in moving:
                value, repeats = value.new_zeros([self.sizes[x] for x in rest]), size(alone, self.sizes)
            else:
                rest = factor.labels
            self.labels[factor.name], self.values[factor.name] = rest, value
        used = {x for labels in self.labels.values() for x in labels}
        self.modes = tuple(x for x in network.layout.names if x in used)
        self.numel = math.prod(network.layout.shape) / repeats
        self._corner([x for x in self.modes if x not in reduced])
        self.n_moving = sum(size(self.labels[factor.name], self.sizes) for factor in moving)

    def _corner(self, whole: list[str]) -> None:
        while size(self.modes, self.sizes) > ENTRIES and (most := max(whole, key=self.sizes.__getitem__, default="")):
            if self.sizes[most] == 1:
                return
            n = self.sizes[most] // 2
            self.numel *= n / self.sizes[most]
            self.sizes[most] = n
            for name, labels in self.labels.items():
                if most in labels:
                    self.values[name] = self.values[name].narrow(labels.index(most), 0, n)

    def back(self, factor: Factor, gradient: Tensor, sizes: Mapping[str, int]) -> Tensor:
        """Compute ``J_k^T G`` for every probe."""
        return self._run(factor, (PROBE, *self.modes), gradient, (PROBE, *self.labels[factor.name]), sizes)

    def through(self, factor: Factor, step: Tensor, sizes: Mapping[str, int]) -> Tensor:
        """Compute ``J_k s`` for every probe."""
        return self._run(factor, (PROBE, *self.labels[factor.name]), step, (PROBE, *self.modes), sizes)

    def _run(self, leave: Factor, labels: Labels, value: Tensor, output: Labels, sizes: Mapping[str, int]) -> Tensor:
        import torch

        others = [name for name in self.labels if name != leave.name]
        program = compile_program([*(self.labels[name] for name in others), labels], output, sizes)
        return program.run([*(self.values[name] for name in others), value], torch.einsum)


def triangle(labels: Labels, value: Tensor, alone: Labels) -> Tensor:  # (k, *rest)
    """Return R of the QR over the modes ``alone``, or the factor itself where it is wide."""
    import torch

    first = [labels.index(x) for x in alone]
    rest = [i for i in range(len(labels)) if i not in first]
    flat = value.permute(*first, *rest).reshape(math.prod(value.shape[i] for i in first), -1)
    triangle = torch.linalg.qr(flat, mode="r").R if len(flat) > flat.shape[1] else flat
    return triangle.reshape(-1, *(value.shape[i] for i in rest))


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
    """Return whether a scale, the name of a rule or a number, is a matched one."""
    return isinstance(scale, str) and SCALES[scale].matched


def solve(scale: str | float, network: Network, factors: Mapping[str, Tensor], alpha: float | None) -> float:
    """Return the multiplier that a scale, the name of a rule or a number, gives a tensor."""
    return SCALES[scale].solve(network, factors, alpha) if isinstance(scale, str) else float(scale)

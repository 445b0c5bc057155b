"""The laws of a parameterization are functions, each of which raises for a case that breaks it.

``tensoradapt.testing`` searches for cases. Each law here catches a mistake that no other law does.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from tensoradapt import parameterizations
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.networks.layout import At, Layout
from tensoradapt.networks.network import MADE, Factor, Network
from tensoradapt.planning.scale import mean_square

PROBED = 0.1  # the relative error that probes may have in a step's size, in the smallest networks


@dataclass(frozen=True)
class Case:
    """One network of a parameterization, and a position in it."""

    parameterization: str | Any
    network: Network
    at: At
    seed: int
    scale: str | float = "matched"
    options: Mapping[str, Any] = field(default_factory=dict)

    def start(self, **changes: Any) -> FactoredTensor:
        """Return the tensor as drawn, in float64, with random base weights."""
        given = {"seed": self.seed, "scale": self.scale, "values": self.values(), **changes}
        with float64():
            return FactoredTensor(self.network, **given)

    def values(self) -> dict[str, Tensor]:
        """Return the factors that come from base weights, which are standard normal."""
        if all(factor.source in MADE for factor in self.network.factors):
            return {}
        weights = _normal(self.network.layout.shape, torch.Generator().manual_seed(self.seed))
        values = parameterizations.get(self.parameterization).decompose(self.network, weights.numpy())
        return {name: torch.from_numpy(value) for name, value in values.items()}

    def perturbed(self) -> FactoredTensor:
        """Return the tensor with every trainable factor standard normal."""
        tensor, generator = self.start(), torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            for parameter in tensor.parameters():
                parameter.copy_(_normal(parameter.shape, generator))
        return tensor

    def __repr__(self) -> str:
        name, layout = parameterizations.name_of(self.parameterization), self.network.layout
        return (
            f"Case({name}, {str(layout)!r} {layout.shape}, rank={self.network.rank}, at={dict(self.at)}, "
            f"seed={self.seed}, scale={self.scale!r}, options={dict(self.options)})"
        )


def count(case: Case) -> None:
    """The count is the network's and the tensor's: ``count(layout, resolved rank, **options) == n_params``."""
    counted = parameterizations.get(case.parameterization).count
    asked = counted(case.network.layout, case.network.rank, **case.options)
    held = sum(p.numel() for p in case.start().parameters() if p.requires_grad)
    assert asked == case.network.n_params == held, f"count {asked}, n_params {case.network.n_params}, held {held}"


def oracle(case: Case) -> None:
    """The network is the decomposition that the paper defines: ``full() == scale * oracle(layout, factors)``."""
    tensor, module = case.perturbed(), parameterizations.get(case.parameterization)
    factors = {name: value.detach().numpy() for name, value in tensor.factors.items()}
    expected = np.ascontiguousarray(module.oracle(case.network.layout, factors))
    _assert_same(tensor.full(), tensor.scale * torch.from_numpy(expected))


def slices(case: Case) -> None:
    """A slice is the dense tensor at its position, ranges too: ``full()[at] == delta(at)``."""
    tensor, layout = case.perturbed(), case.network.layout
    part = tensor.full()[_index(layout, case.at)]
    n_rows = math.prod(part.shape[: len(layout.rows)])
    _assert_same(tensor.delta(case.at), part.reshape(n_rows, -1))


def pair(case: Case) -> None:
    """A pair is exact and as small as the minimum cut R: ``B @ A == delta(at)`` with A (R, in), B (out, R)."""
    tensor = case.perturbed()
    a, b = tensor.pair(case.at)
    sizes = {**case.network.sizes, **{name: len(v) for name, v in case.at.items() if isinstance(v, range)}}
    crossing = math.prod(sizes[label] for label in case.network.cut.crossing)  # R, less where a crossing leg is cropped
    assert len(a) == b.shape[1] == crossing <= case.network.cut.rank, (
        f"A has {len(a)} rows, {crossing} numbers cross the cut"
    )
    _assert_same(b @ a, tensor.delta(case.at))


def apply(case: Case) -> None:
    """Applying multiplies by delta, for any leading shape, an empty one too: ``apply(x, at) == x @ delta(at).T``."""
    tensor, generator = case.perturbed(), torch.Generator().manual_seed(case.seed)
    delta = tensor.delta(case.at)
    for leading in ((), (3,), (2, 3), (0, 3)):
        x = _normal((*leading, delta.shape[1]), generator)
        _assert_same(tensor.apply(x, case.at), x @ delta.T)


def rank(case: Case) -> None:
    """The numerical rank of a generic slice is ``min(R, out, in)``, or less if ``below_cut`` says why."""
    tensor, layout = case.perturbed(), case.network.layout
    delta = tensor.delta({mode.name: case.at[mode.name] for mode in layout.index})
    actual, expected = int(torch.linalg.matrix_rank(delta, rtol=1e-11)), min(case.network.cut.rank, *delta.shape)
    excused = actual < expected and getattr(parameterizations.get(case.parameterization), "below_cut", "")
    assert actual == expected or excused, f"the rank of delta is {actual}, min(R, out, in) is {expected}"


def start(case: Case) -> None:
    """The start is exactly zero, and only the zero factor has a gradient there; every factor moves within two steps."""
    tensor = case.start()
    assert not tensor.full().count_nonzero(), "the update does not start at zero"
    slope = _normal(case.network.layout.shape, torch.Generator().manual_seed(case.seed))
    named = dict(tensor.trained.items())
    before = {name: value.detach().clone() for name, value in named.items()}
    for step in range(2):
        slopes = torch.autograd.grad((tensor.full() * slope).sum(), list(named.values()))
        live = [name for name, g in zip(named, slopes, strict=True) if g.count_nonzero()]
        assert step or live == [case.network.zero.name], f"factors with a gradient at the start: {live}"
        with torch.no_grad():
            for value, g in zip(named.values(), slopes, strict=True):
                value -= g
    still = [name for name, value in named.items() if torch.equal(value, before[name])]
    assert not still, f"factors that have not moved in two steps: {still}"


def first_step(case: Case) -> None:
    """At the matched scale a first sign step at rate 1 has the RMS of LoRA r=8; later ones have the expected RMS."""
    network = case.network
    for alpha in (None, 5.0):
        tensor = case.start(scale="matched", alpha=alpha)
        target = (alpha or 16) / 8 * math.sqrt(8 / (3 * network.layout.in_))
        rms = _first_step(tensor)
        assert math.isclose(rms, target, rel_tol=PROBED), f"the first step has RMS {rms}, asked was {target}"
    tensor = case.perturbed()
    probed, expected = math.sqrt(mean_square(network, tensor.factors)) * tensor.scale, _first_step(tensor)
    assert math.isclose(probed, expected, rel_tol=PROBED), (
        f"all factors step by {probed}, by the arcsine law {expected}"
    )


def linear(case: Case) -> None:
    """The tensor is linear in each factor, so it has no hidden activation, clipping or repeated factor."""
    tensor, generator = case.perturbed(), torch.Generator().manual_seed(case.seed + 1)

    def at(parameter: nn.Parameter, value: Tensor) -> Tensor:
        with torch.no_grad():
            parameter.copy_(value)
        return tensor.full().detach()

    for parameter in tensor.parameters():
        u, v = (_normal(parameter.shape, generator) for _ in range(2))
        _assert_same(at(parameter, 50 * u - 3 * v), 50 * at(parameter, u) - 3 * at(parameter, v))


def gradients(case: Case) -> None:
    """Gradients of pair and apply, in x and in every factor, agree with finite differences."""
    tensor, generator = case.perturbed(), torch.Generator().manual_seed(case.seed)
    names = [name for name, _ in tensor.named_parameters()]
    x = _normal((3, tensor.delta(case.at).shape[1]), generator).requires_grad_()

    def asked(x: Tensor, *values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        a, b = _asked(tensor, "pair", given, case.at)
        return torch.cat([part.flatten() for part in (a, b, _asked(tensor, "apply", given, x, case.at))])

    values = [p.detach().clone().requires_grad_() for p in tensor.parameters()]
    torch.autograd.gradcheck(asked, (x, *values), fast_mode=True)


def round_trip(case: Case) -> None:
    """A tensor survives state_dict, pickle and deepcopy bit for bit; ``.to(dtype)`` reaches every factor."""
    tensor, fresh = case.perturbed(), case.start()
    fresh.load_state_dict(tensor.state_dict())
    copies = {"state_dict": fresh, "pickle": pickle.loads(pickle.dumps(tensor)), "deepcopy": copy.deepcopy(tensor)}
    for how, copied in copies.items():
        assert torch.equal(copied.full(), tensor.full()), f"{how} changes the tensor"
    narrow = copies["deepcopy"].to(torch.float32)
    wrong = [name for name, value in narrow.factors.items() if value.dtype != torch.float32]
    assert not wrong, f"factors that .to(float32) leaves as they are: {wrong}"
    torch.testing.assert_close(narrow.full().double(), tensor.full(), rtol=1e-3, atol=1e-4)


def seed(case: Case) -> None:
    """The draw depends on seed and name alone, and neither reads nor changes torch's global generator."""
    state = torch.random.get_rng_state()
    first = case.start()
    assert torch.equal(state, torch.random.get_rng_state()), "drawing moves torch's own generator"
    torch.rand(1)
    again = case.start().factors
    moved = [name for name, value in first.factors.items() if not torch.equal(value, again[name])]
    assert not moved, f"factors that the same seed draws differently: {moved}"
    drawn = [factor for factor in case.network.factors if factor.init != "zero" and factor.source in ("draw", "own")]
    _assert_drawn_anew(case, drawn, [{"seed": case.seed + i} for i in range(1, 40)])
    # frozen factors are the same for tensors of every name, but for those that each tensor draws by itself
    own = [factor for factor in drawn if factor.trainable or factor.source == "own"]
    _assert_drawn_anew(case, own, [{"name": str(i)} for i in range(1, 40)])


LAWS: dict[str, Callable[[Case], None]] = {
    "count": count,
    "oracle": oracle,
    "slices": slices,
    "pair": pair,
    "apply": apply,
    "rank": rank,
    "start": start,
    "first step": first_step,
    "linear": linear,
    "gradients": gradients,
    "round trip": round_trip,
    "seed": seed,
}


@contextmanager
def float64() -> Iterator[None]:
    """Make parameters float64 that are created inside this context."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class _Asked(nn.Module):
    """A method of a tensor as the forward of a module, as functional_call needs it."""

    def __init__(self, tensor: FactoredTensor, question: str) -> None:
        super().__init__()
        self.tensor, self.question = tensor, question

    def forward(self, *args: Any) -> Any:
        return getattr(self.tensor, self.question)(*args)


def _asked(tensor: FactoredTensor, question: str, values: Mapping[str, Tensor], *args: Any) -> Any:
    """Return the result of the tensor's method with other values for its parameters."""
    return functional_call(_Asked(tensor, question), {f"tensor.{name}": value for name, value in values.items()}, args)


def _first_step(tensor: FactoredTensor) -> float:
    """Compute the RMS of a step J sign(J^T G) over normal G, by the arcsine law, with J by autograd."""
    parts = []  # columns of J, times the rates of their factors
    for factor in (f for f in tensor.network.factors if f.trainable):
        value, name = tensor.trained[factor.name].detach(), f"trained.{factor.name}"
        rows = torch.autograd.functional.jacobian(
            lambda v, n=name: _asked(tensor, "full", {n: v}), value, vectorize=True
        )
        parts.append(factor.rate * rows.reshape(-1, value.numel()))
    jacobian = torch.cat(parts, dim=1)
    gram = jacobian.T @ jacobian
    sizes = gram.diagonal().sqrt().clamp_min(1e-150)
    agreement = (gram / torch.outer(sizes, sizes)).clamp(-1, 1).arcsin() * 2 / math.pi
    return math.sqrt(float((gram * agreement).sum()) / len(jacobian))


def _assert_drawn_anew(case: Case, of: Sequence[Factor], changes: Sequence[Mapping[str, Any]]) -> None:
    """Assert that some change moves some factor."""
    if not of:
        return
    # several changes are tried: with all sizes 1 only signs are drawn, so one change may move none
    first = case.start(scale="matched").factors
    redrawn = (case.start(scale="matched", **change).factors for change in changes)
    moves = any(not torch.equal(factors[f.name], first[f.name]) for factors in redrawn for f in of)
    assert moves, f"{changes[0]} and others like it draw the same numbers"


def _index(layout: Layout, at: At) -> tuple[int | slice, ...]:
    taken = (at.get(name, range(size)) for name, size in layout.size_of.items())
    return tuple(slice(v.start, v.stop) if isinstance(v, range) else v for v in taken)


def _normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64)


def _assert_same(found: Tensor, expected: Tensor) -> None:
    size = float(expected.detach().abs().max()) if expected.numel() else 1.0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11 * max(1.0, size))

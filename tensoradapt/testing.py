"""Laws every parameterization obeys, and the hypothesis strategies that look for a case where one does not.

>>> from tensoradapt.testing import laws
>>> laws("cp", examples=2)

For a parameterization of your own, ``laws(mine)`` raises an AssertionError naming the first broken law and the case.
Needs hypothesis, which nothing else in the package imports.
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
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from tensoradapt import init, parameterizations
from tensoradapt.errors import TensorAdaptError
from tensoradapt.factored import FactoredTensor
from tensoradapt.modes import INDEX, At, Layout, Pattern
from tensoradapt.network import Network
from tensoradapt.ranks import resolved

ROWS = ("out", "ff", "head dim", "(head dim)", "out1 out2", "out1 out2 out3")
COLS = ("model", "in", "in1 in2", "model1 model2")
MAX_ENTRIES = 600  # of one dense tensor: Jacobians are checked entry by entry

Options = Callable[[Layout], st.SearchStrategy[dict[str, Any]]]


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
        """The tensor as drawn, in float64."""
        with float64():
            return FactoredTensor(self.network, **{"seed": self.seed, "scale": self.scale, **changes})

    def perturbed(self) -> FactoredTensor:
        """The tensor with every trainable factor standard normal."""
        tensor, generator = self.start(), torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            for parameter in tensor.parameters():
                parameter.copy_(_normal(parameter.shape, generator))
        return tensor

    def __repr__(self) -> str:
        name, layout = parameterizations.name_of(self.parameterization), self.network.layout
        return (
            f"Case({name}, {str(layout)!r} {layout.shape}, rank={resolved(self.network)}, at={dict(self.at)}, "
            f"seed={self.seed}, scale={self.scale!r}, options={dict(self.options)})"
        )


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    """Layouts without sizes: 0 to 3 index modes, tied or merged, over whole, split and merged rows and columns."""
    names = draw(st.lists(st.sampled_from(INDEX), max_size=3, unique=True))
    merged = [draw(st.booleans()) for _ in names[1:]]
    axes: list[list[str]] = []
    for name, joins in zip(names, [False, *merged], strict=False):
        axes[-1:] = [[*axes[-1], name]] if joins else [*axes[-1:], [name]]
    index = " ".join(f"({' '.join(axis)})" if len(axis) > 1 else axis[0] for axis in axes)
    return Pattern.parse(f"{index} : {draw(st.sampled_from(ROWS))} : {draw(st.sampled_from(COLS))}")


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Layouts with mode sizes from 1 to 5 and at most MAX_ENTRIES entries."""
    pattern, sizes, left = draw(patterns()), {}, MAX_ENTRIES
    for axis in (*pattern.cols, *pattern.rows, *pattern.index):
        sizes[" ".join(axis)] = size = draw(st.integers(1, min(5, left)))
        left //= size
    return Layout.parse(pattern, sizes)


@st.composite
def positions(draw: st.DrawFn, layout: Layout) -> At:
    """Positions of a layout: a number for every index mode, a range for some of the others."""
    at: dict[str, int | range] = {mode.name: draw(st.integers(0, mode.size - 1)) for mode in layout.index}
    for mode in (*layout.rows, *layout.cols):
        if draw(st.booleans()):
            first = draw(st.integers(0, mode.size - 1))
            at[mode.name] = range(first, draw(st.integers(first + 1, mode.size)))
    return at


@st.composite
def cases(draw: st.DrawFn, parameterization: str | Any = None, options: Options | None = None) -> Case:
    """Cases of one parameterization (of all that have a name, unless given) at ranks from 1 to 4, clipped as in a plan.

    ``options`` makes a strategy for build's options from a layout. Layouts the parameterization refuses are left out.
    """
    chosen = draw(st.sampled_from(parameterizations.names())) if parameterization is None else parameterization
    family, layout = parameterizations.get(chosen), draw(layouts())
    extra = draw(options(layout)) if options else {}
    ranks = st.integers(1, 4)
    try:
        rank = resolved(family.build(layout, 1, **extra))
        rank = {name: draw(ranks) for name in rank} if isinstance(rank, Mapping) and rank else draw(ranks)
        network = family.build(layout, resolved(family.build(layout, rank, **extra).clipped()), **extra)
    except TensorAdaptError:
        reject()
    scale = draw(st.sampled_from(["matched", "paper", 0.37]))
    return Case(chosen, network, draw(positions(layout)), draw(st.integers(0, 2**32)), scale, extra)


def laws(parameterization: str | Any, *, examples: int = 25, options: Options | None = None) -> None:
    """Checks every law on a parameterization, given by name or as an object with build, count and oracle.

    Raises AssertionError naming the first law that fails, and the smallest case found.
    """
    for name in LAWS:
        check(name, parameterization, examples=examples, options=options)


def check(
    law: str, parameterization: str | Any, *, examples: int = 25, options: Options | None = None, shrink: bool = True
) -> None:
    """Checks one law; the examples are the same at every call."""
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    calm = [HealthCheck.too_slow, HealthCheck.nested_given]

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, phases=phases, suppress_health_check=calm
    )
    @given(cases(parameterization, options))
    def holds(case: Case) -> None:
        try:
            LAWS[law](case)
        except Exception as error:
            raise AssertionError(f"law {law!r} does not hold for {case!r}: {error}") from error

    holds()


def count(case: Case) -> None:
    """``n_params == count(layout, resolved rank, **options) ==`` the trainable numbers."""
    family = parameterizations.get(case.parameterization)
    asked = family.count(case.network.layout, resolved(case.network), **case.options)
    held = sum(p.numel() for p in case.start().parameters() if p.requires_grad)
    assert (asked, case.network.n_params) == (held, held), (
        f"count {asked}, n_params {case.network.n_params}, held {held}"
    )


def oracle(case: Case) -> None:
    """``full() == scale * oracle(layout, factors)``: the network is the decomposition the paper defines."""
    tensor, family = case.perturbed(), parameterizations.get(case.parameterization)
    factors = {name: value.detach().numpy() for name, value in tensor.factors.items()}
    expected = np.ascontiguousarray(family.oracle(case.network.layout, factors))
    _assert_same(tensor.full(), tensor.scale * torch.from_numpy(expected))


def slices(case: Case) -> None:
    """``full()[at] == delta(at)``, ranges too."""
    tensor, layout = case.perturbed(), case.network.layout
    part = tensor.full()[_index(layout, case.at)]
    n_rows = math.prod(part.shape[: len(layout.rows)])
    _assert_same(tensor.delta(case.at), part.reshape(n_rows, -1))


def pair(case: Case) -> None:
    """``B @ A == delta(at)`` with A (R, in), B (out, R) and R the minimum cut."""
    tensor = case.perturbed()
    a, b = tensor.pair(case.at)
    sizes = {**case.network.sizes, **{name: len(v) for name, v in case.at.items() if isinstance(v, range)}}
    crossing = math.prod(sizes[label] for label in case.network.cut.crossing)  # R, less where a crossing leg is cropped
    assert len(a) == b.shape[1] == crossing <= case.network.cut.rank, (
        f"A has {len(a)} rows, {crossing} numbers cross the cut"
    )
    _assert_same(b @ a, tensor.delta(case.at))


def apply(case: Case) -> None:
    """``apply(x, at) == x @ delta(at).T`` for any leading shape, an empty one too."""
    tensor, generator = case.perturbed(), torch.Generator().manual_seed(case.seed)
    delta = tensor.delta(case.at)
    for leading in ((), (3,), (2, 3), (0, 3)):
        x = _normal((*leading, delta.shape[1]), generator)
        _assert_same(tensor.apply(x, case.at), x @ delta.T)


def rank(case: Case) -> None:
    """The numerical rank of a generic slice is ``min(R, out, in)``: the cut is neither wrong nor wasteful."""
    tensor, layout = case.perturbed(), case.network.layout
    delta = tensor.delta({mode.name: case.at[mode.name] for mode in layout.index})
    found, expected = int(torch.linalg.matrix_rank(delta, rtol=1e-11)), min(case.network.cut.rank, *delta.shape)
    assert found == expected, f"the rank of delta is {found}, min(R, out, in) is {expected}"


def start(case: Case) -> None:
    """Exactly zero at the start, where only the zero factor has a gradient; every factor moves within two steps."""
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
    """Matched: the RMS of a first sign step per unit rate is that of LoRA r=8; Jacobians by autograd agree."""
    network = case.network
    for alpha in (None, 5.0):
        tensor = case.start(scale="matched", alpha=alpha)
        target = (alpha or 16) / 8 * math.sqrt(8 / (3 * network.layout.in_))
        rms = math.sqrt(sum(_jacobian_norm2(tensor).values()) / math.prod(network.layout.shape))
        assert math.isclose(rms, target, rel_tol=1e-9), f"the first step has RMS {rms}, asked was {target}"
    tensor = case.perturbed()
    for name, expected in _jacobian_norm2(tensor).items():
        factor = next(f for f in network.factors if f.name == name)
        found = init.jacobian_norm2(network, tensor.factors, factor) * tensor.scale**2
        assert math.isclose(found, expected, rel_tol=1e-9), (
            f"jacobian_norm2 in {name} is {found}, by autograd {expected}"
        )


def linear(case: Case) -> None:
    """``full`` is linear in each factor, so it has no hidden activation, clipping or repeated factor."""
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
    """state_dict, pickle and deepcopy keep every bit; ``.to(dtype)`` reaches every factor."""
    tensor, fresh = case.perturbed(), case.start()
    fresh.load_state_dict(tensor.state_dict())
    copies = {"state_dict": fresh, "pickle": pickle.loads(pickle.dumps(tensor)), "deepcopy": copy.deepcopy(tensor)}
    for how, made in copies.items():
        assert torch.equal(made.full(), tensor.full()), f"{how} changes the tensor"
    narrow = copies["deepcopy"].to(torch.float32)
    wrong = [name for name, value in narrow.factors.items() if value.dtype != torch.float32]
    assert not wrong, f"factors that .to(float32) leaves as they are: {wrong}"
    torch.testing.assert_close(narrow.full().double(), tensor.full(), rtol=1e-3, atol=1e-4)


def seed(case: Case) -> None:
    """The draw is a function of seed and name alone: not of torch's generator, which it leaves as it was."""
    state = torch.random.get_rng_state()
    first = case.start()
    assert torch.equal(state, torch.random.get_rng_state()), "drawing moves torch's own generator"
    torch.rand(1)
    again = case.start().factors
    moved = [name for name, value in first.factors.items() if not torch.equal(value, again[name])]
    assert not moved, f"factors that the same seed draws differently: {moved}"
    # where every mode and bond has size 1 a sign or two are the whole draw, so one other seed could agree by chance
    matched = case.start(scale="matched").factors
    for what, others in (("seed", range(case.seed + 1, case.seed + 40)), ("name", map(str, range(1, 40)))):
        drawn = (case.start(**{what: other, "scale": "matched"}).factors for other in others)
        differs = any(not torch.equal(made[name], matched[name]) for made in drawn for name in made)
        assert differs, f"another {what} draws the same numbers"


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
    """Within it new parameters are float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class _Asked(nn.Module):
    """A tensor's question as a module's forward, which is what functional_call can call."""

    def __init__(self, tensor: FactoredTensor, question: str) -> None:
        super().__init__()
        self.tensor, self.question = tensor, question

    def forward(self, *args: Any) -> Any:
        return getattr(self.tensor, self.question)(*args)


def _asked(tensor: FactoredTensor, question: str, values: Mapping[str, Tensor], *args: Any) -> Any:
    """The answer with other values for the tensor's parameters."""
    return functional_call(_Asked(tensor, question), {f"tensor.{name}": value for name, value in values.items()}, args)


def _jacobian_norm2(tensor: FactoredTensor) -> dict[str, float]:
    """The squared norm of the Jacobian of ``full`` in each trainable factor, by autograd."""
    found = {}
    for name, parameter in tensor.named_parameters():
        rows = torch.autograd.functional.jacobian(
            lambda v, n=name: _asked(tensor, "full", {n: v}), parameter.detach(), vectorize=True
        )
        found[name.removeprefix("trained.")] = float(rows.square().sum())
    return found


def _index(layout: Layout, at: At) -> tuple[int | slice, ...]:
    places = (at.get(name, range(size)) for name, size in layout.size_of.items())
    return tuple(slice(v.start, v.stop) if isinstance(v, range) else v for v in places)


def _normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64)


def _assert_same(found: Tensor, expected: Tensor) -> None:
    size = float(expected.detach().abs().max()) if expected.numel() else 1.0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11 * max(1.0, size))

"""Every law catches a mistake that it alone sees. A mutant breaks the core or a parameterization in one way."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from torch import Tensor

from tensoradapt.adapter import draws, factored, rules
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.networks import network, slices
from tensoradapt.networks.layout import At
from tensoradapt.networks.network import Cut, Factor, Network
from tensoradapt.parameterizations import cp, tensor_train, tucker
from tensoradapt.planning import scale
from tensoradapt.testing import cases, laws
from tensoradapt.testing.laws import LAWS, Case

Patch = pytest.MonkeyPatch
EXAMPLES = 12
DELTA, PAIR, PICKS, VALUES = FactoredTensor.delta, FactoredTensor.pair, factored._picks, FactoredTensor._values
LEAVES = FactoredTensor._leaves
DRAW, GENERATED, MATCHED = draws.draw, rules.Generated, scale.solve
MEAN_SQUARE, BACK = scale.mean_square, scale.ReducedNetwork.back
STATE = FactoredTensor.state_dict


@dataclass(frozen=True)
class Mutant:
    """What is broken, the law that must see it, and whether it is the only one that does."""

    law: str
    breaks: Callable[[Patch], Any]  # returns the parameterization to look at, None for CP
    alone: bool = True


def patched(owner: Any, name: str, value: Any, parameterization: Any = None) -> Callable[[Patch], Any]:
    def breaks(monkeypatch: Patch) -> Any:
        monkeypatch.setattr(owner, name, value)
        return parameterization

    return breaks


def parameterization(of: Any, **changes: Any) -> Callable[[Patch], Any]:
    parts = {"build": of.build, "count": of.count, "oracle": of.oracle, "__name__": "broken", **changes}
    return lambda _: SimpleNamespace(**parts)


def count_without_core(layout: Any, rank: Any) -> int:
    return sum(n * rank[m] for m, n in layout.size_of.items())


def oracle_with_head_and_dim_swapped(layout: Any, factors: Any) -> np.ndarray:
    names = list(layout.names)
    if "head" in names:
        i, j = names.index("head"), names.index("dim")
        names[i], names[j] = names[j], names[i]
    return cp.oracle(SimpleNamespace(names=names), factors)


def hadamard_with_one_bond(layout: Any, rank: int) -> Network:
    index, rows, cols = (tuple(m.name for m in modes) for modes in (layout.index, layout.rows, layout.cols))
    pairs = [(Factor(f"B{i}", (*index, *rows, "r")), Factor(f"A{i}", (*cols, "r"))) for i in range(2)]
    factors = [dataclasses.replace(f, init="zero") if f.name == "B0" else f for pair in pairs for f in pair]
    return Network(layout, tuple(factors), {"r": rank})


def hadamard_count(layout: Any, rank: int) -> int:
    return 2 * rank * (math.prod(m.size for m in layout.index) * layout.out + layout.in_)


def hadamard_oracle(layout: Any, factors: Any) -> np.ndarray:
    a = [factors[f"A{i}"].reshape(layout.in_, -1) for i in range(2)]
    b = [factors[f"B{i}"].reshape(-1, layout.out, a[i].shape[1]) for i in range(2)]
    return np.stack([(b0 @ a[0].T) * (b1 @ a[1].T) for b0, b1 in zip(*b, strict=True)]).reshape(layout.shape)


def picks_from_the_other_end(network: Network, places: Sequence[At], *kept: Any) -> Any:
    sizes = network.layout.size_of
    return PICKS(
        network, [{k: v if isinstance(v, range) else sizes[k] - 1 - v for k, v in at.items()} for at in places], *kept
    )


def delta_by_columns(self: FactoredTensor, at: At) -> Tensor:
    made = DELTA(self, at)
    return made.reshape(made.shape[1], made.shape[0]).T


def pair_without_scale(self: FactoredTensor, at: At) -> tuple[Tensor, Tensor]:
    a, b = PAIR(self, at)
    return a, b / self.scale


def pair_with_an_empty_row(self: FactoredTensor, at: At) -> tuple[Tensor, Tensor]:
    a, b = PAIR(self, at)
    return torch.cat([a, torch.zeros_like(a[:1])]), torch.cat([b, torch.zeros_like(b[:, :1])], dim=1)


def apply_by_delta(self: FactoredTensor, x: Tensor, at: At) -> Tensor:
    return x @ self.delta(at).T


def apply_without_scale(self: FactoredTensor, x: Tensor, at: At) -> Tensor:
    return x @ self.delta(at).T / self.scale


def apply_to_rows_only(self: FactoredTensor, x: Tensor, at: At) -> Tensor:
    return x.reshape(-1, x.shape[-1]) @ self.delta(at).T


def apply_without_ranges(self: FactoredTensor, x: Tensor, at: At) -> Tensor:
    return x @ self.delta({k: v for k, v in at.items() if isinstance(v, int)}).T


def largest_cut(net: Network) -> Cut:
    names = [factor.name for factor in net.factors]
    found = []
    for sides in itertools.product("AB", repeat=len(names)):
        crossing = network.crossing_labels(net, sides)
        a, b = (tuple(n for n, s in zip(names, sides, strict=True) if s == side) for side in "AB")
        found.append(Cut(a, b, crossing, math.prod(net.sizes[label] for label in crossing)))
    return max(found, key=lambda cut: cut.rank)


def draw_nothing_zero(net: Network, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
    made = DRAW(net, *args, **kwargs)
    return {**made, net.zero.name: torch.full_like(made[net.zero.name], 1e-3)}


def draw_two_zeros(net: Network, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
    made = DRAW(net, *args, **kwargs)
    first = next(name for name in made if name != net.zero.name)
    return {**made, first: torch.zeros_like(made[first])}


def mean_square_without_signs(net: Network, factors: Any) -> float:
    return MEAN_SQUARE(net, {name: value.abs() for name, value in factors.items()})


def independent_gradients(self: Any, factor: Factor, gradient: Tensor, sizes: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(BACK(self, factor, gradient, sizes).shape, generator=generator, dtype=gradient.dtype)


def state_without_the_last(self: FactoredTensor, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
    return dict(list(STATE(self, *args, **kwargs).items())[:-1])


def values(change: Callable[[Tensor], Tensor]) -> Callable[[Patch], Any]:
    def breaks(monkeypatch: Patch) -> None:
        monkeypatch.setattr(FactoredTensor, "_values", lambda self, factor, initial=False: change(VALUES(self, factor)))
        monkeypatch.setattr(FactoredTensor, "_leaves", lambda self, factors: [*map(change, LEAVES(self, factors))])

    return breaks


def pair_and_apply(monkeypatch: Patch) -> None:
    monkeypatch.setattr(FactoredTensor, "pair", pair_without_scale)
    monkeypatch.setattr(FactoredTensor, "apply", apply_by_delta)


MUTANTS = {
    "Tucker's count forgets the core": Mutant("count", parameterization(tucker, count=count_without_core)),
    "the formula counts one number more": Mutant(
        "count", parameterization(cp, count=lambda layout, rank: cp.count(layout, rank) + 1)
    ),
    "LoHa reuses one bond for both products": Mutant(
        "oracle",
        parameterization(cp, build=hadamard_with_one_bond, count=hadamard_count, oracle=hadamard_oracle),
    ),
    "CP with head and dim swapped": Mutant(
        "oracle",
        parameterization(cp, oracle=oracle_with_head_and_dim_swapped, parts=(2,)),  # half of these have a head
    ),
    "positions count from the other end": Mutant("slices", patched(factored, "_picks", picks_from_the_other_end)),
    "delta is read by columns": Mutant("slices", patched(FactoredTensor, "delta", delta_by_columns), alone=False),
    "pair forgets the scale": Mutant("pair", pair_and_apply),
    "pair carries a row of zeros": Mutant("pair", patched(FactoredTensor, "pair", pair_with_an_empty_row)),
    "apply forgets the scale": Mutant("apply", patched(FactoredTensor, "apply", apply_without_scale)),
    "apply flattens the leading shape": Mutant("apply", patched(FactoredTensor, "apply", apply_to_rows_only)),
    "apply ignores a range": Mutant("apply", patched(FactoredTensor, "apply", apply_without_ranges), alone=False),
    "the cut is the largest": Mutant("rank", patched(network, "_cut", largest_cut)),
    "the zero factor is not quite zero": Mutant("start", patched(factored, "draw", draw_nothing_zero)),
    "two factors are zero": Mutant("start", patched(factored, "draw", draw_two_zeros), alone=False),
    "the matched scale is off by the root of two": Mutant(
        "first step", patched(scale, "solve", lambda *args: MATCHED(*args) * math.sqrt(2))
    ),
    "the step is that of factors without signs": Mutant(
        "first step", patched(scale, "mean_square", mean_square_without_signs, tensor_train)
    ),
    "signs are taken as independent": Mutant(
        "first step", patched(scale.ReducedNetwork, "back", independent_gradients, tensor_train)
    ),
    "factors are clipped": Mutant("linear", values(lambda value: value.clamp(-20, 20))),
    "gradients have the wrong sign": Mutant("gradients", values(lambda value: 2 * value.detach() - value)),
    "state_dict forgets a factor": Mutant("round trip", patched(FactoredTensor, "state_dict", state_without_the_last)),
    "the seed is not used": Mutant("seed", patched(rules, "Generated", lambda seed, name: GENERATED(0, name))),
    "all tensors are drawn alike": Mutant(
        "seed", patched(rules, "Generated", lambda seed, name: GENERATED(seed, name.split("/")[1]))
    ),
    "the draw is another at every call": Mutant(
        "seed",
        patched(rules, "Generated", lambda seed, name: GENERATED(int(np.random.default_rng().integers(2**62)), name)),
        alone=False,
    ),
}


@pytest.fixture(autouse=True)
def fresh_caches() -> Iterator[None]:
    def clear() -> None:
        for cached in (slices.halves, slices.slice_program):
            cached.cache_clear()

    clear()
    yield
    clear()


@pytest.mark.thorough
@pytest.mark.parametrize("name", MUTANTS)
def test_the_mutant_is_seen_by_its_law_and_where_so_said_by_no_other(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant = MUTANTS[name]
    seen = killers(mutant.breaks(monkeypatch) or cp)
    assert mutant.law in seen
    assert seen == {mutant.law} or not mutant.alone


@pytest.mark.thorough
@pytest.mark.parametrize("healthy", [cp, tucker])
def test_nothing_is_seen_where_nothing_is_broken(healthy: Any) -> None:
    assert killers(healthy) == set()


def test_every_law_is_the_only_one_to_see_some_mutant() -> None:
    assert {mutant.law for mutant in MUTANTS.values() if mutant.alone} == set(LAWS)


def test_laws_names_the_law_the_parameterization_and_the_case() -> None:
    broken = parameterization(tucker, count=count_without_core)(None)
    with pytest.raises(AssertionError, match=r"law 'count' does not hold for Case\(broken, ': out : model' \(1, 1\)"):
        laws(broken)


def killers(parameterization: Any) -> set[str]:
    """The laws that some example breaks."""
    seen: set[str] = set()
    for law, case in itertools.product(LAWS, collect(parameterization)):
        if law not in seen:
            try:
                LAWS[law](case)
            except Exception:  # a crash is seen too
                seen.add(law)
    return seen


def collect(parameterization: Any) -> list[Case]:
    found: list[Case] = []
    calm = [HealthCheck.too_slow, HealthCheck.filter_too_much]

    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=calm
    )
    @given(cases(parameterization))
    def keep(case: Case) -> None:
        found.append(case)

    keep()
    return found

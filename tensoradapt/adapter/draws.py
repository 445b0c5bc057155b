"""Draw the values that trainable factors start with, and solve the matched scales of tensors drawn together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from tensoradapt.adapter import rules
from tensoradapt.adapter.frozen import Bases
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.network import Factor, Network
from tensoradapt.planning import scale as scales
from tensoradapt.planning.plan import Plan


def draw(
    network: Network, seed: int, name: str, matched: bool, start: str = "zero", given: Collection[str] = ()
) -> dict[str, Tensor]:
    """Draw the trainable factors but the given ones, by the matched rule or as the paper's code; float64, CPU.

    The zero factor is zero, except with ``start="subtract"``, and with ``start="paper"`` where the paper draws it.
    """
    rule = rules.matched if matched else rules.paper
    drawn = {}
    for factor in (f for f in network.factors if f.trainable and f.name not in given):
        if starts_at_zero(factor, start):
            drawn[factor.name] = torch.zeros(network.shape(factor), dtype=torch.float64)
        elif factor.source == "draw":
            drawn[factor.name] = rule(network, factor, rules.Generated(seed, f"{name}/{factor.name}"))
    return drawn


def drawn_together(
    plan: Plan, seed: int, bases: Bases, values: Sequence[Mapping[str, Tensor]]
) -> Iterator[tuple[int, dict[str, Tensor], float]]:
    """Yield number, factors and matched scale of a plan's tensors; those of one network are solved together.

    ``values`` has, for each tensor, factors from the base weights. A tensor whose factors all move, or whose trained
    ones are given, is left out: it is solved alone.
    """
    based = {f.name for g in plan.groups for f in g.network.factors if f.source == "base" and not f.trainable}
    if not scales.is_matched(plan.scale) or not all(based.issuperset(named) for named in values):
        return
    alike: dict[Network, list[int]] = {}
    for i, group in enumerate(plan.groups):
        if starts_at_zero(group.network.zero, plan.begins.update):
            alike.setdefault(group.network, []).append(i)
    for network, numbers in alike.items():
        shared = {f.name: bases.read(network, f) for f in network.frozen_draws if f.source != "own"}
        n = scales.together(network)
        for part in (numbers[i : i + n] for i in range(0, len(numbers), n)):
            drawn = [{**draw(network, seed, str(i), True, plan.begins.update), **values[i]} for i in part]
            own = [{f.name: bases.read(network, f, str(i)) for f in network.own_draws} for i in part]
            every = [{**frozen, **values} for frozen, values in zip(own, drawn, strict=True)]
            squares = scales.mean_squares_of_zero(network, shared, every)
            for i, factors, square in zip(part, drawn, squares, strict=True):
                if square > 0:
                    yield i, factors, scales.scale_of(square, network, plan.spec.alpha)


def check_values(network: Network, values: Mapping[str, Tensor]) -> None:
    """Raise TensorAdaptError for a factor without a value, and for values of another shape or not finite."""
    for factor in network.factors:
        if factor.name not in values:
            if factor.source == "base":
                raise TensorAdaptError(
                    f"factor {factor.name!r} comes from the base weights, and none were given; "
                    "use attach(model, plan), or pass values="
                )
            continue
        needed = network.shape(factor)
        shape = tuple(values[factor.name].shape)
        if shape != needed or not torch.isfinite(values[factor.name]).all():
            what = f"shape {shape}" if shape != needed else "non-finite entries"
            axes = network.axes(factor)
            raise TensorAdaptError(f"factor {factor.name!r} has {what}; expected finite numbers {axes}")
        largest, dtype = float(values[factor.name].abs().max()), torch.get_default_dtype()
        if largest > torch.finfo(dtype).max:
            raise TensorAdaptError(
                f"factor {factor.name!r} reaches {largest:.3g}, and {dtype} holds up to {torch.finfo(dtype).max:.3g}; "
                "expected smaller values: divide them, and multiply the update by a scale"
            )


def starts_at_zero(factor: Factor, start: str) -> bool:
    """Return whether a factor is zero with that start."""
    return factor.init == "zero" and not (start == "subtract" or (start == "paper" and factor.paper is not None))

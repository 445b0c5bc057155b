"""Find the cheapest exact way through an adapted matrix, from its shape, the rank of its pair and the tokens.

Forward: activations through the pair, ``x W^T + (x A^T) B^T``, or one product with ``W + B A``. Gradient of the pair:
through it as well, or from the dense gradient ``G = g^T x`` of the weight, as ``B^T G`` and ``G A^T``. All are the same
numbers but for rounding. Costs are those on top of the frozen layer, in FLOPs; a pass over a matrix counts as PASSES.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

Trained = tuple[bool, bool] | None  # whether A and B get gradients; None: a forward pass alone
BOTH = (True, True)
# fp32 FLOPs in the time that a device takes to read and write one entry: measured for a processor; a GPU's from the
# data sheet of an H100 (67 TFLOP/s without TF32, 3.35 TB/s)
PASSES: Mapping[str, int] = {"cpu": 16, "cuda": 160}


@dataclass(frozen=True, order=True)
class Way:
    """Whether W + delta is formed for the forward product, and whether the pair's gradient goes through a dense one."""

    forms_weight: bool = False
    dense_gradient: bool = False

    def __str__(self) -> str:
        forward = "W + delta formed once" if self.forms_weight else "activations through (A, B)"
        return f"{forward}, {'dense weight gradient' if self.dense_gradient else 'gradient through (A, B)'}"


def cost(way: Way, tokens: int, rank: int, shape: tuple[int, int], trained: Trained = BOTH, device: str = "cpu") -> int:
    """Return the FLOPs an adapter adds to a step of a frozen (out, in) matrix (``trained`` None: a forward pass)."""
    out, in_ = shape
    through, form = 2 * tokens * rank, (2 * rank + PASSES.get(device, PASSES["cuda"])) * out * in_
    forward = form if way.forms_weight else through * (in_ + out)
    if trained is None:
        return forward
    # the gradient of x passes through A, or through W + delta, which is formed again rather than kept
    back = form if way.forms_weight else through * (out + in_)
    if way.dense_gradient:
        return forward + back + 2 * tokens * out * in_ * any(trained) + 2 * rank * out * in_ * sum(trained)
    of_a, of_b = through * in_, through * out
    if way.forms_weight:  # g B and x A^T were not made
        of_a, of_b = of_a + through * out, of_b + through * in_
    return forward + back + of_a * trained[0] + of_b * trained[1]


@lru_cache(maxsize=4096)
def cheapest(
    tokens: int, rank: int, shape: tuple[int, int], trained: Trained = BOTH, wide: bool = True, device: str = "cpu"
) -> Way:
    """Return the way of least cost. ``wide``: W is in fp32 or wider; a narrower W + delta would round delta away.

    What trains decides on the gradient alone, so that a forward pass has the same bits with gradients and without.
    """

    def least(ways: Iterable[Way], trained: Trained) -> Way:
        return min(ways, key=lambda way: cost(way, tokens, rank, shape, trained, device))

    forms = wide and least((Way(f, dense) for f in (False, True) for dense in (False, True)), BOTH).forms_weight
    return least((Way(forms, dense) for dense in (False, True)), trained)


def regimes(rank: int, shape: tuple[int, int]) -> list[tuple[int, Way]]:
    """Return a processor's cheapest ways in training, with the number of tokens from which on each is cheapest."""
    ways = [Way(forms, dense) for forms in (False, True) for dense in (False, True)]
    rest = {way: cost(way, 0, rank, shape) for way in ways}
    slope = {way: cost(way, 1, rank, shape) - rest[way] for way in ways}
    found = [(1, cheapest(1, rank, shape))]
    while later := [way for way in ways if slope[way] < slope[found[-1][1]]]:
        now = found[-1][1]
        found.append(min(((rest[w] - rest[now]) // (slope[now] - slope[w]) + 1, w) for w in later))
    return found

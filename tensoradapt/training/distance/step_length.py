"""Find the length of a step that moves weights by a given distance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from scipy import optimize

EXACT = 1e-9  # a length is taken to be exact once its logarithm changes by less
# the same limit once three lengths were tried: the error of the next falls faster than the square of this one's
SETTLED = 3e-4
EVALUATIONS = 12  # a distance is computed so often before a root is bracketed instead
REACH = 1e9  # no length above this multiple of the optimizer's own step is tried


def solve(curve: Callable[[float], float], asked: float) -> float | None:
    """Return the length at which the square root of ``curve`` is ``asked``, to 1e-7; None where no length has it.

    ``curve`` is the squared distance as a function of the length of a change. The logarithm of the length is
    interpolated as a polynomial of that of the distance, through all lengths tried.
    """
    if asked == 0:
        return 0.0

    def off(log_length: float) -> float:
        """Return the logarithm of the distance over that asked for."""
        squared = curve(math.exp(log_length))
        return math.log(squared) / 2 - math.log(asked) if 0 < squared < math.inf else math.nan

    tried = [(0.0, off(0.0))]
    guess = -tried[0][1]  # a distance grows as its length
    while len(tried) < EVALUATIONS and abs(guess) < math.log(REACH):
        if abs(guess - tried[-1][0]) < (SETTLED if len(tried) > 2 else EXACT):
            return math.exp(guess)
        tried.append((guess, off(guess)))
        if len({distance for _, distance in tried}) < len(tried) or math.isnan(tried[-1][1]):
            break
        guess = _interpolated(tried)
    return _bracketed(off) if math.isfinite(tried[0][1]) else None


def _interpolated(pairs: Sequence[tuple[float, float]]) -> float:
    """Evaluate Lagrange's polynomial through pairs (y, x) at x = 0."""
    return sum(y * math.prod(b / (b - a) for _, b in pairs if b != a) for y, a in pairs)


def _bracketed(off: Callable[[float], float]) -> float | None:
    """Find the length by a search between one that is too short and one that is too long."""
    low = high = 0.0
    while not off(low) <= 0:
        low -= 1
        if low < -math.log(REACH):
            return None
    while not off(high) >= 0:
        high += 1
        if high > math.log(REACH):
            return None
    return math.exp(optimize.brentq(off, low, high, xtol=1e-8)) if low < high else 1.0

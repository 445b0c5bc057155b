"""The size that is asked of an adapter, a rank or a budget, and how it is written. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError
from tensoradapt.text import Rank, short_count

MISSING = ("None", "nan", "<NA>")  # what a table has where there is no value


@dataclass(frozen=True)
class Size:
    """A rank, or a budget of parameters; neither where a method has no rank.

    Raises TensorAdaptError for both.

    >>> [Size(*each).text for each in ((8,), ({"layer": 2, "out": 4},), (None, 5000), ())]
    ['r=8', 'r=2 4', 'n≤5,000', '']
    """

    rank: Rank | str | None = None  # a text in a table, such as "layer=2 out=4"
    budget: int | None = None

    def __post_init__(self) -> None:
        if self.rank is not None and self.budget is not None:
            raise TensorAdaptError(
                f"rank={shown(self.rank)} and budget={shown(self.budget)} were given; expected exactly one of them"
            )

    @classmethod
    def of(cls, given: Any) -> Size:
        """Return the size of a spec, or of a row of a table, of both the budget.

        >>> Size.of({"rank": "layer=2 out=4", "budget": float("nan")}), Size.of({"rank": 8.0})
        (Size(rank={'layer': 2, 'out': 4}, budget=None), Size(rank=8, budget=None))
        """
        get = given.get if hasattr(given, "get") else lambda name: getattr(given, name, None)
        rank, budget = (None if str(value) in MISSING else value for value in (get("rank"), get("budget")))
        return cls(None, int(budget)) if budget else cls(_rank(rank))

    @property
    def asked(self) -> dict[str, Any]:
        """The one argument of ``plan`` that it is; {} where there is none."""
        return {key: value for key, value in vars(self).items() if value is not None}

    def __bool__(self) -> bool:
        return bool(self.asked)

    @property
    def text(self) -> str:
        """The size in a table, a line of a sweep or a title."""
        if self.budget is not None:
            return f"n≤{self.budget:,}"
        if isinstance(self.rank, Mapping):
            return f"r={' '.join(map(str, self.rank.values()))}"
        return str(self.rank) if isinstance(self.rank, str) else f"r={self.rank}" if self.rank else ""

    @property
    def short(self) -> str:
        """The size beside a name in a figure or sentence: a budget in few digits, of ranks by bond the largest alone.

        >>> Size({"layer": 2, "out": 4}).short, Size({"layer": 4, "out": 4}).short, Size(budget=6400).short
        ('r≤4', 'r=4', '≤ 6.4k')
        """
        if self.budget is not None:
            return f"≤ {short_count(self.budget)}"
        if not isinstance(self.rank, Mapping):
            return self.text
        largest = max(self.rank.values())
        return f"r{'=' if set(self.rank.values()) == {largest} else '≤'}{largest}"


def _rank(given: Any) -> Rank | str | None:
    """Return a rank of a table as a number, or as ranks by bond where a text has them."""
    if isinstance(given, Mapping) or given is None:
        return given or None
    if not isinstance(given, str):
        return int(given)
    bonds = [part.partition("=") for part in given.split()]
    return {name: int(n) for name, _, n in bonds} if all(n.isdecimal() for _, _, n in bonds) else given

"""Published adapters whose update is a sum of networks: the terms of each, from a rank, its options and the layers.

To add one, write its terms as a function and its row in ``SUMS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tensoradapt.checks import is_whole, shown
from tensoradapt.errors import TensorAdaptError
from tensoradapt.parameterizations import spelling

Terms = tuple[Mapping[str, Any], ...]
SUM = "sum"  # the name of an adapter whose terms the user gives


@dataclass(frozen=True)
class PublishedSum:
    """One paper's adapter that adds networks; ``plan`` takes its name, a rank and ``options``.

    Attributes:
        name: what ``method=`` takes.
        projections: what the paper adapts.
        terms: the terms of ``sum=``, from rank, number of layers and the options by name.
        divisor: alpha over it is the paper's multiplier, from rank and the options by name.
        source, formula, note: the paper, its closed count of parameters, departures from it.
        options: the options with their defaults.
        alpha: the released code's default.

    >>> rasa = named_sum("RaSA")
    >>> [term["rank"] for term in rasa.terms(8, 12, shared=1)], rasa.formula
    ([7, 12], 'L*M*r*(o + i) + M*L*(r - k + k*L)')
    """

    name: str
    projections: tuple[str, ...]
    terms: Callable[..., Terms]
    divisor: Callable[..., int]
    source: str
    formula: str
    options: Mapping[str, int]
    alpha: float
    note: str = ""

    def settings(self, rank: int, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return rank and options, with the defaults of those that were not given; raise TensorAdaptError for others.

        >>> named_sum("rasa").settings(8, {})
        {'rank': 8, 'shared': 1}
        """
        if not is_whole(rank):
            raise TensorAdaptError(f"rank is {shown(rank)}; expected a whole number, 1 or more, for {self.name}")
        if odd := [name for name in options if name not in self.options]:
            raise TensorAdaptError(f"{self.name} has no option {odd[0]!r}; expected {', '.join(self.options)}")
        for name, given in options.items():
            if not is_whole(given):
                raise TensorAdaptError(
                    f"option {name} of {self.name} is {shown(given)}; expected a whole number, 1 or more"
                )
        return {"rank": rank, **self.options, **options}


def _rasa(rank: int, layers: int, shared: int) -> Terms:
    """Return the components of each matrix, rank - shared of them, and those of all layers that every layer weights."""
    if shared >= rank:
        raise TensorAdaptError(
            f"rasa shares {shared} of its rank {rank}; expected shared below the rank, so that each matrix keeps one"
        )
    own = {"method": "cp", "layout": ": out : in", "rank": rank - shared, "options": {"weights": True}}
    return own, {"method": "cp", "layout": "layer : out : in", "rank": shared * layers}


def _gralora(rank: int, layers: int, hybrid: int) -> Terms:
    """Return blocks of low rank, and a LoRA beside them."""
    return {"method": "gralora", "rank": rank}, {"method": "lora", "rank": hybrid}


SUMS = (
    PublishedSum(
        "rasa",
        ("q", "k", "v", "o", "up", "down"),
        _rasa,
        lambda rank, shared: rank,
        "He et al., arXiv 2503.12576; released code",
        "L*M*r*(o + i) + M*L*(r - k + k*L)",
        {"shared": 1},
        16,
        "k of the r components of each layer are shared by all layers of a projection; the released code has alpha in "
        "the start of the diagonals, here it is in the multiplier",
    ),
    PublishedSum(
        "gralora-hybrid",
        ("q", "v"),
        _gralora,
        lambda rank, hybrid: 2 * rank + hybrid,
        "Jung et al., arXiv 2505.20355; as in PEFT",
        "M*L*(r*(n[i][0]*o + n[o][0]*i) + h*(o + i))",
        {"hybrid": 2},
        64,
        "r is the rank of a block and h the hybrid rank; PEFT's r is 2 r here and excludes h, the authors' includes it",
    ),
)


def named_sum(name: Any) -> PublishedSum | None:
    """Return the published sum that a spelling stands for; None without one.

    >>> named_sum("RaSA").name, named_sum("lora")
    ('rasa', None)
    """
    return {spelling(row.name): row for row in SUMS}.get(spelling(name)) if isinstance(name, str) else None

"""Starts: how the factors of a network get their first values, and what becomes of the update they make. No torch.

A start that reads the model makes two halves of each matrix, left (out, r) and right (r, in). A factor that is one side
of every matrix, as A and B of LoRA, takes a half as it is; other factors are fitted to the product of both. Starts of
single papers are extras.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tensoradapt import doors
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks import halves
from tensoradapt.networks.halves import ToHalves
from tensoradapt.networks.network import Factor, Network

Side = Literal["left", "right"]
SOURCES = {"weights": "the weights", "gradients": "the gradient", "inputs": "the layers' inputs"}


@dataclass(frozen=True)
class Start:
    """What the update is at the start, what of the model its values come from, and which halves there are.

    ``update``: zero (one factor is), subtract (it is held and subtracted) or paper (as the source draws). ``make``: the
    halves of a matrix. ``prepare``: what is done to the inputs of a layer, (n, in), before their moments are taken.
    ``finish``: what is done to an adapter once it has its values; it takes the zero factor's place as well.
    """

    update: Literal["zero", "subtract", "paper"]
    reads: str = ""
    halves: tuple[Side, ...] = ()
    make: ToHalves | None = None
    prepare: Callable[[Any], Any] | None = None
    finish: Callable[..., None] | None = None

    @property
    def nearest(self) -> bool:
        """Whether the zero factor is solved for, so that the update is near to a step of full fine-tuning."""
        return self.finish is not None

    @property
    def needs_batches(self) -> bool:
        return self.reads in ("gradients", "inputs")

    @property
    def origin(self) -> str:
        """What values "from the base" are from, in words."""
        return SOURCES[self.reads or "weights"]


BOTH: tuple[Side, ...] = ("left", "right")
BUILT_IN: Mapping[str, Start] = {
    "zero": Start("zero"),
    "subtract": Start("subtract"),
    "paper": Start("paper"),
    "gradient": Start("zero", "gradients"),
    "pissa": Start("subtract", "weights", BOTH, halves.pissa),
}
OWN = tuple(name for name, start in BUILT_IN.items() if not start.halves)  # of a tensor without its matrices


def names() -> tuple[str, ...]:
    """Return the names of all starts."""
    return (*BUILT_IN, *doors.names("starts"))


def get(name: str) -> Start:
    """Return the start of a name; raise TensorAdaptError for an unknown one."""
    found: Start = BUILT_IN[name] if name in BUILT_IN else doors.get("starts", name)
    return found


def taken(network: Network, name: str) -> list[str]:
    """Return the trained factors whose values a start makes from the model: all but one that stays zero."""
    start = get(name)
    drawn = [f for f in network.factors if f.trainable and f.source == "draw"] if start.halves else []
    return [f.name for f in drawn if start.update == "subtract" or f.init != "zero"]


def sides(network: Network, factors: Iterable[Factor]) -> dict[str, Side]:
    """Return which of these factors is a side of every matrix: its rows or its columns, and one bond.

    Empty where two of them are the same side.
    """
    layout, found = network.layout, dict[str, Side]()
    index, rows, cols = ({m.name for m in modes} for modes in (layout.index, layout.rows, layout.cols))
    for factor in factors:
        modes = set(factor.labels) - set(network.bonds)
        if len(factor.labels) == len(modes) + 1 and modes in (index | rows, index | cols):
            found[factor.name] = "left" if modes == index | rows else "right"
    return found if len(set(found.values())) == len(found) else {}


def direct(network: Network) -> dict[str, Side]:
    """Return the factors that take a half as it is: all from the base if each is a side, else its frozen sides."""
    based = [factor for factor in network.factors if factor.source == "base"]
    every = sides(network, based)
    return every if len(every) == len(based) else sides(network, (f for f in based if not f.trainable))


def check_start(network: Network, name: str, widths: Collection[int], transposed: bool, where: str) -> None:
    """Raise TensorAdaptError for a network that a start has no values for.

    ``widths`` are those of its matrices, and ``transposed`` says whether it holds one transposed.
    """
    start, found = get(name), direct(network)
    if not start.halves:
        return
    lacking = [f.name for f in network.factors if f.source == "base" and found.get(f.name) not in start.halves]
    if len(start.halves) == 1 and (lacking or transposed or not found):
        side, other = ("output", "input") if start.halves == ("left",) else ("input", "output")
        reason = f"factor {lacking[0]!r} is none" if lacking else "a matrix is transposed" if found else "there is none"
        raise TensorAdaptError(
            f"start={name!r} has values for a factor of the {side} side and one bond, and in {network.equation} "
            f"{reason}; expected LoRA's form with zero on the {other} side, as method={name!r} has, or another start"
        )
    most = min(widths)
    for factor in (f for f in network.factors if f.name in found):
        if (rank := next(n for x, n in network.bonds.items() if x in factor.labels)) > most:
            raise TensorAdaptError(
                f"rank {rank} is above the {most} singular directions of site {where}, from which start={name!r} takes "
                f"factor {factor.name!r}; give {most} or less"
            )

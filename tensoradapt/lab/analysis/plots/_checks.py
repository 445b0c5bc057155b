"""What options that several figures share have to be; one line says what was found and what is expected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.axes import Axes

from tensoradapt.checks import check_is, flag, is_whole, optional, shown, text
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.names import Look


def check(ax: Any, options: Mapping[str, Any]) -> None:
    """Raise TensorAdaptError for axes, texts, switches, looks and a baseline of another type."""
    if ax is not None:
        check_is("ax", ax, Axes)
    for name, value in options.items():
        if name in CHECKS:
            CHECKS[name](value, name)


def _looks(value: Any, name: str) -> None:
    if value is not None and not (isinstance(value, Mapping) and all(isinstance(k, Look) for k in value.values())):
        raise TensorAdaptError(
            f"{name} is {shown(value)}; expected a mapping from methods to looks, as names.looks gives"
        )


def _baseline(value: Any, name: str) -> None:
    pair = isinstance(value, tuple | list) and len(value) == 2
    if value is not None and not (pair and isinstance(value[0], str) and is_whole(value[1], 1)):
        raise TensorAdaptError(f'{name} is {shown(value)}; expected a method and a rank, such as ("lora", 8), or None')


CHECKS: Mapping[str, Callable[[Any, str], object]] = {
    **{"caption": flag, "headline": flag, "names": flag, "x": text, "col": optional(text)},
    **{"focus": optional(text), "looks": _looks, "baseline": _baseline},
}

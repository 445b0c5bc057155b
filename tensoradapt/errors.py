"""The one error class: every message says what was found, what was expected, and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class TensorAdaptError(ValueError):
    """Raised for every input tensoradapt refuses; nothing has been changed when it is."""


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """Suffix naming the closest valid name and all of them.

    >>> did_you_mean("tuker", ["cp", "tucker"])
    '; did you mean "tucker"? Valid: cp, tucker'
    """
    names = list(valid)
    close = get_close_matches(str(name), names, n=1)
    hint = f'; did you mean "{close[0]}"?' if close else "."
    return f"{hint} Valid: {', '.join(names)}" if names else f"{hint} There are none"


def missing_extra(package: str, extra: str, purpose: str) -> TensorAdaptError:
    """The error for an optional dependency that is not installed."""
    return TensorAdaptError(
        f'{purpose} needs `{package}`, which is not installed: run pip install "tensoradapt[{extra}]"'
    )

"""The one error class: every message says what was found, what was expected, and what to do."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class TensorAdaptError(ValueError):
    """Raised for every input tensoradapt refuses; nothing has been changed when it is."""


class BudgetError(TensorAdaptError):
    """A budget that no configuration meets: for a sweep an empty cell, for anyone else an error like the others."""


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """Suffix naming the closest valid name and all of them.

    >>> did_you_mean("tuker", ["cp", "tucker"])
    '; did you mean "tucker"? Valid: cp, tucker'
    """
    names = list(valid)
    close = get_close_matches(str(name), names, n=1)
    hint = f'; did you mean "{close[0]}"?' if close else "."
    return f"{hint} Valid: {', '.join(names)}" if names else f"{hint} There are none"


@contextmanager
def located(where: str) -> Iterator[None]:
    """Within it a refusal is preceded by where it was found: by code that knows shapes and no sites."""
    try:
        yield
    except TensorAdaptError as error:
        raise type(error)(f"{where}: {error}") from None


def missing_extra(package: str, extra: str, purpose: str) -> TensorAdaptError:
    """The error for an optional dependency that is not installed."""
    return TensorAdaptError(
        f'{purpose} needs `{package}`, which is not installed: run pip install "tensoradapt[{extra}]"'
    )

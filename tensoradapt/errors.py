"""The package's errors. Every message says what was found, what was expected, and what to do."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class TensorAdaptError(ValueError):
    """Raised for every input that tensoradapt refuses, before anything has changed."""


class BudgetError(TensorAdaptError):
    """Raised for a budget that no configuration meets; a sweep reports it as an empty cell."""


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """The end of a message: the closest valid name, and all valid names.

    >>> did_you_mean("tuker", ["cp", "tucker"])
    '; did you mean "tucker"? Valid: cp, tucker'
    """
    names = list(valid)
    close = get_close_matches(str(name), names, n=1)
    hint = f'; did you mean "{close[0]}"?' if close else "."
    return f"{hint} Valid: {', '.join(names)}" if names else f"{hint} There are none"


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put a place in front of errors raised within: by code that knows shapes but no sites."""
    try:
        yield
    except TensorAdaptError as error:
        raise type(error)(f"{where}: {error}") from None


def missing_extra(package: str, extra: str, purpose: str) -> TensorAdaptError:
    """The error for an optional dependency that is not installed."""
    return TensorAdaptError(
        f'{purpose} needs `{package}`, which is not installed: run pip install "tensoradapt[{extra}]"'
    )

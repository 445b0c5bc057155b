"""Errors of the package. Every message says what was found, what was expected, and what to do."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

LONGEST = 600  # the most characters of a message
MANY = 20  # a message lists up to this many names in full


class TensorAdaptError(ValueError):
    """Raised for every input that tensoradapt refuses, before anything has changed (docs/reference/errors.md).

    Args:
        message: what was found, what was expected, what to do. One of more than 600 characters loses its middle.

    >>> import tensoradapt as ta
    >>> try:
    ...     ta.parameterizations.get("tuker")
    ... except ta.TensorAdaptError as error:
    ...     print(str(error)[:56])
    unknown parameterization 'tuker'; did you mean "tucker"?
    """

    def __init__(self, message: str = "") -> None:
        cut = f" ... ({len(message):,} characters) ... "
        half = (LONGEST - len(cut)) // 2
        super().__init__(message if len(message) <= LONGEST else f"{message[:half]}{cut}{message[-half:]}")


class NetworkError(TensorAdaptError):
    """Raised for factors and bonds that make no network which trains: always a fault of the parameterization."""


class BudgetError(TensorAdaptError):
    """Raised for a budget that no configuration meets; a sweep reports it as an empty cell."""


def did_you_mean(name: object, valid: Iterable[str]) -> str:
    """Return the end of a message: the closest valid name, and all valid names.

    >>> did_you_mean("tuker", ["cp", "tucker"])
    '; did you mean "tucker"? Valid: cp, tucker'
    """
    names = list(valid)
    near = closest(name, names)
    hint = f'; did you mean "{near}"?' if near else "."
    return f"{hint} Valid: {few(names)}" if names else f"{hint} There are none"


def closest(name: object, valid: Iterable[str]) -> str | None:
    """Return the valid name that was most likely meant, first one with the same letters; None where none is close.

    >>> closest("loar", ["lotr", "lora"]), closest("LoAR", ["lotr", "lora"]), closest("x", ["lora"])
    ('lora', 'lora', None)
    """
    if not isinstance(name, str):
        return None
    from difflib import get_close_matches

    by_case = {other.casefold(): other for other in valid}
    close = get_close_matches(name.casefold(), by_case, n=5)
    swapped = [other for other in close if sorted(other) == sorted(name.casefold())]
    return next((by_case[other] for other in (*swapped, *close)), None)


def few(names: Sequence[str], most: int = MANY) -> str:
    """List all names, or of more than ``most`` the first five at most and how many more there are."""
    if len(names) <= most:
        return ", ".join(names)
    first = min(most, 5)
    return f"{', '.join(names[:first])} and {len(names) - first} more"


@contextmanager
def located(where: str) -> Iterator[None]:
    """Put a place, such as a site or a file, in front of errors raised inside this context."""
    try:
        yield
    except TensorAdaptError as error:
        raise type(error)(f"{where}: {error}") from None


def missing_extra(package: str, extra: str, purpose: str) -> TensorAdaptError:
    """Make the error for an optional dependency that is not installed."""
    return TensorAdaptError(
        f'{purpose} needs `{package}`, which is not installed: run pip install "tensoradapt[{extra}]"'
    )


def of_extra(module: str, extra: str, purpose: str, package: str = "") -> Any:
    """Import a module of an extra; raise TensorAdaptError that names ``package`` and extra where that fails.

    ``package`` is what pip calls it, by default as the module.
    """
    top = module.partition(".")[0]
    try:
        import_module(top)
        return import_module(module)
    except ImportError as error:
        lacking = (error.name or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and lacking != top:  # the package is there, and one of its own is not
            raise TensorAdaptError(
                f"{purpose} needs `{package or module}`, which lacks `{lacking}`: run pip install {lacking}, or "
                f'pip install "tensoradapt[{extra}]"'
            ) from None
        raise missing_extra(package or module, extra, purpose) from None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, up to 200 characters; the name of its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def check_installed(package: str, purpose: str) -> None:
    """Raise TensorAdaptError where a library is missing that no extra installs, as it asks for an older PEFT."""
    from importlib import metadata  # slow, and needed where something is missing alone

    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        raise TensorAdaptError(
            f"{purpose} needs `{package}`, which is not installed: run pip install {package}, and after it "
            'pip install "peft>=0.21" (docs/guides/trainers.md)'
        ) from None

"""Records: frozen dataclasses whose fields are each declared once, with a check, a help text and a default.

A field's declaration is read by Python's signatures, by TOML and JSON files, by PEFT's config, by the command line and
by the page of fields, so a new field is one line. Needs no torch.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import MISSING, Field, field, fields
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from tensoradapt.checks import Check, shown
from tensoradapt.checks import optional as or_none
from tensoradapt.errors import TensorAdaptError, closest, located
from tensoradapt.habits import WORDS, called

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", contravariant=True)
T = TypeVar("T", covariant=True)
Former = Sequence[str] | Mapping[str, str]  # other names of a field
_GROUPED = re.compile(r"[1-9]\d{0,2}(,\d{3})+")  # a number as pages write it
_PAIR = re.compile(r"([^-=\s][^=]*)=(.*)", re.DOTALL)  # a key and its value, as a word of a command line


def needed(
    check: Check, help: str, *, listed: bool = False, former: Former = (), later: bool = False
) -> dict[str, Any]:
    """Return the metadata of a field without a default, for ``dataclasses.field(metadata=...)``.

    Args:
        check: takes a value and the field's name; returns the value in its normal form, or raises TensorAdaptError.
        help: one line, for the command line and the page of fields.
        listed: whether the field's own value is a list, so that only a list of lists is several values of a sweep.
        former: names that the field once had or that other libraries have, which an error answers with the present
            one; a mapping of them says for each what to do.
        later: whether files of the first format lack the field, and then have its default.
    """
    return {"check": check, "help": help, "listed": listed, "former": former, "later": later}


def value(
    check: Check,
    help: str,
    default: Any = None,
    *,
    listed: bool = False,
    former: Former = (),
    later: bool = False,
) -> Any:
    """Declare a field with a default; one whose default is None takes None beside what ``check`` takes."""
    metadata = needed(or_none(check) if default is None else check, help, listed=listed, former=former, later=later)
    return (
        field(default_factory=dict, metadata=metadata) if default == {} else field(default=default, metadata=metadata)
    )


def default_of(f: Field[Any]) -> Any:
    """Return the default of a field; MISSING where it has none."""
    return f.default if f.default_factory is MISSING else f.default_factory()


def of_record(kind: Callable[..., Any]) -> Check:
    """Return the check of a field that holds a record; it takes the record or its table."""

    def check(given: Any, where: str) -> Any:
        return given if isinstance(given, kind) else read(kind, given, where)  # type: ignore[arg-type]  # a class

    return check


def check_fields(record: Any) -> None:
    """Put every field of a record into its normal form: the ``__post_init__`` of every record."""
    for f in fields(record):
        object.__setattr__(record, f.name, f.metadata["check"](getattr(record, f.name), f.name))


def documented(record: type[R]) -> type[R]:
    """Replace the line ``{fields}`` of a record's docstring by a list of its fields, for its reference page."""
    record.__doc__ = _with_fields(record.__doc__, record)
    return record


def _with_fields(text: str | None, kind: Any, leave_out: Sequence[str] = ()) -> str:
    told = [f for f in fields(kind) if f.name not in leave_out]
    listed = "\n".join(f"        {f.name}: {f.metadata['help']}." for f in told)
    return (text or "").replace("        {fields}", listed)


def names(kind: Any) -> tuple[str, ...]:
    """Return the names of a record's fields."""
    return tuple(f.name for f in fields(kind))


def read(kind: Callable[..., R], table: Any, where: str = "") -> R:
    """Read a record from a table of a TOML or JSON file, or of the command line.

    Raises TensorAdaptError that begins with ``where`` for a key that is unknown or missing and for a value that is
    refused.
    """
    with located(where) if where else nullcontext():
        if not isinstance(table, Mapping):
            raise TensorAdaptError(f"found {shown(table)}; expected a table of settings")
        check_keys(table, fields(kind))  # type: ignore[arg-type]  # a dataclass
        return kind(**table)


def check_keys(table: Mapping[str, Any], declared: Iterable[Field[Any]], others: Iterable[str] = ()) -> None:
    """Raise TensorAdaptError for a key that no field has, and for a field without a default that is missing."""
    every = [*declared]
    check_known(table, every, others)
    if missing := [f for f in every if default_of(f) is MISSING and f.name not in table]:
        raise TensorAdaptError(f"{missing[0].name} is missing; expected {missing[0].metadata['help']}")


def check_known(table: Mapping[str, Any], declared: Iterable[Field[Any]], others: Iterable[str] = ()) -> None:
    """Raise TensorAdaptError for a key that no field has, with the name that it has now, or the closest."""
    by_name = {f.name: f for f in declared}
    valid = [*by_name, *others]
    former = {name: f for f in by_name.values() for name in f.metadata["former"]}
    for key in table:
        if key not in valid:
            near = key if key in WORDS else closest(key, [*valid, *former])
            meant = former[near].name if near in former else near
            hint = _advice(former[key], key) if key in former else called(meant, valid)
            raise TensorAdaptError(f"unknown key {key}{hint}")


def _advice(now: Field[Any], key: str) -> str:
    """Return the end of a message about a field's other name."""
    former: Former = now.metadata["former"]
    return f"; {former[key]}" if isinstance(former, Mapping) else f"; it is called {now.name}"


def changed(record: Any) -> dict[str, Any]:
    """Return the fields that differ from their defaults, by name: what a record says."""
    return {f.name: getattr(record, f.name) for f in fields(record) if getattr(record, f.name) != default_of(f)}


def said(record: Any) -> dict[str, Any]:
    """Return what a record and the records in it say, by name, in JSON's types: what an id hashes."""
    return {
        name: said(item) if hasattr(item, "__dataclass_fields__") else as_json(item)
        for name, item in changed(record).items()
    }


def as_json(value: Any) -> Any:
    """Return a record, or a value of one, in JSON's types: tables and lists."""
    if hasattr(value, "__dataclass_fields__"):
        return {f.name: as_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list | tuple) else value


def digest(document: Mapping[str, Any]) -> str:
    """Return sixteen hex digits of the SHA-256 of a document, such as what a run says.

    They are equal for any order of keys, tuple or list, ``1`` or ``1.0``, numpy or Python numbers. NaN, infinities and
    values that JSON cannot hold raise TensorAdaptError.

    >>> digest({"rank": 8, "lr": 1.0}) == digest({"lr": 1, "rank": 8.0})
    True
    >>> digest({"rank": True}) == digest({"rank": 1})
    False
    """
    text = json.dumps(plain(document, "config", _canonical), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(value: Any, where: str, number: Callable[[float, str], Any]) -> Any:
    """Convert ``value``, which may have numpy's numbers, to JSON's types; ``number`` converts or refuses each float."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return number(value, where)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TensorAdaptError(f"{where} has the key {key!r}; expected text keys only: write {str(key)!r}")
        return {key: plain(item, f"{where}[{key!r}]", number) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]", number) for i, item in enumerate(value)]
    raise TensorAdaptError(
        f"{where} is a {type(value).__name__}; expected text, numbers, bools, None, lists or mappings: "
        "convert it first, or store it as an array"
    )


def finite(value: float, where: str) -> float:
    """Return a finite number; raise TensorAdaptError for another."""
    if not math.isfinite(value):
        raise TensorAdaptError(f"{where} is {value}; expected a finite number: leave the key out or use None")
    return value


def _canonical(value: float, where: str) -> float:
    return int(value) if finite(value, where).is_integer() else value


def finite_or_null(value: float, where: str) -> float | None:
    """Return a finite number, or None for another."""
    return value if math.isfinite(value) else None


def values_of(f: Field[Any], given: Any) -> list[Any]:
    """Return the values that a sweep's file gives for a field: the items of a list, or the one value.

    A field whose own value is a list has several where it is given a list of lists.

    >>> from tensoradapt.planning.spec import AdapterSpec
    >>> layout, rank = (f for f in fields(AdapterSpec) if f.name in ("layout", "rank"))
    >>> values_of(rank, [1, 2]), values_of(rank, 1), values_of(layout, [": out : in"])
    ([1, 2], [1], [[': out : in']])
    """
    is_axis = isinstance(given, list | tuple) and (not f.metadata["listed"] or any(isinstance(v, list) for v in given))
    return list(given) if is_axis else [given]


def product(kind: Any, table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every combination of the values that a sweep's table gives for the fields of a record."""
    axes = {f.name: values_of(f, table[f.name]) for f in fields(kind) if f.name in table}
    return [dict(zip(axes, combination, strict=True)) for combination in itertools.product(*axes.values())]


def toml_of(table: Mapping[str, Any]) -> str:
    """Return a table of JSON's types as lines of TOML, one for each key."""
    return "".join(f"{name} = {_toml(item)}\n" for name, item in table.items())


def _toml(value: Any) -> str:
    """Return a value of JSON's types as TOML writes it in one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(str(key))} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if value is None:
        raise TensorAdaptError("found None, which TOML has no word for; leave its key out")
    if isinstance(value, float):
        return repr(float(value))  # "inf" and "nan", where JSON has words that TOML lacks
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML takes no pairs of surrogates


def of_words(words: Sequence[str], listed: bool = False) -> Any:
    """Return the value of the words behind an option.

    >>> of_words(["8"]), of_words(["1", "8"]), of_words(["1,8"]), of_words(["q"], listed=True)
    (8, [1, 8], [1, 8], ['q'])
    >>> of_words(["layer=2", "out=4"])
    {'layer': 2, 'out': 4}
    """
    pairs = [_PAIR.fullmatch(word) if _scalar(word) is word else None for word in words]
    if pairs and all(pairs):
        return {pair[1]: _scalar(pair[2]) for pair in pairs if pair}
    given = [value for word in words for value in _scalars(word)]
    return given if listed or len(given) != 1 else given[0]


def _scalars(word: str) -> list[Any]:
    """Return a word's value, or those of several numbers between commas; "18,432" may be one number, and stays text."""
    values = [_scalar(part) for part in word.split(",")]
    several = all(isinstance(value, int | float) for value in values) and not _GROUPED.fullmatch(word)
    return values if several else [_scalar(word)]


def _scalar(word: str) -> Any:
    """Return what JSON reads in a word, such as a number, true, a list or a text in quotation marks; else the word."""
    try:
        return json.loads(word)
    except (ValueError, RecursionError):
        return word


def markdown(kind: Any) -> str:
    """Return the fields of a record as a Markdown table: name, default and help."""
    rows = ["| field | default | meaning |", "|---|---|---|"]
    for f in fields(kind):
        rows.append(f"| `{f.name}` | {_default_text(f)} | {f.metadata['help']} |")
    return "\n".join(rows)


def _default_text(f: Field[Any]) -> str:
    default = default_of(f)
    if default is MISSING:
        return "needed"
    if hasattr(default, "__dataclass_fields__"):
        return f"`{type(default).__name__}()`"
    return "" if default in (None, (), {}) else f"`{_toml(as_json(default))}`"


class Sugared(Protocol[P, S, T]):
    """A function of one thing and a record, which also takes the record's fields as arguments."""

    @overload
    def __call__(self, sites: Any, spec: S, /) -> T: ...

    @overload
    def __call__(self, sites: Any, /, *args: P.args, **kwargs: P.kwargs) -> T: ...


def sugared(
    name: str,
    kind: Callable[P, R],
    function: Callable[[Any, R], T],
    sort_out: Callable[[Sequence[Any], Mapping[str, Any]], tuple[Sequence[Any], dict[str, Any]]] | None = None,
) -> Sugared[P, R, T]:
    """Return ``function(first, record)`` as a function of that name, which takes the record or its fields.

    Its signature is the record's, and the line ``{fields}`` of its docstring becomes a list of them. It raises
    TensorAdaptError for an unknown keyword, with the closest field, and for an argument given twice or one too many.
    ``sort_out`` names arguments that are given by their places, where their values say which fields they are.
    """
    own = inspect.signature(function)
    first, *_ = own.parameters
    signature = inspect.signature(kind)

    def call(*args: Any, **given: Any) -> Any:
        if not args and first not in given:
            raise TensorAdaptError(f"{first} is missing; {name} takes it first")
        source, *rest = args or (given.pop(first),)
        if len(rest) == 1 and isinstance(rest[0], kind):  # type: ignore[arg-type]  # a class
            if given:
                raise TensorAdaptError(
                    f"{kind.__name__} and {next(iter(given))}= were given; expected one of them: "
                    f"dataclasses.replace(spec, {next(iter(given))}=...) changes a spec"
                )
            return function(source, rest[0])
        every = fields(kind)  # type: ignore[arg-type]  # a class
        needed_fields = [f.name for f in every if default_of(f) is MISSING]  # by their places
        check_keys(given, [f for f in every if f.name not in needed_fields], needed_fields)
        placed, given = sort_out(rest, given) if sort_out else (rest, given)
        try:
            signature.bind(*placed, **given)
        except TypeError as error:
            raise TensorAdaptError(
                f"{name} was given {error}; expected each argument once, by its place or by its name"
            ) from None
        return function(source, kind(*placed, **given))

    one = own.parameters[first].replace(kind=inspect.Parameter.POSITIONAL_ONLY)
    call.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[one, *signature.parameters.values()], return_annotation=own.return_annotation
    )
    call.__doc__ = _with_fields(function.__doc__, kind)
    call.__name__ = call.__qualname__ = name
    call.__module__ = function.__module__
    return call


def keywords(kind: Any, leave_out: Sequence[str] = ()) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function that takes a record's fields as ``**settings``: its signature and docstring show them."""

    def shown_by(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        apart = (*leave_out, *signature.parameters)
        more = [one for one in inspect.signature(kind).parameters.values() if one.name not in apart]
        more = [one.replace(kind=one.KEYWORD_ONLY) for one in more]
        function.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        function.__doc__ = _with_fields(function.__doc__, kind, leave_out)
        return function

    return shown_by

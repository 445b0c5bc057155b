"""What several commands take: paths, folders of runs, and an option for each field of a record."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import Group, Parameter

from tensoradapt import checks
from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.cli.output import complain
from tensoradapt.records import of_words
from tensoradapt.text import plain

F = TypeVar("F", bound=Callable[..., Any])
RUNS = Path("runs")  # where commands leave folders of runs, unless they are told another place
OF_RUNS = ("sweeps/*.json", "[!.]*/result.json", "[!.]*/error.json")  # files by which a folder of runs is known
DEFAULT_MODEL = "all-minilm-l6-v2"
ADVANCED = "Advanced"  # groups whose names begin so are in the help of --help-all alone
MORE = Group(ADVANCED, sort_key=50)
FORMER: dict[str, str] = {}  # other names of fields that are options
# what fields of pairs are in help
PAIRS = {"rank": "RANK|MODE=RANK", "split": "MODE=PARTS", "rank_pattern": "SITES=RANK", "rates": "FACTOR=RATE"}
PAIRS |= {"options": "OPTION=VALUE", "shared": "FACTOR=MODES", "frozen": "FACTOR", "map": "MAP|MAP=NUMBER"}


def _paths(kind: Any, tokens: Sequence[Any]) -> Any:
    """Return words as paths; one that the system cannot take is refused."""
    for token in tokens:
        try:
            if not token.value or b"\0" in os.fsencode(token.value):
                raise ValueError
        except ValueError:  # a character that no file name can have
            raise TensorAdaptError(f"{shown(token.value)} is no path; expected that of a file or folder") from None
    paths = [Path(token.value) for token in tokens]
    return paths[0] if kind is Path else paths


def _count(_: Any, tokens: Sequence[Any]) -> int:
    return checks.count(tokens[0].value, "budget")


def names_of(where: str) -> Callable[[Any], Iterable[str]]:
    """Return what completes a word with names: those that ``registry:names`` of the package returns."""

    def complete(_: Any) -> Iterable[str]:
        module, _, names = where.partition(":")
        return list(getattr(__import__(f"tensoradapt.{module}", fromlist=[names]), names)())

    return complete


METHODS = names_of("published.registry:names")
Words = Annotated[list[str] | None, Parameter(consume_multiple=1, negative="", show_default=False)]
Place = Annotated[Path, Parameter(converter=_paths)]
Maybe = Annotated[Path | None, Parameter(converter=_paths)]
Places = Annotated[list[Path] | None, Parameter(converter=_paths, consume_multiple=1, negative="")]
Count = Annotated[int | None, Parameter(converter=_count, metavar="N")]
Model = Annotated[str, Parameter(completer=names_of("lab.data.models:names"), metavar="NAME")]
Method = Annotated[str | None, Parameter(completer=METHODS, metavar="NAME")]
Spec = Annotated[Path | None, Parameter(converter=_paths, group=MORE, help="only the runs of this sweep")]
Json = Annotated[bool, Parameter(help="print one JSON document, and nothing else, on stdout")]


def one_of() -> Group:
    """Return a group of options of which one at most is given."""
    return Group(validator=_at_most_one)


def _at_most_one(arguments: Any) -> None:
    if len(typed := [argument.name for argument in arguments.filter_by(value_set=True)]) > 1:
        raise TensorAdaptError(f"{' and '.join(typed)} were given; expected one of them")


def takes(*rows: tuple[Any, Iterable[str], Group], several: bool = True) -> Callable[[F], F]:
    """Decorate a command with an option for each named field of records, such as ``--on-mismatch`` for ``on_mismatch``.

    ``rows``: records, fields, and the group of each in the help. ``several``: whether a field takes several values, as
    in a sweep, also where it is no list and no pairs. The function takes what was typed as ``**typed``, for
    ``table_of``.
    """
    by_name = [({f.name: f for f in fields(record)}, names, group) for record, names, group in rows]
    FORMER.update(
        {old: f.name for declared, _, _ in by_name for f in declared.values() for old in f.metadata["former"]}
    )
    return with_options({n: _option(declared[n], group, several) for declared, names, group in by_name for n in names})


def with_options(annotations: Mapping[str, Any]) -> Callable[[F], F]:
    """Decorate a command with options in the place of its ``**`` parameter, by their names."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function, eval_str=True)
        explicit = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        options = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in annotations.items()
        ]
        function.__signature__ = signature.replace(parameters=[*explicit, *options])  # type: ignore[attr-defined]
        return function

    return decorate


def _option(f: Field[Any], group: Group, several: bool) -> Any:
    listed = f.metadata["listed"]  # ``--train`` alone is an empty list
    several = several or listed or f.name in PAIRS
    kind: Any = bool if f.default is False else list[str] if several else str
    how = Parameter(
        help=f.metadata["help"],
        group=group,
        negative="",
        consume_multiple=(0 if listed else 1, None) if several else None,
        show_default=False,
        metavar=PAIRS.get(f.name, f.name.rpartition("_")[2].upper()),
        completer=METHODS if f.name == "method" else None,
    )
    return Annotated[kind | None, how]


def table_of(record: Any, typed: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a record that a command line gave, as the table that ``records.read`` takes."""
    asked = {f: typed[f.name] for f in fields(record) if typed.get(f.name) is not None}
    words = {f: [v] if isinstance(v, str) else v for f, v in asked.items()}
    return {f.name: v if isinstance(v, bool) else of_words(v, f.metadata["listed"]) for f, v in words.items()}


def runs_folder(named: Path | None) -> Path:
    """Return the folder of runs that was named, or else the newest one, and say on stderr which that is.

    Raises TensorAdaptError where there is none.
    """
    if named is not None:
        return named
    if (newest := newest_runs()) is None:
        raise TensorAdaptError(
            f"no folder of runs was named, and there is none in ./{RUNS}; expected one: name it, or make one with "
            "tensoradapt frontier"
        )
    complain(f"reading {plain(str(newest))}, the newest folder of runs in ./{RUNS}")
    return newest


def newest_runs() -> Path | None:
    """Return the folder of runs in ./runs that was last written to, which may be ./runs itself; None without one."""
    try:
        folders = [folder for folder in (RUNS, *RUNS.glob("[!.]*")) if any(any(folder.glob(kind)) for kind in OF_RUNS)]
        return max(folders, key=lambda folder: folder.stat().st_mtime_ns, default=None)
    except OSError:  # a folder that cannot be read, or is gone meanwhile
        return None

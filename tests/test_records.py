"""Records: declared once, and read back as they were written, whatever they are written as."""

from __future__ import annotations

import json
import tomllib
from dataclasses import MISSING, dataclass, field, fields
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from support.written_records import from_words, to_toml, to_words

import tensoradapt as ta
from tensoradapt import checks, doors, published
from tensoradapt.networks.modes import RUNTIME
from tensoradapt.planning.resolve import resolve_known
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.published.registry import names as methods
from tensoradapt.records import (
    as_json,
    changed,
    check_fields,
    needed,
    of_words,
    read,
    sugared,
    value,
    values_of,
)


@dataclass(frozen=True)
class Trip:
    """A record of four kinds of fields."""

    to: str = field(metadata=needed(checks.text, "where it goes", former=("goal",)))
    days: int = value(checks.whole, "how many days", 3)
    stops: tuple[str, ...] | None = value(checks.strings, "where to stop", listed=True)
    paid: bool = value(checks.flag, "whether it is paid, 100 %", False)
    fares: dict[str, float] | None = value(partial(checks.of_each, checks.number), "fares by class")

    __post_init__ = check_fields


def booked(who: str, trip: Trip) -> tuple[str, Trip]:
    """Book a trip.

    Args:
        who: who goes.
        {fields}
    """
    return who, trip


book = sugared("book", Trip, booked)
FIELD = {f.name: f for f in fields(Trip)}


def test_a_record_puts_its_fields_into_their_normal_form() -> None:
    assert Trip("Rome", 4.0, "Pisa", fares={"first": 9}) == Trip("Rome", 4, ("Pisa",), False, {"first": 9.0})  # type: ignore[arg-type]
    assert changed(Trip("Rome", stops=("Pisa",), days=3)) == {"to": "Rome", "stops": ("Pisa",)}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"to": "Rome", "dais": 2}, 'trips[1]: unknown key dais; did you mean "days"? Valid: to, days'),
        ({"goal": "Rome"}, "trips[1]: unknown key goal; it is called to"),
        ({"days": 2}, "trips[1]: to is missing; expected where it goes"),
        ({"to": "Rome", "days": "2"}, "trips[1]: days is '2'; expected a whole number from 1"),
        ([1], "trips[1]: found [1]; expected a table of settings"),
    ],
)
def test_a_table_that_is_no_record_is_answered_with_its_place_and_what_is_expected(table: Any, says: str) -> None:
    for where, message in (("trips[1]", says), ("", says.removeprefix("trips[1]: "))):
        with pytest.raises(ta.TensorAdaptError) as error:
            read(Trip, table, where)
        assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("name", "given_value", "several"),
    [
        ("days", 2, [2]),
        ("days", [2, 3], [2, 3]),
        ("days", (2, 3), [2, 3]),
        ("stops", "Pisa", ["Pisa"]),
        ("stops", ["Pisa", "Bari"], [["Pisa", "Bari"]]),
        ("stops", [["Pisa"], ["Bari"]], [["Pisa"], ["Bari"]]),
        ("stops", [["Pisa"], "Bari"], [["Pisa"], "Bari"]),
        ("fares", {"first": 1}, [{"first": 1}]),
        ("fares", [{"first": 1}, {"first": 2}], [{"first": 1}, {"first": 2}]),
    ],
)
def test_a_list_is_several_values_and_of_a_field_of_lists_a_list_of_lists(
    name: str, given_value: Any, several: list[Any]
) -> None:
    assert values_of(FIELD[name], given_value) == several


def test_a_function_takes_a_record_or_its_fields() -> None:
    made = ("Ann", Trip("Rome", 2))
    assert book("Ann", Trip("Rome", 2)) == book("Ann", "Rome", 2) == book(who="Ann", to="Rome", days=2) == made
    assert "days: how many days." in (book.__doc__ or "") and book.__name__ == "book"
    for args, named, says in (
        (("Ann", "Rome", 2), {"days": 3}, "book was given multiple values for argument 'days'"),
        (("Ann",), {"days": 3}, "book was given missing a required argument: 'to'"),
        (("Ann", Trip("Rome")), {"days": 3}, "Trip and days= were given"),
        (("Ann",), {"too": "Rome"}, 'unknown key too; did you mean "to"\\? Valid: days, stops, paid, fares, to$'),
    ):
        with pytest.raises(ta.TensorAdaptError, match=says):
            book(*args, **named)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["8"], 8),
        (["0.5"], 0.5),
        (["1", "8"], [1, 8]),
        (["q"], "q"),
        (['"8"'], "8"),
        (["null"], None),
        (["true"], True),
        (["layer=2", "out=x"], {"layer": 2, "out": "x"}),
        (["*.layers.0.*=2"], {"*.layers.0.*": 2}),
        (['{"a": [1]}'], {"a": [1]}),
        (["'a=b", "c"], ["'a=b", "c"]),
        (['"a=b"'], "a=b"),
        (["[" * 9_999], "[" * 9_999),
    ],
)
def test_words_of_a_command_line_are_read_as_json_pairs_or_texts(words: list[str], meant: Any) -> None:
    assert of_words(words) == meant


# the law: what is written is read as it was

TEXTS = st.text(min_size=1, max_size=6).filter(lambda text: text.isprintable() and text.strip())
KEYS = TEXTS | st.sampled_from(("A", "*.layers.0.*", "[qk]_proj", "384", "-x", "a b", "a=b"))
WORDS = TEXTS | st.sampled_from(
    ("8", "true", "null", "-x", "--rank", "a=b", '"q"', "[1]", "{}", "1e3", "\N{SNAIL}\x20x")
)
POSITIVE = st.floats(1e-6, 1e6)
RANKS = st.integers(1, 2**31 - 1)
MAPS = doors.names("maps")
EACH_RANK = RANKS | st.dictionaries(KEYS, RANKS, min_size=1, max_size=3)
LAYOUTS = st.sampled_from((": out : in", "layer proj : head dim : model", "(layer proj) : out* : in*"))
PARTS = st.lists(RANKS, min_size=1, max_size=3)
NAMES = st.lists(WORDS, max_size=3, unique=True)
SIMPLE = st.booleans() | st.integers(-9, 2**40) | st.floats(allow_nan=False) | WORDS
VALUES = st.recursive(
    SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
FIELDS: dict[str, Any] = {
    "method": st.sampled_from(methods()) | WORDS,
    "layout": st.lists(LAYOUTS | st.tuples(LAYOUTS, st.lists(WORDS, min_size=1, max_size=2)), min_size=1, max_size=3),
    "rank": EACH_RANK,
    "paper": st.booleans(),
    "budget": RANKS,
    "projections": st.lists(WORDS, max_size=3),
    "scale": st.sampled_from(("matched", "paper")) | POSITIVE | st.integers(1, 9),
    "alpha": POSITIVE,
    "start": st.sampled_from(("zero", "subtract", "paper")),  # gradient needs batches, which no file holds
    "start_rate": POSITIVE,
    "rule": st.sampled_from(("add", "dora", "hira")),
    "options": st.dictionaries(KEYS, VALUES, max_size=3),
    "split": st.dictionaries(
        st.sampled_from(("out", "in")), PARTS | st.dictionaries(RANKS, PARTS, max_size=2), max_size=2
    ),
    "on_mismatch": st.sampled_from(("split", "crop", "error")),
    "rates": st.dictionaries(KEYS, POSITIVE, max_size=3),
    "frozen": st.lists(WORDS, max_size=3)
    | st.dictionaries(
        st.sampled_from(("A", "core", "layer_proj")),  # names of factors
        st.sampled_from(("drawn", "ones", "identity", "shift")),
        min_size=1,
    ),
    "shared": st.dictionaries(KEYS, st.lists(WORDS, min_size=1, max_size=2), max_size=3),
    "map": st.dictionaries(st.sampled_from(MAPS), RANKS, min_size=1, max_size=1) | st.sampled_from(MAPS)
    if MAPS
    else st.none(),
    "rank_pattern": st.dictionaries(KEYS, EACH_RANK, max_size=3),
    "train": st.lists(WORDS, max_size=3),
    "tasks": NAMES | st.dictionaries(st.sampled_from(RUNTIME), NAMES, max_size=3),
    "dropout": st.floats(0, 0.99),
    "rank_dropout": st.floats(0, 0.99),
}


@st.composite
def specs(draw: Any) -> AdapterSpec:
    """Any record whose fields go together."""
    drawn = {name: draw(FIELDS[name]) for name in draw(st.sets(st.sampled_from([*FIELDS])))}
    if drawn.keys() & {"rank", "budget"} == {"rank", "budget"} or "rank" not in drawn:
        drawn.pop("rank_pattern" if "rank" not in drawn else "budget", None)
    if not isinstance(drawn.get("scale", ""), str):
        drawn.pop("alpha", None)
    if drawn.get("rule") == "dora":
        drawn.pop("tasks", None)
    return AdapterSpec(**drawn)


PAPERS = [AdapterSpec(row.name, rank=2, paper=True, options=row.options, split=row.split) for row in published.every()]


def through_json(spec: AdapterSpec) -> AdapterSpec:
    return read(AdapterSpec, json.loads(json.dumps(as_json(spec))))


def through_toml(spec: AdapterSpec) -> AdapterSpec:
    return read(AdapterSpec, tomllib.loads(to_toml(spec).encode().decode()))


def through_words(spec: AdapterSpec) -> AdapterSpec:
    return read(AdapterSpec, from_words(AdapterSpec, to_words(spec)))


@pytest.mark.parametrize("through", [through_json, through_toml, through_words])
@given(spec=specs())
@example(spec=AdapterSpec("cp", train=(), options={}, split={}, projections=()))
@example(spec=AdapterSpec("cp", rank=2, rank_pattern={"*.layers.0.*": 2, "[qk]*": {"layer": 1}}, tasks=("8", "-x")))
@example(spec=AdapterSpec("cp", (": out : in", ("layer : out : in", ("q",))), {"layer": 2}, options={"only": ("out",)}))
@example(spec=AdapterSpec("-cp", options={"a": "\N{SNAIL}\x7f", "b": float("inf"), "384": {"8": 1}}))
def test_a_spec_that_was_written_is_read_as_it_was(through: Any, spec: AdapterSpec) -> None:
    assert through(spec) == spec


@pytest.mark.parametrize("through", [through_json, through_toml, through_words])
def test_the_settings_of_every_paper_are_read_as_they_were_written(through: Any) -> None:
    for spec in PAPERS:
        assert through(spec) == spec


@settings(max_examples=30)
@given(spec=specs())
def test_a_config_of_peft_that_was_saved_is_the_spec_that_it_was(spec: AdapterSpec) -> None:
    config_of = pytest.importorskip("tensoradapt.integrations.peft.config")
    resolved = resolve_known(spec)
    assume(
        resolved is None or not resolved.begins.needs_batches
    )  # such a method is refused, as no config holds batches
    own = config_of.PEFTS_OWN
    told = {f.name: getattr(spec, f.name) for f in fields(AdapterSpec) if f.name not in own}
    config = config_of.TensorConfig(**told)
    with TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        again = config_of.TensorConfig.from_pretrained(folder)
        assert json.loads((Path(folder) / "adapter_config.json").read_text())["peft_type"] == "TENSORADAPT"
    expected = {"method": "cp", "rank": None if spec.budget is not None else 8}
    assert again.spec() == config.spec()
    for name, given_value in told.items():
        filled = expected.get(name) if given_value is None else given_value
        assert getattr(again.spec(), name) == filled


def test_every_field_has_a_default_a_check_and_a_help_in_one_line() -> None:
    for f in fields(AdapterSpec):
        assert f.default is not MISSING and callable(f.metadata["check"])
        assert f.metadata["help"] and "\n" not in f.metadata["help"] and not f.metadata["help"].endswith(".")
        f.metadata["check"](f.default, f.name)

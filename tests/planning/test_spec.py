"""AdapterSpec: what its fields take and refuse, what a method fills in, and that ``plan`` is sugar over it."""

from __future__ import annotations

import dataclasses
import math
import re
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tensoradapt as ta
from tensoradapt import doors, parameterizations, published
from tensoradapt.planning.resolve import resolve
from tensoradapt.planning.size import Size
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.records import names

MODEL = SimpleNamespace(
    model_type="bert", hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
)
FREE, TIED = ": out : in", "layer proj : head dim : model"
CP = parameterizations.get("cp")
NESTED: list[Any] = []
NESTED.append(NESTED)

REFUSED: dict[str, list[tuple[Any, str]]] = {
    "method": [("", "method is ''; expected a text"), ("a\nb", "without line breaks")],
    "layout": [
        (3, "layout is 3; expected a text such as ': out : in', or a list of texts"),
        ([], r"layout is \[\]; expected a text"),
        ([FREE, 3], "layout has 3; expected a text"),
        ([(FREE, [1])], r"projections of layout ': out : in' is \[1\]; expected a text, or a list of texts"),
    ],
    "rank": [
        (0, "rank is 0; expected a whole number of 1 or more"),
        (True, "rank is True; expected a whole number"),
        ({"layer": 0}, "rank of 'layer' is 0"),
        ({1: 2}, "rank has the key 1; expected names of modes or bonds"),
        ({"layer": {"proj": 2}}, r"rank of 'layer' is \{'proj': 2\}; expected a whole number"),
        ({}, "rank is an empty mapping"),
        (2**40, "expected a whole number up to"),
    ],
    "paper": [("yes", "paper is 'yes'; expected true or false"), (None, "paper is None; expected true or false")],
    "budget": [
        (0, "budget is 0; expected a whole number from 1"),
        (1.5, "budget is 1.5; expected a whole number"),
        ("1.5", "budget is 1.5; expected a whole number"),
        ("0.0005k", "budget is '0.0005k'; expected a number of parameters, such as 18600 or \"18.6k\", and no share"),
        ("3M k", "budget is '3M k'; expected a whole number, such as 18600 or \"18.6k\""),
        ("3000M", "expected a whole number from 1 up to 2"),
    ],
    "projections": [(3, "projections is 3; expected a text, or a list of texts")],
    "scale": [
        ("papr", "scale is 'papr'; did you mean \"paper\".*, or a number"),
        (0, "scale is 0; expected a finite number above 0"),
        (float("inf"), "scale is inf; expected a finite number"),
    ],
    "alpha": [
        (-1, "alpha is -1; expected a finite number above 0"),
        ("8", "alpha is '8'; expected a finite number"),
        (Decimal("0.5"), r"alpha is Decimal\('0.5'\); .* above 0 as an int or a float, not a Decimal"),
        (np.array(0.5), r"alpha is array\(0.5\); .* above 0 as an int or a float, not a ndarray"),
    ],
    "start": [("zeros", "start is 'zeros'; did you mean \"zero\"")],
    "start_rate": [(0, "start_rate is 0; expected a finite number above 0")],
    "rule": [("dorra", "rule is 'dorra'; did you mean \"dora\""), (None, "rule is None")],
    "options": [
        ([1], r"options is \[1\]; expected a mapping with texts as keys"),
        ({"cores": NESTED}, "options has tables or lists that are nested more than 20 deep"),
    ],
    "split": [(NESTED, "split has tables or lists that are nested more than 20 deep")],
    "frozen": [
        (3, "frozen is 3; expected a text, or a list of texts"),
        ({"A": "zeros"}, "frozen of 'A' is 'zeros'. Valid: drawn, ones, identity, shift"),
        ({1: "ones"}, "frozen is .1: 'ones'.; expected a mapping with texts as keys"),
    ],
    "map": [
        *[({"nola": 0}, "map of 'nola' is 0; expected a whole number from 1")][: len(doors.names("maps"))],
        ("lora", "map is 'lora'"),
        ({}, "map names 0 kinds; expected one and its size"),
    ],
    "shared": [
        ("A", "shared is 'A'; expected a mapping with texts as keys"),
        ({"A": 3}, "shared of 'A' is 3; expected a text, or a list of texts"),
    ],
    "on_mismatch": [("crops", "on_mismatch is 'crops'; did you mean \"crop\"")],
    "rates": [(3, "rates is 3; expected a mapping"), ({"B": 0}, "rate of 'B' is 0; expected a finite number above 0")],
    "rank_pattern": [
        (["*"], r"rank_pattern is \['\*'\]; expected a mapping of site name patterns to ranks"),
        ({"*": 0}, r"rank_pattern of '\*' is 0; expected a whole number"),
    ],
    "train": [(3, "train is 3; expected names or patterns of base modules"), ([""], "expected names or patterns")],
    "tasks": [(3, "tasks=3; expected a sequence"), (("a", ""), "tasks=.*; expected a sequence of distinct, printable")],
    "dropout": [(1, "dropout is 1; expected a number from 0 up to, not including, 1"), ("0.1", "dropout is '0.1'")],
    "rank_dropout": [(-0.1, "rank_dropout is -0.1; expected a number from 0"), (True, "rank_dropout is True")],
}


@pytest.mark.parametrize("field", names(AdapterSpec))
def test_every_field_refuses_what_no_model_makes_right(field: str) -> None:
    for value, says in REFUSED[field]:
        size = {} if field in ("rank", "budget") else {"rank": 2}
        with pytest.raises(ta.TensorAdaptError, match=says):
            ta.plan(MODEL, **{"method": "cp", **size, field: value})


@pytest.mark.parametrize(
    ("field", "given", "normal"),
    [
        ("layout", FREE, (FREE,)),
        ("layout", [[FREE, ["q"]], {"layout": TIED, "projections": "k"}], ((FREE, ("q",)), (TIED, ("k",)))),
        ("rank", np.int64(3), 3),
        ("rank", {"layer": np.int32(3)}, {"layer": 3}),
        ("budget", np.int64(300), 300),
        ("budget", 300.0, 300),
        ("projections", "q", ("q",)),
        ("projections", {"v", "q"}, ("q", "v")),
        ("scale", np.float32(0.5), 0.5),
        ("scale", 2, 2),
        ("alpha", 2, 2.0),
        ("options", {"only": ["out"], "cores": {"384": [4, 6]}}, {"only": ("out",), "cores": {384: (4, 6)}}),
        ("split", {"out": {"24": [4, 6]}, "in": [4, 6]}, {"out": {24: (4, 6)}, "in": (4, 6)}),
        ("rates", {"A": 2}, {"A": 2.0}),
        ("train", "classifier", ("classifier",)),
        ("tasks", ["a"], ("a",)),
        ("tasks", {"task": ["a"], "env": ()}, ("a",)),
        ("tasks", {"env": ["a"], "task": ["b"]}, {"task": ("b",), "env": ("a",)}),
        ("dropout", 0, 0.0),
        ("rank", 8.0, 8),
    ],
)
def test_a_field_has_one_form_however_it_is_given(field: str, given: Any, normal: Any) -> None:
    found = getattr(AdapterSpec(**{field: given}), field)
    assert found == normal
    assert type(found) is type(normal)
    assert getattr(AdapterSpec(**{field: found}), field) == normal


def test_of_two_texts_the_one_with_colons_is_the_layout() -> None:
    assert AdapterSpec(TIED, "cp", 2) == AdapterSpec("cp", TIED, 2) == AdapterSpec("cp", layout=TIED, rank=2)
    assert AdapterSpec([FREE, TIED], "cp") == AdapterSpec("cp", [FREE, TIED])
    assert AdapterSpec(FREE, CP) == AdapterSpec(CP, FREE)
    assert (AdapterSpec(TIED).method, AdapterSpec(TIED).layout) == (None, (TIED,))
    assert AdapterSpec("cp").method == "cp"
    with pytest.raises(ta.TensorAdaptError, match="unknown method ': out : in'"):
        ta.plan(MODEL, ": a : b", FREE, 2)
    with pytest.raises(ta.TensorAdaptError, match="layout 'tucker' has 0 colons"):
        ta.plan(MODEL, "cp", "tucker", 2)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rank": 2, "budget": 300}, "rank=2 and budget=300 were given; expected exactly one of them"),
        ({"scale": 2.0, "alpha": 8}, "both scale=2.0 and alpha=8.0 were given; a number as scale is the whole"),
        ({"rule": "dora", "tasks": ("a",)}, "rule='dora' and tasks=.* a row has one length"),
        ({"rank_pattern": {"*": 2}}, "rank_pattern was given with no rank; expected rank="),
        ({"rank_pattern": {"*": 2}, "budget": 30}, "rank_pattern was given with budget=30; expected rank="),
    ],
)
def test_fields_that_exclude_each_other_are_refused_before_there_is_a_model(fields: Any, says: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=says):
        AdapterSpec("cp", **fields)


def test_an_unknown_keyword_is_answered_with_the_closest_field_and_a_former_one_with_its_present_name() -> None:
    with pytest.raises(ta.TensorAdaptError, match=r'unknown key rnak; did you mean "rank"\? Valid: method, layout'):
        ta.plan(MODEL, "cp", rnak=2)
    former = {
        old: (f.name, f.metadata["former"]) for f in dataclasses.fields(AdapterSpec) for old in f.metadata["former"]
    }
    assert {"published", "parameterization", "layouts", "ranks", "target_modules", "use_dora"} <= set(former)
    assert not set(former) & set(names(AdapterSpec))
    for old, (new, every) in former.items():
        says = every[old] if isinstance(every, dict) else f"it is called {new}"
        with pytest.raises(ta.TensorAdaptError, match=f"^unknown key {old}; {re.escape(says)}$"):
            ta.plan(MODEL, **{old: "cp"})


@pytest.mark.parametrize(
    ("given", "named", "says"),
    [
        (("tucker",), {"method": "cp"}, "plan was given multiple values for argument 'method'; expected each argument"),
        (("cp", FREE, 2, True), {}, "plan was given multiple values for argument 'layout'"),
        ((AdapterSpec("cp"),), {"rank": 2}, r"AdapterSpec and rank= were given.*dataclasses.replace\(spec, rank=...\)"),
        ((), {}, "no method was given; expected a parameterization or a published adapter, as in method='cp'"),
    ],
)
def test_arguments_that_are_given_twice_or_not_at_all(given: Any, named: Any, says: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=says):
        ta.plan(MODEL, *given, **named)
    with pytest.raises(ta.TensorAdaptError, match="sites is missing; plan takes it first"):
        ta.plan(**named)


@pytest.mark.parametrize(
    ("row", "argument", "text", "short"),
    [
        ({"rank": 8.0, "budget": math.nan}, {"rank": 8}, "r=8", "r=8"),
        ({"rank": math.nan, "budget": 5000.0}, {"budget": 5000}, "n≤5,000", "≤ 5k"),
        ({"rank": "layer=2 out=4", "budget": None}, {"rank": {"layer": 2, "out": 4}}, "r=2 4", "r≤4"),
        ({"rank": None, "budget": pd.NA}, {}, "", ""),
    ],
)
def test_a_size_of_a_row_is_the_argument_that_made_it(row: Any, argument: Any, text: str, short: str) -> None:
    size = Size.of(row)
    assert (size.asked, size.text, size.short, bool(size)) == (argument, text, short, bool(argument))
    assert Size.of(AdapterSpec("tucker", **argument)) == Size(**argument) == size


def test_a_size_is_not_of_both_kinds() -> None:
    with pytest.raises(ta.TensorAdaptError, match="rank=8 and budget=5000 were given; expected exactly one of them"):
        Size(8, 5000)


# what a method fills in

SETTINGS = ("projections", "scale", "alpha", "on_mismatch", "train")  # everybody's, unless a paper's are asked for


@pytest.mark.parametrize("name", published.names())
def test_a_published_adapter_keeps_what_defines_it_and_has_everybodys_settings(name: str) -> None:
    row = published.get(name)
    resolved = resolve(AdapterSpec(name, rank=2))
    equal, found, builder = resolved.spec, resolved.row, resolved.builder
    plain = resolve(AdapterSpec("cp", rank=2)).spec
    assert {field: getattr(equal, field) for field in SETTINGS} == {field: getattr(plain, field) for field in SETTINGS}
    if parameterizations.name_of(name) in parameterizations.names():  # the parameterization of that name
        assert (found, builder.clip, equal.start) == (None, True, "zero")
        return
    assert (found, builder.clip, equal.start) == (row, False, row.start)
    assert resolved.layouts == row.layout
    assert dict(equal.options) == dict(row.options)
    changed = builder.parameterization
    assert (changed.zero, changed.base, changed.rates) == (row.zero, row.base, dict(row.rates))


@pytest.mark.parametrize("name", published.names())
def test_with_paper_true_everything_is_as_the_paper_sets_it(name: str) -> None:
    row = published.get(name)
    resolved = resolve(AdapterSpec(name, rank=2, paper=True))
    spec, found, builder = resolved.spec, resolved.row, resolved.builder
    assert (found, builder.clip, spec.on_mismatch) == (row, False, "error")
    assert (spec.projections, spec.scale, spec.start) == (row.projections, row.scale, row.start)
    assert (spec.alpha, spec.train) == (row.alpha, ("auto", *row.train))


def test_methods_on_equal_footing_have_the_same_targets_and_scale() -> None:
    plans = [ta.plan(MODEL, name, rank=2) for name in ("cp", "lorta", "rslora", "lotr", "metatt-4d")]
    assert len({plan.sites for plan in plans}) == 1
    assert {(plan.scale, plan.start, plan.spec.alpha, plan.paper) for plan in plans} == {
        ("matched", "zero", None, None)
    }
    paper = ta.plan(MODEL, "rslora", rank=2, paper=True)
    assert {site.coord["proj"] for site in paper.sites} == {"q", "v"}
    assert (paper.scale, paper.spec.alpha, paper.paper, paper.parameterization) == ("paper", 16, "rslora", "lora")


def test_a_plan_says_which_method_it_is_the_same_as_and_only_where_it_is() -> None:
    says = "with these settings the same as lora; paper=True takes the settings of its paper"
    assert says in str(ta.plan(MODEL, "rslora", rank=2))
    for fields in ({"paper": True}, {"scale": "paper"}):
        assert "the same as" not in str(ta.plan(MODEL, "rslora", rank=2, **fields))
    for name in ("lora", "lora+", "lotr", "cp"):
        assert "the same as" not in str(ta.plan(MODEL, name, rank=2))

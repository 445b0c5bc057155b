"""Layouts and patterns say in text exactly what they are."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tensoradapt.networks.layout import Layout, Pattern
from tensoradapt.testing import layouts, patterns


@given(layouts())
def test_a_layout_is_its_text_and_sizes(layout: Layout) -> None:
    again = Layout.parse(str(layout), layout.sizes)
    assert again == layout
    assert hash(again) == hash(layout)


@given(patterns())
def test_a_pattern_is_its_text(pattern: Pattern) -> None:
    assert Pattern.parse(str(pattern)) == pattern


@given(patterns(), st.data())
def test_spaces_around_colons_and_names_mean_nothing(pattern: Pattern, data: st.DataObject) -> None:
    gaps = st.sampled_from(["", " ", "  "])
    text = data.draw(gaps) + ":".join(data.draw(gaps) + part + data.draw(gaps) for part in str(pattern).split(":"))
    assert Pattern.parse(text) == pattern


@given(layouts())
def test_rows_and_columns_are_the_products_of_their_modes(layout: Layout) -> None:
    positions = math.prod(mode.size for mode in layout.index)
    assert positions * layout.out * layout.in_ == math.prod(layout.shape)
    assert layout.size_of == dict(zip(layout.names, layout.shape, strict=True))


def test_a_merged_mode_has_the_product_of_its_parts_unless_its_own_size_is_given() -> None:
    sizes = {"layer": 3, "proj": 4, "out": 5, "in": 7}
    assert Layout.parse("(layer proj) : out : in", sizes).shape == (12, 5, 7)
    assert Layout.parse("(layer proj) : out : in", {**sizes, "layer proj": 11}).shape == (11, 5, 7)


def test_only_the_column_name_decides_the_orientation() -> None:
    for rows in ("head dim", "(head dim)", "ff", "out1 out2"):
        assert Pattern.parse(f"layer : {rows} : model").orientation == "model"
        assert Pattern.parse(f"layer : {rows} : model1 model2").orientation == "model"
        assert Pattern.parse(f"layer : {rows} : in").orientation == "in"

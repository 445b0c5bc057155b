"""Colour and marker of a method follow its name alone, and no two methods of a figure look alike."""

from __future__ import annotations

import itertools
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from support.panels import axes
from support.synthetic_sweep import LEVELS, sweep

from tensoradapt import parameterizations, published
from tensoradapt.analysis.figures import styles
from tensoradapt.analysis.figures.catalogue import figures
from tensoradapt.analysis.figures.plots import frontier
from tensoradapt.analysis.figures.styles import Style, styles_of
from tensoradapt.runs.store import HEAD_LABEL

SIXTEEN = (
    *("lora", "lorta", "lotr", "metatt-4d", "metatt-5d", "fact-tt", "fact-tk", "cara", "vera", "tt-lora"),
    *("loretta-rep", "lokr", "loha", "lora-xs", "tenslora-att", "aurora"),
)
LABELS = [getattr(parameterizations.get(name), "label", name) for name in parameterizations.names()]
names = st.text("abcXY -:_()+0123", max_size=12)


def alike(one: Style, other: Style) -> bool:
    """Whether two methods are told apart by neither their markers nor their lines."""
    same = one.colour == other.colour
    return same and (one.marker == other.marker or (one.line, one.fill) == (other.line, other.fill))


def test_every_published_row_and_parameterization_has_a_place_of_its_own() -> None:
    places = styles_of(published.names())
    assert not [pair for pair in itertools.combinations(places.values(), 2) if alike(*pair)]
    for name in (*published.names(), *LABELS):
        assert styles._key(name) in styles._known(), f"{name} has no place in styles.PLACES"


@given(st.lists(st.one_of(names, st.sampled_from(SIXTEEN)), max_size=20), st.randoms(use_true_random=False))
def test_no_two_methods_of_a_figure_are_alike_in_any_order(labels: list[str], random: object) -> None:
    found = styles_of(labels)
    assert list(found) == sorted(set(labels))
    assert not [pair for pair in itertools.combinations(found.values(), 2) if alike(*pair)]
    random.shuffle(labels)  # type: ignore[attr-defined]
    assert styles_of(labels) == found


@given(st.lists(st.sampled_from(published.names()), min_size=1, max_size=8))
def test_a_known_method_looks_the_same_whatever_else_is_in_the_figure(labels: list[str]) -> None:
    found = styles_of([*labels, "mine", "some other"])
    assert all(found[label] == styles_of([label])[label] for label in labels)


@given(names)
def test_an_unknown_name_has_a_style_that_follows_from_it(name: str) -> None:
    (alone,) = styles_of([name]).values()
    beside = styles_of([name, *SIXTEEN])[name]
    assert beside == alone or any(style == alone for style in styles_of(SIXTEEN).values())
    assert beside.colour == alone.colour


def test_a_name_that_would_look_like_a_known_method_gives_way() -> None:
    known = styles_of(["lora-xs"])["lora-xs"]
    name = next(name for name in (f"a{i}" for i in itertools.count()) if styles_of([name])[name] == known)
    found = styles_of([name, "lora-xs"])
    assert found["lora-xs"] == known and found[name].colour == known.colour and not alike(*found.values())


def test_an_unknown_name_looks_the_same_in_every_process() -> None:
    """Unlike what follows from Python's own hash of a text."""
    assert styles_of(["my method"])["my method"] == Style("#56B4E9", "p", "-", "bottom")


def test_names_of_one_method_look_the_same() -> None:
    for group in (
        ("CP", "cp", "CP (LoRTA)", "lorta"),
        ("LoRA", "lora"),
        ("tensor-train", "tensor_train", "Tensor-train"),
    ):
        assert len({styles_of([name])[name] for name in group}) == 1
    over = [f"CP over layer proj : {rest}" for rest in ("out : in", "head dim : model")]
    assert {style.colour for style in styles_of(over).values()} == {styles_of(["CP"])["CP"].colour}


def test_eight_common_methods_differ_in_colour_and_sixteen_in_line_and_fill_too() -> None:
    eight = styles_of(["CP", "LoRA", "Tucker", "tensor-train", "VeRA", "LoTR", "MetaTT", HEAD_LABEL])
    assert len({style.colour for style in eight.values()}) == len({style.marker for style in eight.values()}) == 8
    assert {(style.line, style.fill) for style in eight.values()} == {("-", "full")}
    many = styles_of(SIXTEEN)
    assert len({str(style.line) for style in many.values()}) > 2 and len({style.fill for style in many.values()}) == 2


def in_legend(ax: Axes) -> dict[str, tuple[str, str, str]]:
    legend = ax.get_legend()
    assert legend is not None
    handles = zip(legend.get_texts(), legend.get_lines(), strict=True)
    return {text.get_text(): (str(h.get_color()), str(h.get_marker()), str(h.get_linestyle())) for text, h in handles}


def test_a_method_looks_the_same_in_every_figure_of_a_sweep(tmp_path: Path) -> None:
    runs = sweep(tmp_path, ("sst2",))
    drawn = [in_legend(one.draw("").axes[0]) for one in figures(runs, kinds=["frontier", "rates"])]
    alone = in_legend(frontier([run for run in runs if run.config["label"] == "vera"], axes()))
    for name in LEVELS:
        assert len({legend[name] for legend in (*drawn, alone) if name in legend}) == 1
    assert len(drawn) == 2

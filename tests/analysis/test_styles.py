"""Names, colours and markers of methods: one table, and no two methods of a figure look alike."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from support.panels import axes
from support.synthetic_sweep import LEVELS, sweep

from tensoradapt import parameterizations, published
from tensoradapt.analysis import names as table
from tensoradapt.analysis.figures import styles
from tensoradapt.analysis.figures.catalogue import figures
from tensoradapt.analysis.figures.plots import frontier
from tensoradapt.analysis.figures.styles import Style, styles_of
from tensoradapt.analysis.names import COLOURS, REFERENCES, display, displayed
from tensoradapt.analysis.old_tables import comparable
from tensoradapt.errors import TensorAdaptError
from tensoradapt.sweeps.frontier import PRESETS, preset

SIXTEEN = (
    *("lora", "lorta", "lotr", "metatt-4d", "metatt-5d", "fact-tt", "fact-tk", "cara", "vera", "tt-lora"),
    *("loretta-rep", "lokr", "loha", "lora-xs", "tenslora-att", "aurora"),
)
LABELS = [getattr(parameterizations.get(name), "label", name) for name in parameterizations.names()]
KNOWN = sorted({*published.names(), *parameterizations.names(), *LABELS, *REFERENCES, "dora"})
names = st.text("abcXY -:_()+0123", max_size=12)


def alike(one: Style, other: Style) -> bool:
    """Whether two methods are told apart by neither their markers nor their lines."""
    same = one.colour == other.colour
    return same and (one.marker == other.marker or (one.line, one.fill) == (other.line, other.fill))


def no_two_alike(found: dict[str, Style]) -> bool:
    return not any(alike(*pair) for pair in itertools.combinations(found.values(), 2))


def test_every_published_row_and_parameterization_is_in_the_table() -> None:
    lacking = [name for name in KNOWN if table.known(name) is None]
    assert not lacking, f"names.TABLE has no entry for {lacking}"
    assert tuple(comparable.REFERENCES.values()) == REFERENCES
    assert no_two_alike(styles_of(published.names())) and no_two_alike(styles_of(parameterizations.names()))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("lotr", "LoTR"),
        ("lorta", "LoRTA"),
        ("cp", "CP"),
        ("CP (LoRTA)", "CP (LoRTA)"),
        ("tensor_train", "Tensor-train"),
        ("tensor train", "Tensor-train"),
        ("TENSOR-TRAIN", "Tensor-train"),
        ("metatt-4d", "MetaTT-4D"),
        ("fact-tk", "FacT-TK"),
        ("lora_xs", "LoRA-XS"),
        ("rslora", "rsLoRA"),
        ("lora+", "LoRA+"),
        ("tenslora-cp-att_qkv", "TensLoRA-CP-att_qkv"),
        (REFERENCES[0], "frozen base + head"),
        ("Full fine-tuning", "full fine-tuning"),
        ("cp over layer proj : out : in", "CP over layer proj : out : in"),
        ("tensor_train over (layer proj) : out : in", "Tensor-train over (layer proj) : out : in"),
        ("lorta, paper's scale", "LoRTA, paper's scale"),
        ("lora r=8", "LoRA r=8"),
        ("My $own$ method", "My $own$ method"),
        (" two  spaces", " two  spaces"),
        ("", ""),
    ],
)
def test_a_method_is_shown_by_the_name_of_its_paper_and_one_of_ones_own_keeps_its_letters(
    name: str, shown: str
) -> None:
    assert display(name) == shown


@given(st.one_of(names, st.text(max_size=8), st.sampled_from(KNOWN)))
def test_a_name_that_is_shown_is_shown_as_it_is(name: str) -> None:
    assert display(display(name)) == display(name)


@given(st.sampled_from(KNOWN), st.randoms(use_true_random=False))
def test_case_spaces_hyphens_and_underscores_do_not_count(name: str, random: Any) -> None:
    spelled = re.sub(r"[ _-]", lambda _: random.choice(["", " ", "-", "_"]), name)
    assert display(random.choice([spelled, spelled.upper(), spelled.lower()])) == display(name)


@pytest.mark.parametrize("bad", [None, 3, ["lora"]])
def test_what_is_no_text_has_no_name(bad: Any) -> None:
    with pytest.raises(TensorAdaptError, match=r"method is .*; expected a builtins.str"):
        display(bad)


def test_methods_that_would_be_shown_alike_keep_their_letters() -> None:
    assert displayed(["lora", "LoRA", "lotr"]) == {"lora": "lora", "LoRA": "LoRA", "lotr": "LoTR"}


@given(st.lists(st.one_of(names, st.sampled_from(KNOWN)), max_size=20), st.randoms(use_true_random=False))
def test_no_two_methods_of_a_figure_are_alike_in_any_order(labels: list[str], random: Any) -> None:
    found = styles_of(labels)
    assert list(found) == sorted(set(labels)) and no_two_alike(found)
    random.shuffle(labels)
    assert styles_of(labels) == found


def test_the_methods_of_a_large_figure_differ_in_colour_or_marker() -> None:
    found = styles_of([f"method {i}" for i in range(88)])
    assert len({(style.colour, style.marker) for style in found.values()}) == 88


@given(st.sets(st.one_of(names, st.sampled_from(KNOWN)), max_size=8))
def test_up_to_eight_methods_have_colours_of_their_own(labels: set[str]) -> None:
    found = styles_of(labels)
    assert len({style.colour for style in found.values()}) == len(found)


USUAL = {
    "of the readme": ("lora", "lorta", "lotr", "metatt-4d", "loha", "vera"),
    **{size: tuple(dict.fromkeys(one["method"] for one in preset(size)["method"])) for size in PRESETS},
    "of the labels of a frontier": ("LoRA", "CP (LoRTA)", "Tucker", "Tensor-train", "lotr", "VeRA"),
}


@pytest.mark.parametrize("usual", USUAL)
def test_usual_methods_keep_their_own_colours_beside_each_other(usual: str) -> None:
    found = styles_of([*USUAL[usual], "dora", *REFERENCES])
    assert len({style.colour for style in found.values()}) == len(found)
    for name in USUAL[usual]:
        assert found[name] == styles_of([name])[name] and (found[name].line, found[name].fill) == ("-", "full")
    assert found["lora" if "lora" in found else "LoRA"].colour == "#000000"


@given(st.lists(st.sampled_from(published.names()), min_size=1, max_size=8), st.lists(names, max_size=9))
def test_a_known_method_looks_the_same_whatever_names_of_ones_own_are_in_the_figure(
    labels: list[str], own: list[str]
) -> None:
    found, alone = styles_of([*labels, *(name for name in own if table.known(name) is None)]), styles_of(labels)
    assert all(found[label] == alone[label] for label in labels)


def test_a_name_that_would_look_like_a_known_method_gives_way() -> None:
    known = styles_of(["lora-xs"])["lora-xs"]
    name = next(name for name in (f"a{i}" for i in itertools.count()) if styles_of([name])[name] == known)
    found = styles_of([name, "lora-xs"])
    assert found["lora-xs"] == known and found[name].colour != known.colour


def test_an_unknown_name_looks_the_same_in_every_process() -> None:
    """Unlike what follows from Python's own hash of a text."""
    assert styles_of(["my method"])["my method"] == Style("#56B4E9", ">", "-", "bottom")


def test_names_of_one_method_look_the_same() -> None:
    for group in (
        ("CP", "cp", "CP (LoRTA)", "lorta"),
        ("LoRA", "lora"),
        ("tensor-train", "tensor_train", "Tensor-train"),
    ):
        assert len({styles_of([name])[name] for name in group}) == 1


def test_a_name_of_ones_own_has_the_colour_of_its_first_word() -> None:
    for label in ("CP over layer proj : out : in", "cp, mine", "lorta(2)"):
        assert styles_of([label])[label].colour == styles_of(["cp"])["cp"].colour
    many = [f"{name} over {i}" for name in ("cp", "lora", "tucker") for i in range(6)]
    found = styles_of(many)
    assert {style.colour for label, style in found.items() if label.startswith("cp")} == {COLOURS[0]}
    assert len({style.colour for style in found.values()}) == 3 and no_two_alike(found)


def test_sixteen_methods_differ_in_line_and_fill_too() -> None:
    many = styles_of(SIXTEEN)
    assert len({str(style.line) for style in many.values()}) > 2 and len({style.fill for style in many.values()}) == 2


def test_there_is_one_list_of_colours_and_markers() -> None:
    assert styles.COLOURS is table.COLOURS and styles.MARKERS is table.MARKERS
    assert len(table.TABLE) <= len(COLOURS) * len(table.MARKERS)


def in_legend(ax: Axes) -> dict[str, tuple[str, str, str]]:
    legend = ax.get_legend()
    assert legend is not None
    handles = zip(legend.get_texts(), legend.get_lines(), strict=True)
    return {text.get_text(): (str(h.get_color()), str(h.get_marker()), str(h.get_linestyle())) for text, h in handles}


def test_a_method_looks_the_same_in_every_figure_of_a_sweep(tmp_path: Path) -> None:
    runs = sweep(tmp_path, ("sst2",))
    drawn = [in_legend(one.draw("").axes[0]) for one in figures(runs, kinds=["frontier", "rates"])]
    alone = in_legend(frontier([run for run in runs if run.row["method"] == "vera"], axes()))
    for name in map(display, LEVELS):
        assert len({legend[name] for legend in (*drawn, alone) if name in legend}) == 1
    assert len(drawn) == 2

"""Names, colours and markers of methods: one table, and no two methods of a figure look alike."""

from __future__ import annotations

import itertools
import re
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensoradapt import parameterizations, published
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis import names as table
from tensoradapt.lab.analysis.names import COLOURS, MARKERS, REFERENCES, Look, display, displayed, looks
from tensoradapt.lab.runs import config
from tensoradapt.lab.sweeps.frontier import PRESETS, preset

LABELS = [getattr(parameterizations.get(name), "label", name) for name in parameterizations.names()]
KNOWN = sorted({*published.names(), *parameterizations.names(), *LABELS, *REFERENCES, "dora"})
names = st.text("abcXY -:_()+0123", max_size=12)


def no_two_alike(found: dict[str, Look]) -> bool:
    pairs = [(look.colour, look.marker) for look in found.values() if look.marker != "x"]
    return len(set(pairs)) == len(pairs)


def test_every_published_row_and_parameterization_is_in_the_table() -> None:
    lacking = [name for name in KNOWN if table.known(name) is None]
    assert not lacking, f"names.TABLE has no entry for {lacking}"
    assert tuple(config.REFERENCES.values()) == REFERENCES and len(table.TABLE) <= len(COLOURS) * len(MARKERS)
    assert no_two_alike(looks(published.names())) and no_two_alike(looks(parameterizations.names()))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("lotr", "LoTR"),
        ("cp", "CP"),
        ("CP (LoRTA)", "CP (LoRTA)"),
        ("tensor_train", "Tensor-train"),
        ("TENSOR-TRAIN", "Tensor-train"),
        ("metatt-4d", "MetaTT-4D"),
        ("lora_xs", "LoRA-XS"),
        ("tenslora-cp-att_qkv", "TensLoRA-CP-att_qkv"),
        ("Full fine-tuning", "full fine-tuning"),
        ("tensor_train over (layer proj) : out : in", "Tensor-train over (layer proj) : out : in"),
        ("lorta, paper's scale", "LoRTA, paper's scale"),
        ("My $own$ method", "My $own$ method"),
        (" two  spaces", " two  spaces"),
        ("", ""),
    ],
)
def test_a_method_is_shown_by_the_name_of_its_paper_and_one_of_ones_own_keeps_its_letters(
    name: str, shown: str
) -> None:
    assert display(name) == shown


@pytest.mark.thorough
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
    found = looks(labels)
    assert list(found) == sorted(set(labels)) and no_two_alike(found)
    random.shuffle(labels)
    assert looks(labels) == found


def test_the_methods_of_a_large_figure_differ_in_colour_or_marker() -> None:
    assert no_two_alike(looks([f"method {i}" for i in range(88)]))


@given(st.sets(st.one_of(names, st.sampled_from(sorted({*KNOWN} - {*REFERENCES}))), max_size=8))
def test_up_to_eight_methods_have_colours_of_their_own(labels: set[str]) -> None:
    found = looks(labels)
    assert len({look.colour for look in found.values()}) == len(found)


USUAL = {
    "of the readme": ("lora", "lorta", "lotr", "metatt-4d", "loha", "vera"),
    **{size: tuple(dict.fromkeys(one["method"] for one in preset(size)["method"])) for size in PRESETS},
    "of the labels of a frontier": ("LoRA", "CP (LoRTA)", "Tucker", "Tensor-train", "lotr", "VeRA"),
}


@pytest.mark.parametrize("usual", USUAL)
def test_usual_methods_keep_their_own_colours_beside_each_other(usual: str) -> None:
    found = looks([*USUAL[usual], *REFERENCES])
    assert {name: found[name].colour for name in USUAL[usual]} == {
        name: looks([name])[name].colour for name in USUAL[usual]
    }


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_lora_has_the_ink_of_the_style_sheet(style: str) -> None:
    with mpl.style.context(style):
        assert looks(["lora"])["lora"].colour == mpl.colors.to_hex(mpl.rcParams["text.color"])


def test_an_unknown_name_looks_the_same_in_every_process() -> None:
    """Unlike what follows from Python's own hash of a text."""
    assert looks(["my method"])["my method"] == Look("my method", "#56B4E9", ">")


def test_names_of_one_method_look_the_same() -> None:
    for group in (("CP", "cp", "CP (LoRTA)", "lorta"), ("LoRA", "lora"), ("tensor_train", "Tensor-train")):
        assert len({looks([name])[name][1:] for name in group}) == 1


def test_many_names_of_one_first_word_share_its_colour() -> None:
    many = [f"{name} over {i}" for name in ("cp", "lora", "tucker") for i in range(6)]
    found = looks(many)
    assert {look.colour for label, look in found.items() if label.startswith("cp")} == {COLOURS[0]}
    assert len({look.colour for look in found.values()}) == 3 and no_two_alike(found)


def test_sixteen_methods_differ_in_their_lines_too() -> None:
    found = looks(list(itertools.islice(published.names(), 16)))
    assert len({str(look.line) for look in found.values()}) > 1


def test_a_plug_in_is_shown_by_its_label(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {"mine": SimpleNamespace(label="My Tree"), "plain": SimpleNamespace(), "cp": SimpleNamespace(label="no")}
    entries = {name: SimpleNamespace(load=lambda module=module: module) for name, module in modules.items()}
    entries["broken"] = SimpleNamespace(load=lambda: 1 / 0)
    monkeypatch.setattr(parameterizations, "_plugins", lambda: entries)
    shown = [display(name) for name in ("mine", "mine over layer : out : in", "plain", "broken", "cp", "mineral")]
    assert shown == ["My Tree", "My Tree over layer : out : in", "plain", "broken", "CP", "mineral"]
    assert looks(["mine", "cp"])["mine"].name == "My Tree"

"""Names, colours and markers of methods: each says its own, and no two methods of a figure look alike."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensoradapt import parameterizations, published
from tensoradapt.lab.analysis.names import REFERENCES, Look, display, looks
from tensoradapt.lab.runs import config
from tensoradapt.published import registry

LABELS = [getattr(parameterizations.get(name), "label", name) for name in parameterizations.names()]
KNOWN = sorted({*published.names(), *parameterizations.names(), *LABELS, *REFERENCES})
names = st.text("abcXY -:_()+0123", max_size=12)


def no_two_alike(found: dict[str, Look]) -> bool:
    pairs = [(look.colour, look.marker) for look in found.values() if look.marker != "x"]
    return len(set(pairs)) == len(pairs)


def test_every_label_is_a_spelling_of_its_method_and_no_two_are_alike() -> None:
    assert [registry.find(registry.find(name).label).name for name in registry.names()] == [*registry.names()]
    assert tuple(config.REFERENCES.values()) == REFERENCES
    assert no_two_alike(looks(published.names())) and no_two_alike(looks(parameterizations.names()))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("lotr", "LoTR"),
        ("CP (LoRTA)", "CP (LoRTA)"),
        ("tt", "Tensor-train"),
        ("cp(lorta)", "CP (LoRTA)"),
        ("tensor_train", "Tensor-train"),
        ("metatt-4d", "MetaTT-4D"),
        ("lora_xs", "LoRA-XS"),
        ("tenslora-cp-att_qkv", "TensLoRA-CP-att_qkv"),
        ("tensor_train over (layer proj) : out : in", "Tensor-train over (layer proj) : out : in"),
        ("My $own$ method", "My $own$ method"),
    ],
)
def test_a_method_is_shown_by_the_name_of_its_paper_and_one_of_ones_own_keeps_its_letters(
    name: str, shown: str
) -> None:
    assert display(name) == shown


@given(st.sampled_from(KNOWN), st.randoms(use_true_random=False))
def test_case_spaces_hyphens_and_underscores_do_not_count(name: str, random: Any) -> None:
    spelled = re.sub(r"[ _-]", lambda _: random.choice(["", " ", "-", "_"]), name)
    assert display(random.choice([spelled, spelled.upper(), spelled.lower()])) == display(name)


@given(st.lists(st.one_of(names, st.sampled_from(KNOWN)), max_size=20), st.randoms(use_true_random=False))
def test_no_two_methods_of_a_figure_are_alike_in_any_order(labels: list[str], random: Any) -> None:
    found = looks(labels)
    assert list(found) == sorted(set(labels)) and no_two_alike(found)
    random.shuffle(labels)
    assert looks(labels) == found


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_lora_has_the_ink_of_the_style_sheet(style: str) -> None:
    with mpl.style.context(style):
        assert looks(["lora"])["lora"].colour == mpl.colors.to_hex(mpl.rcParams["text.color"])


def test_a_plug_in_is_shown_by_its_label(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {
        "mine": SimpleNamespace(label="My Tree", look=("#D55E00", "X")),
        "plain": SimpleNamespace(),
        "cp": SimpleNamespace(label="no"),
    }
    entries = {name: SimpleNamespace(load=lambda module=module: module) for name, module in modules.items()}
    entries["broken"] = SimpleNamespace(load=lambda: 1 / 0)
    monkeypatch.setattr(parameterizations, "plugins", lambda: entries)
    shown = [display(name) for name in ("mine", "mine over layer : out : in", "plain", "broken", "cp", "mineral")]
    assert shown == ["My Tree", "My Tree over layer : out : in", "plain", "broken", "CP", "mineral"]
    assert looks(["mine", "cp"])["mine"] == Look("My Tree", "#D55E00", "X")

"""Random inputs of every surface, and each input that ever escaped: accepted, or refused by one TensorAdaptError."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from harness import fuzz
from harness.fuzz_calls import ACCEPTED, REFUSED
from harness.fuzz_surfaces import SURFACES
from hypothesis import given
from hypothesis import strategies as st

from tensoradapt.errors import TensorAdaptError

ENDS = (ACCEPTED, REFUSED)


@pytest.mark.parametrize("surface", SURFACES)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_input_is_accepted_or_refused(surface: str, seed: int) -> None:
    assert fuzz.tried(surface, fuzz.drawn(surface, seed, 0)) in ENDS


@pytest.mark.parametrize(("name", "again"), fuzz.corpus(), ids=[name for name, _ in fuzz.corpus()])
def test_what_once_escaped_does_no_more(name: str, again: object) -> None:
    assert callable(again) and again() in ENDS


def test_every_kind_of_escape_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness itself: another exception, a warning, a file left behind, a long message."""
    monkeypatch.setattr(fuzz, "grounds", lambda surface: tmp_path)

    def ended(call: object) -> str:
        monkeypatch.setitem(fuzz.SURFACES, "layouts", SURFACES["layouts"].__class__(1, lambda *_: None, call))
        return fuzz.tried("layouts", None)

    def refuse(*_: object) -> None:
        raise TensorAdaptError("no")

    assert ended(lambda *_: None) == ACCEPTED and ended(refuse) == REFUSED
    assert ended(lambda *_: {}["x"]).startswith("KeyError")
    assert ended(lambda *_: warnings.warn("odd", stacklevel=1)) == "a warning: odd"
    assert ended(lambda _, folder: (folder / "x").write_text("")).startswith("left ")

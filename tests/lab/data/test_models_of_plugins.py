"""Models of plug-ins: an entry point names a function that returns a folder, and one that does not is refused."""

from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
import transformers

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import models


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module whose functions are entry points by their names."""
    module = types.ModuleType("plug_in")
    names = ("mine", "broken", "refusing", "number", "missing")
    found = {name: EntryPoint(name, f"plug_in:{name}", models.GROUP) for name in names}
    monkeypatch.setitem(sys.modules, "plug_in", module)
    monkeypatch.setattr(models, "_entries", lambda: found)
    return module


def test_a_model_of_a_plug_in_is_loaded_by_its_name(plug_in: types.ModuleType, tmp_path: Path) -> None:
    saved = transformers.BertModel(transformers.BertConfig(**models.TINY_SIZES))
    saved.save_pretrained(tmp_path / "saved")
    plug_in.mine = lambda: tmp_path / "saved"  # type: ignore[attr-defined]
    loaded = models.from_pretrained(transformers.AutoModel, "mine")
    assert torch.equal(loaded.embeddings.word_embeddings.weight, saved.embeddings.word_embeddings.weight)
    assert ta.model_folder("mine") == str(tmp_path / "saved") == ta.model_folder(str(tmp_path / "saved"))
    assert models.config("mine").hidden_size == models.TINY_SIZES["hidden_size"]
    with pytest.raises(TensorAdaptError, match=r"unknown model 'mini'.*did you mean \"mine\""):
        models.config("mini")


def test_a_function_that_gives_no_folder_is_refused_by_its_entry_point(plug_in: types.ModuleType) -> None:
    def broken() -> Path:
        raise ZeroDivisionError("no file")

    def refusing() -> Path:
        raise TensorAdaptError("the archive is not there")

    plug_in.broken, plug_in.refusing, plug_in.number = broken, refusing, lambda: 3  # type: ignore[attr-defined]
    for name, says in {
        "broken": "entry point 'broken' raised ZeroDivisionError: no file; expected a function that returns the folder",
        "refusing": "^the archive is not there$",
        "number": "entry point 'number' returned 3; expected the folder of a model",
        "missing": "entry point 'missing' raised AttributeError",
    }.items():
        with pytest.raises(TensorAdaptError, match=says):
            models.config(name)

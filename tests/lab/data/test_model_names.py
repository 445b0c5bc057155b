"""Models by name: refused at once where no model has it, the hub asked once; a plug-in's are functions of folders."""

from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path

import huggingface_hub
import pytest
import torch
import transformers

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import model_names, models


@pytest.fixture(name="asked")
def hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that are asked of a hub which does not answer."""
    asked: list[str] = []

    class Session:
        def head(self, address: str, timeout: float) -> None:
            asked.append(address)
            raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils.get_session", Session)
    model_names.hub_fault.cache_clear()
    yield asked
    model_names.hub_fault.cache_clear()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my-modle", 'no such folder, and not built in; did you mean "my-model"?'),
        ("./my-modle", 'did you mean "my-model"?'),
        ("tiny-random-bret", 'did you mean "tiny-random-bert"?'),
        ("all-minilm", 'did you mean "all-minilm-l6-v2"?'),
        ("xyz", "not built in. Built in or of plug-ins: all-minilm-l6-v2, tiny-random-bert"),
        ("a/b/c", "named with its owner, as in google/vit-base-patch16-224"),
    ],
)
def test_a_name_that_no_model_has_is_refused_without_asking_the_hub(
    name: str, says: str, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my-model").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TensorAdaptError) as error:
        models.config(name)
    assert str(error.value).startswith(f"unknown model {name!r}: ") and says in str(error.value)
    assert not asked


def test_a_hub_that_does_not_answer_is_asked_once_and_named_in_one_line(
    asked: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("gpt2", "no/such"):
        with pytest.raises(TensorAdaptError) as error:
            models.config(name)
        assert str(error.value) == (
            f"unknown model {name!r}: no such folder, not fetched before, and https://huggingface.co does not answer "
            "(ConnectionError: no route)"
        )
    assert len(asked) == 1 and capfd.readouterr() == ("", "")


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

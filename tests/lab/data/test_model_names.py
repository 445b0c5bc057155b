"""Names of models: refused at once where no model has them, and the hub is asked once whether it answers."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

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

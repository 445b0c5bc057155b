"""One word for a method: parameterizations and published adapters by any spelling, alias or label."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import transformers

import tensoradapt as ta
from tensoradapt import parameterizations, published
from tensoradapt.parameterizations import spelling
from tensoradapt.published.registry import Method, find, names, same_as

MODEL = transformers.BertConfig(hidden_size=24, num_attention_heads=4, num_hidden_layers=2, intermediate_size=48)


def found(method: Any, paper: bool = False) -> tuple[str, Any]:
    """The name and row that ``find`` returns."""
    return (method := find(method, paper)).name, method.row


BOTH = ("lora", "vera", "randlora", "loha", "quanta", "lora-xs", "tinylora")  # a parameterization and a paper's adapter


def test_every_method_is_listed_once_and_found_by_its_name() -> None:
    assert len(set(names())) == len(names())
    assert set(names()) == {*parameterizations.names(), *published.names()} - {"lora-xs"}  # listed as lora_xs
    for name in names():
        method, row = found(name)
        assert method == name
        assert (row is None) == (name in parameterizations.names())


@pytest.mark.parametrize("name", published.names())
def test_with_paper_every_published_adapter_is_found_in_any_spelling(name: str) -> None:
    for text in (name, name.upper(), name.replace("-", "_"), f"Its family ({name})"):
        assert found(text, paper=True) == (name, published.get(name))


@pytest.mark.parametrize("name", BOTH)
def test_a_name_that_both_have_is_the_parameterization_without_paper_and_the_adapter_with_it(name: str) -> None:
    assert found(name) == (parameterizations.name_of(name), None)
    assert found(name, paper=True) == (name, published.get(name))
    assert same_as(name) == ()


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("tt", "tensor_train"),
        ("tr", "tensor_ring"),
        ("btd", "block_term"),
        ("PARAFAC", "cp"),
        ("MPS", "tensor_train"),
    ],
)
def test_usual_abbreviations_are_taken(alias: str, name: str) -> None:
    assert found(alias) == (name, None)
    assert parameterizations.get(alias) is parameterizations.get(name)


def test_no_alias_is_the_name_of_another_method() -> None:
    known = {parameterizations.spelling(name): name for name in names()}
    for name in parameterizations.names():
        for alias in getattr(parameterizations.get(name), "aliases", ()):
            assert known.get(parameterizations.spelling(alias), name) == name


@pytest.mark.parametrize(
    ("method", "paper", "says"),
    [
        ("tuker", False, "unknown method 'tuker'; did you mean \"tucker\"?"),
        ("lortaa", True, "unknown method 'lortaa'; did you mean \"lorta\"?"),
        ("cp", True, "no paper's settings belong to; published adapters that are a cp: lorta, lorta-litgpt"),
        ("dense", True, "no paper's settings belong to; no published adapter is a dense. Leave paper= out"),
        (SimpleNamespace(build=1), False, "has no build, count, oracle"),
    ],
)
def test_a_word_that_is_no_method_is_answered_with_the_closest(method: Any, paper: bool, says: str) -> None:
    with pytest.raises(ta.TensorAdaptError) as error:
        find(method, paper)
    assert says in str(error.value)


def test_no_two_names_are_one_spelling() -> None:
    for every in (parameterizations.names(), published.names()):
        assert len({spelling(name) for name in every}) == len(every)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"method": "CP (LoRTA)"}, {"method": "cp"}),
        ({"method": "Tensor-train"}, {"method": "tensor_train"}),
        ({"method": "LoRA", "paper": True}, {"method": "lora", "paper": True}),
        ({"method": "CP (LoRTA)", "paper": True}, {"method": "lorta", "paper": True}),
    ],
)
def test_a_plan_and_what_is_written_of_it_have_the_name_itself(given: Any, name: Any) -> None:
    assert ta.plan(MODEL, rank=2, **given) == ta.plan(MODEL, rank=2, **name)


def plug(monkeypatch: pytest.MonkeyPatch, name: str, **said: Any) -> Any:
    """Install CP as a plug-in of that name, which says of itself what is given."""
    cp = parameterizations.get("cp")
    own = SimpleNamespace(build=cp.build, count=cp.count, oracle=cp.oracle, **said)
    entry = SimpleNamespace(load=lambda: own, value="trees:own")
    monkeypatch.setattr(parameterizations, "plugins", lambda: {name: entry})
    return own


def test_a_plug_in_says_what_is_known_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    own = plug(monkeypatch, "tree", label="My tree", aliases=("htucker",), look=("red", "x"), ranked=False)
    method = Method("tree", "My tree", ("htucker",), ("red", "x"), "tree", None, ranked=False)
    assert [find(name) for name in ("tree", "My Tree", "HTucker")] == [method] * 3
    assert parameterizations.get("htucker") is own


@pytest.mark.parametrize(
    ("name", "alias", "says"),
    [
        ("tree", "TT", "the plug-in 'tree' (trees:own) has the alias 'TT', which is that of 'tensor_train'"),
        ("tree", "lotr", "has the alias 'lotr', which is that of 'lotr'"),
        ("tree", "CP", "has the alias 'CP', which is that of 'cp'"),
        ("cp", "tree", "the plug-in 'cp' (trees:own) has the name 'cp', which is that of 'cp', a method here"),
        ("LoTR", "tree", "the plug-in 'LoTR' (trees:own) has the name 'LoTR', which is that of 'lotr'"),
    ],
)
def test_a_plug_in_with_a_name_that_is_taken_is_refused_where_it_is_used(
    name: str, alias: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug(monkeypatch, name, aliases=(alias,))
    with pytest.raises(ta.TensorAdaptError) as error:
        find(name)
    assert says in str(error.value)
    assert find("tensor_train").name == find("TT").name == "tensor_train" and find("FacT-TT").name == "fact-tt"

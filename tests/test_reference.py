"""Every public name is in the reference, and its docstring says what it takes, returns and raises, with an example."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path
from typing import Any

import huggingface_hub
import pandas
import pytest
from support import pages
from support.pages import MODULES, parameters, public

import tensoradapt as ta
from tensoradapt.lab.analysis.results import table_of
from tensoradapt.lab.tasks import registry

ROOT = Path(__file__).parents[1]
PAGES = pages.reference()

import declared_pages  # noqa: E402  # of docs/make, where pages finds it
import reference_pages  # noqa: E402

PUBLIC = public()


def stated(value: Any) -> str:
    """Its docstring; with that of its module where this has the arguments that its functions share."""
    module = inspect.getdoc(inspect.getmodule(value)) or ""
    return (inspect.getdoc(value) or "") + ("\n" + module if "\nArgs:" in module else "")


def section(name: str) -> str:
    """What the reference says of a public name."""
    short = name.removeprefix("tensoradapt.")
    page = PAGES[f"{reference_pages.HOME[short]}.md"]
    return page.split(f"\n## {'class ' * inspect.isclass(PUBLIC[name])}ta.{short}\n")[1].split("\n## ")[0]


def test_the_reference_has_each_public_name_once_and_no_other() -> None:
    """A page lists it under "names" in ``PAGES`` of docs/make/reference_pages.py."""
    named = [f"tensoradapt.{name}" for page in reference_pages.PAGES.values() for name in page.names.split()]
    assert sorted(named) == sorted([*PUBLIC, *MODULES])


def test_git_ignores_each_made_page_and_no_other_of_the_folder() -> None:
    ignored = re.findall(r"^/docs/reference/(.+)$", (ROOT / ".gitignore").read_text(), re.MULTILINE)
    assert sorted(ignored) == sorted(PAGES)


@pytest.mark.parametrize("name", PUBLIC)
def test_its_section_has_a_table_of_exactly_its_arguments_an_example_and_a_link(name: str) -> None:
    text = section(name)
    arguments = re.findall(r"^\| `(\w+)` \|.*\|.*\| .+ \|$", text.split("| method or property |")[0], re.MULTILINE)
    assert arguments == parameters(PUBLIC[name]) or not parameters(PUBLIC[name])  # as of a class with attributes
    assert "\n```pycon\n>>> " in text and re.search(r"\]\((?!\.\./\.\./tensoradapt/)[^)]+\.md\b", text)


WRAPPED = [  # by a decorator of another module, so that --doctest-modules passes over them
    name
    for name, value in PUBLIC.items()
    if inspect.isfunction(value) and value.__globals__ is not vars(inspect.getmodule(value))
]


@pytest.mark.parametrize("name", WRAPPED)
def test_the_example_of_a_wrapped_function_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", {})
    ran(PUBLIC[name])


def test_the_example_of_the_hub_runs(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    assert ran(ta.push_to_hub, "# doctest: +SKIP", "") == 5


def ran(value: Any, old: str = "", new: str = "") -> int:
    """Run the examples of a docstring, one at least, and return how many there are."""
    text = (inspect.getdoc(value) or "").replace(old, new)
    test = doctest.DocTestParser().get_doctest(text, dict(vars(inspect.getmodule(value))), value.__name__, None, 0)
    found = doctest.DocTestRunner().run(test)
    assert found.attempted and not found.failed
    return found.attempted


@pytest.mark.parametrize("name", PUBLIC)
def test_its_docstring_names_every_argument(name: str) -> None:
    text = stated(PUBLIC[name])
    missing = [one for one in parameters(PUBLIC[name]) if not re.search(rf"^    [^:\n]*\b{one}\b[^:\n]*: ", text, re.M)]
    assert not missing and (not parameters(PUBLIC[name]) or re.search(r"^(?:Args|Attributes):$", text, re.M))


@pytest.mark.parametrize("name", PUBLIC)
def test_its_docstring_says_what_it_returns_and_raises(name: str) -> None:
    value, text = PUBLIC[name], stated(PUBLIC[name])
    returned = str(inspect.signature(value).return_annotation)
    if inspect.isfunction(value) and parameters(value) and "None" != returned and "SearchStrategy" not in returned:
        assert "\nReturns:\n" in text
    assert not parameters(value) or re.search(r"\b[Rr]aise", text)


@pytest.mark.parametrize("name", PUBLIC)
def test_its_docstring_has_an_example_and_names_pages_that_exist(name: str) -> None:
    text = stated(PUBLIC[name])
    named = re.findall(r"\b(docs/[\w/-]+\.md|notebooks/\w+\.ipynb|CONTRIBUTING\.md)\b", text)
    there = [page.removeprefix("docs/reference/") in PAGES or (ROOT / page).is_file() for page in named]
    assert ">>>" in text and all(there)


def test_the_page_of_fields_is_made_from_the_records() -> None:
    text = PAGES["fields.md"]
    for record in declared_pages.RECORDS:
        section = text.split(f"## {record.__name__}\n")[1].split("\n## ")[0]
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [*inspect.signature(record).parameters]


def test_the_page_of_columns_is_made_from_the_tables() -> None:
    text = PAGES["columns.md"]
    runs = pandas.DataFrame({"method": ["lora", "cp"] * 2, "score": [0.9, 0.8, 0.92, 0.81], "n_params": [9, 3] * 2})
    runs = runs.assign(seed=[0, 0, 1, 1])
    made = {"ta.results": table_of(runs), "ta.summarise": ta.summarise(runs), "ta.compare": ta.compare(runs)}
    for name, table in made.items():
        section = text.split(f"## {name}\n")[1].split("\n## ")[0]
        named = re.findall(r"^\| `(\w+)` \| \S", section, re.MULTILINE)
        assert sorted(named) == sorted(table) if name == "ta.results" else named == list(table)

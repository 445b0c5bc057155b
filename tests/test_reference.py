"""Every public name is in the reference, and its docstring says what it takes, returns and raises, with an example."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest
from support.public import MODULES, parameters, public

import tensoradapt as ta
from tensoradapt.analysis.results import table_of

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "docs" / "make"))

import columns_page  # noqa: E402
import fields_page  # noqa: E402

PAGES = "\n".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md"))
PUBLIC = public()


def stated(value: Any) -> str:
    """Its docstring; with that of its module where this has the arguments that its functions share."""
    module = inspect.getdoc(inspect.getmodule(value)) or ""
    return (inspect.getdoc(value) or "") + ("\n" + module if "\nArgs:" in module else "")


def test_the_reference_has_each_public_name_once_and_no_other() -> None:
    named = re.findall(r"^\.\. auto(?:function|class|exception):: (\S+)$", PAGES, re.MULTILINE)
    assert sorted(named) == sorted(PUBLIC)
    assert set(re.findall(r"^\.\. automodule:: (\S+)$", PAGES, re.MULTILINE)) >= set(MODULES)


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
def test_its_docstring_has_an_example_or_names_a_page_with_one(name: str) -> None:
    text = stated(PUBLIC[name])
    pages = [ROOT / page for page in re.findall(r"\b(docs/[\w/-]+\.md|CONTRIBUTING\.md)\b", text)]
    assert all(page.is_file() for page in pages)
    assert ">>>" in text or any(re.search(r"^(?:```python| {4}\S)", page.read_text(), re.MULTILINE) for page in pages)


def test_the_page_of_fields_is_made_from_the_records() -> None:
    """``python docs/make/fields_page.py`` writes it again."""
    text = fields_page.page()
    assert fields_page.PAGE.read_text() == text
    for record in fields_page.RECORDS:
        section = text.split(f"## {record.__name__}\n")[1].split("\n## ")[0]
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [*inspect.signature(record).parameters]


def test_the_page_of_columns_is_made_from_the_tables() -> None:
    """``python docs/make/columns_page.py`` writes it again."""
    text = columns_page.page()
    assert columns_page.PAGE.read_text() == text
    runs = pandas.DataFrame({"method": ["lora", "cp"] * 2, "score": [0.9, 0.8, 0.92, 0.81], "n_params": [9, 3] * 2})
    made = {"ta.results": table_of(runs), "ta.summarise": ta.summarise(runs), "ta.compare": ta.compare(runs)}
    for name, table in made.items():
        section = text.split(f"## {name}\n")[1].split("\n## ")[0]
        named = re.findall(r"^\| `(\w+)` \| \S", section, re.MULTILINE)
        assert sorted(named) == sorted(table) if name == "ta.results" else named == list(table)

"""Every page of the documentation site in Chromium: wide and narrow, in the light and in the dark.

``TENSORADAPT_SITE`` is the folder that Sphinx wrote (``.ci/run``); by default ``site`` beside the package.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.pages import parameters, public

ROOT = Path(__file__).parents[1]
SITE = Path(os.environ.get("TENSORADAPT_SITE", ROOT / "site")).resolve()
WIDTHS = {"wide": 1280, "narrow": 390}
LOADED = "Promise.all([...document.images].map(one => { one.loading = 'eager'; return one.decode().catch(() => 0) }))"
SIDEBAR = "[...document.querySelectorAll('.sidebar-tree .toctree-l1 > a')].map(one => one.innerText.trim())"
PICTURES = "[...document.querySelectorAll('article img')].filter(one => one.offsetParent).map(one => one.src)"
BROKEN = "[...document.images].filter(one => !one.complete || !one.naturalWidth).map(one => one.src)"
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def checker() -> Any:
    spec = importlib.util.spec_from_file_location("check_site", ROOT / "docs" / "make" / "check_site.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_dead_links_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "index.html").write_text('<h1 id="a">A</h1><a href="#a">1</a><a href="sub/">2</a><img src="x.png">')
    links = '<a href="../index.html#b">3</a><a href="../index.html#a">4</a><a href="https://example.org/none">5</a>'
    (tmp_path / "sub" / "index.html").write_text(links)
    assert list(checker().dead_links(tmp_path)) == [
        "index.html: x.png leads to no file", "sub/index.html: ../index.html#b leads to no element",
    ]  # fmt: skip
    assert checker().main(tmp_path) == 1
    assert capsys.readouterr().out.endswith("2 pages, 6 links (1 of them to other sites), 2 dead\n")


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    where = os.environ.get("TENSORADAPT_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=where, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


@pytest.mark.browser
def test_every_page_opens_wide_and_narrow_light_and_dark_without_an_error(page: Any) -> None:
    paths = sorted(SITE.rglob("*.html"))
    assert (SITE / "index.html").is_file(), f"{SITE} holds no site; run python -m sphinx -b html docs {SITE}"
    wrong: list[str] = []
    at = ""
    page.on("console", lambda message: wrong.append(f"{at}: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(f"{at}: {error}"))
    page.on("request", lambda asked: wrong.append(f"{at}: asks {asked.url}") if asked.url.startswith("http") else None)
    for path in paths:
        at = str(path.relative_to(SITE))
        page.goto(path.as_uri())
        for name, width in WIDTHS.items():
            page.set_viewport_size({"width": width, "height": 900})
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                if over := page.evaluate(TOO_WIDE):
                    wrong.append(f"{at}: {over} pixels too wide, {name}, {scheme}")
        page.evaluate(LOADED)  # those that are not shown load late
        wrong += [f"{at}: {image} is broken" for image in page.evaluate(BROKEN)]
    print(f"{len(paths)} pages, each at {len(WIDTHS)} widths, light and dark")
    assert not wrong


@pytest.mark.browser
def test_the_front_page_shows_one_picture_for_each_theme_and_width_and_at_most_35_links_beside(page: Any) -> None:
    shown = []
    for width in WIDTHS.values():
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            page.goto((SITE / "index.html").as_uri())
            (picture,) = page.evaluate(PICTURES)
            shown.append(Path(picture).stem)
    links = page.evaluate(SIDEBAR)
    assert len(set(shown)) == 4 and len(links) == len(set(links)) <= 35
    assert page.evaluate("document.querySelector('meta[name=description]').content.length") > 20


@pytest.mark.browser
@pytest.mark.parametrize(("words", "first"), [("serving", "serving"), ("learning rate", "learning-rates")])
def test_the_search_finds_the_page_of_that_title_first(page: Any, words: str, first: str) -> None:
    page.goto((SITE / "search.html").as_uri() + f"?q={words}")
    page.wait_for_function("document.querySelector('#search-summary, .search-summary')?.innerText.includes('matching')")
    found = page.eval_on_selector_all("#search-results li a", "all => all.map(one => one.getAttribute('href'))")
    assert found[0].startswith(f"guides/{first}.html")


@pytest.mark.browser
def test_the_list_for_programs_names_every_page_of_the_site() -> None:
    lines = [line for line in (SITE / "llms.txt").read_text().splitlines() if line.startswith("- [")]
    sources = {path.relative_to(SITE / "_sources").as_posix() for path in (SITE / "_sources").rglob("*.txt")}
    named = {line.split("](")[1].split(")")[0].removesuffix(".html") for line in lines}
    assert named == {name.removesuffix(".md.txt") for name in sources} - {"index"}


SECTION = re.compile(
    r'<section id="([\w-]+)">\s*(?:<span id="[\w-]+"></span>)?<h2>(?:class )?(ta\.[\w.]+)<(.*?)</section>', re.DOTALL
)
ARGUMENT = re.compile(r'<tr class="row-\w+"><td><p><code[^>]*><span class="pre">(\w+)</span></code></p></td>')


@pytest.mark.browser
def test_each_public_name_has_a_heading_a_table_of_its_arguments_an_example_and_a_link() -> None:
    texts = {path.stem: path.read_text() for path in (SITE / "reference").glob("*.html")}
    assert not [page for page, text in texts.items() if re.search(r':param|:returns?:|class="field-list', text)]
    del texts["columns"]  # its headings name the functions that return a table
    found = {name: (anchor, text) for page in texts.values() for anchor, name, text in SECTION.findall(page)}
    for name, value in public().items():
        anchor, text = found[name.replace("tensoradapt", "ta", 1)]
        wanted = parameters(value)
        assert ARGUMENT.findall(text)[: len(wanted)] == wanted, name
        assert f'href="#{anchor}"' in text and "&gt;&gt;&gt; </span>" in text, name
        assert re.search(r'<a class="reference internal" href="', text), name

"""The report of runs: one page, nothing hidden, every number leads back to its runs, legible in light and dark."""

from __future__ import annotations

import html
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support.configs import config_of
from support.synthetic_runs import sweep, write_synthetic

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.names import display
from tensoradapt.lab.analysis.page import svg
from tensoradapt.lab.analysis.results import table_of
from tensoradapt.lab.analysis.tables import summarise
from tensoradapt.lab.analysis.verdict import judge, summary
from tensoradapt.lab.runs.store import load_runs, write_failure
from tensoradapt.lab.sweeps import record
from tensoradapt.lab.sweeps.plan_sweep import Cell, Sweep
from tensoradapt.lab.sweeps.report import report as write_report
from tensoradapt.lab.sweeps.spec import read_spec
from tensoradapt.planning.size import Size

SPEC = {"model": "tiny-random-bert", "task": "planted", "method": ["lora", "cp"], "rank": 1, "steps": 60}
SPEC |= {"lr": 1e-3, "seed": [0, 1]}
EVIL = "<script>alert(1)</script> & more"


class Page(HTMLParser):
    """Tags, ids, links and texts; checks that every tag that is opened is closed in its place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        assert len(found) == len(attrs) and "src" not in found
        self.tags[tag] += 1
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
        if tag not in ("meta", "input"):
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if "tr" in self.open and self.tables[-1][-1]:
            self.tables[-1][-1][-1] += data

    @property
    def said(self) -> str:
        """All of the text, spaces as one."""
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("report") / "runs"
    sweep(found)
    same = {"parameterization": "vera", "task": "sst2", "rank": None, "named": "vera"}
    write_synthetic(found, n_params=89_964, budget=90_000, seed=3, status="diverged", lr=3e-3, **same)
    config = config_of("m", "sst2", "lora", seed=7, steps=3).as_dict()
    write_failure(found, "broken", {"kind": "ValueError", "error": EVIL, "traceback": "at line 3", "config": config})
    cells = Cell("vera", Size(budget=10), None, "its smallest has 9,240"), Cell("lora", Size(1), 9216)
    record.write(Sweep(read_spec(SPEC), found, cells=cells), {})
    return found


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return write_report(root, root / "report.html").read_text()


@pytest.mark.thorough
def test_the_page_is_well_formed_and_loads_nothing(text: str, root: Path) -> None:
    page, folders = Page(text), {f"{run.name}/" for run in load_runs(root)} | {"broken/"}
    assert len(page.ids) == len(set(page.ids))
    inside = {link for link in page.links if link.startswith("#")}
    assert {link.removeprefix("#") for link in inside} <= set(page.ids)
    assert set(page.links) - inside == folders, "all other links are folders of runs, beside the page"
    assert "http" not in re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)
    assert not re.search(r"@import|url\((?!#)|<link|<img|<iframe", text)


@pytest.mark.thorough
def test_the_page_asks_and_answers_first_and_ends_with_how_it_was_made(text: str, root: Path) -> None:
    assert "<h1>Which adapter is small and good enough on sst2 and stsb?</h1>" in text
    places = [text.index(part) for part in ('class="verdict"', "<svg", "<table", 'id="runs"', 'id="lost"', 'id="made"')]
    assert places == sorted(places)
    for one in judge(table_of(root)):
        for said in summary(one):
            assert html.escape(said) in text and text.index(html.escape(said)) < text.index("<svg")


def test_every_mean_of_the_frontier_says_what_it_is_at_both_widths(text: str, root: Path) -> None:
    titles = Counter(re.findall(r"<title>([^<]*)</title>", text))
    for _, row in summarise(root).iterrows():
        if row["kind"] == "adapter":
            starts = f"{display(row['method'])}, {row['n_params']:,} parameters: {row['mean']:.4f}"
            assert sum(n for title, n in titles.items() if title.startswith(starts)) >= 2, starts
    assert text.count('<svg class="broad"') == text.count('<svg class="slim"') >= 4


def test_every_number_leads_back_to_its_runs(text: str, root: Path) -> None:
    page = Page(text)
    heads = [[cell.strip() for cell in rows[0]] for rows in page.tables]
    assert len(heads) == 5 and all({"Run", "Runs by seed"} & set(head) for head in heads)
    listed = [name.removeprefix("run-") for name in page.ids if name.startswith("run-")]
    assert sorted(listed) == sorted([*(run.name for run in load_runs(root)), "broken"])
    means = page.tables[1]
    at = {name: i for i, name in enumerate(means[0])}
    table = summarise(table_of(root)[lambda runs: runs["task"] == "sst2"])
    assert [float(row[at["Mean"]]) for row in means[1:]] == [round(mean, 4) for mean in table["mean"]]
    assert [row[at["Runs by seed"]] for row in means[1:]] == [" ".join(map(str, seeds)) for seeds in table["seeds"]]


def test_what_was_lost_is_listed_and_its_text_is_no_markup(text: str) -> None:
    said = Page(text).said
    assert f"broken LoRA, sst2, seed 7: ValueError: {EVIL}" in said and "at line 3" in said
    assert "<script>alert" not in text
    assert "VeRA ≤ 90k, sst2, seed 3: diverged" in said and "VeRA n≤10: its smallest has 9,240" in said
    assert "0 at chance, 1 diverged, 1 failed" in said


def test_what_cannot_be_reported_is_refused(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.html"
    (tmp_path / "runs").mkdir()
    for source, options, message in (
        (tmp_path / "runs", {}, "holds no run; expected a folder of runs"),
        (root, {"where": ["task=sst", "seed=1"]}, "holds no run with task=sst and seed=1; expected"),
        (root, {"reference": "lorAs"}, "reference is 'lorAs'; did you mean"),
        (root, {"spec": _other_spec(tmp_path)}, "has no sweep of .*other.toml on record; expected the specification"),
    ):
        with pytest.raises(TensorAdaptError, match=message):
            write_report(source, out, **options)
    assert not out.exists()


def _other_spec(folder: Path) -> Path:
    path = folder / "other.toml"
    path.write_text(
        'model = "tiny-random-bert"\ntask = "planted"\nmethod = "lora"\nrank = 7\nlr = 1e-3\nseed = 0\nsteps = 9'
    )
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    where = os.environ.get("TENSORADAPT_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=where, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_at_both_widths_in_both_schemes(
    browser: Any, text: str, root: Path, width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
    page.goto((root / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    drawn = page.evaluate("[...document.querySelectorAll('svg')].map(one => one.getBoundingClientRect().width)")
    assert sum(one > 250 for one in drawn) == len(drawn) / 2 and all(one == 0 or one > 250 for one in drawn)
    inside = """[...document.querySelectorAll('svg text')].filter(one => {
        const own = one.getBoundingClientRect(), box = one.closest('svg').getBoundingClientRect();
        return own.width && (own.left < box.left - 2 || own.right > box.right + 2);}).map(one => one.textContent)"""
    assert page.evaluate(inside) == [], "no text of a figure is cut"
    small = "[...document.querySelectorAll('svg text')].map(one => one.getBoundingClientRect().height).filter(h => h)"
    assert min(page.evaluate(small)) > 7
    colours = """[...document.querySelectorAll('svg text')].filter(one => one.getBoundingClientRect().width)
        .map(one => getComputedStyle(one).fill)"""
    paper = {"light": "#ffffff", "dark": svg.DARK[1]}[scheme]
    found = {tuple(map(int, re.findall(r"\d+", colour)[:3])) for colour in page.evaluate(colours)}
    contrasts = {colour: svg.contrast("#" + bytes(colour).hex(), paper) for colour in found}
    assert min(contrasts.values()) > 3, contrasts
    page.close()
    assert wrong == []


@pytest.mark.browser
def test_tables_sort_and_filter(browser: Any, text: str, root: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((root / "report.html").as_uri())
    table, numbers = ".table:has(#run-broken)", []
    page.click("#runs summary")
    at = page.eval_on_selector_all(f"{table} th", "all => all.map(one => one.innerText)").index("Parameters")
    for _ in range(2):
        page.click(f"{table} th:nth-child({at + 1}) button")
        cells = page.eval_on_selector_all(f"{table} tbody tr", f"all => all.map(row => row.cells[{at}].innerText)")
        numbers.append([int(cell.replace(",", "")) for cell in cells if cell])
        assert cells[-1] == "", "a run without a count is last"
    assert numbers[0] == sorted(numbers[0]) and numbers[1] == sorted(numbers[0])[::-1]
    page.fill(f"{table} input", "lorta stsb")
    left = page.eval_on_selector_all(f"{table} tbody tr:not([hidden])", "all => all.map(row => row.innerText)")
    assert len(left) == 12 and all("LoRTA" in row and "stsb" in row for row in left)
    page.click(".table:first-of-type tbody tr:first-child a")
    assert page.evaluate("location.hash").removeprefix("#run-") in {run.name for run in load_runs(root)}
    page.close()

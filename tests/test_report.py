"""The report of a folder of runs: one page, nothing hidden, every number leads back to its runs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from synthetic_runs import write_synthetic
from test_figures import sweep

from tensoradapt.analysis.figures import figures
from tensoradapt.cli import main
from tensoradapt.errors import TensorAdaptError
from tensoradapt.sweep.html_report import report, write_report
from tensoradapt.sweep.store import load_runs, write_failure

EVIL = "<script>alert(1)</script> & more"


class Page(HTMLParser):
    """Tags, ids, links, and the rows of each table by the id of the heading before it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.rows: dict[str, list[list[str]]] = {}
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.tags[tag] += 1
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
        self.sources += [found["src"]] if "src" in found else []
        if tag == "tr":
            self.rows.setdefault(
                self.ids[-1 if not found.get("id", "").startswith("run-") else self._heading()], []
            ).append([])
        if tag in ("td", "th"):
            self._row().append("")
            self._cell = tag

    def _heading(self) -> int:
        return max(i for i, name in enumerate(self.ids) if not name.startswith("run-"))

    def _row(self) -> list[str]:
        return list(self.rows.values())[-1][-1]

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self.rows and self._row():
            self._row()[-1] += data


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("report") / "runs"
    sweep(found)
    same = {"parameterization": "vera", "task": "sst2", "rank": None, "label": "vera", "method": "vera"}
    write_synthetic(found, n_params=89_964, budget=90_000, seed=3, status="diverged", lr=3e-3, **same)
    config = {"kind": "adapter", "label": "lora", "model": "m", "task": "sst2", "lr": 1e-3, "seed": 7, "steps": 3}
    write_failure(found, "broken", {"kind": "ValueError", "error": EVIL, "traceback": "at line 3", "config": config})
    cells = [{"method": "vera", "size": {"budget": 10}, "n_params": None, "empty": "its smallest has 9,240"}]
    (found / "sweeps").mkdir()
    record = {"spec": {"model": "tiny", "steps": 60}, "cells": cells, "provenance": {}}
    (found / "sweeps" / "a.json").write_text(json.dumps(record))
    return found


def test_the_page_has_every_figure_and_run_and_needs_no_other_file(root: Path) -> None:
    page, runs = Page(report(root)), load_runs(root)
    drawn = figures(runs)
    assert page.tags["img"] == len(drawn) == len(page.sources)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not [link for link in page.links if not link.startswith("#")]
    assert {one.name for one in drawn} <= set(page.ids)
    listed = [name.removeprefix("run-") for name in page.ids if name.startswith("run-")]
    assert sorted(listed) == sorted([*(run.name for run in runs), "broken"])


def test_every_number_leads_back_to_its_runs(root: Path) -> None:
    page = Page(report(root))
    assert len(page.links) > 250
    assert not {link.removeprefix("#") for link in page.links} - set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_what_was_lost_is_listed_and_its_text_is_no_markup(root: Path) -> None:
    text = report(root)
    said = " ".join(" ".join(Page(text).text).split())
    assert f"broken: lora, sst2, seed 7: ValueError: {EVIL}" in said and "at line 3" in said
    assert "<script>alert" not in text
    assert "vera, sst2, seed 3: diverged" in said
    assert "vera, budget 10: its smallest has 9,240" in said
    assert '"steps": 60' in said and "runs with" in said
    assert "diverged 1 failed 1" in said


def test_a_page_of_one_task_has_that_ones_runs_alone(root: Path, tmp_path: Path, capsys) -> None:
    assert main(["report", str(root), "--where", "task=stsb", "--out", str(tmp_path / "a.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a.html'}\n"
    page = Page((tmp_path / "a.html").read_text())
    assert len([name for name in page.ids if name.startswith("run-")]) == len(load_runs(root)) // 2
    assert "broken" not in " ".join(page.text)
    before = (tmp_path / "a.html").read_bytes()
    assert write_report(root, tmp_path / "a.html", where=["task=stsb"]).read_bytes() == before


def test_what_cannot_be_reported_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TensorAdaptError, match="holds no run; expected a folder of runs"):
        report(tmp_path)
    with pytest.raises(TensorAdaptError, match="holds no run with task=sst and seed=1; expected"):
        report(root, where=["task=sst", "seed=1"])
    with pytest.raises(TensorAdaptError, match="reference is 'lorA'; did you mean"):
        report(root, reference="lorA")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(TensorAdaptError, match=r'`jinja2`.*pip install "tensoradapt\[report\]"'):
        report(root)


def test_the_plot_command_draws_what_it_is_asked_for(root: Path, tmp_path: Path, capsys) -> None:
    assert main(["plot", str(root), "frontier", "grid", "--out", str(tmp_path), "--x", "seconds"]) == 0
    stems = ["sst2-frontier", "stsb-frontier", "grid"]
    written = [str(tmp_path / f"{stem}.{kind}") for stem in stems for kind in ("png", "pdf", "csv", "txt")]
    assert capsys.readouterr().out.split("\n")[:-1] == written
    assert "time of a run (s), the median over seeds" in (tmp_path / "sst2-frontier.txt").read_text()
    assert main(["plot", str(root), "ranks", "--out", str(tmp_path)]) == 2
    assert "allow no figure of ranks; expected finished runs of that kind" in " ".join(capsys.readouterr().err.split())


@pytest.mark.browser
def test_a_browser_shows_it_without_an_error_and_sorts_its_tables(root: Path, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    path = write_report(root, tmp_path / "report.html")
    where = os.environ.get("TENSORADAPT_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=where, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        wrong: list[str] = []
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        rows, numbers = "#sst2-frontier-table + .wide tbody tr", []
        for _ in range(2):
            page.click("#sst2-frontier-table + .wide th:has-text('n_params')")
            at = page.eval_on_selector_all(
                "#sst2-frontier-table + .wide th", "all => all.map(one => one.innerText.trim().split(' ')[0])"
            )
            cells = page.eval_on_selector_all(
                rows, f"all => all.map(row => row.cells[{at.index('n_params')}].innerText)"
            )
            numbers.append([int(cell.replace(",", "")) for cell in cells])
        page.click(f"{rows}:first-child a")
        target = page.evaluate("location.hash")
        browser.close()
    assert numbers[0] == sorted(numbers[0]) and numbers[1] == numbers[0][::-1] and len(numbers[0]) == 13
    assert target.removeprefix("#run-") in {run.name for run in load_runs(root)}
    assert wrong == []

"""The report of a folder of runs: one page, nothing hidden, every number leads back to its runs."""

from __future__ import annotations

import html
import json
import os
import shutil
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.configs import config_of
from support.synthetic_runs import metric_document, write_many, write_synthetic
from support.synthetic_sweep import sweep

from tensoradapt.analysis.figures.catalogue import figures
from tensoradapt.analysis.names import display
from tensoradapt.cli.main import main
from tensoradapt.errors import TensorAdaptError
from tensoradapt.runs.store import load_runs, write_failure, write_run
from tensoradapt.sweeps import record
from tensoradapt.sweeps.due import Cell, due
from tensoradapt.sweeps.reports.findings import findings
from tensoradapt.sweeps.reports.html_report import about, cell_text, report, write_report
from tensoradapt.sweeps.spec import read_spec

SPEC = {"model": "tiny-random-bert", "task": "planted", "method": "lora", "rank": 1, "steps": 60}
SPEC |= {"lr": 1e-3, "seed": [0, 1]}
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
    same = {"parameterization": "vera", "task": "sst2", "rank": None, "named": "vera"}
    write_synthetic(found, n_params=89_964, budget=90_000, seed=3, status="diverged", lr=3e-3, **same)
    config = config_of("m", "sst2", "lora", seed=7, steps=3).as_dict()
    write_failure(found, "broken", {"kind": "ValueError", "error": EVIL, "traceback": "at line 3", "config": config})
    cells = [Cell("vera", {"budget": 10}, None, "its smallest has 9,240"), Cell("lora", {"rank": 1}, 9216)]
    record.write(found, read_spec(SPEC), cells, {})
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
    tables = {name: [cell.strip() for cell in rows[0]] for name, rows in page.rows.items() if len(rows) > 1}
    assert {"sst2-rates-table", "grid-table", "aggregates-table", "volumes"} < set(tables)
    without = [name for name, head in tables.items() if not {"id", "run", "runs"} & set(head)]
    assert not without


def test_the_page_begins_with_what_the_runs_say(root: Path) -> None:
    text = report(root)
    said = findings([run for run in load_runs(root) if not run.row["tuning"]])
    assert len(said) > 1 and all(html.escape(paragraph) in text.replace("&#39;", "&#x27;") for paragraph in said)
    assert text.index(said[0][:40]) < text.index("<img")


def test_findings_name_the_frontier_and_what_is_decided(tmp_path: Path) -> None:
    curves = {"cp": [(2, 300, 0.70), (4, 600, 0.90)], "lora": [(1, 900, 0.80), (2, 1800, 0.95)]}
    runs = write_many(tmp_path, curves, spread=0.001)
    (said,) = findings(runs)
    assert said.startswith("rte: on the frontier of test accuracy against parameters are CP (LoRTA)")
    assert "LoRA" in said.split(".")[0] and said.count("(900)") == 0  # below a mean of fewer parameters
    assert "The highest mean is 0.95" in said and "(1,800) (95 % interval 0.9" in said
    at_one = {name: [(2, 900, score)] for name, score in (("cp", 0.70), ("lora", 0.80))}
    (said,) = findings(write_many(tmp_path / "same", at_one, spread=0.001))
    assert "Of 1 differences to LoRA, 1 are decided after Holm's correction. Worse: CP (LoRTA) at 900 (-0.1" in said
    one = {name: [(2, 900, score)] for name, score in (("cp", 0.80), ("lora", 0.80))}
    (said,) = findings(write_many(tmp_path / "equal", one, spread=0.03))
    assert "0 are decided" in said and "Worse" not in said


def test_findings_compare_only_in_tasks_that_have_the_reference(tmp_path: Path) -> None:
    write_many(tmp_path, {"cp": [(2, 900, 0.70)], "lora": [(2, 900, 0.80)]}, spread=0.001)
    for name in ("cp", "tucker"):
        write_synthetic(tmp_path, task="sst2", parameterization=name, rank=2, n_params=900, accuracy=0.7)
    with_lora, without = findings(load_runs(tmp_path), "LoRA")
    assert "differences to LoRA" in with_lora and "differences" not in without and "0.700" in without


def test_names_are_shown_as_papers_write_them_and_stored_as_they_were_given(root: Path, tmp_path: Path) -> None:
    page = Page(report(root))
    shown = {row[page.rows[name][0].index("method")].strip() for name in ("runs",) for row in page.rows[name][1:]}
    labels = {str(run.row["method"]) for run in load_runs(root)}
    assert shown == set(map(display, labels)) and shown != labels
    one = next(figure for figure in figures(load_runs(root)) if figure.kind == "frontier")
    table = next(path for path in one.save(tmp_path, kinds=()) if path.suffix == ".csv").read_text()
    assert "lorta" in labels and "LoRTA" not in table and "\nlorta," in table


def test_links_to_runs_say_what_the_run_is(root: Path) -> None:
    run = next(run for run in load_runs(root) if run.row["method"] == "vera" and run.result["status"] == "finished")
    titles = f'<a href="#run-{run.name}" title="{about(run)}">'
    assert titles in report(root) and f"{run.result['n_params']:,} parameters" in about(run)


def test_columns_that_are_the_same_in_every_row_are_said_once(root: Path) -> None:
    tables = {name: [cell.strip() for cell in rows[0]] for name, rows in Page(report(root)).rows.items()}
    assert "parameters" in tables["sst2-frontier-table"] and "n_params" not in tables["sst2-frontier-table"]
    assert "task" not in tables["sst2-frontier-table"]


def test_what_was_lost_is_listed_and_its_text_is_no_markup(root: Path) -> None:
    text = report(root)
    said = " ".join(" ".join(Page(text).text).split())
    assert f"broken: LoRA, sst2, seed 7: ValueError: {EVIL}" in said and "at line 3" in said
    assert "<script>alert" not in text
    assert "VeRA, sst2, seed 3: diverged" in said
    assert "VeRA, budget 10: its smallest has 9,240" in said
    assert '"steps": 60' in said and "runs with" in said
    assert "diverged 1 failed 1" in said
    assert f"runs with a result {len(load_runs(root))} of 2" in said


def test_a_page_of_one_task_has_that_ones_runs_alone(root: Path, tmp_path: Path, capsys) -> None:
    assert main(["report", str(root), "--where", "task=stsb", "--out", str(tmp_path / "a.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a.html'}\n"
    page = Page((tmp_path / "a.html").read_text())
    assert len([name for name in page.ids if name.startswith("run-")]) == len(load_runs(root)) // 2
    assert "broken" not in " ".join(page.text)
    before = (tmp_path / "a.html").read_bytes()
    assert write_report(root, tmp_path / "a.html", where=["task=stsb"]).read_bytes() == before


def test_a_folder_of_two_sweeps_has_a_report_of_each(tmp_path: Path, capsys) -> None:
    """Other rates were tried and won: the runs of both sweeps do not compare, those of one do."""
    specs = [{**SPEC, "lr": rate} for rate in (1e-3, 1e-2)]
    for i, spec in enumerate(specs):
        cells = [Cell("lora", {"rank": 1}, 9216)]
        record.write(tmp_path, read_spec(spec), cells, {})
        for config in due(read_spec(spec), cells, tmp_path).configs[: 2 - i]:
            result = {"status": "finished", "note": "", "metric": metric_document(), "n_params": 9216}
            scores = {"validation": {"accuracy": 0.8}, "test": {"accuracy": 0.8}}
            parts = {"result": {**result, **scores}, "measurements": {}, "provenance": {}, "arrays": {}}
            write_run(tmp_path, config.id, config=config.as_dict(), **parts)
        lines = [f"{key} = {json.dumps(value)}" for key, value in spec.items()]
        (tmp_path / f"{i}.toml").write_text("\n".join(lines))
    with pytest.raises(
        TensorAdaptError, match=r"lora r=1 has runs with learning rates 0.001, 0.01.*by --spec FILE or --where"
    ):
        report(tmp_path)
    said = [" ".join(" ".join(Page(report(tmp_path, spec=tmp_path / f"{i}.toml")).text).split()) for i in range(2)]
    assert "runs with a result 2 of 2" in said[0] and "runs with a result 1 of 2" in said[1]
    assert main(["results", str(tmp_path), "--spec", str(tmp_path / "1.toml")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["plot", str(tmp_path), "--spec", str(tmp_path / "1.toml"), "--out", str(tmp_path / "figures")]) == 0
    assert "Partial: 1 of 2 runs finished." in (tmp_path / "figures" / "frontier.txt").read_text()
    (tmp_path / "0.toml").write_text((tmp_path / "0.toml").read_text().replace("60", "61"))
    with pytest.raises(TensorAdaptError, match=r"has no sweep of .*0.toml on record; expected the specification"):
        report(tmp_path, spec=tmp_path / "0.toml")


def test_totals_are_of_each_task_and_a_run_that_two_sweeps_share_is_one(tmp_path: Path) -> None:
    both = [{**SPEC, "task": ["planted", "sst2"]}, {**SPEC, "lr": [1e-3, 1e-2], "tuning": {"seed": 1000}}]
    plans = [due(read_spec(spec), [Cell("lora", {"rank": 1}, 9216)], tmp_path) for spec in both]
    assert [record.totals([plan]) for plan in plans] == [{"planted": 2, "sst2": 2}, {"planted": 4}]
    assert record.totals(plans) == {"planted": 6, "sst2": 2}  # which rate will be run is not known
    assert record.totals([plans[0], plans[0]]) == record.totals(plans[:1])
    assert record.total(plans) == 8 and record.total([]) is None and record.totals([]) == {}


def test_several_runs_of_one_seed_are_told_how_to_be_selected(tmp_path: Path) -> None:
    for steps in (10, 20):
        write_synthetic(tmp_path, steps=steps)
    with pytest.raises(TensorAdaptError, match=r"several runs of one seed: .* by --spec FILE, or by --where"):
        report(tmp_path)


def test_a_difference_that_is_zero_but_for_rounding_is_shown_as_zero() -> None:
    assert [cell_text(value) for value in (-2.937e-17, 0.0, -2.937e-9, 0.25)] == ["0", "0", "-2.937e-09", "0.25"]


def test_what_cannot_be_reported_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TensorAdaptError, match="holds no run; expected a folder of runs"):
        report(tmp_path)
    with pytest.raises(TensorAdaptError, match="holds no run with task=sst and seed=1; expected"):
        report(root, where=["task=sst", "seed=1"])
    with pytest.raises(TensorAdaptError, match="reference is 'lorAs'; did you mean"):
        report(root, reference="lorAs")
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
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        wrong: list[str] = []
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        rows, numbers = "#sst2-frontier-table + .wide tbody tr", []
        for _ in range(2):
            page.click("#sst2-frontier-table + .wide th[data-column=n_params]")
            at = page.eval_on_selector_all(
                "#sst2-frontier-table + .wide th", "all => all.map(one => one.dataset.column)"
            )
            cells = page.eval_on_selector_all(
                rows, f"all => all.map(row => row.cells[{at.index('n_params')}].innerText)"
            )
            numbers.append([int(cell.replace(",", "")) for cell in cells])
        cut = "[...document.querySelectorAll('.wide')].filter(one => one.scrollWidth > one.clientWidth).length"
        assert page.evaluate(cut) == 0
        page.uncheck("#methods input[value=lora]")
        hidden = "[...document.querySelectorAll('tr[data-method][hidden]')].map(one => one.dataset.method)"
        assert set(page.evaluate(hidden)) == {"lora"}
        page.check("#methods input[value=lora]")
        assert page.evaluate(hidden) == []
        page.click(f"{rows}:first-child a")
        target = page.evaluate("location.hash")
        browser.close()
    assert numbers[0] == sorted(numbers[0]) and numbers[1] == numbers[0][::-1] and len(numbers[0]) == 13
    assert target.removeprefix("#run-") in {run.name for run in load_runs(root)}
    assert wrong == []

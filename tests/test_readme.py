"""What the README, CONTRIBUTING and the guides say is true: commands, numbers, kinds of changes, examples."""

from __future__ import annotations

import csv
import doctest
import re
import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import pandas
import pytest
from support import changes
from support.changes import CHANGES
from support.pages import handwritten
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

import tensoradapt as ta
from tensoradapt.lab import tasks
from tensoradapt.lab.data import assets, models
from tensoradapt.lab.runs.execute import execute
from tensoradapt.lab.sweeps.due import due
from tensoradapt.lab.sweeps.frontier import frontier_spec
from tensoradapt.lab.sweeps.plan_sweep import plan_sweep
from tensoradapt.lab.sweeps.spec import read_spec
from tensoradapt.lab.tasks import registry, snippets

ROOT = Path(__file__).parents[1]
PAGES = [path.relative_to(ROOT).as_posix() for path in handwritten()]


def test_the_readme_example_runs_and_prints_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert found.attempted >= 10 and found.failed == 0
    assert (tmp_path / "my-adapter" / "adapter.json").is_file()


@pytest.fixture
def with_a_model_and_data(tmp_path, monkeypatch):
    """The folder and files that the pages name, each small."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", {})
    models.load(models.TINY, tasks.get("planted")).save_pretrained("my-model")
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "dull": 4, "fine": 5}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(
        "my-model"
    )
    for name in ("reviews", "train", "test"):
        lines = [f"{name} {i} {('dull', 'fine')[i % 2]},{('bad', 'good')[i % 2]}" for i in range(60)]
        Path(f"{name}.csv").write_text("\n".join(["review,verdict", *lines]))


@pytest.mark.thorough
@pytest.mark.parametrize(("page", "methods"), [("README.md", 7), ("docs/start/your-data.md", 2)])
def test_the_script_for_a_model_and_data_of_ones_own_runs(page, methods, with_a_model_and_data, monkeypatch, capsys):
    script = script_of(page)
    assert page != "README.md" or len(script.splitlines()) <= 12
    monkeypatch.setattr(ta, "sweep", partial(ta.sweep, executor="inline", device="cpu"))  # no process to wait for
    exec(script.replace('"steps": 100', '"steps": 2').replace(", workers=2", ""), {})
    runs = ta.load_runs(Path("runs/reviews"))
    metric = "f1" if page != "README.md" else "accuracy"
    assert len(runs) == 3 * methods and {run.result["metric"]["name"] for run in runs} == {metric}
    if page == "README.md":
        assert "reviews" in Path("runs/reviews/report.html").read_text()
        exec(script_of(page, "ta.plots.frontier(runs"), found := {"ta": ta})
        assert len(found["runs"]) == 3 * methods


@pytest.mark.thorough
def test_the_ten_lines_of_the_start_page_train_and_draw(tmp_path, monkeypatch):
    """On a tiny model and two steps; the page has the picture of the lines as they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ta, "sweep", partial(ta.sweep, executor="inline", device="cpu"))
    script = (ROOT / "docs" / "examples" / "first_run.py").read_text()
    assert script_of("docs/start/first-run.md", "first.png") == script and len(script.splitlines()) <= 11
    small = (("all-minilm-l6-v2", models.TINY), ("snippets", "planted"), (": 2000", ": 40"), (": 800", ": 40"))
    for real, tiny in (*small, (": 60", ": 2"), (", workers=2", ""), ("[4, 64]", "[1, 2]")):
        assert real in script
        script = script.replace(real, tiny)
    exec(script, found := {})
    assert len(found["runs"]) == 15 and (tmp_path / "first.png").read_bytes().startswith(b"\x89PNG")


def test_the_start_page_says_what_the_scores_of_its_picture_say():
    page, runs = (ROOT / "docs" / "start" / "first-run.md").read_text(), pandas.read_csv(ROOT / "docs/start/first.csv")
    text, means = " ".join(page.split()), ta.summarise(runs).set_index("n_params")["mean"]
    headline = ta.plots.frontier(runs, headline=True).figure.get_suptitle()
    assert f"{' '.join(headline.split())}, says its headline: with three seeds none of the three" in text
    assert ta.verdict(runs)["verdict"].tolist() == ["not settled"] * 3
    assert (
        f"CP begins at 1,752 parameters with {means[1752]:.3f}" in text and f"trained head has {means[0]:.3f}." in text
    )
    above = ta.compare(runs, "head")
    assert set(above["n_params"][above["decided"]]) == {18432, 28032, 147456}
    assert not ta.compare(runs, "lora", at=8)["decided"].any()


def frozen_bases(spec):
    """The runs of the frozen base of a specification, a seed each."""
    due_now = due(plan_sweep(spec, Path("none")))
    return [config for config in due_now.configs if config.kind == "head"]


@pytest.mark.slow
def test_the_script_trains_the_frozen_base_as_the_frontier_does(tmp_path, monkeypatch):
    """On real sentences and the real model, at the size that the README prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", {})
    Path("my-model").symlink_to(assets.fetch(models.MINILM))
    rated = snippets.read(assets.fetch("vader-snippets") / "movieReviewSnippets_GroundTruth.txt")
    rows = [(text, ("bad", "good")[label]) for (text,), label in zip(rated.texts, rated.labels, strict=True)]
    with Path("reviews.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("review", "verdict"), *np.random.default_rng(0).permutation(rows)[:2500].tolist()])
    given = []
    monkeypatch.setattr(ta, "sweep", lambda spec, *_, **__: given.append(spec))
    monkeypatch.setattr(ta, "report", lambda *_: None, raising=False)
    exec(script_of("README.md"), {})
    of_script = frozen_bases(read_spec(given[0]))
    of_frontier = frozen_bases(frontier_spec("default", model="my-model", task="reviews", steps=given[0]["steps"]))
    settings = [
        [(config.seed, config.training, config.data.max_length) for config in bases]
        for bases in (of_script, of_frontier)
    ]
    assert settings[0] == settings[1] and len(of_script) == 3
    assert execute(of_script[0], "cpu")["result"]["test"]["accuracy"] > 0.6


def script_of(page, has="my-model"):
    """The script for a model and data of one's own, or another that has a text."""
    texts = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return next(text for text in texts if has in text)


def test_the_script_that_draws_numbers_of_others_is_short_and_runs(tmp_path, monkeypatch):
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "guides" / "sweeps" / "results.md").read_text(), re.DOTALL
    )
    (script,) = [block for block in blocks if "frontier.pdf" in block]
    assert len([line for line in script.splitlines() if line.strip()]) <= 8
    monkeypatch.chdir(tmp_path)
    exec(compile(script, "results.md", "exec"), {})
    assert (tmp_path / "frontier.pdf").read_bytes().startswith(b"%PDF")
    pyplot.close("all")


@pytest.mark.parametrize(("page", "least"), [("guides/checkpoints.md", 6), ("results/comparison.md", 35)])
def test_a_page_names_tests_that_exist(page, least):
    text = (ROOT / "docs" / page).read_text()
    there = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", text)
    assert len(named) >= least and not [name for name in named if f"def {name}(" not in there]


def test_the_folders_of_docs_are_the_headings_of_the_site_and_hold_its_pages():
    captions = re.findall(r"^:caption: (.*)$", (ROOT / "docs" / "index.md").read_text(), re.MULTILINE)
    pages = [Path(page).relative_to("docs").parts for page in PAGES]
    assert captions == ["Start", "Results", "Methods", "Guides", "Concepts", "Reference"]
    assert {parts[0] for parts in pages if len(parts) > 1} - {"examples", "notebooks"} <= {c.lower() for c in captions}
    assert [parts for parts in pages if len(parts) == 1] == [("index.md",)]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_every_file_a_page_names_is_there(page):
    text = (ROOT / page).read_text()
    named = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|`((?:tensoradapt|tests|benchmarks|docs|\.ci)/[\w./]+)`", text)
    paths = [link or code for link, code in named if not link.endswith(".png")]  # test_figures_of_docs.py sees these
    found = [[path for path in ((ROOT / page).parent / name, ROOT / name) if path.exists()] for name in paths]
    assert [name for name, there in zip(paths, found, strict=True) if not there or made(there[0])] == []


def made(path):
    """Whether a page is not in git, so that GitHub has none to link to."""
    name = path.resolve().relative_to(ROOT).as_posix()
    return name.startswith("docs/") and name.endswith(".md") and name not in PAGES


def test_the_files_of_the_changes_are_there_but_those_that_a_change_makes():
    rows = re.findall(r"^\| an? [a-z ]+ \| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([\w/]+(?:\.py|/))`", row)]
    assert len(rows) == len(CHANGES) and len(named) >= 18
    missing = [name for name in named if not any((root / name).exists() for root in (ROOT, ROOT / "tensoradapt"))]
    assert missing == [name for change in CHANGES for name in change.new]


@pytest.mark.parametrize(("name", "page"), [("peft", "peft"), ("trainer", "trainers"), ("trl", "trainers")])
def test_a_page_of_another_trainer_has_the_script_as_it_is_run(name, page):
    text = (ROOT / "docs" / "guides" / f"{page}.md").read_text()
    script = (ROOT / "docs" / "examples" / "trainers" / f"with_{name}.py").read_text()
    assert re.findall(r"```python\n(.*?)```", text, re.DOTALL).count(script) == 1


@pytest.mark.parametrize(
    ("page", "needs"),
    [("peft", {"peft", "transformers"}), ("trainer", {"accelerate", "transformers"}), ("trl", {"accelerate", "trl"})],
)
def test_what_a_script_says_to_install_is_what_it_needs(page, needs):
    text = (ROOT / "docs" / "examples" / "trainers" / f"with_{page}.py").read_text()
    line = re.search(r"pip install (.*?)``", text, re.DOTALL)[1]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    def brought(wish):
        name, inner = re.match(r"([\w-]+)(?:\[(.*?)\])?", wish).groups()
        found = [brought(other) for extra in (inner or "").split(",") if extra for other in extras[extra]]
        return {name}.union(*found)

    assert needs <= set().union(*(brought(wish.strip('"')) for wish in line.split()))


def test_the_page_of_other_trainers_has_its_files_as_they_are_run():
    text, folder = (ROOT / "docs" / "guides" / "trainers.md").read_text(), ROOT / "docs" / "examples" / "trainers"
    blocks = re.findall(r"```(?:python|yaml)\n(.*?)```", text, re.DOTALL)
    names = ("ms_swift_adapter.py", "llama_factory_adapter.py", "llama_factory.yaml", "axolotl.yaml")
    assert blocks[2:6] == [(folder / name).read_text() for name in names]


def test_every_row_of_the_comparison_names_its_test():
    rows = [
        line for line in (ROOT / "docs" / "results" / "comparison.md").read_text().splitlines() if line.startswith("| ")
    ]
    assert [row for row in rows[1:] if row.count("|") != 8 or not re.search(r"`test_\w+` \|$", row)] == []


@pytest.mark.thorough
def test_every_kind_of_change_works_in_the_files_that_it_touches(tmp_path: Path) -> None:
    assert not changes.run(changes.scratch(tmp_path))


def test_contributing_lists_the_files_of_each_change() -> None:
    assert changes.table() in (changes.ROOT / "CONTRIBUTING.md").read_text()


DOCS = Path(__file__).parents[1] / "docs"
SHOWING = [DOCS / "start" / "first-run.md"]
SHOWING += [page for page in sorted((DOCS / "guides").glob("*.md")) if ">>> " in page.read_text()]


# bitsandbytes tries kernels that a CPU has not, and warns
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_guides_that_show_what_is_printed_are_found() -> None:
    assert len(SHOWING) >= 12


@pytest.mark.parametrize("page", SHOWING, ids=lambda page: page.stem)
def test_the_examples_of_a_page_print_what_it_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.testfile(str(page), module_relative=False)
    assert found.attempted >= 8 and found.failed == 0

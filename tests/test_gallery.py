"""Pages of the gallery and of the concepts: complete, with counts that are the plan's and drawings that are there."""

from __future__ import annotations

import csv
import doctest
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tensoradapt as ta
from tensoradapt import parameterizations, published

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "make"))

import concept_figures  # noqa: E402
import gallery  # noqa: E402
import gallery_counts  # noqa: E402
import gallery_formulas  # noqa: E402
from gallery_entries import MODELS, TABLE, Entry, config  # noqa: E402
from gallery_pages import RANKS  # noqa: E402

ENTRIES = {entry.slug: entry for entry in gallery.entries()}
SECTIONS = (
    "Formula",
    "Factors",
    "Parameters",
    "As a LoRA",
    "Start and scale",
    "When to choose it",
    "Source",
    "Measured",
)
SIZES = [(768, 12, 12, 3072), (384, 2, 6, 1536), (1024, 24, 16, 4096)]
COUNTED = {slug: entry for slug, entry in ENTRIES.items() if entry.count}  # the others have no line in the table
every_page = pytest.mark.parametrize("slug", COUNTED)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    assert len(gallery.write(folder, draw=False)) == 1 + len(ENTRIES)
    return folder


@pytest.mark.thorough
def test_there_is_a_page_for_every_parameterization_and_row(pages: Path) -> None:
    names = {*parameterizations.names(), *(Entry(row.name, row).slug for row in published.every())}
    assert len(names) == len(parameterizations.names()) + len(published.every())
    assert {path.stem for path in pages.glob("*.md")} == {"index", *names}
    index = (pages / "index.md").read_text()
    assert (
        set(re.findall(r"\]\(([\w-]+)\.md\)", index)) == names == set(index.split(":hidden:\n\n")[1].split("\n")[:-2])
    )


def test_the_table_names_methods_that_are_there() -> None:
    assert set(TABLE["parameterizations"]) <= set(parameterizations.names())
    assert set(TABLE["published"]) <= set(published.names())
    for name, facts in TABLE["parameterizations"].items():
        numbers = re.findall(r"\d{4}\.\d{5}", facts["source"])
        assert not [number for number in numbers if number not in parameterizations.get(name).__doc__], name


@pytest.mark.thorough
@every_page
def test_a_page_is_complete(slug: str, pages: Path) -> None:
    entry, text = ENTRIES[slug], (pages / f"{slug}.md").read_text()
    assert text.startswith(f"# {entry.title}\n")
    parts = re.split(r"^## (.*)\n\n", text, flags=re.MULTILINE)
    assert tuple(parts[1::2]) == SECTIONS and all(part.strip() for part in parts[2::2])
    network = entry.networks[0][1]
    for factor in network.factors:
        assert f"| `{factor.name}` | " in text
    assert network.equation in text and text.count('<math display="block">') == len(entry.networks)
    assert ("; frozen |" in text) == any(not f.trainable for _, each in entry.networks for f in each.factors)
    assert len(re.findall(r"!\[.*\]\(figures/", text)) == len(entry.networks)
    assert text.count("<form") == text.count("</script>") == 1


@every_page
def test_the_counts_of_a_page_are_the_plans(slug: str, pages: Path) -> None:
    entry, text = ENTRIES[slug], (pages / f"{slug}.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", text.split("## Parameters")[1].split("##")[0], re.MULTILINE))
    for rank in RANKS:
        for cell, model in zip(rows[str(rank)].split(" | "), MODELS, strict=True):
            dims = MODELS[model]
            if cell == "-":
                with pytest.raises(ta.TensorAdaptError):
                    ta.plan(dims, rank=rank, **entry.arguments(dims))
            else:
                assert int(cell.replace(",", "")) == counted(entry, dims, rank)


@pytest.mark.thorough
@every_page
def test_the_formula_is_the_count_at_other_sizes(slug: str) -> None:
    entry = ENTRIES[slug]
    for sizes in SIZES:
        dims = config("bert", *sizes)
        for rank in (1, 40):
            for projections in [None] if "M" not in entry.count else [None, ("q",)]:
                try:
                    planned = ta.plan(dims, rank=rank, projections=projections, **entry.arguments(dims)).n_params
                except ta.TensorAdaptError as error:
                    assert "themselves have only" in str(error)
                    continue
                assert counted(entry, dims, rank, projections) == planned, (sizes, rank, projections)


def counted(entry: Entry, dims: Any, rank: int, projections: tuple[str, ...] | None = None) -> int:
    given = letters(entry, dims, rank, projections) | entry.tables
    parts = [{}, {"M": given["mlp"], "o": given["f"]}][: 2 if given["mlp"] else 1]
    return sum(gallery_counts.evaluated(entry.count, given | part) for part in parts)


def letters(entry: Entry, dims: Any, rank: int, projections: tuple[str, ...] | None = None) -> dict[str, int]:
    d, usual = dims.hidden_size, entry.row.projections if entry.row else tuple("qkvo")
    if usual == ("all",):
        usual = (*"qkvo", *(("gate",) if dims.model_type == "llama" else ()), "up", "down")
    square = [proj for proj in projections or usual if proj in "qkvo"]
    found = {"d": d, "o": d, "i": d, "f": dims.intermediate_size, "L": dims.num_hidden_layers, "T": 2, "r": rank}
    found |= {"H": dims.num_attention_heads, "h": d // dims.num_attention_heads, "M": len(square)}
    found["mlp"] = len(projections or usual) - len(square) if "M" in entry.count else 0
    return found


@pytest.mark.browser
def test_the_calculators_say_the_same_as_the_formulas(pages: Path, tmp_path: Path) -> None:
    """Every calculator's function in Chromium, at the sizes that its page offers."""
    calls, expected = [], {}
    for slug, entry in COUNTED.items():
        script = (pages / f"{slug}.md").read_text().split("<script>\n")[1].split("if (typeof document")[0]
        for sizes in SIZES:
            for rank in (1, 40):
                given = letters(entry, config("bert", *sizes), rank)
                key = f"{slug} {sizes} {rank}"
                expected[key] = counted(entry, config("bert", *sizes), rank)
                asked = json.dumps(given | {"projections": given["M"]})
                calls.append(f"{script} found[{json.dumps(key)}] = count({asked}); }})();")
    page = tmp_path / "all.html"
    end = "document.body.textContent = JSON.stringify(found);"
    page.write_text("\n".join(["<body></body><script>const found = {};", *calls, end, "</script>"]))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(re.search(r"\{.*\}", shown.split("</script>")[-1])[0]) == expected  # type: ignore[index]


@pytest.mark.thorough
def test_measured_places_are_the_frontiers(pages: Path) -> None:
    with (ROOT / "docs" / "results" / "figures" / "frontier.csv").open(newline="") as file:
        points = [point for point in csv.DictReader(file) if point["rank"]]
    shown = []
    for entry in ENTRIES.values():
        text = (pages / f"{entry.slug}.md").read_text().split("## Measured")[1]
        rows = re.findall(r"^\| (\d+) \| ([\d,]+) \| ([\d.]+) \| .* \| (yes|no) \|$", text, re.MULTILINE)
        assert bool(rows) != ("Not measured" in text)
        shown += rows
    expected = [
        (p["rank"], f"{int(p['n_params']):,}", f"{float(p['mean']):.3f}", "yes" if p["on_frontier"] == "True" else "no")
        for p in points
    ]
    assert sorted(shown) == sorted(expected)


@pytest.mark.parametrize("module", [gallery_counts, gallery_formulas])
def test_examples_of_the_scripts_run(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


@pytest.mark.slow
def test_every_drawing_is_small_and_the_same_again(tmp_path: Path) -> None:
    first, second = ({path.name: path.read_bytes() for path in made(tmp_path / name)} for name in ("a", "b"))
    assert first == second and len(first) >= 2 * len(ENTRIES) + len(concept_figures.FIGURES)
    assert max(map(len, first.values())) <= 25_000


def made(folder: Path) -> list[Path]:
    gallery.write(folder / "gallery")
    concept_figures.write_figures(folder / "figures")
    return list(folder.rglob("*.png"))


def test_the_drawings_of_a_page_are_where_it_looks_for_them(tmp_path: Path) -> None:
    entry = ENTRIES["paper-cara"]
    names = {path.name for path in gallery.drawings(entry, tmp_path)}
    text = gallery.page(entry) + gallery.index([entry])
    assert names == set(re.findall(r"figures/([\w-]+\.png)", text)) and len(names) == 3


def test_a_method_of_ones_own_has_a_page_without_a_line_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TABLE["published"], "lotr")
    assert "a line of `docs/make/gallery.toml` does" in gallery.page(ENTRIES["paper-lotr"])
    monkeypatch.delitem(TABLE["parameterizations"], "cp")
    text = gallery.page(Entry("cp"))
    assert "give cp a line in `docs/make/gallery.toml`" in text and "| 8 | 6,880 |" in text and "<script" not in text
    assert text.count("\n## ") == gallery.page(ENTRIES["tucker"]).count("\n## ")


PROSE = {"equal-steps.md", "words.md"}  # have no drawings from networks
MEASURED = {"alignment"}  # drawn from a record by benchmarks/alignment.py
CONCEPTS = sorted({path.name for path in (ROOT / "docs" / "concepts").glob("*.md")} - PROSE)


def test_the_pages_of_concepts_show_every_drawing() -> None:
    texts = "".join((ROOT / "docs" / "concepts" / name).read_text() for name in CONCEPTS)
    drawings = set(concept_figures.FIGURES) | MEASURED
    assert set(re.findall(r"\(figures/([\w-]+)\.png\)", texts)) == drawings


@pytest.mark.parametrize("name", CONCEPTS)
def test_links_of_a_concept_lead_somewhere(name: str) -> None:
    page = ROOT / "docs" / "concepts" / name
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists() and not link.endswith(".png")]
    assert 30 <= len(page.read_text().splitlines()) <= 80


@pytest.mark.parametrize("name", ["plans.md", "orientation.md"])
def test_a_printed_plan_is_what_is_printed(name: str) -> None:
    plan = ta.plan(MODELS["BERT-base"], layout="layer proj : head dim : model", method="cp", rank=8)
    text = (ROOT / "docs" / "concepts" / name).read_text()
    heads = ("cp over", "tensors  layout", "site   ", "How a layer", "skipped:")
    blocks = [block for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE) if block.strip().startswith(heads)]
    assert len(blocks) == (5 if name == "plans.md" else 1)
    assert not [block for block in blocks if re.sub(r"^    ", "", block, flags=re.MULTILINE).strip() not in str(plan)]

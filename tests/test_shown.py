"""What a prompt or a notebook shows of plans, adapters, specifications and runs: a screen at most, and sound HTML."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas
import pytest
import torch
from matplotlib import pyplot
from support.models import llama, make
from support.synthetic_runs import write_many, write_synthetic

import tensoradapt as ta
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.lab.runs.store import Run
from tensoradapt.planning.plan import KINDS, Plan
from tensoradapt.text import COLUMNS, LINES

MINILM = SimpleNamespace(
    model_type="bert", hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
)
LLAMA = llama(
    **{"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
    **{"head_dim": 128, "intermediate_size": 14336},
)
PATTERN = {f"*.layers.{i}.*": i + 1 for i in range(32)}  # 64 kinds of tensors
TIED = "layer proj : head dim : model"
PLANS = {
    "minilm": ta.plan(MINILM, "cp", TIED, rank=8),
    "llama": ta.plan(LLAMA, "lora", rank=8, projections="all"),
    "llama of many ranks": ta.plan(LLAMA, "lora", rank=8, rank_pattern=PATTERN),
}
every_plan = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)


class Tags(HTMLParser):
    """Reads HTML whose elements are all closed in their order; keeps their names and their text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)
        self.names.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def fits(value: Any) -> bool:
    lines = repr(value).split("\n")
    return len(lines) <= LINES and max(map(len, lines)) <= COLUMNS


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return write_many(tmp_path, {"cp": [(r, 100 * r, 0.75) for r in range(1, 10)]}, at_chance=["cp"])


@every_plan
def test_a_plan_is_shown_on_a_screen(plan: Plan) -> None:
    assert fits(plan) and fits(plan.spec) and all(fits(group) for group in plan.groups)
    assert repr(plan) == str(plan) or re.search(r"^\.\.\. and \d+ more lines$", repr(plan).split("\n")[-1])


def test_a_plan_that_is_longer_says_how_many_groups_are_left_out() -> None:
    assert repr(PLANS["minilm"]) == str(PLANS["minilm"])
    plan = PLANS["llama of many ranks"]
    table = repr(plan).split("\n\n")[1].splitlines()[1:]
    left = len(plan.groups) - sum(int(line.split()[0]) for line in table[:-1])
    assert len(table) == KINDS + 1 and table[-1] == f"... and {left} more groups"
    assert "more groups" not in str(plan) and len(str(plan).splitlines()) > 300


def test_a_group_and_a_specification_say_what_they_are() -> None:
    group = "Group('layer proj : head dim : model', 6 x 4 x 12 x 32 x 384, rank 8, 24 sites, 3,504 parameters)"
    assert repr(PLANS["minilm"].groups[0]) == group
    spec = ta.AdapterSpec("cp", TIED, 8, dropout=0.1)
    assert repr(spec) == f"AdapterSpec(method='cp', layout=('{TIED}',), rank=8, dropout=0.1)"
    for each in (spec, PLANS["minilm"].spec, PLANS["llama"].spec):
        assert eval(repr(each), {"AdapterSpec": ta.AdapterSpec}) == each


@pytest.mark.thorough
@every_plan
def test_an_adapter_is_shown_on_a_screen(plan: Plan) -> None:
    with torch.device("meta"):
        adapter = Adapter(plan, empty=True)
    assert fits(adapter) and f"{plan.n_params:,} parameters, attached" in repr(adapter)
    shown, planned = Tags(adapter._repr_html_()), Tags(plan._repr_html_())
    assert "attached" in shown.texts and shown.texts[4:] == planned.texts[4:]


def test_a_model_prints_its_adapter_as_a_table() -> None:
    model = make("bert")
    adapter = ta.attach(model, ta.plan(model, "cp", TIED, rank=2))
    printed = re.sub(r"^ +", "", repr(model), flags=re.MULTILINE)
    assert re.sub(r"^ +", "", repr(adapter), flags=re.MULTILINE) in printed


def test_runs_are_a_line_each_and_a_screen_together(runs: list[Run], tmp_path: Path) -> None:
    assert len(runs) > LINES and fits(runs)
    assert repr(runs).endswith(f"\n... and {len(runs) - LINES + 1} more runs")
    assert all(len(repr(run).splitlines()) == 1 and fits(run) for run in runs)
    path = write_synthetic(tmp_path / "one", parameterization="lora", rank=8, seed=3, accuracy=0.82)
    (run,) = ta.load_runs(tmp_path / "one")
    assert repr(run) == f"Run({path.name}, LoRA r=8, seed 3, accuracy 0.82)"
    assert "at chance" in repr(next(run for run in runs if run.row["kind"] == "adapter"))


def test_a_run_that_lacks_columns_is_shown_by_those_that_it_has() -> None:
    assert repr(Run("row 1", Path(), {})) == "Run(row 1)"
    assert repr(Run("row 1", Path(), {"method": "m\n" * 200, "test": 0.5})).endswith("...")
    Tags(Run("row 1", Path(), {})._repr_html_())


def test_runs_are_a_table_in_a_notebook(runs: Any, tmp_path: Path) -> None:
    tags = Tags(runs._repr_html_())
    assert tags.names.count("tr") == LINES - 1 and tags.texts[-1] == f"... and {len(runs) - LINES + 2} more runs"
    write_synthetic(tmp_path / "one", named="<script>alert(1)</script> & co", seed=1)
    (run,) = ta.load_runs(tmp_path / "one")
    assert any("<script>alert(1)</script> & co" in text for text in Tags(run._repr_html_()).texts)


@every_plan
def test_a_plan_is_a_drawing_and_a_table_in_a_notebook(plan: Plan) -> None:
    open_before = pyplot.get_fignums()
    html = plan._repr_html_()
    tags, network = Tags(html), plan.groups[0].network
    assert tags.names.count("svg") == 1 and tags.names.count("figure") == 1 and "script" not in tags.names
    assert {*(factor.name for factor in network.factors), *(f"{k}={n}" for k, n in network.sizes.items())} <= {
        *tags.texts
    }
    assert f"{network.n_params:,}" in tags.texts and (
        len(plan.groups) == 1 or f"the first of {len(plan.groups)} " in html
    )
    assert pyplot.get_fignums() == open_before


def test_a_drawing_has_no_colour_that_a_dark_page_swallows() -> None:
    mixed = r"color-mix\(in srgb, (#[0-9a-f]{6} 80%, currentColor|currentColor \d+%, var\(--paper\))\)"
    rest = re.sub(mixed, "", re.search("<svg.*</svg>", PLANS["minilm"]._repr_html_(), re.DOTALL)[0])
    assert "fill: none" in rest and not re.search(r"#[0-9a-f]{6}\b|white|black", rest)


NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def numbers(html: str) -> set[str]:
    """The numbers that a reader sees."""
    return set(NUMBER.findall(" ".join(Tags(re.sub("<style>.*?</style>", "", html, flags=re.DOTALL)).texts)))


@every_plan
def test_a_notebook_shows_no_other_numbers_than_the_text(plan: Plan) -> None:
    bonds = {str(n) for n in plan.groups[0].network.bonds.values()}
    assert numbers(plan._repr_html_()) <= {*NUMBER.findall(str(plan)), f"{len(plan.groups):,}", *bonds}
    assert {f"{plan.n_params:,}", f"{plan.n_dense:,}"} <= numbers(plan._repr_html_())


def test_sites_are_a_table_at_a_prompt_and_in_a_notebook() -> None:
    sites = ta.find_sites(LLAMA)
    assert fits(sites) and repr(sites).startswith(f"{len(sites)} sites (llama by recipe llama)\nsite ")
    assert "4096 x 4096" in Tags(sites._repr_html_()).texts and "0-31" in Tags(sites._repr_html_()).texts
    assert numbers(sites._repr_html_()) <= set(NUMBER.findall(repr(sites)))


def test_an_adapter_says_what_became_of_it() -> None:
    model = make("bert")
    adapter = ta.attach(model, "cp", TIED, rank=2)
    assert adapter.state == "attached"
    with torch.no_grad():
        adapter.factored[0].trained["dim"].add_(1)
    assert adapter.state == "attached, trained", "by a loop of one's own"
    batches = [{"input_ids": torch.ones(2, 4, dtype=torch.long), "labels": torch.tensor([0, 1])}] * 3
    ta.fit(model, batches, lr=1e-3, steps=3, progress=False)
    ta.merge(model)
    assert adapter.state == "merged into the weights, trained for 3 steps" and adapter.state in repr(adapter)
    assert adapter.state in Tags(adapter._repr_html_()).texts
    ta.unmerge(model)
    assert ta.detach(model).state == "detached, trained for 3 steps"


def test_a_task_and_its_data_are_shown_by_their_sizes() -> None:
    data = ta.load_task("snippets", n_train=100)
    tags = Tags(data._repr_html_())
    assert {"100", f"{len(data.test):,}", f"{data.chance:.3f}", data.task.source} <= {*tags.texts}
    assert data.train.texts[0][0] in tags.texts and "accuracy" in Tags(data.task._repr_html_()).texts


def test_methods_are_shown_by_purpose_and_what_is_made_of_the_table_is_a_plain_one() -> None:
    table = ta.methods()
    assert {*table["when"]} - {""} <= {*Tags(table._repr_html_()).texts}
    assert type(table.head()) is pandas.DataFrame and type(table[["name"]]) is pandas.DataFrame


def test_a_display_never_fails() -> None:
    table = ta.methods(kind="published")
    del table["when"]
    assert table._repr_html_().startswith("<pre>")


def test_names_are_escaped() -> None:
    plan = PLANS["minilm"]
    network = plan.groups[0].network
    factors = (replace(network.factors[0], name="<b>&"), *network.factors[1:])
    named = replace(plan.groups[0], network=replace(network, factors=factors))
    tags = Tags(replace(plan, source="<i>mine</i>", groups=(named,))._repr_html_())
    assert tags.names.count("i") == 1 + len(factors) and "<b>&" in tags.texts, "bars alone are of this element"
    assert any("<i>mine</i>" in text for text in tags.texts)

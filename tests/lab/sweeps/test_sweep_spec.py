"""The specification of a sweep: one meaning is one sweep, and whatever is not understood is refused by name."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.synthetic_runs import write_scored

import tensoradapt as ta
from tensoradapt import parameterizations
from tensoradapt.lab.data import models
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.execute import execute
from tensoradapt.lab.sweeps.due import due
from tensoradapt.lab.sweeps.plan_sweep import plan_sweep
from tensoradapt.lab.sweeps.spec import read_spec, table_of
from tensoradapt.records import toml_of
from tensoradapt.training.options import Training

SMALLEST = """
model = "tiny-random-bert"
task = "planted"
method = ["lora", "lorta"]
rank = [1, 2]
lr = 1e-3
seed = [0, 1, 2]
steps = 60
"""
PLAIN = {"tuning": {"at": "method", "seed": 1000, "extend": 0}}  # one grid at the middle size, with one seed
EXACT = "layer proj : head dim : model"


def spec(text: str = SMALLEST, **changes):
    found = {**tomllib.loads(text), **changes}
    return read_spec({key: value for key, value in found.items() if value is not None})


def configs(spec, root=Path("no-such-folder")):
    return due(plan_sweep(spec, root)).configs


def ids(spec):
    return {config.id for config in configs(spec)}


def test_the_smallest_specification_is_every_method_at_every_rank_and_seed(tmp_path):
    (tmp_path / "spec.toml").write_text(SMALLEST)
    found = configs(read_spec(tmp_path / "spec.toml"))
    assert [(c.adapter.method, c.adapter.rank, c.seed) for c in found] == [
        (name, rank, seed) for seed in (0, 1, 2) for name in ("lora", "lorta") for rank in (1, 2)
    ]
    assert {(c.model, c.task, c.training) for c in found} == {
        ("tiny-random-bert", "planted", Training(1e-3, 60, head_lr=0.06, optimizer="equal_steps"))
    }


def test_a_method_without_a_rank_has_one_size(monkeypatch):
    build = parameterizations.get("dense")
    own = SimpleNamespace(build=build.build, count=build.count, oracle=build.oracle, ranked=False)
    monkeypatch.setattr(parameterizations, "plugins", lambda: {"tree": SimpleNamespace(load=lambda: own)})
    for method in ("tree", "dense", "kradapter"):
        assert [m.adapters[0].rank for m in spec(method=method).method] == [None]
        assert [m.adapters[0].rank for m in spec(method=method, rank=None).method] == [None]


def test_one_meaning_said_otherwise_is_the_same_runs():
    same = """
    tuning.seed = [1000]
    steps = 60.0
    seed = [0.0, 1, 2]
    lr = [0.001]
    rank = [1.0, 2]
    method = ["LoRA", {method = "lorta"}]
    task = ["planted"]
    model = "tiny-random-bert"
    """
    assert spec(same).id == spec().id and ids(spec(same)) == ids(spec()) and len(ids(spec())) == 12
    assert ids(spec(batch=32, max_length=64)) == ids(spec()), "defaults that are written down changed the runs"
    defaults = {"scale": "matched", "projections": "attention", "start": "zero", "on_mismatch": "split", "paper": False}
    assert ids(spec(**defaults)) == ids(spec()) and spec(**defaults).id == spec().id
    assert spec(lr={"lora": [1e-3], "lorta": 1e-3}).id == spec().id
    assert spec(lr={"LoRA": [1e-3], "LoRTA": 1e-3}).id == spec().id
    by_table = [{"method": name, "rank": [1, 2], "lr": 1e-3, "steps": 60} for name in ("lora", "lorta")]
    assert spec(method=by_table, rank=None, lr=None, steps=None).id == spec().id


def test_another_meaning_is_other_runs():
    for change in (
        {"steps": 61},
        {"lr": 2e-3},
        {"batch": 16},
        {"scale": "paper"},
        {"paper": True},
        {"dropout": 0.1},
        {"rule": "dora"},
        {"seed": [3, 4, 5]},
    ):
        assert not ids(spec(**change)) & ids(spec()), change


@pytest.mark.thorough
def test_fields_of_training_are_passed_on_and_change_the_runs():
    (config, *_) = configs(spec(warmup=0, clip=0.5))
    assert config.training == Training(1e-3, 60, head_lr=0.06, optimizer="equal_steps", warmup=0.0, clip=0.5)
    assert config == RunConfig.from_dict(config.as_dict())
    assert not ids(spec(clip=0.5)) & ids(spec())
    plain = replace(config, training=Training(1e-3, 60))
    losses = [execute(one, "cpu")["arrays"]["losses"] for one in (config, plain)]
    assert losses[0][0] == losses[1][0] and losses[0][1] != losses[1][1]


def test_adapters_take_equal_steps_unless_the_optimizer_is_named():
    every = {
        name: configs(spec(reference=["head", "full"], **({"optimizer": name} if name else {})))
        for name in ("", "equal_steps", "adamw")
    }
    assert {c.id for c in every[""]} == {c.id for c in every["equal_steps"]}
    assert all(c.training.optimizer == ("equal_steps" if c.adapter else "adamw") for c in every[""])
    assert all(config.training.optimizer == "adamw" for config in every["adamw"])
    with pytest.raises(ta.TensorAdaptError, match="optimizer is 'adam'"):
        spec(optimizer="adam")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"step": 3}, 'unknown key step; did you mean "steps"'),
        ({"warmup": 2}, "warmup is 2; expected a share of the steps"),
        ({"precision": "fp16"}, "precision is 'fp16'; did you mean \"bf16\""),
        ({"model": None}, "model is missing; expected a built-in model, a folder"),
        ({"task": None}, "task is missing"),
        ({"task": ["planted", "planted"]}, "task names 'planted' twice"),
        ({"seed": None}, "seed is missing; expected the seeds that are reported"),
        ({"seed": 1000}, "tuning.seed has 1000, which is one of seed"),
        ({"steps": None}, "steps is missing; expected number of optimizer steps"),
        ({"method": "lorra"}, r"method\[0\]: unknown method 'lorra'; did you mean \"lora\""),
        ({"method": ["lora", "lora"]}, "method names 'lora' twice"),
        ({"method": ["lora", "LoRA"]}, "two methods are called 'lora'"),
        ({"method": ["lora", {"name": "x"}]}, r"method\[1\]: method is missing; expected a parameterization or a"),
        ({"method": [{"method": "cp", "rnak": 1}]}, r"method\[0\]: unknown key rnak; did you mean \"rank\""),
        (
            {"method": [{"method": "cp", "paper": True}]},
            r"method\[0\]: paper=True was given with method 'cp', which no",
        ),
        ({"layout": ": out : in", "method": "lotr"}, "layout is given, and no method is a parameterization"),
        ({"rank": None}, "neither rank nor budget given; expected exactly one of rank and budget"),
        ({"rank": [1, 1.0]}, "rank names 1 twice"),
        ({"start": "gradient"}, 'start is "gradient", which takes batches; expected "zero", "subtract" or "paper"'),
        ({"lr": None}, "lora: lr is missing; every method needs it"),
        ({"lr": {"lora": [1e-3]}}, "lr has no grid for 'lorta', only for lora; expected one for"),
        ({"lr": {"lora": 1e-3, "lorta": 1e-3, "lort": 1}}, "lr names 'lort', which is no method; did you mean"),
        ({"reference": "ful"}, r"reference\[0\]: reference is 'ful'; did you mean \"full\""),
        ({"scale": "papers"}, "scale is 'papers'; did you mean \"paper\""),
        ({"tuning": {"sead": 7}}, 'tuning: unknown key sead; did you mean "seed"'),
    ],
)
def test_what_is_not_understood_is_refused_by_name(change, says):
    with pytest.raises(ta.TensorAdaptError, match=says):
        spec(**change)


def test_a_file_that_is_no_toml_is_refused_with_an_example(tmp_path):
    (tmp_path / "spec.toml").write_text("model = ")
    for path in (tmp_path / "spec.toml", tmp_path / "absent.toml"):
        with pytest.raises(ta.TensorAdaptError, match=r"toml cannot be read \(.*expected a sweep in TOML, such as"):
            read_spec(path)


def test_several_values_are_several_methods_that_what_differs_names():
    found = spec(
        method=[
            {"method": ["cp", "tucker"], "start": ["zero", "subtract"]},
            {"method": "lora", "name": "mine", "projections": [["q"], ["q", "v"]], "steps": [10, 20], "rank": 3},
        ],
        rank=2,
        reference="head",
    )
    assert [method.name for method in found.methods] == [
        *(f"{name}, start {start}" for name in ("cp", "tucker") for start in ("zero", "subtract")),
        *(f"mine, projections {names}, steps {n}" for names in ("q", "q v") for n in (10, 20)),
        "frozen base + head",
    ]
    assert [method.training["steps"] for method in found.method[4:]] == [10, 20, 10, 20]
    assert {method.adapters[0].rank for method in found.method[4:]} == {3}
    assert found.reference[0].training == {"steps": 60}


def test_a_budget_is_the_largest_configuration_within_it_and_what_cannot_be_reached_is_empty():
    found = spec(rank=None, budget=[100, 1000, 10_000], paper=True)
    planned = plan_sweep(found, Path("no-such-folder"))
    by_cell = {(cell.method, cell.size.budget): cell for cell in planned.cells}
    assert "budget 100 is below the smallest possible" in by_cell["lora", 100].empty
    assert "themselves have only 3,456" in by_cell["lora", 10_000].empty
    for (method, budget), cell in by_cell.items():
        if not cell.empty:
            plan = ta.plan(models.config(found.model), method, budget=budget, paper=True)
            assert cell.n_params == plan.n_params <= budget
    runs = due(planned)
    assert runs.total == len(runs.configs) == 3 * sum(not cell.empty for cell in planned.cells)
    assert ("lora", 100) not in {(c.adapter.method, c.adapter.budget) for c in runs.configs}


def test_budgets_that_buy_the_same_are_one_cell():
    found = spec(rank=None, budget=[41, 42, 82], method="lorta")
    empty = [cell.empty for cell in plan_sweep(found, Path()).cells]
    assert empty == ["", "its plan is that of n≤41", ""]


def test_a_methods_rate_is_chosen_on_validation_with_its_own_seed_and_then_kept(tmp_path):
    found = spec(lr=[1e-3, 3e-3, 1e-2], **PLAIN)
    planned = plan_sweep(found, tmp_path)
    first = due(planned)
    assert first.total == 2 * 3 + 12
    assert {(c.adapter.method, c.training.lr, c.seed, c.tuning, c.adapter.rank) for c in first.configs} == {
        (name, lr, 1000, True, 1) for name in ("lora", "lorta") for lr in (1e-3, 3e-3, 1e-2)
    }
    for config in first.configs:
        if config.adapter.method == "lorta":
            write_scored(tmp_path, config, {1e-3: 0.5, 3e-3: 0.7, 1e-2: 0.7}[config.training.lr])
    second = due(planned).configs
    reported = [c for c in second if not c.tuning]
    kept = {(c.adapter.method, c.training.lr) for c in reported}
    assert kept == {("lorta", 3e-3)}, "of two equal rates the lower is taken"
    assert {c.seed for c in reported} == {0, 1, 2} and len(reported) == 6


def test_a_method_without_a_usable_rate_is_blocked_and_the_others_go_on(tmp_path):
    found = spec(lr=[1e-3, 1e-2], **PLAIN)
    planned = plan_sweep(found, tmp_path)
    for config in due(planned).configs:
        write_scored(tmp_path, config, None if config.adapter.method == "lora" else 0.5)
    now = due(planned)
    assert now.blocked == ("LoRA on planted: no learning rate gave a result",)
    assert {c.adapter.method for c in now.configs if not c.tuning} == {"lorta"}


@pytest.mark.parametrize(
    ("change", "says"),
    [({"layout": "layer : out in"}, r"method cp: .*colon"), ({"split": "ab"}, r"method cp: split=?.*'ab'; expected")],
)
def test_what_a_plan_refuses_is_refused_before_anything_is_run(change, says):
    found = spec(method="cp", **change)
    with pytest.raises(ta.TensorAdaptError, match=says):
        plan_sweep(found, Path())


def test_fields_of_an_adapter_reach_its_plan_and_make_other_runs():
    layout = {"method": "cp", "layout": "layer proj : out1 out2 : in", "rank": 2}
    parts = {"split": {"out": {"24": [4, 6]}}}
    found = spec(method={"name": "split", **parts, **layout})
    planned = plan_sweep(found, Path("no-such-folder"))
    (cell,) = planned.cells
    assert cell.n_params == 2 * (3 + 4 + 4 + 6 + 24)
    runs = due(planned).configs
    other = spec(method={"name": "split", **parts, "start": "subtract", **layout})
    assert {c.id for c in runs}.isdisjoint(ids(other))


SETTINGS = {
    "rank": [1, 2, {"r": 3}],
    "start": ["zero", "subtract", "paper"],
    "rule": ["add", "dora"],
    "scale": [0.5, 2, "matched", "paper"],
    "alpha": [8.0, 16],
    "dropout": [0.0, 0.1],
    "projections": [["q"], ["q", "v"], ["attention"]],
    "layout": [[": out : in"], [EXACT, ": out : in"], [{"layout": ": out : in", "projections": ["q", "v"]}]],
    "options": [{}, {"weights": True}],
    "split": [{"out": {"24": [4, 6]}}, {"in": [2, 12]}],
    "on_mismatch": ["split", "crop", "error"],
    "rates": [{}, {"A": 2.0}],
    "rank_pattern": [{"*.0.*": 2}],
    "paper": [False],
    "steps": [1, 20],
    "warmup": [0.1, 0.5],
    "optimizer": ["adamw", "equal_steps"],
    "precision": ["fp32", "bf16"],
    "head_lr": [0.1, 0.02],
    "n_train": [10, 20],
    "batch": [32, 8],
    "lr": [1e-3, 1.0, 0.02],
}
ONLY_ADAPTERS = {"optimizer", *list(SETTINGS)[: list(SETTINGS).index("steps")]}


@st.composite
def settings(draw, names, several=1):
    """Some settings of these names, of which at most ``several`` have all their values."""
    chosen = draw(st.lists(st.sampled_from(sorted(names)), unique=True, max_size=6))
    lists = set(draw(st.lists(st.sampled_from(chosen), max_size=several))) if chosen else set()
    return {name: SETTINGS[name] if name in lists else draw(st.sampled_from(SETTINGS[name])) for name in chosen}


@st.composite
def tables(draw):
    """Specifications with settings at the top and in tables of methods and references."""
    names = draw(st.lists(st.sampled_from(["cp", "lora", "lotr", "dense", "metatt-4d"]), unique=True, max_size=3))
    methods = [
        {"method": name, **draw(settings(SETTINGS, 2))} if draw(st.booleans()) else name for name in names or ["cp"]
    ]
    references = [
        {"reference": kind, **draw(settings(set(SETTINGS) - ONLY_ADAPTERS))} if draw(st.booleans()) else kind
        for kind in draw(st.lists(st.sampled_from(["head", "full", "bitfit"]), unique=True))
    ]
    table = {**draw(settings(set(SETTINGS) - {"paper"})), "method": methods, "reference": references}
    table |= {"model": "tiny-random-bert", "task": "planted", "seed": draw(st.sampled_from([0, [0, 1, 2]]))}
    tuning = {"at": ["size", "method"], "seed": [[7], [7, 8]], "extend": [0, 2]}
    if draw(st.booleans()):
        table["tuning"] = {key: draw(st.sampled_from(tuning[key])) for key in draw(st.sets(st.sampled_from([*tuning])))}
    if draw(st.booleans()):
        table["search"] = {"trials": 3, "lr": draw(st.sampled_from([{"low": 1e-4, "high": 0.1}, [1e-3, 1e-2]]))}
    if draw(st.booleans()):
        table["keep"] = "all"
    return {key: value for key, value in {"steps": 5, "rank": 2, "lr": 1e-3, **table}.items() if value != []}


@given(tables())
def test_what_was_written_is_read_as_the_same_sweep(table):
    try:
        found = read_spec(table)
    except ta.TensorAdaptError:  # settings that exclude each other
        return
    written = toml_of(table_of(found))
    again = read_spec(tomllib.loads(written))
    assert again == found and again.id == found.id
    assert toml_of(table_of(again)) == written

"""The specification of a sweep: one meaning is one sweep, and whatever is not understood is refused by name."""

from __future__ import annotations

import math
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.synthetic_runs import metric_document

import tensoradapt as ta
from tensoradapt.data import models
from tensoradapt.runs.config import RunConfig
from tensoradapt.runs.execute import execute
from tensoradapt.runs.store import write_run
from tensoradapt.sweeps.cells import cells, due
from tensoradapt.sweeps.read_spec import read_spec

SMALLEST = """
model = "tiny-random-bert"
tasks = ["planted"]
published = ["lora", "lorta"]
ranks = [1, 2]
learning_rates = [1e-3]
seeds = [0, 1, 2]
steps = 60
"""
SPELLED = {
    "model": "tiny-random-bert",
    "tasks": ["planted"],
    "steps": 1,
    "ranks": [1],
    "learning_rates": [1e-3],
    "seeds": [0],
}
PLAIN = {"tune": "method", "tuning_seeds": [1000], "extend": 0}  # one grid at the middle size, with one seed


def spec(text: str = SMALLEST, **changes):
    found = {**tomllib.loads(text), **changes}
    return read_spec({key: value for key, value in found.items() if value is not None})


def configs(spec, root=Path("no-such-folder")):
    return due(spec, cells(spec, models.config(spec.model)), root).configs


def ids(spec):
    return {config.id for config in configs(spec)}


def test_the_smallest_specification_is_every_method_at_every_rank_and_seed(tmp_path):
    (tmp_path / "spec.toml").write_text(SMALLEST)
    found = configs(read_spec(tmp_path / "spec.toml"))
    assert [(c.published, c.rank, c.seed) for c in found] == [
        (name, rank, seed) for seed in (0, 1, 2) for name in ("lora", "lorta") for rank in (1, 2)
    ]
    assert {(c.model, c.task, c.lr, c.steps, c.scale) for c in found} == {
        ("tiny-random-bert", "planted", 1e-3, 60, "matched")
    }


def test_one_meaning_said_otherwise_is_the_same_runs():
    same = """
    tuning_seeds = [1000]
    steps = 60.0
    seeds = [0.0, 1, 2]
    learning_rates = [0.001]
    ranks = [1.0, 2]
    published = ["lora", "lorta"]
    tasks = ["planted"]
    model = "tiny-random-bert"
    """
    assert spec(same).id == spec().id and ids(spec(same)) == ids(spec()) and len(ids(spec())) == 12
    assert ids(spec(batch=32, max_length=64)) == ids(spec()), "defaults that are written down changed the runs"
    assert spec(learning_rates={"lora": [1e-3], "lorta": [1e-3]}).id == spec().id


def test_another_meaning_is_other_runs():
    for change in (
        {"steps": 61},
        {"learning_rates": [2e-3]},
        {"batch": 16},
        {"scale": "paper"},
        {"targets": "paper"},
        {"seeds": [3, 4, 5]},
    ):
        assert not ids(spec(**change)) & ids(spec()), change


def test_options_of_training_are_passed_on_and_change_the_runs():
    (config, *_) = configs(spec(training={"warmup": 0, "clip": 0.5}))
    assert config.training == {"warmup": 0, "clip": 0.5, "optimizer": "equal_steps"}
    assert config == RunConfig.from_dict(config.as_dict())
    assert not ids(spec(training={"clip": 0.5})) & ids(spec())
    losses = [execute(replace(config, training=kept), "cpu")["arrays"]["losses"] for kept in (config.training, {})]
    assert losses[0][0] == losses[1][0] and losses[0][1] != losses[1][1]


def test_bf16_makes_other_runs_whose_scores_are_computed_in_it_too():
    assert ids(spec(training={"precision": "fp32"})) == ids(spec())
    config, *_ = configs(spec(training={"precision": "bf16"}))
    assert config.id not in ids(spec())
    plain = execute(replace(config, training={}, steps=1, lr=1e-9), "cpu")["arrays"]["predictions"]
    scores = execute(replace(config, steps=1, lr=1e-9), "cpu")["arrays"]["predictions"]
    assert np.array_equal(scores, torch.from_numpy(scores).bfloat16().float()) and not np.array_equal(scores, plain)
    assert np.allclose(scores, plain, atol=0.05)
    head, *_ = (c for c in configs(spec(training={"precision": "bf16"}, references=["head"])) if c.kind == "head")
    assert head.training == {"precision": "bf16"}


def test_adapters_take_equal_steps_unless_the_optimizer_is_named():
    every = {
        name: configs(spec(references=["head", "full"], **({"optimizer": name} if name else {})))
        for name in ("", "equal_steps", "adamw")
    }
    assert {c.id for c in every[""]} == {c.id for c in every["equal_steps"]}
    by_kind = {kind: [c for c in every[""] if c.kind == kind] for kind in ("adapter", "head", "full")}
    assert all(config.training == {"optimizer": "equal_steps"} for config in by_kind["adapter"])
    assert all(config.training == {} for kind in ("head", "full") for config in by_kind[kind])
    assert all(config.training == {} for config in every["adamw"])
    assert "training" not in spec(optimizer="adamw").runs
    with pytest.raises(ta.TensorAdaptError, match="optimizer is 'adam'"):
        spec(optimizer="adam")


def test_the_name_of_a_method_is_no_part_of_a_runs_meaning():
    run = RunConfig("adapter", 0, "tiny-random-bert", "planted", 1e-3, 60, "cp", ("layer proj : head dim : model",))
    assert run.id == RunConfig.from_dict({**run.as_dict(), "method": "mine"}).id
    assert run.id != RunConfig.from_dict({**run.as_dict(), "tuning": True}).id


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"step": 3}, 'unknown key step; did you mean "steps"'),
        ({"training": {"wormup": 0}}, 'unknown key training.wormup; did you mean "warmup"'),
        ({"training": {"warmup": 2}}, "training: warmup is 2; expected a share of the steps"),
        ({"training": {"precision": "fp16"}}, "training.precision is 'fp16'; did you mean \"bf16\""),
        ({"training": {"clip": "x"}}, "training.clip is 'x'; expected a finite number"),
        ({"training": {"steps": 3}}, "unknown key training.steps"),
        ({"model": None}, "model is missing"),
        ({"model": 3}, "model is 3; expected a text"),
        ({"tasks": ["plantet"]}, 'unknown task "plantet"; did you mean "planted"'),
        ({"tasks": []}, r"tasks is \[\]; expected a list of at least one"),
        ({"published": ["lorat"]}, "unknown published adapter 'lorat'; did you mean"),
        ({"published": None}, "the sweep has no methods"),
        (
            {"published": None, "parameterizations": ["tuker"]},
            r"parameterizations\[0\] is 'tuker'; did you mean \"tucker\"",
        ),
        ({"layouts": [": out : in"]}, "layouts is given without parameterizations"),
        ({"ranks": None}, "neither ranks nor budgets given"),
        ({"budgets": [100]}, "budgets and ranks given; expected exactly one"),
        ({"ranks": [1, 1.0]}, "ranks names 1 twice"),
        ({"ranks": [1.5]}, r"ranks\[0\] is 1.5; expected a whole number from 1"),
        ({"ranks": [True]}, r"ranks\[0\] is True; expected a whole number"),
        ({"ranks": 1}, "ranks is 1; expected a list"),
        ({"seeds": [-1]}, r"seeds\[0\] is -1; expected a whole number from 0"),
        ({"seeds": [1000]}, "tuning_seeds has 1000, which is one of seeds"),
        ({"steps": 0}, "steps is 0; expected a whole number from 1"),
        ({"learning_rates": None}, "lora: learning_rates is missing"),
        ({"learning_rates": [math.nan]}, r"learning_rates\[0\] is nan; expected a finite number above 0"),
        ({"learning_rates": [0]}, r"learning_rates\[0\] is 0; expected a finite number above 0"),
        (
            {"learning_rates": {"lora": [1e-3]}},
            "learning_rates has no grid for 'lorta', only for lora; expected one for",
        ),
        (
            {"learning_rates": {"lora": [1e-3], "lorta": [1e-3]}, "references": ["head"]},
            "learning_rates has no grid for 'head', only for lora, lorta",
        ),
        (
            {"learning_rates": {"lora": [1e-3], "lorta": [1e-3], "lort": [1]}},
            "learning_rates names 'lort', which is no method",
        ),
        ({"references": ["ful"]}, r"references\[0\] is 'ful'; did you mean \"full\""),
        ({"scale": "papers"}, "scale is 'papers'; did you mean \"paper\""),
        ({"methods": [{"published": "lora"}]}, "two methods are called 'lora'"),
        ({"methods": [{"name": "x"}]}, r"methods\[0\].published=None and parameterization=None were given"),
        (
            {"methods": [{"published": "cara", "plan": {"ruel": 1}}]},
            r"unknown key methods\[0\].plan.ruel; did you mean \"rule\"",
        ),
        ({"methods": [{"published": "cara", "plan": {"split": "ab"}}]}, "plan.split is 'ab'; expected a table"),
        (
            {"methods": [{"published": "cara", "plan": {"split": {"in": {"24": 3}}}}]},
            "split.in.24 is 3; expected a list",
        ),
        (
            {"methods": [{"published": "cara", "plan": {"split": {"in": {"a": [2, 12]}}}}]},
            "split.in has the key 'a'; expected widths, such as 768",
        ),
        ({"methods": [{"published": "cara", "plan": {"rates": 3}}]}, "plan.rates is 3; expected a table"),
        ({"methods": [{"published": "cara", "plan": {"options": 3}}]}, "plan.options is 3; expected a table"),
        ({"methods": [{"published": "cara", "plan": {"alpha": "x"}}]}, "plan.alpha is 'x'; expected a finite number"),
        ({"methods": [{"published": "cara", "rank": 1}]}, r"unknown key methods\[0\].rank; did you mean \"ranks\""),
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


def test_layouts_and_parameterizations_are_crossed_and_tables_are_paired():
    found = spec(
        published=None,
        parameterizations=["cp", "tucker"],
        layouts=["layer proj : head dim : model", "layer proj : out : in"],
        methods=[{"name": "pair", "parameterization": "lora", "layout": ": out : in", "ranks": [3]}],
        references=["head"],
    )
    planned = cells(found, models.config(found.model))
    assert [(cell.method, dict(cell.size)) for cell in planned if cell.size != {"rank": 2}] == [
        *((f"{p} over {layout}", {"rank": 1}) for p in ("cp", "tucker")
          for layout in ("layer proj : head dim : model", "layer proj : out : in")),
        ("pair", {"rank": 3}),
        ("frozen base + head", {}),
    ]  # fmt: skip


def test_a_budget_is_the_largest_configuration_within_it_and_what_cannot_be_reached_is_empty():
    found = spec(ranks=None, budgets=[100, 1000, 10_000], published=["lora", "lorta"], targets="paper")
    planned = cells(found, models.config(found.model))
    by_cell = {(cell.method, cell.size["budget"]): cell for cell in planned}
    assert "budget 100 is below the smallest possible" in by_cell["lora", 100].empty
    assert "themselves have only 3,456" in by_cell["lora", 10_000].empty
    for (method, budget), cell in by_cell.items():
        if not cell.empty:
            plan = ta.plan(models.config(found.model), method=method, paper=True, budget=budget)
            assert cell.n_params == plan.n_params <= budget
    runs = due(found, planned, Path("no-such-folder"))
    assert runs.total == len(runs.configs) == 3 * sum(not cell.empty for cell in planned)
    assert ("lora", 100) not in {(c.published, c.budget) for c in runs.configs}


def test_budgets_that_buy_the_same_are_one_cell():
    found = spec(ranks=None, budgets=[41, 42, 82], published=["lorta"])
    empty = [cell.empty for cell in cells(found, models.config(found.model))]
    assert empty == ["", "its largest configuration within budget 42 is that of budget 41", ""]


def test_ranks_that_are_clipped_to_one_another_are_one_cell():
    found = spec(ranks=[2, 24, 30], published=None, parameterizations=["randlora"], projections=["q"])
    empty = [cell.empty for cell in cells(found, models.config(found.model))]
    assert empty == ["", "", "its largest configuration within rank 30 is that of rank 24"]


def finish(root, config, validation):
    """A run that was never trained, with a score on validation."""
    result = {"status": "finished", "metric": metric_document(), "validation": {"accuracy": validation}}
    empty = {"measurements": {}, "provenance": {}, "arrays": {}}
    write_run(root, config.id, config=config.as_dict(), result=result, **empty)


def test_a_methods_rate_is_chosen_on_validation_with_its_own_seed_and_then_kept(tmp_path):
    found = spec(learning_rates=[1e-3, 3e-3, 1e-2], **PLAIN)
    planned = cells(found, models.config(found.model))
    first = due(found, planned, tmp_path)
    assert first.total == 2 * 3 + 12
    assert {(c.published, c.lr, c.seed, c.tuning, c.rank) for c in first.configs} == {
        (name, lr, 1000, True, 1) for name in ("lora", "lorta") for lr in (1e-3, 3e-3, 1e-2)
    }
    for config in first.configs:
        if config.published == "lorta":
            finish(tmp_path, config, {1e-3: 0.5, 3e-3: 0.7, 1e-2: 0.7}[config.lr])
    second = due(found, planned, tmp_path).configs
    reported = [c for c in second if not c.tuning]
    assert {(c.published, c.lr) for c in reported} == {("lorta", 3e-3)}, "of two equal rates the lower is taken"
    assert {c.seed for c in reported} == {0, 1, 2} and len(reported) == 6


def test_the_middle_size_is_that_of_the_parameters_in_whatever_order_sizes_are_named():
    for sizes in ({"ranks": [4, 1, 2]}, {"ranks": None, "budgets": [164, 41, 82]}):
        found = spec(learning_rates=[1e-3, 1e-2], published=["lorta"], **sizes, **PLAIN)
        runs = due(found, cells(found, models.config(found.model)), Path("no-such-folder")).configs
        assert {c.rank or c.budget for c in runs} == {2 if sizes["ranks"] else 82}


def test_of_two_budgets_that_buy_the_same_the_smaller_is_filled_in_either_order():
    found = spec(ranks=None, budgets=[42, 41], published=["lorta"])
    filled = [cell.size["budget"] for cell in cells(found, models.config(found.model)) if not cell.empty]
    assert filled == [41] and found.id == spec(ranks=None, budgets=[41, 42], published=["lorta"]).id


def test_a_default_that_is_written_out_is_the_same_sweep(tmp_path):
    said = {"batch": 32, "max_length": 64, "tuning_seeds": [1000], "proposer": "grid"}
    assert spec(**said).id == spec().id != spec(batch=16).id
    (tmp_path / "marked.toml").write_text(SMALLEST, encoding="utf-8-sig")
    assert read_spec(tmp_path / "marked.toml").id == spec().id, "a byte order mark is no part of a specification"


def test_a_method_without_a_usable_rate_is_blocked_and_the_others_go_on(tmp_path):
    found = spec(learning_rates=[1e-3, 1e-2], **PLAIN)
    planned = cells(found, models.config(found.model))
    for config in due(found, planned, tmp_path).configs:
        finish(tmp_path, config, None if config.published == "lora" else 0.5)
    now = due(found, planned, tmp_path)
    assert now.blocked == ("LoRA on planted: no learning rate gave a result",)
    assert {c.published for c in now.configs if not c.tuning} == {"lorta"}


def test_every_published_adapter_that_this_model_takes_can_be_named():
    taken = []
    for name in ta.published.names():
        try:
            cells(spec(published=[name]), models.config("tiny-random-bert"))
            taken.append(name)
        except ta.TensorAdaptError as error:
            assert str(error).startswith(f"method {name}: ")
    assert {"lora+", "lorta", "metatt-4+1d"} <= set(taken)


def test_a_layout_that_does_not_parse_is_refused_before_anything_is_run():
    found = spec(published=None, parameterizations=["cp"], layouts=["layer : out in"])
    with pytest.raises(ta.TensorAdaptError, match=r"method cp: .*colon"):
        cells(found, models.config(found.model))


def test_two_methods_with_a_run_in_common_are_refused():
    found = spec(methods=[{"name": "mine", "published": "lora", "ranks": [2, 3]}])
    with pytest.raises(ta.TensorAdaptError, match="methods 'lora' and 'mine' have a run in common"):
        configs(found)


def test_further_arguments_of_a_plan_reach_it_and_make_other_runs():
    layout = {"parameterization": "cp", "layout": "layer proj : out1 out2 : in", "ranks": [2]}
    parts = {"split": {"out": {"24": [4, 6]}}}
    found = spec(published=None, methods=[{"name": "split", "plan": parts, **layout}])
    (cell,) = cells(found, models.config(found.model))
    assert cell.n_params == 2 * (3 + 4 + 4 + 6 + 24)
    runs = due(found, [cell], Path("no-such-folder")).configs
    other = spec(published=None, methods=[{"name": "split", "plan": {**parts, "start": "subtract"}, **layout}])
    assert {c.id for c in runs}.isdisjoint(ids(other))


def test_published_adapters_take_the_targets_and_scale_of_the_others_or_their_papers_if_asked():
    mixed = {"published": ["lora"], "parameterizations": ["tucker"], "ranks": [2]}
    apart, same = spec(**mixed, targets="paper"), spec(**mixed)
    assert [(m.projections, m.scale) for m in apart.methods] == [((), "paper"), (("attention",), "matched")]
    assert [(m.projections, m.scale) for m in same.methods] == [(("attention",), "matched")] * 2
    wanted = spec(**mixed, targets="same", projections=["q", "v"], scale="paper").methods
    assert [(m.projections, m.scale) for m in wanted] == [(("q", "v"), "paper")] * 2
    assert spec(**mixed, targets="same").id == same.id != apart.id
    with pytest.raises(ta.TensorAdaptError, match=r"targets is 'all'\. Valid: same, paper"):
        spec(**mixed, targets="all")


def test_the_plan_warns_of_methods_that_are_not_alike(tmp_path):
    def said(**changes):
        lines = []
        mixed = {"published": ["lora"], "parameterizations": ["tucker"], "ranks": [2], **changes}
        ta.sweep(spec(**mixed), tmp_path, executor="inline", dry_run=True, device="cpu", say=lines.append)
        return "\n".join(lines)

    assert (
        "warning: methods differ in targets q v (LoRA), attention (Tucker); and in scale paper (LoRA), matched "
        '(Tucker): targets = "same", the default, gives published adapters the targets and scale of the others'
    ) in said(targets="paper")
    assert "warning" not in said()


def test_parameterizations_are_understood_in_any_spelling() -> None:
    plain = read_spec({**SPELLED, "parameterizations": ["cp", "tensor_train"]})
    assert read_spec({**SPELLED, "parameterizations": ["CP (LoRTA)", "Tensor-train"]}).id == plain.id
    table = {**SPELLED, "methods": [{"parameterization": "CP", "name": "cp"}]}
    assert read_spec(table).methods[0].parameterization == "cp"
    with pytest.raises(ta.TensorAdaptError, match=r"parameterizations.* is 'LoRTA'"):
        read_spec({**SPELLED, "parameterizations": ["LoRTA"]})

"""What people type by intuition works, or is answered in one line with what to type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import pandas
import pytest
import torch
from support.models import make

import tensoradapt as ta

ROWS = [{"text": f"sentence {i}", "label": "good" if i % 2 else "bad"} for i in range(40)]
RUNS = pandas.DataFrame({"method": ["lora", "cp"] * 2, "seed": [0, 0, 1, 1], "n_params": [9, 3] * 2, "score": 0.5})
FRAME = pandas.DataFrame(ROWS)


class Holder:
    """What holds a model and is none, as a pipeline of transformers."""

    def __init__(self) -> None:
        self.model = make("bert")


def adapted() -> tuple[Any, ta.Adapter]:
    model = make("bert")
    return model, ta.attach(model, "cp", rank=2)


@pytest.mark.parametrize(
    "typed",
    [
        lambda model: ta.plan(model, "cp", rank=2),
        lambda model: ta.plan(model, "cp", 2),
        lambda model: ta.plan("tiny-random-bert", "cp", rank=2),
        lambda model: ta.find_sites("tiny-random-bert"),
        lambda model: ta.attach(model, "lora", rank=2),
        lambda model: ta.attach(model, "cp", "layer proj : out : in", rank=2),
        lambda model: ta.attach(model, method="CP (LoRTA)", budget=2_000, seed=1),
        lambda model: ta.attach(model, ta.AdapterSpec("tucker", rank=2)),
        lambda model: ta.plan(model, "cp", rank=2, projections=["query", "value"]),
        lambda model: ta.plan(model, "cp", rank=2, projections="all-linear"),
        lambda model: ta.plan(model, "cp", rank=2, projections="q,v"),
        lambda model: ta.find_sites(model, "q v"),
        lambda model: ta.plan(model, "PARAFAC", rank=2),
        lambda model: sweep_of(rank=np.array([1, 2]), lr=np.logspace(-4, -3, 3), seed=range(3))(),
        lambda model: sweep_of(precision=torch.bfloat16)(),
        lambda model: sweep_of(precision="bfloat16")(),
        lambda model: ta.methods(),
        lambda model: ta.methods(model, budget=2_000, kind="published"),
        lambda model: ta.choose(model, 2_000),
        lambda model: ta.choose(model, "2k"),
        lambda model: ta.methods(model, budget="2k"),
        lambda model: ta.plan(model, "cp", budget="1.8k"),
        lambda model: ta.register_task("from a frame", train=FRAME, replace=True),
        lambda model: ta.register_task("from a frame", FRAME, replace=True),
        lambda model: ta.register_task("from a list", train=ROWS, replace=True),
        lambda model: ta.register_task("from columns", train=FRAME.to_dict("list"), replace=True),
        lambda model: ta.register_task("from a Dataset", train=datasets.Dataset.from_list(ROWS), replace=True),
    ],
)  # fmt: skip
def test_a_guess_works(typed: Callable[[Any], Any]) -> None:
    assert typed(make("bert")) is not None


def test_methods_of_peft_are_there_or_named(capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = adapted()
    before = set(vars(model))
    model.print_trainable_parameters()
    assert capsys.readouterr().out.startswith("trainable params: ")
    ta.detach(model)
    assert "print_trainable_parameters" in before and "print_trainable_parameters" not in vars(model)


def sweep_of(**keys: Any) -> Callable[[], Any]:
    spec = {
        "model": "tiny-random-bert",
        "task": "planted",
        "method": ["lora"],
        "rank": 2,
        "lr": 1e-3,
        "steps": 2,
        "seed": 0,
    }
    return lambda: ta.sweep({**spec, **keys}, "/nowhere/runs", dry_run=True, say=str)


def plan_of(*args: Any, **given: Any) -> Callable[[], Any]:
    return lambda: ta.plan(make("bert"), *args, **given)


ANSWERED: dict[str, tuple[Callable[[], Any], str]] = {
    "plan(r=8)": (plan_of("cp", r=8), "unknown key r; it is called rank"),
    "plan(rnak=8)": (plan_of("cp", rnak=8), 'did you mean "rank"?'),
    "plan(target_modules=)": (plan_of("cp", rank=2, target_modules=["q"]), "it is called projections"),
    "plan(targt_modules=)": (plan_of("cp", rank=2, projection=["q"]), 'did you mean "projections"?'),
    "plan(lora_alpha=)": (plan_of("cp", rank=2, lora_alpha=8), "it is called alpha"),
    "plan(modules_to_save=)": (plan_of("cp", rank=2, modules_to_save=["classifier"]), "it is called train"),
    "plan(use_dora=)": (plan_of("cp", rank=2, use_dora=False), 'where it is true write rule="dora"'),
    "plan(layers=)": (plan_of("cp", rank=2, layers=[0]), "give find_sites(model, layers=..."),
    "plan(task_type=)": (plan_of("cp", rank=2, task_type="SEQ_CLS"), "leave it out"),
    "another family's module": (plan_of("cp", rank=2, projections=["q_proj"]), "what other models call so is 'q' here"),
    "a module misspelled": (plan_of("cp", rank=2, projections=["qeury"]), 'did you mean "query"?'),
    "a method misspelled": (plan_of("loar", rank=2), 'did you mean "lora"?'),
    "a built-in model misspelled": (lambda: ta.plan("tiny-random-bret", "cp", 2), 'did you mean "tiny-random-bert"?'),
    "a rule as method": (plan_of("DoRA", rank=2), 'it is a rule for any method: method="lora", rule="dora"'),
    "4 bits as method": (plan_of("QLoRA", rank=2), 'load the model with 4 bits, and take method="lora"'),
    "a method of PEFT's": (plan_of("(IA)3", rank=2), "it factors no update of a weight matrix"),
    "a paper's method of PEFT's": (plan_of("AdaLoRA", rank=2, paper=True), "those of ta.reduce_rank, for any method"),
    "a reference as method": (sweep_of(method=["full"]), 'in a sweep it is a reference: reference = "full"'),
    "any word as method": (plan_of("foo", rank=2), "and 80 more; ta.methods() describes them"),
    "ranks in an order": (plan_of("tucker", rank=(2, 2, 2, 2, 2)), "a number for each mode by its name"),
    "a method's description": (lambda: ta.methods("cp"), "'cp', which is a method; ta.methods() has a row for each"),
    "a sweep's schedule": (sweep_of(scheduler="cosine"), "fall to 0 along a line"),
    "a sweep's fp16": (sweep_of(precision=torch.float16), "Valid: fp32, bf16, auto"),
    "an endless range": (sweep_of(seed=range(10**9)), "seed is range(0, 1000000000); expected"),
    "a billion examples": (lambda: ta.load_task("planted", n_train=10**9), "n_train of the planted task is 1000000000"),
    "an array without values": (sweep_of(lr=torch.ones(2, device="meta")), "lr is tensor(..., device='meta'"),
    "a size as reference": (lambda: ta.compare(RUNS, "LoRA r=8"), "expected reference='LoRA', at=8"),
    "a size of no method": (lambda: ta.compare(RUNS, "tucker r=8"), "reference is 'tucker r=8'. Valid: cp, lora"),
    "compare(rank=)": (lambda: ta.compare(RUNS, "lora", rank=8), "it is called at, as in compare(runs"),  # type: ignore[call-arg]
    "a table of results": (lambda: ta.results(RUNS), "compare, summarise and ta.plots take a table as it is"),  # type: ignore[arg-type]
    "a table by seed": (lambda: ta.compare(RUNS[["seed"]].T), "the table has no column 'method'; found 0, 1, 2, 3"),
    "a title": (lambda: ta.plots.frontier(RUNS, title="x"), "returns matplotlib's axes: ax.set_title(text)"),
    "a file of a figure": (lambda: ta.plots.frontier(RUNS, path="x"), "axes: ax.figure.savefig(path)"),
    "no size": (plan_of("cp"), "rank=None and budget=None were given"),
    "the method first": (lambda: ta.plan("cp", make("bert"), rank=2), "expected the model first"),
    "attach, the method first": (lambda: ta.attach("cp", make("bert")), "expected it first"),  # type: ignore[arg-type]
    "attach to a name": (lambda: ta.attach("tiny-random-bert", "cp", rank=2), "expected a module with weights"),  # type: ignore[arg-type]
    "attach(plan, rank=)": (
        lambda: ta.attach(make("bert"), ta.plan("tiny-random-bert", "cp", rank=2), rank=4),
        "rank was given with a plan, which has its settings",
    ),
    "a task without a name": (lambda: ta.register_task(train=FRAME), 'as in register_task("reviews", train=...)'),
    "a frame without labels": (lambda: ta.register_task("t", train=FRAME[["text"]]), 'say label = "..."'),
    "a column misspelled": (lambda: ta.register_task("t", train=FRAME, label="lable"), 'did you mean "label"?'),
    "no rows": (lambda: ta.register_task("t", train=[]), "has no rows; expected a row for each example"),
    "rows that are none": (lambda: ta.register_task("t", train=[1]), "row 1 is 1; expected a dict for each row"),
    "uneven columns": (lambda: ta.register_task("t", train={"text": ["a"], "label": []}), "expected as many in each"),
    "a Series": (lambda: ta.register_task("t", train=FRAME["text"]), "or rows: a DataFrame"),
    "parts at once": (
        lambda: ta.register_task("t", train=datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS))),
        "expected one, as in train=data['train']",
    ),
    "fit(epochs=)": (lambda: ta.fit(torch.nn.Linear(1, 1), [], epochs=3), "fit takes no epochs; give steps"),  # type: ignore[call-arg]
    "fit(learning_rate=)": (lambda: ta.fit(torch.nn.Linear(1, 1), [], learning_rate=1), "it is called lr"),  # type: ignore[call-arg]
    "fit(stpes=)": (lambda: ta.fit(torch.nn.Linear(1, 1), [], stpes=1), 'did you mean "steps"?'),  # type: ignore[call-arg]
    "sweep(train_size)": (sweep_of(train_size=9), "unknown key train_size; it is called n_train"),
    "sweep(n_samples)": (sweep_of(n_samples=9), "unknown key n_samples; it is called n_train"),
    "sweep(max_train_samples)": (sweep_of(max_train_samples=9), "max_train_samples; it is called n_train"),
    "load_task(train_samples=)": (lambda: ta.load_task("planted", train_samples=9), "it is called n_train"),  # type: ignore[call-arg]
    "sweep(n_jobs=)": (lambda: ta.sweep({}, "runs", n_jobs=2), "sweep takes no n_jobs; it is called workers"),  # type: ignore[arg-type]
    "sweep(report_to=)": (lambda: ta.sweep({}, "runs", report_to="wandb"), "it is called track"),  # type: ignore[arg-type]
    "sweep(resume=)": (lambda: ta.sweep({}, "runs", resume=True), "run it again with the same folder"),  # type: ignore[arg-type]
    "sweep(methods=)": (lambda: ta.sweep(methods=["cp"]), 'as in ta.sweep({"model": ..., "task": ...'),  # type: ignore[call-arg]
    "a pipeline": (lambda: ta.plan(Holder(), "lora", 2), "a Holder; expected a torch.nn.Module or its config: pass"),
    "attach to a pipeline": (lambda: ta.attach(Holder(), "lora", 2), "pass its model, as in pipeline.model"),  # type: ignore[arg-type]
    "a sweep of a pipeline": (sweep_of(model=Holder()), "pass its model, as in pipeline.model"),
    "the method in place of the model": (lambda: ta.plan("CP", rank=8), "the model is 'CP', which is a method"),
    "a built-in model by its name on the hub": (
        lambda: ta.plan("sentence-transformers/all-MiniLM-L6-v2", "cp", 2),
        '"all-minilm-l6-v2" is built in',
    ),
    "plan(dtype=)": (plan_of("cp", rank=2, dtype="bf16"), 'to compute in bfloat16: ta.fit(..., precision="bf16")'),
    "a share as budget": (plan_of("cp", budget=0.01), "expected a number of parameters, such as 18600"),
    "a share as budget of choose": (lambda: ta.choose("tiny-random-bert", "0.01"), "and no share"),
    "plan(baseline=)": (plan_of("cp", rank=2, baseline="lora"), 'ta.compare(runs, reference="lora")'),
    "sweep(baseline)": (sweep_of(baseline="lora"), 'baseline; reference is "head", "full" or "bitfit"; LoRA is a'),
    "compare(baseline=)": (lambda: ta.compare(RUNS, baseline="lora"), "it is called reference"),  # type: ignore[call-arg]
    "report(baseline=)": (lambda: ta.report(RUNS, baseline="lora"), "it is called reference"),  # type: ignore[call-arg]
    "several ranks": (plan_of("cp", rank=[1, 2, 4]), "expected one whole number (a sweep takes a list of ranks)"),
    "hierarchical Tucker": (plan_of("hierarchical_tucker", rank=2), "docs/notebooks/4_your_own_parameterization.md"),
    "an error as metric": (
        lambda: ta.register_task("t", train=FRAME.assign(label=np.linspace(0, 1, 40)), metric="mse"),
        'less of it is better, so take its negative, "neg_mean_squared_error"',
    ),
    "a sweep's method": (sweep_of(method=["loar"]), 'did you mean "lora"?'),
    "a report of a table": (lambda: ta.report(RUNS), 'as in report(runs, "report.html")'),
    "choose, for what": (lambda: ta.choose("tiny-random-bert", 500, "smalest"), 'did you mean "smallest"?'),
    "choose, too little": (lambda: ta.choose("tiny-random-bert", 3), "the smallest needs"),
    "methods of a kind": (lambda: ta.methods(kind="publishd"), 'did you mean "published"?'),
    "methods over no layout": (lambda: ta.methods(layout="layer out in"), "has 0 colons"),
}  # fmt: skip
ATTRIBUTES = {
    "package": (
        lambda: ta,
        {
            "list_methods": "ta.methods()", "write_report": "ta.report(folder)", "summarize": "ta.summarise(runs)",
            "finetune": "ta.fit(", "get_peft_model": "ta.attach(", "LoraConfig": "ta.AdapterSpec(",
            "attch": '"attach"?',
            "CP": 'ta.attach(model, "cp", rank=8)', "get_adapter": "ta.adapters(model)", "decompose": "ta.compress(",
            "count_parameters": "ta.plan(model, method, rank=8).n_params", "AdapterConfig": "ta.AdapterSpec(",
            "count": "ta.plan(model, method, rank=8).n_params", "reconstruct": "adapter.tensors[0].full()",
        },
    ),
    "plan": (
        lambda: ta.plan("tiny-random-bert", "cp", rank=2),
        {
            "attach": "ta.attach(model, plan)", "summary": "print(plan)", "to_dict": "dataclasses.asdict(plan.spec)",
            "num_parameters": "plan.n_params", "n_parms": '"n_params"?',
        },
    ),
    "adapter": (
        lambda: adapted()[1],
        {
            "merge": "ta.merge(model)", "detach": "ta.detach(model)", "save_pretrained": "adapter.save(folder)",
            "print_trainable_parameters": "ta.print_trainable_parameters(model)", "unload": "ta.detach(model)",
            "num_parameters": "adapter.n_params", "scale": "adapter.plan.scale", "deltas": "adapter.delta(site)",
            "dense": "adapter.tensors[0].full()", "full": "adapter.tensors[0].full()",
        },
    ),
    "tensor": (
        lambda: adapted()[1].tensors[0],
        {"dense": "tensor.full()", "reconstruct": "tensor.full()"},
    ),
    "plots": (
        lambda: ta.plots,
        {"pareto": "ta.plots.frontier(runs)", "layout": "ta.plots.network(plan)", "frontir": '"frontier"?'},
    ),
}  # fmt: skip


@pytest.mark.parametrize("guess", ANSWERED)
def test_a_guess_is_answered_in_one_line(guess: str) -> None:
    typed, says = ANSWERED[guess]
    with pytest.raises(ta.TensorAdaptError) as error:
        typed()
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("of", "name"), [(of, name) for of, (_, names) in ATTRIBUTES.items() for name in names])
def test_a_missing_attribute_names_the_call(of: str, name: str) -> None:
    make, says = ATTRIBUTES[of]
    owner = make()
    with pytest.raises(AttributeError) as error:
        getattr(owner, name)
    assert says[name] in str(error.value) and "\n" not in str(error.value)
    assert not hasattr(owner, name)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (lambda: len(ta.plan("tiny-random-bert", "cp", 2)), "type plan.sites for its matrices, plan.groups for its"),
        (lambda: ta.plan("tiny-random-bert", "cp", 2)[0], "type plan.sites for its matrices, plan.groups for its"),
        (lambda: [*ta.plan("tiny-random-bert", "cp", 2)], "type plan.sites for its matrices, plan.groups for its"),
        (lambda: ta.spectra(adapted()[1]), "is a module; type ta.spectra.spectra(tensor, names), of an adapter with"),
    ],
)  # fmt: skip
def test_what_is_used_as_something_else_says_what_to_type(typed: Callable[[], Any], says: str) -> None:
    with pytest.raises(TypeError) as error:
        typed()
    assert says in str(error.value)
    assert ta.plan("tiny-random-bert", "cp", 2)


def test_the_spectra_of_an_adapter_are_had_as_the_error_says() -> None:
    adapter = adapted()[1]
    tensor = adapter.factored[0]
    names = tensor.network.layout.names
    assert [*ta.spectra.spectra(tensor.full().detach() + 1, names).shape] == [*names]


def test_the_hint_on_lora_alpha_gives_the_scale_of_peft() -> None:
    with pytest.raises(ta.TensorAdaptError, match=r'r=16 and alpha=32 .* 2\.83, and PEFT\'s .* 2 is scale="paper"'):
        plan_of("lora", rank=16, lora_alpha=32)()
    settings: dict[str, Any] = {"rank": 4, "alpha": 8}
    adapters = [ta.attach(make("bert"), "lora", **settings, **more) for more in ({}, {"scale": "paper"})]
    scales = [adapter.factored[0].scale for adapter in adapters]
    assert scales == pytest.approx([8 / 8 * 2**0.5, 8 / 4])  # 2.83 and 2 where r=16 and alpha=32 do the same
    assert 32 / 8 * (8 / 16) ** 0.5 == pytest.approx(2.83, abs=0.01)


def test_what_is_typed_in_place_of_a_missing_name_exists() -> None:
    from tensoradapt import habits

    adapter = adapted()[1]
    owners = (habits.PACKAGE, ta), (habits.ADAPTER, adapter), (habits.PLAN, adapter.plan), (habits.FIGURES, ta.plots)
    for table, owner in owners:
        assert not [name for name in table if name in dir(owner)]
        for text in table.values():
            assert all(hasattr(ta, part.split("(")[0].split(".")[0]) for part in text.split("ta.")[1:])
    methods = [text.split('"')[1] for text in habits.PACKAGE.values() if text.startswith('ta.attach(model, "')]
    assert methods and all(ta.plan("tiny-random-bert", method, rank=2) for method in methods)
    assert all(text.split("(")[0].removeprefix("ta.plots.") in ta.plots.NAMES for text in habits.FIGURES.values())


def test_tab_completion_of_plots_shows_the_figures_alone() -> None:
    from tensoradapt.lab.analysis.plots import NAMES

    assert dir(ta.plots) == sorted(NAMES)


def test_rows_in_memory_are_kept_by_their_content(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORADAPT_CACHE", str(tmp_path))
    odd = FRAME.assign(when=pandas.Timestamp("2026-01-01"), share=float("nan"))  # neither is used
    for rows in (ROWS, FRAME, FRAME.to_dict("list"), odd, odd):
        ta.register_task("kept", train=rows, replace=True)
    assert len([*(tmp_path / "given-rows").glob("*.jsonl")]) == 2


def test_a_sweep_computes_runs_of_rows_in_memory(tmp_path: Any) -> None:
    spec = {
        "model": "tiny-random-bert",
        "method": "lora",
        "rank": 1,
        "lr": 1e-3,
        "steps": 2,
        "seed": 0,
        "max_length": 8,
    }
    done = ta.sweep(
        {**spec, "task": {"train": FRAME, "name": "a frame"}}, tmp_path, executor="inline", probe=False, say=str
    )
    assert done.complete and set(ta.results(tmp_path)["task"]) == {"a frame"}

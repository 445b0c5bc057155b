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
from tensoradapt.published.registry import names

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
        lambda model: ta.plan(model, "cp", 2),
        lambda model: ta.attach(model, "cp", "layer proj : out : in", rank=2),
        lambda model: ta.attach(model, method="CP (LoRTA)", budget=2_000, seed=1),
        lambda model: ta.plan(model, "cp", rank=2, projections="q,v"),
        lambda model: sweep_of(rank=np.array([1, 2]), lr=np.logspace(-4, -3, 3), seed=range(3))(),
        lambda model: ta.methods(),
        lambda model: ta.methods(model, budget=2_000, kind="published"),
        lambda model: ta.choose(model, 2_000),
        lambda model: ta.register_task("from a frame", train=FRAME, replace=True),
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


SPEC = {
    "model": "tiny-random-bert",
    "task": "planted",
    "method": ["lora"],
    "rank": 2,
    "lr": 1e-3,
    "steps": 2,
    "seed": 0,
}


def sweep_of(**keys: Any) -> Callable[[], Any]:
    return lambda: ta.sweep({**SPEC, **keys}, "/nowhere/runs", dry_run=True, say=str)


def plan_of(*args: Any, **given: Any) -> Callable[[], Any]:
    return lambda: ta.plan(make("bert"), *args, **given)


ANSWERED: dict[str, tuple[Callable[[], Any], str]] = {
    "plan(r=8)": (plan_of("cp", r=8), "unknown key r; it is called rank"),
    "plan(rnak=8)": (plan_of("cp", rnak=8), 'did you mean "rank"?'),
    "plan(target_modules=)": (plan_of("cp", rank=2, target_modules=["q"]), "it is called projections"),
    "plan(use_dora=)": (plan_of("cp", rank=2, use_dora=False), 'where it is true write rule="dora"'),
    "another family's module": (plan_of("cp", rank=2, projections=["q_proj"]), "what other models call so is 'q' here"),
    "a method misspelled": (plan_of("loar", rank=2), 'did you mean "lora"?'),
    "a rule as method": (plan_of("DoRA", rank=2), 'it is a rule for any method: method="lora", rule="dora"'),
    "a method of PEFT's": (plan_of("(IA)3", rank=2), "it factors no update of a weight matrix"),
    "any word as method": (plan_of("foo", rank=2), f"and {len(names()) - 5} more; ta.methods() describes them"),
    "ranks in an order": (plan_of("tucker", rank=(2, 2, 2, 2, 2)), "a number for each mode by its name"),
    "a sweep's schedule": (sweep_of(scheduler="cosine"), "fall to 0 along a line"),
    "a billion examples": (lambda: ta.load_task("planted", n_train=10**9), "n_train of the planted task is 1000000000"),
    "a size as reference": (lambda: ta.compare(RUNS, "LoRA r=8"), "expected reference='LoRA', at=8"),
    "a table by seed": (lambda: ta.compare(RUNS[["seed"]].T), "the table has no column 'method'; found 0, 1, 2, 3"),
    "a title": (lambda: ta.plots.frontier(RUNS, title="x"), "returns matplotlib's axes: ax.set_title(text)"),
    "the method first": (lambda: ta.plan("cp", make("bert"), rank=2), "expected the model first"),
    "attach(plan, rank=)": (
        lambda: ta.attach(make("bert"), ta.plan("tiny-random-bert", "cp", rank=2), rank=4),
        "rank was given with a plan, which has its settings",
    ),
    "a frame without labels": (lambda: ta.register_task("t", train=FRAME[["text"]]), 'say label = "..."'),
    "fit(epochs=)": (lambda: ta.fit(torch.nn.Linear(1, 1), [], epochs=3), "fit takes no epochs; give steps"),  # type: ignore[call-arg]
    "fit(learning_rate=)": (lambda: ta.fit(torch.nn.Linear(1, 1), [], learning_rate=1), "it is called lr"),  # type: ignore[call-arg]
    "sweep(train_size)": (sweep_of(train_size=9), "unknown key train_size; it is called n_train"),
    "sweep(resume=)": (lambda: ta.sweep({}, "runs", resume=True), "run it again with the same folder"),  # type: ignore[arg-type]
    "a pipeline": (lambda: ta.plan(Holder(), "lora", 2), "a Holder; expected a torch.nn.Module or its config: pass"),
    "plan(dtype=)": (plan_of("cp", rank=2, dtype="bf16"), 'to compute in bfloat16: ta.fit(..., precision="bf16")'),
    "a share as budget": (plan_of("cp", budget=0.01), "expected a number of parameters, such as 18600"),
    "an error as metric": (
        lambda: ta.register_task("t", train=FRAME.assign(label=np.linspace(0, 1, 40)), metric="mse"),
        'less of it is better, so take its negative, "neg_mean_squared_error"',
    ),
}  # fmt: skip
ATTRIBUTES = {
    "package": (
        lambda: ta,
        {
            "list_methods": "ta.methods()", "write_report": "ta.report(folder)", "summarize": "ta.summarise(runs)",
            "finetune": "ta.fit(", "get_peft_model": "ta.attach(", "LoraConfig": "ta.AdapterSpec(",
            "attch": '"attach"?',
            "CP": 'ta.attach(model, "cp", rank=8)',
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
            "print_trainable_parameters": "ta.print_trainable_parameters(model)", "deltas": "adapter.delta(site)",
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


def test_a_sweep_computes_runs_of_rows_in_memory(tmp_path: Any) -> None:
    spec = {**SPEC, "task": {"train": FRAME, "name": "a frame"}, "rank": 1, "max_length": 8}
    done = ta.sweep(spec, tmp_path, executor="inline", probe=False, say=str)
    assert done.complete and set(ta.results(tmp_path)["task"]) == {"a frame"}

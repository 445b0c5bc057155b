"""Own prompts with answers and pairs of answers: one content in any file, splits by prompt, refusals and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.chat_models import saved_chat_model
from support.data_files import write

import tensoradapt as ta
from tensoradapt.extras.answers.instruct import Instruct
from tensoradapt.extras.answers.preference import Preferences
from tensoradapt.lab.runs.store import load_runs
from tensoradapt.lab.tasks import registry
from tensoradapt.lab.tasks.splits import DataSpec

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", {})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_chat_model(tmp_path_factory.mktemp("chat"))


def answered(n: int = 40) -> list[Row]:
    """Two answers to each prompt."""
    return [{"prompt": f"Say {i // 2}.", "answer": f"It is {i}."} for i in range(n)]


def compared(n: int = 40) -> list[Row]:
    return [{"prompt": f"What of {i // 2}?", "chosen": f"Yes, {i}.", "rejected": f"no {i} no"} for i in range(n)]


ROWS = {"instruct": answered, "preference": compared}


@pytest.mark.parametrize("kind", ROWS)
def test_one_content_is_one_task_whatever_file_it_is_in(kind: str) -> None:
    rows = ROWS[kind]()
    found = [registry.resolve(write(name, rows)) for name in ("a.csv", "b.jsonl", "c.json", "d.parquet", "saved")]
    assert {record["hash"] for _, record in found} == {found[0][1]["hash"]}
    assert {record["kind"] for _, record in found} == {kind}  # as the columns are
    other = [*rows[1:], {**rows[0], list(rows[0])[-1]: "Another."}]
    assert registry.resolve(write("e.csv", other))[1]["hash"] != found[0][1]["hash"]
    named = {name: f"my {name}" for name in rows[0]}
    renamed = [{named[name]: text for name, text in row.items()} for row in rows]
    same = registry.resolve({"train": write("f.jsonl", renamed), "kind": kind, "columns": named})[1]
    assert same["hash"] == found[0][1]["hash"]


@pytest.mark.parametrize(("kind", "made"), [("instruct", Instruct), ("preference", Preferences)])
def test_equal_prompts_stay_together_and_what_is_left_out_is_counted(kind: str, made: type, model: str) -> None:
    rows = ROWS[kind](60)
    long = {**rows[0], "prompt": "Count to a hundred. " * 9}
    shouted = {**rows[4], "prompt": rows[4]["prompt"].upper()}  # the same row, in capitals
    path = write("a.jsonl", [*rows, rows[3], shouted, long])
    task = ta.register_task("mine", train=path, split={"validation": 0.2, "test": 0.3}, seed=1)
    whole = task.load()
    prompts = [{texts[0] for texts in part.texts or ()} for part in whole.parts]
    assert not (prompts[0] & prompts[1] or prompts[0] & prompts[2] or prompts[1] & prompts[2])
    assert isinstance(task, made) and sum(map(len, whole.parts)) == 61 and len(prompts[0] | prompts[1]) > 15
    assert f'kind "{kind}", as its columns are' in whole.notes
    assert "2 of 63 train rows left out: repeated" in whole.notes
    fitting = task.load(model, DataSpec(max_length=128))
    assert sum(map(len, fitting.parts)) == 60 and "have more than 128 tokens" in "; ".join(fitting.notes)


def bad(rows: list[Row], **settings: Any) -> dict[str, Any]:
    return {"train": write("a.jsonl", rows), **settings}


BAD: dict[str, tuple[Any, str]] = {
    "missing answer": (
        lambda: bad([*answered(), {"prompt": "So?"}]),
        r"a\.jsonl, line 41: column 'answer' is missing; expected a text in each",
    ),
    "equal": (
        lambda: bad([*compared(), {"prompt": "a", "chosen": "b ", "rejected": "b"}]),
        r"a\.jsonl, line 41: columns 'chosen' and 'rejected' are equal",
    ),
    "column": (
        lambda: bad([{"prompt": "a", "anwser": "b"}], kind="instruct"),
        r"a\.jsonl has no column 'answer'; did you mean \"anwser\"",
    ),
    "role of another kind": (
        lambda: bad(answered(), kind="instruct", columns={"chosen": "answer"}),
        r'kind "instruct" has no column chosen',
    ),
    "two kinds": (
        lambda: bad([{**row, "answer": "x"} for row in compared()]),
        r'may be of several kinds; say kind = "instruct" or "preference"',
    ),
    "metric": (lambda: bad(answered(), metric="f1"), r"metric is 'f1'; expected none with kind \"instruct\""),
    "columns of labels": (
        lambda: bad([{"text": f"a {i}", "label": i % 2} for i in range(40)], columns={"prompt": "text"}),
        r"columns is .*; expected none with kind \"classification\"",
    ),
    "few": (lambda: bad(answered(2)), r"validation has no rows left|train has no rows left|test has no rows left"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_refused_by_one_message_that_names_row_and_column(name: str) -> None:
    make, says = BAD[name]
    with pytest.raises(ta.TensorAdaptError, match=says):
        registry.resolve(make())


def spec(model: str, task: Any, **more: Any) -> dict[str, Any]:
    sizes = {"method": "lora", "rank": 2, "lr": 1e-2, "seed": 0, "steps": 2, "batch": 4, "max_length": 96}
    return {"model": model, "task": task, **sizes, **more}


@pytest.mark.parametrize(("kind", "metric"), [("instruct", "log_likelihood"), ("preference", "reward_accuracy")])
def test_a_sweep_says_the_kind_and_its_runs_are_computed_from_their_config(kind: str, metric: str, model: str) -> None:
    said: list[str] = []
    references = {"reference": "head"} if kind == "instruct" else {}
    ended = ta.sweep(
        spec(model, write("pairs.jsonl", ROWS[kind]()), **references),
        "runs",
        executor="inline",
        device="cpu",
        say=said.append,
    )
    assert ended.complete and ended.total == 1 + len(references)
    (line,) = [text for text in said if text.startswith("task pairs: ")]
    assert f'kind "{kind}", as its columns are' in line and "drawn from train with seed 0" in line
    for run in load_runs(Path("runs")):
        assert run.result["metric"]["name"] == metric and run.result["n_trained_base"] == 0


@pytest.mark.parametrize("reference", ["head", "full", "bitfit"])
def test_references_without_a_frozen_base_are_refused_before_the_first_run(reference: str, model: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=f"task 'pairs' takes no reference '{reference}'"):
        ta.sweep(spec(model, write("pairs.csv", compared()), reference=reference), "runs", executor="inline")
    assert not Path("runs").exists()

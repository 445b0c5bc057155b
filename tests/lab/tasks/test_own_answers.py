"""Own prompts with answers and pairs of answers: one content in any file, splits by prompt, refusals and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.chat_models import saved_chat_model
from support.data_files import write

import tensoradapt as ta
from tensoradapt.lab.cli.main import main
from tensoradapt.lab.runs.store import load_runs
from tensoradapt.lab.sweeps.spec import read_spec
from tensoradapt.lab.tasks import registry
from tensoradapt.lab.tasks.language import chat
from tensoradapt.lab.tasks.language.instruct import Instruct
from tensoradapt.lab.tasks.language.preference import Preferences
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


def test_prompts_of_train_that_are_in_a_given_test_file_are_removed_and_counted() -> None:
    held_out = [{"prompt": "SAY 3.", "answer": "Another."}, {"prompt": "Or this?", "answer": "Yes."}]
    found = registry.resolve({"train": write("a.csv", answered()), "test": write("b.csv", held_out)})[0].load()
    assert "2 train examples removed: their prompt is also in validation or test" in found.notes
    assert len(found.test) == 2 and len(found.train) + len(found.validation) == 38


def test_a_message_of_the_system_stands_before_the_prompt(model: str) -> None:
    rows = [{**row, "system": "Be kind." if i % 2 else None} for i, row in enumerate(compared())]
    task = registry.resolve(write("a.jsonl", rows))[0]
    train = task.load().train
    texts = [chat.tokenizer(model).decode(pair.chosen.ids) for pair in task.encode(train, model, 999)]
    assert {text.count("<|im_start|>system\nBe kind.<|im_end|>") for text in texts} == {0, 1}
    answers = [{"prompt": row["prompt"], "answer": row["chosen"], "system": row["system"]} for row in rows]
    asked = registry.resolve(write("b.jsonl", answers))[0]
    assert asked.encode(asked.load().train, model, 999)[0].options[0].ids in {
        pair.chosen.ids for part in task.load().parts for pair in task.encode(part, model, 999)
    }


def test_beta_is_a_part_of_the_task_and_of_its_record() -> None:
    path = write("a.csv", compared())
    task, record = registry.resolve({"train": path, "beta": 0.5})
    assert isinstance(task, Preferences) and task.beta == record["beta"] == 0.5
    assert registry.resolve(path)[1]["beta"] == 0.1


def bad(rows: list[Row], **settings: Any) -> dict[str, Any]:
    return {"train": write("a.jsonl", rows), **settings}


BAD: dict[str, tuple[Any, str]] = {
    "missing answer": (
        lambda: bad([*answered(), {"prompt": "So?"}]),
        r"a\.jsonl, line 41: column 'answer' is missing; expected a text in each",
    ),
    "empty prompt": (
        lambda: bad([{"prompt": " ", "answer": "b"}, *answered()]),
        r"a\.jsonl, line 1: column 'prompt' is empty; .* mend the row, or remove it",
    ),
    "equal": (
        lambda: bad([*compared(), {"prompt": "a", "chosen": "b ", "rejected": "b"}]),
        r"a\.jsonl, line 41: columns 'chosen' and 'rejected' are equal",
    ),
    "messages": (
        lambda: bad([{"prompt": [{"role": "user", "content": "a"}], "answer": "b"}]),
        r"line 1: column 'prompt' holds a list; expected a text",
    ),
    "column": (
        lambda: bad([{"prompt": "a", "anwser": "b"}], kind="instruct"),
        r"a\.jsonl has no column 'answer'; did you mean \"anwser\"",
    ),
    "renamed column": (
        lambda: bad(answered(), kind="instruct", columns={"prompt": "promt"}),
        r"a\.jsonl has no column 'promt'; did you mean \"prompt\"",
    ),
    "role": (lambda: bad(answered(), columns={"anwser": "x"}), r"unknown key columns\.anwser; did you mean \"answer\""),
    "role of another kind": (
        lambda: bad(answered(), kind="instruct", columns={"chosen": "answer"}),
        r'kind "instruct" has no column chosen',
    ),
    "two kinds": (
        lambda: bad([{**row, "answer": "x"} for row in compared()]),
        r'may be of several kinds; say kind = "instruct" or "preference"',
    ),
    "labels too": (
        lambda: bad([{**row, "label": "x"} for row in answered()]),
        r'may be of several kinds; say kind = "instruct" or "classification"',
    ),
    "metric": (lambda: bad(answered(), metric="f1"), r"metric is 'f1'; expected none with kind \"instruct\""),
    "text": (
        lambda: bad(answered(), kind="instruct", text="prompt"),
        r"text is .*expected none with kind \"instruct\"",
    ),
    "beta": (lambda: bad(answered(), beta=0.2), r"beta is 0\.2; expected none with kind \"instruct\""),
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


@pytest.mark.parametrize("kind", ROWS)
def test_a_model_without_a_chat_template_is_refused(kind: str, tmp_path: Path) -> None:
    task = registry.resolve(write("pairs.csv", ROWS[kind]()))[0]
    with pytest.raises(ta.TensorAdaptError, match="has no chat template; expected one, as instruction-tuned models"):
        task.base(saved_chat_model(tmp_path / "plain", template=None))


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ROWS)
def test_a_frontier_takes_them_like_other_own_data(kind: str, model: str) -> None:
    task = write("pairs.jsonl", [{"asked": row.pop("prompt"), **row} for row in ROWS[kind]()])
    words = ["frontier", "--quick", "--model", model, "--task", task, "--kind", kind, "--columns", "prompt=asked"]
    words += ["--method", "lora", "--rank", "2", "--steps", "2", "--batch", "4", "--max-length", "96"]
    assert main([*words, "--device", "cpu", "--workers", "1", "--out", "runs"]) == 0
    kinds = {run.row["kind"] for run in load_runs(Path("runs"))}
    assert kinds == ({"adapter"} if kind == "preference" else {"adapter", "head", "full"})


def test_the_example_of_the_page_runs(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "guides" / "language-tasks.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    small = {"HuggingFaceTB/SmolLM2-135M-Instruct": model, '"steps": 20': '"steps": 2, "max_length": 96'}
    for text, other in {**small, '"runs/polite")\nprint': '"runs/polite", executor="inline")\nprint'}.items():
        assert text in code
        code = code.replace(text, other)
    exec(code, {})
    assert "polite" in capsys.readouterr().out


def test_the_specification_of_the_page_is_read() -> None:
    page = (Path(__file__).parents[3] / "docs" / "start" / "your-data.md").read_text()
    write("pairs.jsonl", compared())
    write("answers.csv", [{"question": row["prompt"], "reply": row["answer"]} for row in answered()])
    Path("spec.toml").write_text(page.partition("## Prompts with answers")[2].partition("```toml\n")[2].split("```")[0])
    found = read_spec("spec.toml")
    assert {task: record["kind"] for task, record in found.own.items()} == {
        "answers": "instruct",
        "pairs": "preference",
    }
    assert found.own["pairs"]["beta"] == 0.2

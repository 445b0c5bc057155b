"""Alpaca: which rows are used, how options are judged, what a run of it learns, and that TRL has its losses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.chat_models import saved_chat_model
from support.configs import config_of

from tensoradapt.errors import TensorAdaptError
from tensoradapt.extras.answers import chat
from tensoradapt.lab.runs.execute import execute, load_data
from tensoradapt.lab.tasks.splits import DataSpec, Split
from tensoradapt_paper.language.alpaca import ALPACA, ANSWERS
from tensoradapt_paper.language.instruction_rows import ALPACA as FILE
from tensoradapt_paper.language.instruction_rows import QUESTIONS

LENGTH = 160  # in the tiny model's tokens, which are letters
Rows = list[dict[str, Any]]


def asked(question: str, answer: str, options: str = "true/false") -> dict[str, str]:
    return {"instruction": f"{question}\n\nAnswer format: {options}", "input": "", "output": "", "answer": answer}


def alpaca_rows() -> Rows:
    """Sixty instructions, two of one prompt; then a repeated row, an empty answer and one that is too long."""
    rows = [{"instruction": f"Say {i}.", "input": "again" * (i % 2), "output": f"It is {i}."} for i in range(60)]
    rows[1] = {**rows[0], "output": "Another answer."}
    again, empty = {**rows[5], "output": rows[5]["output"].upper()}, {**rows[0], "output": "  "}
    return [*rows, again, empty, {"instruction": "Count.", "input": "", "output": "1 " * 200}]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes the files of the task, some of which may be given."""
    monkeypatch.setenv("TENSORADAPT_DATA", str(tmp_path / "data"))
    options = "answer1/answer2/answer3"
    rows: dict[str, Any] = {
        FILE: alpaca_rows(),
        QUESTIONS["boolq"]: [asked(f"is {i} even?", ("false", "true")[i % 2]) for i in range(6)] * 2,
        QUESTIONS["arc_easy"]: [asked(f"choose {i}:", "answer2", options) for i in range(6)],
    }

    def write(**given: Any) -> Path:
        for file, content in {**rows, **given}.items():
            path = tmp_path / "data" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        return tmp_path / "data"

    return write


@pytest.fixture
def model(tmp_path: Path) -> str:
    return saved_chat_model(tmp_path / "model")


def test_rows_are_counted_that_are_removed_and_splits_share_no_prompt(data: Callable[..., Path]) -> None:
    data()
    train, validation, test, notes = ALPACA.splits()
    assert "1 of 63 alpaca rows left out: repeated" in notes and "6 boolq rows left out: repeated" in notes
    assert "1 of 63 alpaca rows left out: column 'answer' is empty" in notes
    assert any("openbookqa is left out" in note for note in notes)
    own = [name for name in test.ids if name.startswith("alpaca")]
    assert len(train) + len(validation) + len(own) == 61 and len(validation) >= 6 and len(own) >= 6
    prompts = [{row[0] for row in part.texts or ()} for part in (train, validation, test)]
    assert not prompts[0] & prompts[1] and not prompts[0] & prompts[2] and not prompts[1] & prompts[2]
    assert len(test) - len(own) == 12
    two = [row for part in (train, validation, test) for row in part.texts or () if row[0] == "Say 0."]
    assert {answer for _, answer in two} == {"It is 0.", "Another answer."}


def test_without_questions_the_instructions_are_the_same(data: Callable[..., Path]) -> None:
    data()
    both = zip(ALPACA.splits()[:3], ANSWERS.splits()[:3], strict=True)
    for asked_too, part in both:
        own = [(name, row) for name, row in zip(asked_too.ids, asked_too.texts or (), strict=True) if "alpaca" in name]
        assert own and own == list(zip(part.ids, part.texts or (), strict=True))
    assert not any("openbookqa" in note for note in ANSWERS.splits()[3])


@pytest.mark.parametrize(
    ("file", "row", "message"),
    [
        (FILE, {"instruction": "Say.", "input": ""}, "row 62: column 'answer' is missing; expected a text"),
        (
            FILE,
            {"instruction": "Say.", "input": "", "output": []},
            "row 62: column 'answer' holds a list; expected a text",
        ),
        (FILE, "Say.", "row 62 is a str; expected an object"),
        (QUESTIONS["boolq"], asked("is it?", "perhaps"), "row 62: the answer is 'perhaps' and its options"),
        (QUESTIONS["boolq"], {**asked("is it?", "true"), "instruction": "is it?"}, "options are not said"),
        (QUESTIONS["boolq"], asked("is it?", "a", "a/b/c/d/e/f"), "expected one of 2 to 5"),
    ],
)
def test_a_row_that_lacks_something_is_refused_by_its_number(
    data: Callable[..., Path], file: str, row: Any, message: str
) -> None:
    valid = alpaca_rows() if file == FILE else [asked(f"is {i}?", "true") for i in range(61)]
    data(**{file: [*valid[:61], row]})
    with pytest.raises(TensorAdaptError) as caught:
        ALPACA.splits()
    assert message in str(caught.value) and file in str(caught.value)


def test_a_file_that_is_no_list_is_refused(data: Callable[..., Path]) -> None:
    data(**{FILE: {"rows": []}})
    with pytest.raises(TensorAdaptError, match="holds a dict; expected a list of objects"):
        ALPACA.splits()


def test_data_that_is_nowhere_is_refused_with_both_ways_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSORADAPT_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TensorAdaptError, match=r"set TENSORADAPT_DATA to a folder with instruct/.*tensoradapt\[hub\]"):
        ALPACA.splits()


def test_an_option_has_the_likelihood_of_its_tokens_whatever_is_computed_together(
    data: Callable[..., Path], model: str
) -> None:
    data()
    test = ALPACA.load(model, DataSpec(n_train=4, n_test=18, max_length=LENGTH)).test
    made = ALPACA.model(model).double()
    questions = ALPACA.encode(test, model, LENGTH)
    with torch.no_grad():
        found = ALPACA.predict(made, ALPACA.collate(questions, made, "cpu")).numpy()
        for row, question in zip(found, questions, strict=True):
            each = [by_hand(made, option) for option in question.options]
            assert row[2 : 2 + len(each)] == pytest.approx(each, rel=1e-5) and not row[2 + len(each) :].any()
            assert row[0] == row[2 + question.right]
            assert row[1] == len(question.options[question.right]) - question.options[question.right].start
    assert {len(question.options) for question in questions} == {1, 2, 3}
    first = {name.partition("-")[0]: one.options[0].ids for name, one in zip(test.ids, questions, strict=True)}
    text = {kind: chat.tokenizer(model).decode(ids) for kind, ids in first.items()}
    assert text["alpaca"].endswith("<|im_end|>\n") and text["boolq"].endswith("the correct answer is true")


def by_hand(model: Any, option: chat.Answered) -> float:
    logits = model(input_ids=torch.tensor([option.ids])).logits[0].log_softmax(-1)
    return sum(float(logits[at - 1, option.ids[at]]) for at in range(option.start, len(option)))


def test_metrics_are_of_tokens_and_of_the_likeliest_option() -> None:
    texts = (("p", "a"), ("q", "b"), ("x", "o1", "o2"), ("y", "o1", "o2", "o3"))
    split = Split(texts, np.array([0, 0, 1, 0]), ("alpaca-0", "alpaca-1", "boolq-0", "arc_easy-0"))
    predictions = np.full((4, 7), 0.0)
    predictions[:2, :2] = [[-6.0, 4.0], [-1.0, 10.0]]
    predictions[2, 2:4], predictions[3, 2:5] = [-5.0, -4.0], [-3.0, -2.0, -9.0]
    assert ALPACA.evaluate(predictions, split) == {"log_likelihood": -0.5, "boolq": 1.0, "arc_easy": 0.0}


def test_what_is_too_long_is_left_out_and_counted(data: Callable[..., Path], model: str) -> None:
    data()
    found = ALPACA.load(model, DataSpec(max_length=LENGTH))
    assert any("1 of" in note and f"have more than {LENGTH} tokens and are left out" in note for note in found.notes)
    assert sum(name == "alpaca-63" for part in (found.train, found.validation, found.test) for name in part.ids) == 0
    assert found.chance == pytest.approx(-np.log(len(chat.tokenizer(model))))
    few = ALPACA.load(model, DataSpec(n_train=5, n_test=9, max_length=LENGTH), 1)
    shares = [name.partition("-")[0] for name in few.test.ids]
    assert [shares.count(kind) for kind in ("alpaca", "boolq", "arc_easy")] == [3, 3, 3]
    with pytest.raises(TensorAdaptError, match=r"none of .* has at most 20 tokens"):
        ALPACA.load(model, DataSpec(max_length=20))
    with pytest.raises(TensorAdaptError, match="tokens; expected at most 20"):
        ALPACA.encode(found.train, model, 20)


def test_test_examples_are_those_of_every_seed_and_train_ones_are_drawn(data: Callable[..., Path], model: str) -> None:
    data()
    one, other = (ALPACA.load(model, DataSpec(n_train=10, n_test=9, max_length=LENGTH), seed) for seed in (0, 1))
    assert one.test.ids == other.test.ids and one.validation.ids == other.validation.ids
    assert set(one.train.ids) != set(other.train.ids)


@pytest.mark.thorough
def test_a_run_learns_the_answers_and_judges_each_kind(data: Callable[..., Path], model: str) -> None:
    data()
    sizes = {"batch": 8, "n_test": 12, "max_length": LENGTH, "steps": 25, "lr": 2e-2}
    parts = execute(config_of(model, "alpaca", "lora", rank=4, **sizes), "cpu")
    result, losses = parts["result"], parts["arrays"]["losses"]
    assert losses[-5:].mean() < 0.7 * losses[0] and result["status"] == "finished"
    assert result["test"].keys() == {"log_likelihood", "boolq", "arc_easy"}
    assert result["validation"].keys() == {"log_likelihood"}  # rates are chosen on these
    frozen = execute(config_of(model, "alpaca", kind="head", **sizes), "cpu")
    assert frozen["result"]["n_params"] == 0 and not len(frozen["arrays"]["losses"])
    assert frozen["result"]["test"]["log_likelihood"] < result["test"]["log_likelihood"] - 0.5
    test = load_data(config_of(model, "alpaca", kind="head", **sizes)).test
    assert ALPACA.evaluate(parts["arrays"]["predictions"], test) == result["test"]


@pytest.mark.slow
def test_trl_and_the_task_have_the_same_loss_at_each_step(tmp_path: Path) -> None:
    worker = Path(__file__).parent / "instruct_trl_worker.py"
    done = subprocess.run([sys.executable, str(worker), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["fit"]) == 3 and found["fit"][-1] != found["fit"][0]
    assert found["trl"] == pytest.approx(found["fit"], abs=1e-4)  # TRL 1.16's chunked log-likelihoods are 1e-5 above

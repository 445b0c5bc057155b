"""Preference pairs of two data sets: where they come from, what is left out and counted, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.chat_models import saved_chat_model
from support.configs import config_of

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.runs.execute import _load_data, execute
from tensoradapt.lab.tasks.registry import resolve, restore
from tensoradapt.lab.tasks.splits import DataSpec
from tensoradapt.lab.tasks.tables import Table
from tensoradapt_paper.language import pairs
from tensoradapt_paper.language.pairs import ORCA_PAIRS, ULTRAFEEDBACK_PAIRS

Row = dict[str, Any]
NAMES = ("the sea", "a fox", "my hat", "the sun", "an oak", "a bell", "the rain", "old salt")


def rows(n: int, first: int = 0) -> list[Row]:
    """Questions whose polite answers are preferred."""
    asked = [f"What of {NAMES[i % 8]}, {i}?" for i in range(first, first + n)]
    return [{"prompt": text, "chosen": f"Yes, {i}.", "rejected": f"no {i} no"} for i, text in enumerate(asked)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_chat_model(tmp_path_factory.mktemp("chat"))


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes the local files; the data set is read from them."""

    def write(train: list[Row], test: list[Row]) -> None:
        folder = tmp_path / "preference"
        folder.mkdir(exist_ok=True)
        for part, of in (("train", train), ("test", test)):
            (folder / pairs.FILES[part]).write_text("\n".join(map(json.dumps, of)))
        monkeypatch.setenv("TENSORADAPT_DATA", str(tmp_path))
        _load_data.cache_clear()

    return write


def test_pairs_are_left_out_by_rule_and_counted(written: Any, model: str) -> None:
    equal = {"prompt": "Well?", "chosen": "Same. ", "rejected": "Same."}
    empty, long = (
        {"prompt": "So?", "chosen": " ", "rejected": "No"},
        {"prompt": "Long", "chosen": "a" * 90, "rejected": "b"},
    )
    test = [*rows(20, 100), equal, long]
    known = {**test[0], "prompt": test[0]["prompt"].upper(), "chosen": "Other"}
    written([*rows(40), rows(1)[0], equal, empty, long, known], test)
    data = ULTRAFEEDBACK_PAIRS.load(model, DataSpec(max_length=96))
    counts = "; ".join(data.notes)
    for note in (
        "1 of 45 train rows left out: column 'chosen' is empty",
        "1 of 45 train rows left out: columns 'chosen' and 'rejected' are equal",
        "1 of 45 train rows left out: repeated",
        "1 of 22 test rows left out: columns 'chosen' and 'rejected' are equal",
        "1 of 21 test examples have more than 96 tokens and are left out",
        "1 train examples removed: their prompt is also in validation or test",
    ):
        assert note in counts or note.replace("train examples removed", "validation examples removed") in counts
    splits = (data.train, data.validation, data.test)
    assert sum(map(len, splits)) == 40 + 20 and len(data.validation) in (7, 8)
    prompts = [{texts[0].casefold() for texts in split.texts or ()} for split in splits]
    assert not (prompts[0] & prompts[1] or prompts[1] & prompts[2] or prompts[0] & prompts[2])
    assert all(len(pair) <= 96 for split in splits for pair in data.task.encode(split, model, 96))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"prompt": "Hi", "chosen": "Yes"},
            r"train_1000\.jsonl, line 3: column 'rejected' is missing; expected a text",
        ),
        ({"prompt": "Hi", "chosen": [7], "rejected": "b"}, r"line 3: column 'chosen' holds a list; expected a text"),
    ],
)
def test_a_pair_that_lacks_a_field_is_refused_with_its_row(written: Any, row: Row, message: str) -> None:
    written([*rows(2), row], rows(2, 9))
    with pytest.raises(TensorAdaptError, match=message):
        ULTRAFEEDBACK_PAIRS.load()


def test_data_that_is_nowhere_says_both_ways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TENSORADAPT_DATA", str(tmp_path))
    with pytest.raises(
        TensorAdaptError, match=r"lacks ultrafeedback_train.*set TENSORADAPT_DATA to a folder with pref"
    ):
        ULTRAFEEDBACK_PAIRS.load()
    with pytest.raises(TensorAdaptError, match=r"orca-pairs.*where the hub can be reached"):
        ORCA_PAIRS.load()


def test_the_hub_holds_chats_and_the_orca_pairs_are_filtered(monkeypatch: pytest.MonkeyPatch) -> None:
    chats = [{side: [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[side]}]
              for side in ("chosen", "rejected")} for row in rows(10)]  # fmt: skip
    facts = [("tie", 8, False), ("ok", 7.5, False), ("ok", 8, True), *[("ok", 8.0, False)] * 20]
    orca = [
        {"system": "Be kind." if i % 2 else None, "input": row["prompt"], "status": status, "chosen_score": score}
        | {"in_gsm8k_train": known, **row}
        for i, (row, (status, score, known)) in enumerate(zip(rows(23), facts, strict=True))
    ]
    held = {pairs.ULTRAFEEDBACK: {"train": chats, "test": chats[:2]}, pairs.ORCA: {"train": orca}}

    def read(name: str, subset: object, parts: dict[str, str]) -> dict[str, Table]:
        found = {part: held[name][part] for part in parts}
        return {
            part: Table(name, {key: [row[key] for row in of] for key in of[0]}, lambda row: f"row {row + 1}")
            for part, of in found.items()
        }

    monkeypatch.setattr(pairs, "read_dataset", read)
    monkeypatch.delenv("TENSORADAPT_DATA", raising=False)
    data = ULTRAFEEDBACK_PAIRS.load()
    assert data.test.texts == tuple(tuple(row.values()) for row in rows(2))
    data = ORCA_PAIRS.load()
    assert (len(data.test), len(data.validation), len(data.train)) == (4, 1, 15)
    assert data.test.ids == ("orca-1", "orca-2", "orca-3", "orca-4")  # the first fifth
    assert "3 of 23 pairs left out: 1 are ties, 1 score below 8, 1 are in GSM8K's train" in data.notes
    assert data.test.texts is not None and data.test.texts[0][3] == "Be kind." and data.test.texts[1][3] == ""
    chats[3]["chosen"].append({"role": "user", "content": "More"})
    with pytest.raises(TensorAdaptError, match=r"row 4: chosen is .*expected a user's message and an answer"):
        ULTRAFEEDBACK_PAIRS.load()


def test_the_plan_of_a_sweep_counts_what_is_left_out(written: Any, model: str, tmp_path: Path) -> None:
    written([*rows(30), {"prompt": "Long", "chosen": "a" * 90, "rejected": "b"}], rows(8, 50))
    said: list[str] = []
    spec = {"model": model, "task": "ultrafeedback", "method": "lora", "rank": 1, "lr": 1e-3, "seed": 0}
    spec |= {"steps": 2, "batch": 4, "max_length": 96, "scale": "matched"}
    ta.sweep(spec, tmp_path / "runs", executor="inline", dry_run=True, say=said.append)
    (line,) = [text for text in said if text.startswith("task ultrafeedback: ")]
    assert "8 test" in line and "have more than 96 tokens and are left out" in line


def test_another_beta_is_a_task_of_a_module(
    written: Any, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(rows(20), rows(8, 50))
    page = (Path(__file__).parents[3] / "docs" / "guides" / "language-tasks.md").read_text()
    (tmp_path / "my_tasks.py").write_text("# my_tasks" + page.partition("```python\n# my_tasks")[2].partition("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    task, record = resolve("my_tasks:STRICT")
    assert (task.name, getattr(task, "beta", None)) == ("ultrafeedback-0.5", 0.5) and restore(task.name, record) is task
    run = config_of(model, task.name, "lora", rank=4, batch=8, lr=2e-2, max_length=96, own=record)
    assert execute(run, "cpu")["result"]["metric"]["name"] == "reward_accuracy"

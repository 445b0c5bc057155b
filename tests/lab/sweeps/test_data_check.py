"""What is wanting in the data of a sweep is said before its first run: validation examples, room for whole texts."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support.sweeping import TINY

import tensoradapt as ta
from tensoradapt import doors
from tensoradapt.lab.tasks.classification import Classification
from tensoradapt.lab.tasks.splits import Split, Splits, carve, take

SENTENCES = tuple((" ".join(["word"] * (i % 10 + 1)) + f" {i}",) for i in range(120))
LABELS = np.arange(120, dtype=np.int64) % 2


SEARCHED = [  # where the extra is there
    ({"lr": None, "search": {"trials": 2, "lr": [1e-3, 1e-2]}}, "its learning rates are searched")
    for _ in doors.names("proposers")
]


@dataclass(frozen=True)
class Bare(Classification):
    """A task whose train is not divided for validation."""

    content: str = "120 sentences of one to ten words and a number"

    def splits(self, n_train: int | None = None, n_test: int | None = None) -> Splits:
        whole = Split(SENTENCES, LABELS, tuple(map(str, range(120))))
        test, train = carve(whole, 40)
        return train, take(train, np.array([], dtype=np.int64)), test, ()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> str:
    module = ModuleType("bare_tasks")
    module.TASK = Bare("bare")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bare_tasks", module)
    return "bare_tasks:TASK"


def sweep(out: Path, task: Any, **changes: Any) -> list[str]:
    said: list[str] = []
    given = {**TINY, "task": task, "method": "lora", "rank": 1, "n_train": None, "n_test": None, "n_validation": None}
    ta.sweep(given | changes, out, executor="inline", device="cpu", probe=False, say=said.append)
    return said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lr": [1e-3, 1e-2]}, "its learning rates of LoRA are 2, of which one is chosen on them"),
        *SEARCHED,
    ],
)
def test_rates_are_not_chosen_without_validation_examples(
    change: dict[str, Any], says: str, bare: str, tmp_path: Path
) -> None:
    with pytest.raises(ta.TensorAdaptError) as refused:
        sweep(tmp_path / "out", bare, **change)
    assert f"task 'bare' has no validation examples, and {says}" in str(refused.value)
    assert "give validation = a file" in str(refused.value) and not (tmp_path / "out").exists()


def test_texts_that_are_cut_are_told_at_the_start_and_in_the_result(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for (text,), label in zip(SENTENCES, "ab" * 60, strict=True)]
    task = {"name": "lengths", "train": rows, "max_length": 8}
    tokens = sorted(i % 10 + 4 for i in range(120))  # words, a number, and a token at either end
    said = sweep(tmp_path, [task])
    share = sum(n > 8 for n in tokens) / 120
    warned = (
        f"warning: {100 * share:.0f} % of the texts of task lengths have more than 8 tokens and are cut off there; "
        f"90 % would be whole at max_length = {tokens[107]}, all at {tokens[-1]}"
    )
    assert said.count(warned) == 1
    (run,) = ta.load_runs(tmp_path)
    assert run.result["cut"] == {"share": share, "tokens_90": tokens[107], "tokens_all": tokens[-1]}
    assert not any("warning" in line for line in sweep(tmp_path / "whole", [task | {"max_length": 12}]))
    (whole,) = ta.load_runs(tmp_path / "whole")
    assert "cut" not in json.loads((whole.path / "result.json").read_text())

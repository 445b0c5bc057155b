"""Preference pairs: what is left out and counted, the loss and metrics by hand, and runs that share references."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.chat_models import saved_chat_model
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt import tasks
from tensoradapt.data.models import load_causal
from tensoradapt.errors import TensorAdaptError
from tensoradapt.runs.config import RunConfig
from tensoradapt.runs.execute import _load_data, batches, encoded, execute, load_data, prepare
from tensoradapt.tasks.language import chat, pairs, preference
from tensoradapt.tasks.registry import resolve, restore
from tensoradapt.tasks.tables import Table

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


def config(model: str, **more: Any) -> RunConfig:
    sizes = {"rank": 4, "batch": 8, "steps": 30, "lr": 2e-2, "max_length": 96, **more}
    kind = sizes.pop("kind", "adapter")
    how = {"parameterization": "lora", "layout": (": out : in",)} if kind == "adapter" else {"rank": None}
    return RunConfig(kind, 0, model, "ultrafeedback", **{**sizes, **how})  # type: ignore[arg-type]


def test_pairs_are_left_out_by_rule_and_counted(written: Any, model: str) -> None:
    equal = {"prompt": "Well?", "chosen": "Same. ", "rejected": "Same."}
    empty, long = (
        {"prompt": "So?", "chosen": " ", "rejected": "No"},
        {"prompt": "Long", "chosen": "a" * 90, "rejected": "b"},
    )
    test = [*rows(20, 100), equal, long]
    known = {**test[0], "prompt": test[0]["prompt"].upper(), "chosen": "Other"}
    written([*rows(40), rows(1)[0], equal, empty, long, known], test)
    data = tasks.get("ultrafeedback").load_for(model, None, None, 0, 96)
    counts = "; ".join(data.notes)
    for note in (
        "1 of 45 train pairs left out: an answer is empty",
        "1 of 45 train pairs left out: the answers are equal",
        "1 of 45 train pairs left out: the pair was there before",
        "1 of 22 test pairs left out: the answers are equal",
        "1 of 21 test pairs left out: over 96 tokens",
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
        ({"prompt": "Hi", "chosen": "Yes"}, r"train_1000\.jsonl, line 3: rejected is None; expected a text"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, r"line 3: prompt is ' '; expected a text"),
        ({"prompt": "Hi", "chosen": 7, "rejected": "b"}, r"line 3: chosen is 7; expected a text"),
    ],
)
def test_a_pair_that_lacks_a_field_is_refused_with_its_row(written: Any, row: Row, message: str) -> None:
    written([*rows(2), row], rows(2, 9))
    with pytest.raises(TensorAdaptError, match=message):
        tasks.load("ultrafeedback")


def test_data_that_is_nowhere_says_both_ways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TENSORADAPT_DATA", str(tmp_path))
    with pytest.raises(
        TensorAdaptError, match=r"lacks ultrafeedback_train.*set TENSORADAPT_DATA to a folder with pref"
    ):
        tasks.load("ultrafeedback")
    with pytest.raises(TensorAdaptError, match=r"orca-pairs.*where the hub can be reached"):
        tasks.load("orca-pairs")


def test_nothing_is_cut(written: Any, model: str) -> None:
    written(rows(20), rows(5, 50))
    task = tasks.get("ultrafeedback")
    with pytest.raises(TensorAdaptError, match=r"all 16 pairs of train have more than 30 tokens.*the shortest has"):
        task.load_for(model, None, None, 0, 30)
    with pytest.raises(TensorAdaptError, match="pair test-1 has more than 30 tokens"):
        task.encode(task.load().test, model, 30)


def test_a_tokenizer_without_a_template_is_refused_when_a_sweep_is_planned(tmp_path: Path) -> None:
    with pytest.raises(TensorAdaptError, match="has no chat template"):
        tasks.get("ultrafeedback").base(saved_chat_model(tmp_path, template=None))


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
    data = tasks.load("ultrafeedback")
    assert data.test.texts == tuple(tuple(row.values()) for row in rows(2))
    data = tasks.load("orca-pairs")
    assert (len(data.test), len(data.validation), len(data.train)) == (4, 1, 15)
    assert data.test.ids == ("orca-1", "orca-2", "orca-3", "orca-4")  # the first fifth
    assert "3 of 23 pairs left out: 1 are ties, 1 score below 8, 1 are in GSM8K's train" in data.notes
    assert data.test.texts is not None and data.test.texts[0][3] == "Be kind." and data.test.texts[1][3] == ""
    chats[3]["chosen"].append({"role": "user", "content": "More"})
    with pytest.raises(TensorAdaptError, match=r"row 4: chosen is .*expected a user's message and an answer"):
        tasks.load("ultrafeedback")


def by_hand(model: nn.Module, pair: chat.Answered) -> Tensor:
    """The log probabilities of every token at each place of an answer, (tokens, vocabulary)."""
    ids = torch.tensor([pair.ids])
    return model(input_ids=ids).logits[0, pair.start - 1 : -1].log_softmax(-1)


def trained(model: str) -> tuple[nn.Module, list[preference.Pair], Any]:
    """A model with an adapter that is not at its start, its pairs, and the task."""
    task, run = tasks.get("ultrafeedback"), config(model)
    base, _ = prepare(run)
    with torch.no_grad():
        for p in base.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) if p.requires_grad else 0)
    return base, encoded(load_data(run).test, run)[:5], task


def test_the_loss_and_what_is_stored_are_those_by_hand(written: Any, model: str) -> None:
    written(rows(20), rows(8, 50))
    adapted, some, task = trained(model)
    expected = []
    for pair in some:
        changes = []
        for side in (pair.rejected, pair.chosen):
            words = torch.tensor(side.ids[side.start :])[:, None]
            now = by_hand(adapted, side).detach()
            with ta.disabled(adapted):
                base = by_hand(adapted, side).detach()
            changes.append(float((now - base).gather(1, words).sum()))
        expected.append((changes[1], changes[0], float((now.exp() * (now - base)).sum()), len(words)))
    batch = task.collate(some, adapted, "cpu")
    with torch.no_grad():
        stored = task.predict(adapted, batch)
    assert torch.allclose(stored, torch.tensor(expected), atol=1e-4)
    chosen, rejected, kl, tokens = np.array(expected).T
    loss = np.log1p(np.exp(-0.1 * (chosen - rejected))).mean()
    assert float(task.loss(adapted, batch).detach()) == pytest.approx(loss, rel=1e-5)
    assert float(replace(task, beta=2.0).loss(adapted, batch).detach()) == pytest.approx(
        np.log1p(np.exp(-2 * (chosen - rejected))).mean(), rel=1e-4
    )
    found = task.evaluate(stored.numpy(), None)
    assert found["loss"] == pytest.approx(loss, rel=1e-4) and found["kl_per_token"] == pytest.approx(
        kl.sum() / tokens.sum()
    )
    assert found["reward_margin"] == pytest.approx(0.1 * (chosen - rejected).mean(), rel=1e-3)
    assert found["reward_accuracy"] == (chosen > rejected).mean()


def test_at_its_start_an_adapter_is_the_reference(written: Any, model: str) -> None:
    written(rows(20), rows(8, 50))
    run, task = config(model), tasks.get("ultrafeedback")
    adapted, _ = prepare(run)
    batch = task.collate(encoded(load_data(run).test, run), adapted, "cpu")
    assert float(task.loss(adapted, batch).detach()) == pytest.approx(math.log(2), abs=1e-6)
    found = task.evaluate(task.predict(adapted.eval(), batch).detach().numpy(), None)
    assert found == {"reward_accuracy": 0.5, "reward_margin": 0, "loss": pytest.approx(math.log(2)), "kl_per_token": 0}
    assert task.at_chance(0.5, 0.5, 100) and task.at_chance(0.6, 0.5, 100) and not task.at_chance(0.61, 0.5, 100)


def test_a_reference_is_computed_once_and_depends_on_no_batch(
    written: Any, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(rows(20), rows(8, 50))
    adapted, some, task = trained(model)
    preference._kept.cache_clear()
    alone = [preference.reference(adapted, task.collate([pair], adapted, "cpu")) for pair in some]
    preference._kept.cache_clear()
    together = preference.reference(adapted, task.collate(some, adapted, "cpu"))
    assert torch.equal(torch.stack(alone).T.flatten(), together)
    adapted.train()
    monkeypatch.setattr(chat, "log_likelihood", lambda *_: pytest.fail("computed again"))
    assert torch.equal(
        preference.reference(adapted, task.collate(some[::-1], adapted, "cpu"))[:5], together[:5].flip(0)
    )
    assert adapted.training
    monkeypatch.undo()
    with torch.autocast("cpu", torch.bfloat16):  # another precision has numbers of its own
        low = preference.reference(adapted, task.collate(some, adapted, "cpu"))
    assert not torch.equal(low, together) and torch.allclose(low, together, rtol=0.05)


def test_pairs_are_learned_and_a_run_after_another_is_the_same_to_the_bit(written: Any, model: str) -> None:
    written(rows(60), rows(40, 100))
    preference._kept.cache_clear()
    first, again = (execute(config(model), "cpu") for _ in range(2))
    test = first["result"]["test"]
    assert first["result"]["status"] == "finished" and test["reward_accuracy"] > 0.9 and test["kl_per_token"] > 0
    assert first["arrays"]["losses"][0] == pytest.approx(math.log(2), abs=1e-6)
    assert first["arrays"]["predictions"].shape == (40, 4) and first["result"]["chance"] == 0.5
    assert np.array_equal(first["arrays"]["losses"], again["arrays"]["losses"])
    assert np.array_equal(first["arrays"]["predictions"], again["arrays"]["predictions"])


@pytest.mark.parametrize("kind", ["head", "full"])
def test_without_an_adapter_there_is_no_reference(written: Any, model: str, kind: str) -> None:
    written(rows(20), rows(8, 50))
    run = config(model, kind=kind)
    base, _ = prepare(run)
    batch = next(batches(base, encoded(load_data(run).train, run), run, "cpu"))
    with pytest.raises(TensorAdaptError, match="a model without an adapter; expected an adapter beside a frozen base"):
        tasks.get("ultrafeedback").loss(base, batch)


def test_an_adapter_that_trains_norms_has_no_frozen_base(written: Any, model: str) -> None:
    written(rows(20), rows(8, 50))
    run, task = config(model), tasks.get("ultrafeedback")
    frozen, _ = prepare(run)
    batch = task.collate(encoded(load_data(run).test, run), frozen, "cpu")
    task.loss(frozen, batch)  # its references are known now
    base, _ = load_causal(model)
    ta.attach(base, ta.plan(ta.find_sites(base), method="lora", rank=2, train=("*norm*",)))
    with pytest.raises(TensorAdaptError, match=r"an adapter that trains .*norm of the base too"):
        task.loss(base, batch)


def test_the_plan_of_a_sweep_counts_what_is_left_out(written: Any, model: str, tmp_path: Path) -> None:
    written([*rows(30), {"prompt": "Long", "chosen": "a" * 90, "rejected": "b"}], rows(8, 50))
    said: list[str] = []
    spec = {"model": model, "tasks": ["ultrafeedback"], "published": ["lora"], "ranks": [1], "learning_rates": [1e-3]}
    spec |= {"seeds": [0], "steps": 2, "batch": 4, "max_length": 96, "scale": "matched"}
    ta.sweep(spec, tmp_path / "runs", executor="inline", dry_run=True, say=said.append)
    (line,) = [text for text in said if text.startswith("task ultrafeedback: ")]
    assert "8 test" in line and "left out: over 96 tokens" in line


def test_another_beta_is_a_task_of_a_module(
    written: Any, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(rows(20), rows(8, 50))
    page = (Path(__file__).parents[2] / "docs" / "language-tasks.md").read_text()
    (tmp_path / "my_tasks.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    task, record = resolve("my_tasks:STRICT")
    assert (task.name, getattr(task, "beta", None)) == ("ultrafeedback-0.5", 0.5) and restore(task.name, record) is task
    run = replace(config(model, steps=2), task=task.name, data=record)
    assert execute(run, "cpu")["result"]["metric"] == "reward_accuracy"

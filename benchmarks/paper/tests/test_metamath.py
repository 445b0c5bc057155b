"""PEFT's comparison with tensors: rows and batches as there, and a result in its format that says what was found."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.chat_models import saved_chat_model
from support.paper import SMOLLM2, needs_smollm2
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import assets
from tensoradapt.lab.runs import forgetting

sys.path.append(str(Path(__file__).parents[1]))
import metamath

from metamath_suite import answers, dry, general_text, perform, stand_in
from metamath_suite.batches import BUCKET, batches, padded
from metamath_suite.course import Course
from metamath_suite.evaluation import answered
from metamath_suite.memory import Memory
from metamath_suite.rows import Row, read_rows
from metamath_suite.setting import TEMPLATE, Files, Setting, specification
from metamath_suite.training import stepper, train

PAPER = metamath.HERE

COUNT, TEXT, REAL, UNKNOWN = int, str, float, (str, type(None))
# the fields of a result file and their types, as PEFT's files of July to September 2026 have them
FORMAT: dict[str, Any] = {
    "run_info": {
        "created_at": TEXT,
        "total_time": REAL,
        "experiment_name": TEXT,
        "peft_branch": TEXT,
        "peft_worktree_is_dirty": bool,
        "train_config": {
            "model_id": TEXT,
            "dtype": TEXT,
            "max_seq_length": COUNT,
            "batch_size": COUNT,
            "batch_size_eval": COUNT,
            "max_steps": COUNT,
            "eval_steps": COUNT,
            "compile": bool,
            "use_gc": bool,
            "query_template": TEXT,
            "seed": COUNT,
            "grad_norm_clip": REAL,
            "optimizer_type": TEXT,
            "optimizer_kwargs": {"lr": REAL, "weight_decay": REAL},
            "lr_scheduler": TEXT,
            "use_amp": bool,
            "autocast_adapter_dtype": bool,
            "generation_kwargs": {"max_length": COUNT, "max_new_tokens": COUNT},
            "attn_implementation": UNKNOWN,
            "init_kv_cache_prefix": UNKNOWN,
        },
        "peft_config": dict,
        "error_msg": TEXT,
    },
    "train_info": {
        "accelerator_memory_reserved_avg": COUNT,
        "accelerator_memory_max": COUNT,
        "accelerator_memory_reserved_99th": COUNT,
        "train_time": REAL,
        "file_size": COUNT,
        "num_trainable_params": COUNT,
        "num_total_params": COUNT,
        "status": TEXT,
        "metrics": list,
    },
    "meta_info": {
        "model_info": {"sha": UNKNOWN, "created_at": UNKNOWN},
        "dataset_info": {
            "metamath": {"sha": UNKNOWN, "created_at": UNKNOWN},
            "gsm8k": {"sha": UNKNOWN, "created_at": UNKNOWN},
        },
        "package_info": {
            f"{name}-{what}": UNKNOWN
            for name in ("transformers", "peft", "datasets", "bitsandbytes", "torch")
            for what in ("version", "commit-hash")
        },
        "system_info": dict.fromkeys(("system", "release", "version", "machine", "processor", "accelerator"), TEXT),
        "pytorch_info": TEXT,
    },
}
CONFIG = {"peft_type": TEXT, "task_type": TEXT, "base_model_name_or_path": TEXT, "target_modules": list}
VALIDATION = {
    **{"step": COUNT, "valid accuracy": REAL, "train loss": REAL, "train samples": COUNT, "train time": REAL},
    **{"eval time": REAL, "tokens / sec": REAL, "mem allocated avg": REAL, "mem reserved avg": REAL},
    "elapsed time": REAL,
}
TEST = {
    **{"step": COUNT, "test accuracy": REAL, "train loss": REAL, "train samples": COUNT},
    **{"train total tokens": COUNT, "forgetting": REAL},
}
GENERAL = ("Some text.", "More of it, longer.")
CP = {"method": "cp", "layout": "layer proj : out : in", "rank": 2, "projections": ["q", "v"], "on_mismatch": "crop"}
SPEC = """
[train_config]
model_id = "{model}"
dtype = "float32"
max_seq_length = 160
batch_size = 2
batch_size_eval = 3
query_template = "{{query}}\\nAnswer:"
max_steps = 4
eval_steps = 2
optimizer_kwargs = {{lr = {lr}, weight_decay = 0.1}}
generation_kwargs = {{max_length = 200, max_new_tokens = 4}}

[data]
train = "train.jsonl"
validation = "validation.jsonl"
test = "test.json"
general_text = "general.jsonl"
n_validation = 3
n_test = 5

[[method]]
name = "cp/tiny"
plan = {{method = "cp", layout = "layer proj : out : in", rank = 2, projections = ["q", "v"], on_mismatch = "crop"}}
train_config = {{optimizer_type = "equal_steps"}}
lr = [1e-2]

[[method]]
name = "lora/tiny"
plan = {{method = "lora", rank = 1, paper = true, alpha = 2, projections = ["q", "v"]}}
"""


def agrees(found: Any, expected: Any, where: str = "") -> list[str]:
    """The places at which a document has other fields or types than it should."""
    if not isinstance(expected, Mapping):
        is_count = isinstance(found, bool) and expected is int
        return [] if isinstance(found, expected) and not is_count else [f"{where} is {found!r}"]
    if set(found) != set(expected):
        return [f"{where} has {set(found) ^ set(expected)} of one alone"]
    return [fault for key, part in expected.items() for fault in agrees(found[key], part, f"{where}/{key}")]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Calls metamath.py on four rows of each part, with the tiny model and a learning rate."""
    model = saved_chat_model(tmp_path / "model")
    trained = [{"query": f"{i} and {i}?", "response": f"It is {2 * i}. The answer is: {2 * i}"} for i in range(9)]
    told = ["What?", "The answer is: 1", "The answer is: 2", "The answer is: 4", "The answer is: 4", "What?"]
    asked = [{"question": text, "answer": f"Just so.\n#### {i}"} for i, text in enumerate(told)]
    lines = {
        "train": trained,
        "validation": asked,
        "general": [{"text": "Some text."}, {"text": "More of it, longer."}],
    }
    for name, rows in lines.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "test.json").write_text(json.dumps(asked))

    def call(*arguments: str, lr: float = 1e-2) -> int:
        (tmp_path / "spec.toml").write_text(SPEC.format(model=model, lr=lr))
        own = ["metamath.py", str(tmp_path / "spec.toml"), "--data", str(tmp_path), "--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", [*own, "--device", "cpu", *arguments])
        return metamath.main()

    return call


def result(tmp_path: Path, name: str, folder: str = perform.RESULTS) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "out" / folder / f"{name}.json").read_text())
    return found


@pytest.mark.thorough
def test_a_result_has_the_fields_and_types_of_pefts(command: Callable[..., int], tmp_path: Path) -> None:
    assert command() == 0
    assert {file.name for file in (tmp_path / "out" / "results").iterdir()} == {
        "cp--tiny-lr0.01.json",
        "lora--tiny.json",
    }
    for name in ("cp--tiny-lr0.01", "lora--tiny"):
        found = result(tmp_path, name)
        metrics = found["train_info"]["metrics"]
        assert not agrees(found, FORMAT)
        assert not [fault for entry in metrics[:-1] for fault in agrees(entry, VALIDATION)]
        assert not agrees(metrics[-1], TEST)
        assert not agrees({key: found["run_info"]["peft_config"][key] for key in CONFIG}, CONFIG)
        assert found["train_info"]["status"] == "success" and found["run_info"]["error_msg"] == ""


@pytest.mark.thorough
def test_every_score_of_a_result_is_recomputed_from_answers_and_steps(
    command: Callable[..., int], tmp_path: Path
) -> None:
    command("--only", "cp")
    found, folder = result(tmp_path, "cp--tiny-lr0.01"), tmp_path / "out" / "details" / "cp--tiny-lr0.01"
    train = found["train_info"]
    first, second, last = train["metrics"]
    told = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    hits = sum(answers.is_right(one["text"], one["response"]) for one in told)
    assert len(told) == 5 and last["test accuracy"] == hits / 5 == 0.6  # three questions tell their answers
    assert [one["right"] for one in told] == [False, True, True, False, True]
    with (folder / "steps.csv").open() as file:
        steps = [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
    assert len(steps) == 4 and [entry["step"] for entry in (first, second, last)] == [2, 4, 4]
    losses = [step["loss"] for step in steps]
    assert first["train loss"] == pytest.approx(sum(losses[:2]) / 2)
    assert second["train loss"] == last["train loss"] == pytest.approx(sum(losses[2:]) / 2)
    assert [entry["train samples"] for entry in (first, second, last)] == [4, 8, 8]
    assert last["train total tokens"] == sum(step["tokens"] for step in steps)
    spent = [sum(step["seconds"] for step in part) for part in (steps[:2], steps[2:])]
    assert [first["train time"], second["train time"]] == pytest.approx(spent)
    assert second["tokens / sec"] == pytest.approx(sum(step["tokens"] for step in steps[2:]) / spent[1])
    facts = json.loads((folder / "facts.json").read_text())["general_text"]
    assert last["forgetting"] == pytest.approx(facts["after"] - facts["before"]) and last["forgetting"] != 0
    assert train["file_size"] == (folder / "adapter" / "adapter.safetensors").stat().st_size
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    before = sum(p.numel() for p in model.parameters())
    assert train["num_trainable_params"] == ta.plan(model, **CP).n_params
    assert train["num_total_params"] == before + train["num_trainable_params"]


@pytest.mark.thorough
def test_forgetting_is_the_cross_entropy_of_all_tokens_of_all_texts(
    command: Callable[..., int], tmp_path: Path
) -> None:
    command("--only", "cp")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids = [torch.tensor(tokenizer(text)["input_ids"]) for text in GENERAL]
    folder = tmp_path / "out" / "details" / "cp--tiny-lr0.01"
    told = json.loads((folder / "facts.json").read_text())["general_text"]
    for name in ("before", "after"):
        nats = [model(row[None]).logits[0].log_softmax(-1)[torch.arange(len(row) - 1), row[1:]] for row in ids]
        assert told[name] == pytest.approx(-torch.cat(nats).mean().item(), rel=1e-5)
        if name == "before":
            ta.load(model, folder / "adapter")


def test_without_a_file_the_general_text_is_the_toolkits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = saved_chat_model(tmp_path / "model")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(name).eval(), AutoTokenizer.from_pretrained(name)
    fetched: list[str] = []
    monkeypatch.setattr(assets, "fetch", fetched.append)
    monkeypatch.setattr(forgetting, "text", lambda: "".join(map(chr, range(32, 127))) * 30)
    texts = general_text.texts_of(None, tokenizer, name)
    whole = forgetting.general_loss(model, forgetting.windows(name), "cpu")
    assert general_text.loss(model, texts, "cpu") == pytest.approx(whole, rel=1e-6)
    assert len(texts) == forgetting.WINDOWS and fetched == [assets.GENERAL_TEXT]


@pytest.mark.thorough
def test_the_adapter_of_a_result_is_a_config_that_peft_reads(command: Callable[..., int], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    import tensoradapt.integrations.peft  # noqa: F401  # registers the method

    command()
    for name in ("cp--tiny-lr0.01", "lora--tiny"):
        found = result(tmp_path, name)
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(found["run_info"]["peft_config"]))
        config = peft.PeftConfig.from_pretrained(tmp_path / name)
        model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "model"), config)
        numbers = model.get_nb_trainable_parameters()
        train = found["train_info"]
        assert numbers == (train["num_trainable_params"], train["num_total_params"])


@pytest.mark.thorough
def test_what_has_a_result_is_not_run_again(command: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    command("--only", "cp")
    times = result(tmp_path, "cp--tiny-lr0.01")["run_info"]["total_time"]
    capsys.readouterr()
    command()
    out = capsys.readouterr().out
    assert result(tmp_path, "cp--tiny-lr0.01")["run_info"]["total_time"] == times
    assert "lora/tiny: " in out and "cp/tiny-lr0.01: " not in out and "cp/tiny-lr0.01  " in out


def test_a_run_that_diverges_is_a_cancelled_result(command: Callable[..., int], tmp_path: Path, capsys: Any) -> None:
    assert command("--only", "lora", lr=1e30) == 1
    found = result(tmp_path, "lora--tiny", perform.CANCELED)
    assert not agrees(found, FORMAT) and found["train_info"]["file_size"] == 0
    assert found["train_info"]["status"] == "canceled" and len(found["train_info"]["metrics"]) < 3
    said = "the loss is nan; choose a smaller learning rate than 1e+30"
    assert found["run_info"]["error_msg"] == said and f"not finished: lora/tiny: {said}" in capsys.readouterr().out
    assert not (tmp_path / "out" / "results").exists()


def test_a_run_that_is_interrupted_is_a_cancelled_result(
    command: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("metamath_suite.perform.general_text.loss", lambda *given: 1.0)
    monkeypatch.setattr("metamath_suite.perform.answered", stopped)  # at the first validation
    with pytest.raises(KeyboardInterrupt):
        command("--only", "cp")
    found = result(tmp_path, "cp--tiny-lr0.01", perform.CANCELED)
    assert not agrees(found, FORMAT) and found["run_info"]["error_msg"] == "manually canceled"
    assert found["train_info"]["metrics"] == [] and found["train_info"]["accelerator_memory_reserved_avg"] > 0


@torch.no_grad()
def test_the_loss_of_a_step_is_that_of_all_tokens_and_one_ending(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(saved_chat_model(tmp_path / "model"))
    rows, end = [[5, 6, 7, 8], [9, 10], [11, 12, 13]], 2
    batch = padded(rows, end, "cpu")
    total = 0.0
    for row in rows:
        ids = torch.tensor(row if len(row) == 4 else [*row, end])  # the longest has no room for an ending
        total -= float(model(ids[None]).logits[0].log_softmax(-1)[torch.arange(len(ids) - 1), ids[1:]].sum())
    assert float(model(**batch.inputs).loss) == pytest.approx(total / 9, rel=1e-5)
    assert (batch.n_tokens, batch.n_rows) == (12, 3)


def test_batches_are_rows_in_order_sorted_by_length_within_twenty_batches(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(saved_chat_model(tmp_path / "model"))
    rows = [Row(f"q{i:02}", "x" * (7 * i % 23)) for i in range(2 * BUCKET + 9)]
    setting = Setting("none", batch_size=2, max_steps=22, eval_steps=1, query_template="{query}", max_seq_length=20)
    found = list(batches(rows, tokenizer, setting, "cpu"))
    assert len(found) == 22
    lengths = [int(n) for batch in found for n in batch.inputs["attention_mask"].sum(1)]
    expected = [min(20, 3 + 7 * i % 23) for i in range(len(rows))]
    assert lengths[: 2 * BUCKET] == sorted(expected[: 2 * BUCKET], reverse=True)
    assert lengths[2 * BUCKET :] == sorted(expected[2 * BUCKET :], reverse=True)[:4]
    with pytest.raises(TensorAdaptError, match="49 rows to train on are fewer than 25 steps of 2 take; give a larger"):
        next(batches(rows, tokenizer, Setting("none", batch_size=2, max_steps=25, eval_steps=1), "cpu"))


def test_rows_are_filtered_by_characters_and_validation_is_numpys_old_draw(tmp_path: Path) -> None:
    rows = [{"query": "q" * 1200, "response": "r" * n} for n in (99, 100)]
    asked = [{"question": str(i), "answer": f"#### {i}"} for i in range(10)]
    for name, part in (("train", rows), ("asked", asked)):
        (tmp_path / f"{name}.json").write_text(json.dumps(part))
    found = read_rows(Files("train.json", "asked.json", "asked.json", n_validation=4, n_test=3), tmp_path)
    assert [len(row.response) for row in found.train] == [99]
    assert [row.query for row in found.validation] == ["2", "8", "4", "9"]  # RandomState(0).permutation(10)
    assert [row.query for row in found.test] == ["0", "1", "2"] and found.general is None
    (tmp_path / "train.json").write_text(json.dumps(rows[1:]))
    with pytest.raises(TensorAdaptError, match="has no row of at most 1300 characters"):
        read_rows(Files("train.json", "asked.json", "asked.json"), tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("So $4^2 = \\boxed{16}$.The answer is: 16", "16"),
        ("The answer is: 5\nThe answer is: 7.", "7"),
        ("The final answer is $12%.", "12"),
        ("12 - 7 = 5\n#### 5", "5"),
        ("The answer is: 3\n\nQuestion: 4", "3"),
        ("It is 16", None),
    ],
)
def test_an_answer_is_what_follows_the_last_mark(text: str, said: str | None) -> None:
    assert answers.said(text) == said


@pytest.mark.parametrize(
    ("found", "truth", "right"),
    [
        *[("16.0", "16", True), ("20/35", "0.5714285714285714", True), ("1,000", "1000", False)],
        *[("1,000", "1,000", True), ("x", "x", True), ("4/0", "4", False), ("1/2/3", "0.5", False), ("", "0", False)],
    ],
)
def test_answers_are_equal_as_numbers_or_else_as_texts(found: str, truth: str, right: bool) -> None:
    assert answers.is_right(f"The answer is: {found}", f"#### {truth}") is right


def test_a_response_without_an_answer_is_refused_and_a_text_without_one_is_wrong() -> None:
    assert not answers.is_right("no idea", "#### 4")
    with pytest.raises(TensorAdaptError, match="the response 'four' says no answer; expected one behind"):
        answers.is_right("The answer is: 4", "four")


def test_the_rate_rises_from_zero_over_a_tenth_and_falls_as_a_cosine() -> None:
    model = torch.nn.Linear(2, 2)
    optimizer, schedule = stepper(model, Setting("none", max_steps=40, eval_steps=1))
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    expected = [1e-4 * (i / 4 if i < 4 else 0.5 * (1 + math.cos(math.pi * (i - 4) / 36))) for i in range(40)]
    assert rates == pytest.approx(expected) and optimizer.param_groups[0]["weight_decay"] == 0.1


def test_methods_of_the_full_size_have_the_counts_of_their_formulas() -> None:
    found = {name: (trained, every) for name, trained, every in dry.counts(specification(PAPER / "metamath-gpu.toml"))}
    layers, q_and_v, width, kv, r = 28, 2, 3072, 1024, 16
    cp, tt = r * (layers + q_and_v + 2 * width), 2 * r * width + r * r * (layers + q_and_v)
    lotr, lora = 2 * r * width + layers * q_and_v * r * r, layers * 32 * (2 * width + width + kv)
    assert (cp, tt, lotr, lora) == (98_784, 105_984, 112_640, 9_175_040)
    kinds = {
        "lora": lora,
        "hira": lora,
        "cp": cp,
        "metatt-4d": tt,
        "lotr": lotr,
        "cp-hira": cp,
        "tensor-train-hira": tt,
    }
    assert {name.split("/")[0] for name in found} == set(kinds)
    base = 3_212_749_824
    assert all(found[name] == (kinds[name.split("/")[0]], base + kinds[name.split("/")[0]]) for name in found)


METHODS = {one.name.split("/")[0]: one for one in specification(PAPER / "metamath-gpu.toml").experiments}


@pytest.mark.thorough
@pytest.mark.parametrize("name", METHODS)
def test_each_method_of_the_full_size_takes_steps_in_bfloat16(name: str) -> None:
    sizes = {"hidden_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, vocab_size=20, **sizes)).to(torch.bfloat16)
    adapter = ta.attach(model, ta.plan(model, **METHODS[name].plan))
    before = [p.detach().clone() for p in adapter.parameters()]
    setting = replace(METHODS[name].setting, max_steps=20, eval_steps=20, batch_size=2)
    course = Course(20)
    rows = (padded([[3, 4, 5, 6], [7, 8]], 1, "cpu") for _ in range(20))
    train(model, rows, setting, course, Memory("cpu"), lambda: 0.0)
    assert {p.dtype for p in adapter.parameters()} == {torch.float32}
    assert all(bool((a != b).any()) for a, b in zip(before, adapter.parameters(), strict=True))
    assert course.steps[-1].loss < course.steps[0].loss


@torch.no_grad()
def test_questions_of_a_batch_are_answered_as_alone(tmp_path: Path) -> None:
    name = saved_chat_model(tmp_path / "model")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    rows = [Row("q" * n, "#### 1") for n in (1, 9, 4)]
    found = []
    for size in (3, 1):
        setting = Setting(name, batch_size_eval=size, generation_kwargs={"max_length": 800, "max_new_tokens": 6})
        found.append([answer.text for answer in answered(model, tokenizer, rows, setting, "cpu")])
    assert found[0] == found[1] and len(set(found[0])) == 3
    assert all(text.startswith(TEMPLATE.format(query=row.query)) for text, row in zip(found[0], rows, strict=True))


@pytest.mark.parametrize("how", ["greedy", "model"])
def test_answers_are_greedy_or_as_the_models_settings_say(how: str, tmp_path: Path) -> None:
    name = saved_chat_model(tmp_path / "model")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    model.generation_config.update(do_sample=True, temperature=2.0)
    setting = Setting(name, answers=how, generation_kwargs={"max_length": 800, "max_new_tokens": 6})
    texts = set()
    for seed in range(3):
        torch.manual_seed(seed)
        texts |= {one.text for one in answered(model, tokenizer, [Row("q", "#### 1")], setting, "cpu")}
    assert len(texts) == {"greedy": 1, "model": 3}[how]


def test_the_setting_of_the_full_size_is_pefts_default() -> None:
    found = specification(PAPER / "metamath-gpu.toml")
    first = found.experiments[0]
    assert first.name == "lora/llama-3.2-3B-rank32" and first.setting == Setting("meta-llama/Llama-3.2-3B")
    assert first.setting.query_template == TEMPLATE and dict(first.setting.rates) == {"lr": 1e-4, "weight_decay": 0.1}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("max_stepz = 3", "unknown key max_stepz"),
        ('query_template = "Why?"', "query_template is 'Why\\?'; expected a text with {query}"),
        ("eval_steps = 9", "eval_steps is 9 and max_steps 4; expected a validation by the last one"),
        ("max_seq_length = 200", "max_length is 200 and max_seq_length 200; expected room for an answer"),
        ("optimizer_kwargs = {lr = 1.0}", "optimizer_kwargs is {'lr': 1.0}; expected a table with lr and weight_decay"),
    ],
)
def test_a_setting_that_no_run_can_have_is_refused(line: str, said: str, tmp_path: Path) -> None:
    text = SPEC.format(model="none", lr=0.1)
    name = line.split(" ")[0]
    kept = "\n".join(one for one in text.splitlines() if not one.startswith(f"{name} ="))
    (tmp_path / "spec.toml").write_text(kept.replace("[train_config]", f"[train_config]\n{line}"))
    with pytest.raises(TensorAdaptError, match=said):
        specification(tmp_path / "spec.toml")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"lora/tiny"', '"lora"', "name is 'lora'; expected method/name"),
        ('"lora/tiny"', '"cp/tiny-lr0.01"', "two methods are called cp/tiny-lr0.01"),
        ("[[method]]", "[[methods]]", "unknown key methods; expected train_config, data, config and method"),
    ],
)
def test_a_specification_without_clear_methods_is_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text(SPEC.format(model="none", lr=0.1).replace(old, new))
    with pytest.raises(TensorAdaptError, match=said):
        specification(tmp_path / "spec.toml")


def test_a_file_that_is_no_specification_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["metamath.py", "metamath-gpo"])
    with pytest.raises(SystemExit, match="metamath-gpo is no specification; expected metamath-gpu, metamath-here"):
        metamath.main()


def test_the_stand_in_has_one_number_in_each_answer_and_no_question_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"instruction": f"What is {i} plus 1?", "input": "", "output": f"It is {i + 1}."} for i in range(60)]
    rows += [{"instruction": "Say 1 and 2", "input": "", "output": "1 and 2"}, {**rows[0], "instruction": "What?"}]
    (tmp_path / "instruct").mkdir()
    (tmp_path / "instruct" / "alpaca_5000.json").write_text(json.dumps(rows))
    monkeypatch.setenv("TENSORADAPT_DATA", str(tmp_path))
    assert stand_in.write(tmp_path) == {stand_in.VALIDATION: 24, stand_in.TEST: 24, stand_in.TRAIN: 12}
    found = read_rows(Files(stand_in.TRAIN, stand_in.VALIDATION, stand_in.TEST), tmp_path)
    every = [row for part in (found.train, found.validation, found.test) for row in part]
    assert len({row.query for row in every}) == 60
    for row in every:
        assert answers.said(row.response) == str(int(row.query.split()[2]) + 1)


@pytest.mark.slow
@needs_smollm2
@pytest.mark.skipif(not os.environ.get("TENSORADAPT_DATA"), reason="TENSORADAPT_DATA names no folder with Alpaca")
def test_the_specification_for_here_runs_two_steps_of_a_real_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (PAPER / "metamath-here.toml").read_text()
    for old, new in (
        ("max_steps = 20", "max_steps = 2"),
        ("eval_steps = 10", "eval_steps = 2"),
        ("n_test = 12", "n_test = 3"),
    ):
        assert old in text
        text = text.replace(old, new)
    general = "Proceedings of a workshop on electronic texts."  # the toolkit's own text would be most of the work
    (tmp_path / "general.jsonl").write_text(json.dumps({"text": general}))
    (tmp_path / "spec.toml").write_text(text.replace("[data]", '[data]\ngeneral_text = "general.jsonl"'))
    stand_in.write(tmp_path)
    own = ["metamath.py", str(tmp_path / "spec.toml"), "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*own, "--only", "cp", "--device", "cpu"])
    assert metamath.main() == 0
    found = result(tmp_path, "cp--smollm2-135m-rank16")
    assert not agrees(found, FORMAT) and found["run_info"]["train_config"]["model_id"] == SMOLLM2
    assert found["train_info"]["num_trainable_params"] == 16 * (30 + 2 + 576 + 576)
    assert 0.5 < found["train_info"]["metrics"][-1]["train loss"] < 6

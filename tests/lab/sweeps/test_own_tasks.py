"""Own data in sweeps, frontiers and the command line: what they say of it, and what worker processes compute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import sweeping
from support.sweeping import TINY, results
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

import tensoradapt as ta
from tensoradapt.lab.cli.main import main
from tensoradapt.lab.data import models
from tensoradapt.lab.runs.store import load_runs
from tensoradapt.lab.sweeps.executors.catalogue import cores
from tensoradapt.lab.tasks import registry
from tensoradapt.lab.tasks.classification import Classification

ONE = {"method": "lora", "rank": 1, "steps": 2, "batch": 4}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", {})


@pytest.fixture
def one_thread() -> Iterator[None]:
    """In this process, as in each of as many workers as there are cores: last digits depend on it."""
    with sweeping.one_thread():
        yield


def write(path: str, n: int = 40) -> str:
    lines = [f"row {i} of {'many ' * (i % 9)}words,{('bad', 'good')[i % 2]}" for i in range(n)]
    Path(path).write_text("\n".join(["text,label", *lines]) + "\n")
    return path


def sweep(tasks: list[Any], out: str, **options: Any) -> tuple[str, Any]:
    said: list[str] = []
    spec = {**TINY, **ONE, "task": tasks}
    ended = ta.sweep(spec, out, device="cpu", say=said.append, **options)
    return "\n".join(said), ended


@pytest.mark.thorough
@pytest.mark.usefixtures("one_thread")
def test_a_sweep_takes_names_files_and_tables_and_its_workers_compute_the_same() -> None:
    table = {"train": write("b.csv", 50), "max_length": 5, "metric": "matthews", "name": "mine"}
    said, ended = sweep(["planted", write("a.csv"), table], "one", executor="inline")
    assert ended.complete and ended.total == 3
    assert "task a: 28 train, 4 validation, 8 test; classes bad, good; test and validation drawn" in said
    assert "50 texts have more than 5 tokens and are cut (max_length)" in said and "task planted" not in said
    stored = {run.config["task"]: run for run in load_runs(Path("one"))}
    assert (stored["mine"].row["max_length"], stored["a"].row["max_length"]) == (5, 64)
    assert stored["mine"].result["metric"]["name"] == "matthews" and set(stored["mine"].result["test"]) == {
        "matthews",
        "accuracy",
    }
    _, again = sweep(["planted", "a.csv", table], "two", executor="local", workers=cores())
    assert again.complete and results(Path("one")) == results(Path("two"))
    write("a.csv", 60)
    assert "3 runs, 1 of them to do" in sweep(["planted", "a.csv", table], "one", executor="inline")[0]


@pytest.fixture
def gpt2() -> str:
    """A folder with a tiny GPT-2 whose tokenizer has no token for padding."""
    vocabulary = {word: i for i, word in enumerate(["row", "<unk>", "of", "many", "words", "<end>"])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>").save_pretrained("gpt2")
    ends = {"bos_token_id": 5, "eos_token_id": 5}
    config = GPT2Config(vocab_size=6, n_positions=64, n_embd=24, n_layer=2, n_head=2, **ends)
    GPT2ForSequenceClassification(config).transformer.save_pretrained("gpt2")
    return "gpt2"


def test_a_causal_model_without_a_token_for_padding_classifies_each_text_as_if_alone(gpt2: str) -> None:
    task, _ = registry.resolve(write("a.csv"))
    assert isinstance(task, Classification)
    model = task.model(gpt2).eval()
    assert model.config.pad_token_id == 5 and task.heads(model) == ("score",)
    examples = task.encode(task.load().test, gpt2, 64)
    with torch.no_grad():
        together = task.predict(model, task.collate(examples, model, "cpu"))
        alone = torch.cat([task.predict(model, task.collate([one], model, "cpu")) for one in examples])
    assert len(set(map(len, examples))) > 1 and torch.allclose(together, alone, atol=1e-5)
    assert models.encoder(gpt2)([("",), ("row",)], 8) == [[5], [0]]
    spec = {**TINY, **ONE, "model": gpt2, "task": "a.csv"}
    assert ta.sweep(spec, "runs", executor="inline", device="cpu", say=lambda *_: None).complete


def test_a_folder_that_is_written_again_has_its_new_tokenizer(gpt2: str) -> None:
    assert models.encoder(gpt2)([("many",)], 8) == [[3]]
    tokenizer = Tokenizer(WordLevel({"many": 0, "<unk>": 1}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(gpt2)
    assert models.encoder(gpt2)([("many",)], 8) == [[0]]


def test_a_dry_run_that_would_fail_says_so_by_its_exit_code(
    gpt2: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models, "_pad", lambda name, settings: None)
    lines = ['model = "gpt2"', 'method = "lora"', "rank = 1", "lr = 1e-3", "seed = 0"]
    Path("spec.toml").write_text("\n".join([*lines, "steps = 2", "[[task]]", f'train = "{write("a.csv")}"']))
    words = ["sweep", "spec.toml", "--out", "runs", "--device", "cpu", "--dry-run"]
    assert main(words) == 1
    assert "not run: the probe of lora r=1, seed 0 failed" in capsys.readouterr().out
    monkeypatch.setattr(models, "_pad", lambda name, settings: 0)
    assert main(words) == 0

"""Four steps in a real trainer, with equal steps and without: ``python tests/support/real_trainers.py TRAINER FOLDER``.

Runs in the trainer's venv, which ``.ci/trainers.sh install`` makes, without the development tools. The model is a small
Llama of random numbers. What is run are the files and the command of docs/guides/trainers.md with fewer steps and a
checkpoint for each; trainer_probe.py is their second callback, trainer_comparison.py compares what they leave.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch
import trainer_comparison
import trainer_probe
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

DOCS = Path(__file__).parents[2] / "docs"
FILES = DOCS / "examples" / "trainers"
STEPS, WIDTH = trainer_comparison.STEPS, trainer_comparison.WIDTH
SIZES = {"hidden_size": WIDTH, "intermediate_size": 96, "num_hidden_layers": 3, "max_position_embeddings": 256}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
FRUITS = ("apples", "pears", "plums", "figs", "limes", "dates", "melons", "grapes")
ROWS = [
    {"instruction": f"Name a dish of {fruit}.", "input": f"There are {n} guests.", "output": f"A cake of {fruit}."}
    for n, fruit in enumerate(FRUITS, 2)
]
PAIRS = [{**row, "chosen": row["output"], "rejected": f"Nothing for {n}."} for n, row in enumerate(ROWS)]
RANKING = {"prompt": "instruction", "query": "input", "chosen": "chosen", "rejected": "rejected"}
DATASETS = {
    "alpaca": {"file_name": "alpaca.json"},
    "pairs": {"file_name": "pairs.json", "ranking": True, "columns": RANKING},
}
PROBE = """
from swift import callbacks_map
from trainer_probe import Probe

callbacks_map["probe"] = lambda *_: Probe()
"""
FEWER = {"max_steps": (20, STEPS), "logging_steps": (2, 1), "save_steps": (10, 1)}


def main(trainer: str, folder: Path) -> None:
    """Train in each way of the trainer, and compare."""
    print(*(f"{name} {version(name)}" for name in (trainer, "torch", "transformers", "peft", "trl")), sep=", ")
    logging.disable_progress_bar()
    run, ways = RUNS[trainer]
    for way in ways:
        work = folder / way
        prepare(work)
        equal, plain = run(work, way, True), run(work, way, False)
        trainer_comparison.compare(work / "my-model", equal, plain, f"{trainer}, {way}")


def prepare(work: Path) -> None:
    """Write the model, its tokenizer and the data, under the guide's names."""
    (work / "data").mkdir(parents=True)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([json.dumps(row) for row in PAIRS], learner)
    ends = {"bos_token": special[0], "pad_token": special[0], "eos_token": special[2]}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends)
    fast.save_pretrained(work / "my-model")
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(fast), initializer_range=0.1, **SIZES, **HEADS)  # type: ignore[arg-type]
    LlamaForCausalLM(config).save_pretrained(work / "my-model")
    for name, value in (("alpaca", ROWS), ("pairs", PAIRS), ("dataset_info", DATASETS)):
        (work / "data" / f"{name}.json").write_text(json.dumps(value))
    (work / "alpaca.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    shutil.copy(trainer_probe.__file__, work)


def llama_factory(work: Path, way: str, equal: bool) -> Path:
    """Run the guide's launcher and its file; returns the output folder."""
    out = f"runs/{'equal-steps' if equal else 'adamw'}"
    changes = {f"{name}: {old}\n": f"{name}: {new}\n" for name, (old, new) in FEWER.items()}
    changes |= {"stage: sft": f"stage: {way}", "runs/llama-factory": out}
    changes |= {"dataset: alpaca": "dataset: pairs"} if way == "dpo" else {}
    (work / "run.yaml").write_text(edited((FILES / "llama_factory.yaml").read_text(), changes) + "use_cpu: true\n")
    imported = "from tensoradapt.extras.llama_factory import launch"
    callbacks = "EqualSteps(), Probe()" if equal else "Probe()"
    changes = {imported: f"{imported}\nfrom trainer_probe import Probe", "EqualSteps())": f"{callbacks})"}
    launcher = edited((FILES / "llama_factory_adapter.py").read_text(), changes)
    (work / "launcher.py").write_text(launcher)
    run(f"{sys.executable} launcher.py train run.yaml", work, work / f"{out}.log")
    return work / out


def ms_swift(work: Path, way: str, equal: bool) -> Path:
    """Run the guide's command with its plug-in; returns the output folder."""
    out = f"runs/{'equal-steps' if equal else 'adamw'}"
    (work / "ms_swift_adapter.py").write_text((FILES / "ms_swift_adapter.py").read_text() + PROBE)
    page = (DOCS / "guides" / "trainers.md").read_text()
    (command,) = re.findall(r"^ {4}(swift sft (?:.*\\\n)*.*)", page, re.MULTILINE)
    changes = {f"--{name} {old} ": f"--{name} {new} " for name, (old, new) in FEWER.items()}
    changes |= {"runs/ms-swift": out, "--callbacks equal_steps": f"--callbacks {'equal_steps ' * equal}probe"}
    run(edited(command, changes), work, work / f"{out}.log")
    return work / out


RUNS = {"llamafactory": (llama_factory, ("sft", "dpo")), "ms-swift": (ms_swift, ("sft",))}


def edited(text: str, changes: dict[str, str]) -> str:
    """The text with each change, which must have its place there once."""
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} is not once in the guide's:\n{text}"
        text = text.replace(old, new)
    return text


def run(command: str, work: Path, log: Path) -> None:
    """Run a command with the venv's programs; where it fails, show the end of its log."""
    log.parent.mkdir(exist_ok=True)
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": programs, "DISABLE_VERSION_CHECK": "1"}
    with log.open("w") as file:
        ended = subprocess.run(command, shell=True, cwd=work, env=environment, stdout=file, stderr=file, check=False)
    assert ended.returncode == 0, f"{command}\nended with {ended.returncode}:\n{log.read_text()[-4000:]}"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve())

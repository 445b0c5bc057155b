"""Four steps in a real trainer, with equal steps and without: ``python tests/support/real_trainers.py TRAINER FOLDER``.

Runs in the trainer's venv, which ``.ci/trainers.sh install`` makes, without the development tools. The model is a small
Llama of random numbers. What is run are the files and the command of docs/guides/trainers.md with fewer steps and a
checkpoint for each; trainer_probe.py is their second callback. What they leave is compared with models loaded anew,
with AdamW, and with the definition of equal steps.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import trainer_probe
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

import tensoradapt as ta
from tensoradapt.integrations.peft import TensorConfig  # registers the method

DOCS = Path(__file__).parents[2] / "docs"
FILES = DOCS / "examples" / "trainers"
STEPS, WIDTH = 4, 64
TOLERANCE = 1e-4  # between logits, which are of size 1
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
        compare(work / "my-model", equal, plain, f"{trainer}, {way}")


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


def compare(base: Path, equal: Path, plain: Path, name: str) -> None:
    """Compare the output folder of a run with equal steps, and of one without, with each other and what they should be.

    Raises AssertionError for what does not agree, after a line of figures for each run.
    """
    asked = same_start(equal, plain)
    ratios = []
    for out in (equal, plain):
        far, n_params = reloaded(base, out)
        ratios.append([moved / lr_t for moved, lr_t in zip(distances(base, out), asked, strict=True) if lr_t])
        steps = [step for step in record(out)["steps"] if step["lr"]]
        print(f"{name}, {out.name}: {n_params} parameters have gradients, those of the plan")
        print("    logits from the trained:  ", ", ".join(f"{what} {value:.1e}" for what, value in far.items()))
        print("    weights moved, over lr T: ", *(f"{ratio:.4f}" for ratio in ratios[-1]))
        print("    step, over AdamW's:       ", *(f"{step['c']:.4f}" for step in steps), flush=True)
        assert all(step["off"] < 1e-3 for step in steps), ("the factors do not move along AdamW's step", steps)
        if out == plain:
            assert all(abs(step["c"] - 1) < 1e-3 for step in steps), ("without equal steps it is not AdamW's", steps)
    assert all(abs(ratio - 1) < 1e-3 for ratio in ratios[0]), f"equal steps move the weights by lr T, not {ratios[0]}"
    assert any(abs(ratio - 1) > 0.05 for ratio in ratios[1]), "AdamW moves the weights as equal steps do"
    ends = [update(base, out, STEPS) for out in (equal, plain)]
    apart = float((ends[0] - ends[1]).norm() / ends[1].norm())
    print(f"{name}: after {STEPS} steps the two updates differ by {apart:.2f} of AdamW's", flush=True)
    assert apart > 0.01, "equal steps make no difference"


def record(out: Path) -> dict[str, Any]:
    """What the probe wrote."""
    return torch.load(out / trainer_probe.RECORD)


def same_start(equal: Path, plain: Path) -> list[float]:
    """Check that two runs begin with the same bits and have the same rates; returns lr T of each step."""
    first, second = ((out / trainer_probe.START / "adapter_model.safetensors").read_bytes() for out in (equal, plain))
    assert first == second, "the two runs do not begin with the same adapter"
    rates, others = ([step["lr"] for step in record(out)["steps"]] for out in (equal, plain))
    assert rates == others and len(rates) == STEPS and sum(map(bool, rates)) >= STEPS - 1, (rates, others)
    return [lr * 2 * math.sqrt(8 / (3 * WIDTH)) for lr in rates]  # docs/concepts/equal-steps.md


def reloaded(base: Path, out: Path) -> tuple[dict[str, float], int]:
    """The largest differences of logits from the trained model's, and the number of parameters; checks both."""
    model, ended = loaded(base, out / f"checkpoint-{STEPS}"), record(out)
    assert isinstance(model.active_peft_config, TensorConfig), model.active_peft_config
    n_params = model.base_model.tensoradapt_bank["default"].plan.n_params
    assert all("tensoradapt_bank" in name for name in ended["trained"]), ended["trained"]
    assert sum(ended["trained"].values()) == n_params, (ended["trained"], n_params)
    ta.export_lora(model, out / "lora")
    models = {"reloaded": model, "exported LoRA": loaded(base, out / "lora")}
    found = {name: trainer_probe.logits(one) for name, one in models.items()}
    found["merged"] = trainer_probe.logits(model.merge_and_unload())
    found["the base"] = trainer_probe.logits(LlamaForCausalLM.from_pretrained(base, dtype=torch.float32))
    far = {name: float((value - ended["logits"]).abs().max()) for name, value in found.items()}
    assert all((value < TOLERANCE) != (name == "the base") for name, value in far.items()), far
    assert far["the base"] > 100 * TOLERANCE, ("the adapter changes nothing", far)
    return far, n_params


def loaded(base: Path, saved: Path) -> Any:
    """The model with a saved adapter, in float32."""
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, str(saved)).eval()


def update(base: Path, out: Path, step: int) -> torch.Tensor:
    """What an adapter adds to the adapted weights after a step: all entries, in float64."""
    fresh = LlamaForCausalLM.from_pretrained(base, dtype=torch.float64).state_dict()
    merged = loaded(base, out / f"checkpoint-{step}").double().merge_and_unload().state_dict()
    names = [name for name in fresh if re.search(r"\.[qkvo]_proj\.", name)]
    return torch.cat([(merged[name] - fresh[name]).flatten() for name in names])


def distances(base: Path, out: Path) -> list[float]:
    """The root mean square of each step's change of the adapted weights, over all entries."""
    ends = [update(base, out, step) for step in range(STEPS + 1)]
    return [float((new - old).square().mean().sqrt()) for old, new in pairwise(ends)]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve())

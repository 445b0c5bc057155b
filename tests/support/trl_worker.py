"""Trains SmolLM2 by TRL through the PEFT plug-in, or loads what was saved: ``trl_worker.py sft|dpo|load FOLDER``.

Run in processes of their own: what one leaves in memory cannot help the next. Prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model

import tensoradapt as ta
from tensoradapt.integrations.peft import TensorConfig
from tensoradapt.integrations.trainer import EqualSteps
from tensoradapt.lab.data.models import load_causal

SMOLLM2 = "smollm2-135m-instruct"  # a model of the plug-in in benchmarks/paper
STEPS, BATCH, LENGTH = {"sft": 10, "dpo": 4}, {"sft": 4, "dpo": 2}, 64
ASKED = [{"role": "user", "content": "Write a sentence of a film review."}]
COMMON: dict[str, Any] = {
    "max_length": LENGTH,
    "logging_steps": 1,
    "report_to": "none",
    "save_strategy": "no",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "seed": 0,
    "disable_tqdm": True,
}


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def examples(kind: str) -> Dataset:
    """Real review sentences: as the assistant's words, or two that liked the film before two that did not."""
    n = STEPS[kind] * BATCH[kind]
    train = ta.load_task("snippets", n_train=8 * n).train
    texts = [
        [one[0] for one, label in zip(train.texts, train.labels, strict=True) if label == wanted] for wanted in (1, 0)
    ]
    if kind == "sft":
        return Dataset.from_list([{"messages": ASKED + said(text)} for text in texts[0][:n]])
    pairs = zip(*texts, strict=False)
    rows = [{"prompt": ASKED, "chosen": said(good), "rejected": said(bad)} for good, bad in pairs]
    return Dataset.from_list(rows[: BATCH[kind]])  # again at each step, as others are learned slowly


def train(kind: str, folder: Path) -> dict[str, Any]:
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer  # seconds, which what is only loaded goes without

    base, tokenizer = load_causal(SMOLLM2)
    config = TensorConfig(task_type="CAUSAL_LM", layout="layer proj : head dim : model", method="cp", rank=8, seed=0)
    model = get_peft_model(base, config)
    adapted = sum(p.numel() for p in model.parameters() if p.requires_grad)
    given = {"model": model, "train_dataset": examples(kind), "processing_class": tokenizer}
    common = {**COMMON, "max_steps": STEPS[kind], "per_device_train_batch_size": BATCH[kind]}
    if kind == "sft":
        equal = {"callbacks": [EqualSteps()]}
        trainer = SFTTrainer(args=SFTConfig(str(folder / "run"), learning_rate=5e-3, **common), **given, **equal)
    else:
        trainer = DPOTrainer(args=DPOConfig(str(folder / "run"), learning_rate=5e-3, beta=0.1, **common), **given)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    trainer.save_model(str(folder / "adapter"))
    saved = sum(file.stat().st_size for file in (folder / "adapter").glob("*.safetensors"))
    probe = logits(trainer.model, tokenizer)
    with trainer.model.disable_adapter():
        away = float((logits(trainer.model, tokenizer) - probe).norm() / probe.norm())
    torch.save(probe, folder / "logits.pt")
    stepper = getattr(getattr(trainer.optimizer, "optimizer", trainer.optimizer), "equal_steps", None)
    lengths = stepper.lengths if stepper else []
    return {"losses": losses, "lengths": lengths, "trained": adapted, "saved": saved, "moved": away}


@torch.no_grad()
def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    text = tokenizer.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True)
    return model.eval()(**tokenizer(text, return_tensors="pt")).logits


def load(folder: Path) -> dict[str, Any]:
    base, tokenizer = load_causal(SMOLLM2)
    expected = torch.load(folder / "logits.pt", weights_only=True)
    model = PeftModel.from_pretrained(base, folder / "adapter")
    found = logits(model, tokenizer)
    return {"away": float((found - expected).norm() / expected.norm())}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    kind, folder = sys.argv[1], Path(sys.argv[2])
    print(json.dumps(load(folder) if kind == "load" else train(kind, folder)))

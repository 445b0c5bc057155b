"""Trains SmolLM2 on rows of Alpaca twice, by TRL's SFTTrainer and by ``ta.fit``; prints the losses of both as JSON.

A process of its own, as TRL changes settings of libraries. The same adapter, rows, order, optimizer and schedule.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import torch
from datasets import Dataset
from peft import get_peft_model
from trl import SFTConfig, SFTTrainer

import tensoradapt as ta
from tensoradapt.integrations.peft import TensorConfig
from tensoradapt.lab.data.models import load_causal
from tensoradapt.lab.tasks.splits import DataSpec, Split
from tensoradapt_paper.language.alpaca import ALPACA

SMOLLM2 = "smollm2-135m-instruct"
STEPS, BATCH, LENGTH, RATE = 3, 4, 96, 5e-3
LAYOUT, PARAMETERIZATION, RANK = "layer proj : head dim : model", "cp", 8


def by_trl(train: Split, folder: str) -> list[float]:
    """The loss of each step, by SFTTrainer with the PEFT plug-in on prompts with completions."""
    base, tokenizer = load_causal(SMOLLM2)
    config = TensorConfig(
        task_type="CAUSAL_LM", layout=LAYOUT, method=PARAMETERIZATION, rank=RANK, scale="matched", seed=0
    )
    model = get_peft_model(base, config)
    rows = [
        {
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": answer}],
        }
        for prompt, answer in train.texts or ()
    ]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (STEPS - step) / (STEPS - 1)))
    settings: dict[str, Any] = {"max_steps": STEPS, "per_device_train_batch_size": BATCH, "logging_steps": 1}
    settings |= {"train_sampling_strategy": "sequential", "max_length": None, "report_to": "none", "use_cpu": True}
    settings |= {"bf16": False, "gradient_checkpointing": False, "save_strategy": "no", "disable_tqdm": True}
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(folder, **settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        optimizers=(optimizer, falling),
    )
    losses: list[float] = []
    computed = trainer.compute_loss

    def compute_loss(*arguments: Any, **more: Any) -> Any:  # the log rounds to four digits
        found = computed(*arguments, **more)
        losses.append(float((found[0] if isinstance(found, tuple) else found).detach()))
        return found

    trainer.compute_loss = compute_loss
    trainer.train()
    return losses


def by_fit(train: Split) -> list[float]:
    """The loss of each step, by the task and the training loop of a run."""
    task = ALPACA
    model = task.model(SMOLLM2)
    plan = ta.plan(model, layout=LAYOUT, method=PARAMETERIZATION, rank=RANK)
    ta.attach(model, plan, seed=0)
    examples = task.encode(train, SMOLLM2, LENGTH)
    batches = [task.collate(examples[at : at + BATCH], model, "cpu") for at in range(0, len(examples), BATCH)]
    return list(ta.fit(model, batches, lr=RATE, steps=STEPS, warmup=0.0, loss=task.loss).losses)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    rows = ALPACA.load(SMOLLM2, DataSpec(n_train=STEPS * BATCH, n_test=4, max_length=LENGTH)).train
    print(json.dumps({"fit": by_fit(rows), "trl": by_trl(rows, sys.argv[1])}))

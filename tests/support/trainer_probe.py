"""A callback that writes down what a real trainer's optimizer does; real_trainers.py copies it beside its files.

Into the output folder go ``checkpoint-0``, the adapter before training, and ``probe.pt``: the logits of the trained
model in the trainer's own process, how many numbers have gradients, and for each step its rate and how the factors'
change compares with AdamW's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

START, RECORD = "checkpoint-0", "probe.pt"


def logits(model: Any) -> Tensor:
    """The model's logits, [2, 24, vocabulary], of tokens that are always the same."""
    tokens = (7 * torch.arange(48)).remainder(model.config.vocab_size).view(2, 24)
    training = model.training
    with torch.no_grad():
        found = model.eval()(input_ids=tokens).logits
    model.train(training)
    return found


def adamw(group: dict[str, Any], state: dict[str, Tensor], old: Tensor) -> Tensor:
    """The change that AdamW's formula asks for (Loshchilov and Hutter, 2019), in float64, from its moments."""
    (first, second), step = group["betas"], float(state["step"])
    mean = state["exp_avg"].double() / (1 - first**step)
    root = (state["exp_avg_sq"].double() / (1 - second**step)).sqrt()
    return -group["lr"] * (mean / (root + group["eps"]) + group["weight_decay"] * old)


class Probe(TrainerCallback):
    """Compares each step with AdamW's: ``c`` is its multiple along it, ``off`` how far it is from that, relatively."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.old: list[tuple[dict[str, Any], Tensor, Tensor]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        kwargs["model"].save_pretrained(str(Path(args.output_dir) / START))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        groups = kwargs["optimizer"].param_groups
        self.old = [(group, p, p.detach().double()) for group in groups for p in group["params"]]

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        states = kwargs["optimizer"].state
        moved = torch.cat([(p.detach().double() - old).flatten() for _, p, old in self.old])
        asked = torch.cat([adamw(group, states[p], old).flatten() for group, p, old in self.old])
        c = float(moved @ asked / (asked @ asked)) if asked.any() else 0.0
        off = float((moved - c * asked).norm() / moved.norm()) if moved.any() else 0.0
        (lr,) = {float(group["lr"]) for group, _, _ in self.old}
        self.steps.append({"lr": lr, "c": c, "off": off})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = kwargs["model"]
        trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
        record = {"logits": logits(model), "trained": trained, "steps": self.steps}
        torch.save(record, Path(args.output_dir) / RECORD)

"""Compare what real_trainers.py left: with models loaded anew, with AdamW, and with the definition of equal steps."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import trainer_probe
from peft import PeftModel
from transformers import LlamaForCausalLM

import tensoradapt as ta
from tensoradapt.integrations.peft import TensorConfig  # registers the method

STEPS, WIDTH = 4, 64
TOLERANCE = 1e-4  # between logits, which are of size 1


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

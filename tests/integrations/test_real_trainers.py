"""What `.ci/trainers.sh` compares after training in other trainers, here after transformers' own Trainer.

It must fail where equal steps take no effect, and what it runs must be the guide's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from transformers import LlamaForCausalLM, Trainer, TrainingArguments

from tensoradapt.integrations.peft import TensorConfig
from tensoradapt.integrations.trainer import EqualSteps

sys.path.append(str(Path(__file__).parents[1] / "support"))
import real_trainers
from trainer_probe import Probe

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
TOKENS = (5 * torch.arange(8 * 16)).remainder(300).view(8, 16)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small model, and the outputs of two runs."""
    folder = tmp_path_factory.mktemp("trainers")
    real_trainers.prepare(folder)
    for name, callbacks in (("equal-steps", [EqualSteps(), Probe()]), ("adamw", [Probe()])):
        torch.manual_seed(0)
        model = LlamaForCausalLM.from_pretrained(folder / "my-model")
        config = TensorConfig(task_type="CAUSAL_LM", method="cp", rank=8, target_modules=TARGETS)
        common = {"max_steps": real_trainers.STEPS, "save_steps": 1, "report_to": "none", "use_cpu": True}
        arguments = TrainingArguments(str(folder / name), learning_rate=5e-3, weight_decay=0.1, **common)  # type: ignore[arg-type]
        rows = [{"input_ids": row, "labels": row} for row in TOKENS]
        Trainer(get_peft_model(model, config), arguments, train_dataset=rows, callbacks=callbacks).train()  # type: ignore[arg-type]
    return folder


def compared(work: Path, equal: str, plain: str) -> None:
    real_trainers.compare(work / "my-model", work / equal, work / plain, "Trainer")


def test_equal_steps_move_the_weights_as_asked_and_adamw_is_left_as_it_is(work: Path) -> None:
    compared(work, "equal-steps", "adamw")


def test_a_trainer_that_takes_no_equal_steps_is_found(work: Path) -> None:
    with pytest.raises(AssertionError, match="equal steps move the weights by lr T, not"):
        compared(work, "adamw", "adamw")


def test_a_trainer_that_takes_equal_steps_unasked_is_found(work: Path) -> None:
    with pytest.raises(AssertionError, match="without equal steps it is not AdamW's"):
        compared(work, "equal-steps", "equal-steps")


def test_a_checkpoint_of_another_adapter_is_found(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = real_trainers.loaded
    monkeypatch.setattr(real_trainers, "loaded", lambda base, _: load(base, work / "adamw" / "checkpoint-1"))
    with pytest.raises(AssertionError, match="'reloaded': "):
        compared(work, "equal-steps", "adamw")


@pytest.mark.parametrize("equal", [True, False])
def test_what_is_run_is_the_guides(equal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[str] = []
    monkeypatch.setattr(real_trainers, "run", lambda command, work, log: commands.append(command))
    for way in ("sft", "dpo"):
        real_trainers.llama_factory(tmp_path, way, equal)
    out = real_trainers.ms_swift(tmp_path, "sft", equal)
    assert ("EqualSteps()" in (tmp_path / "launcher.py").read_text()) is equal
    assert ("equal_steps" in commands[-1]) is equal and f"--output_dir runs/{out.name}" in commands[-1]
    assert "stage: dpo" in (tmp_path / "run.yaml").read_text() and commands[0].endswith("launcher.py train run.yaml")

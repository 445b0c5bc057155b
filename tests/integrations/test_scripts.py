"""The scripts of docs/guides/peft.md and trainers.md run as they are, but for models on the hub and fewer steps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.chat_models import SMOLLM2, needs_smollm2

FOLDER = Path(__file__).parents[2] / "docs" / "examples" / "trainers"
WRITTEN = {
    "with_peft": "runs/peft/adapter",
    "with_trainer": "runs/trainer/checkpoint-10/adapter",
    "with_trl": "runs/trl/adapter",
}
SHORTER = {  # a tenth of the steps: what they learn is measured elsewhere
    "with_peft": {"range(100)": "range(10)", "step % 25 == 24": "step % 5 == 4"},
    "with_trainer": {"_steps=100": "_steps=10", "checkpoint-100": "checkpoint-10", "n_test=500": "n_test=100"},
    "with_trl": {"max_steps=60": "max_steps=6"},
}
HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"  # which the pinned model of the plug-in stands for


@pytest.mark.slow
@pytest.mark.parametrize("name", ["with_peft", "with_trainer", pytest.param("with_trl", marks=needs_smollm2)])
def test_a_script_trains_and_saves_an_adapter(name: str, tmp_path: Path) -> None:
    text = (FOLDER / f"{name}.py").read_text()
    assert text.count(HUB) == (name == "with_trl")
    for long, short in SHORTER[name].items():
        assert long in text
        text = text.replace(long, short)
    (tmp_path / "script.py").write_text(text.replace(HUB, SMOLLM2))
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "trainable params: " in done.stdout
    assert [*(tmp_path / WRITTEN[name]).glob("*.safetensors")]

"""The complete scripts of docs/peft.md, docs/trainer.md and docs/trl.md run as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "examples" / "trainers"
WRITTEN = {
    "with_peft": "runs/peft/adapter",
    "with_trainer": "runs/trainer/checkpoint-100/adapter",
    "with_trl": "runs/trl/adapter",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_a_script_trains_and_saves_an_adapter(name: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(FOLDER / f"{name}.py")], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "trainable params: " in done.stdout
    assert [*(tmp_path / WRITTEN[name]).glob("*.safetensors")]

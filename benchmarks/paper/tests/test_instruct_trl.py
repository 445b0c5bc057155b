"""Instruction tuning by TRL's SFTTrainer and by the task's own loss is the same training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
WORKER = Path(__file__).parent / "instruct_trl_worker.py"


def test_trl_and_the_task_have_the_same_loss_at_each_step(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(WORKER), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["fit"]) == 3 and found["fit"][-1] != found["fit"][0]
    assert found["trl"] == pytest.approx(found["fit"], abs=1e-4)  # TRL 1.16's chunked log-likelihoods are 1e-5 above

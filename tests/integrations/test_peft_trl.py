"""SFT and DPO by TRL on a real chat model through the PEFT plug-in; the saved adapter loads in a new process."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from support.chat_models import needs_smollm2

pytestmark = [pytest.mark.slow, needs_smollm2]
WORKER = Path(__file__).parents[1] / "support" / "trl_worker.py"


def run(kind: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run([sys.executable, str(WORKER), kind, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", [pytest.param("sft", marks=pytest.mark.nightly), "dpo"])  # with_trl.py is SFT too
def test_trl_trains_an_adapter_that_a_new_process_loads(kind: str, tmp_path: Path) -> None:
    found = run(kind, tmp_path)
    losses = found["losses"]
    assert len(losses) == (10 if kind == "sft" else 4)
    assert mean(losses[-3:]) < 0.9 * mean(losses[:3])
    assert len(found["lengths"]) == (kind == "sft")  # its steps are equal, DPO's are AdamW's
    assert found["moved"] > 1e-2  # disabled, the model is the base
    assert kind == "sft" or losses[0] == pytest.approx(
        math.log(2), abs=1e-4
    )  # at its start an adapter is its reference
    assert found["trained"] == 8 * (576 + 9 + 64 + 30 + 2) + 8 * (
        576 + 3 + 64 + 30 + 2
    )  # q and o, k and v: 9 and 3 heads
    assert found["saved"] < 1.05 * 4 * found["trained"] + 4096  # each number once, and a header
    assert run("load", tmp_path)["away"] < 1e-6

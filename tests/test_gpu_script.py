"""What `benchmarks/gpu.sh` promises: the calls of its help, models that are made on the device, records row by row."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from random_models import base_of

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
EACH = "< <(benchmarks/gpu.sh list)"  # how CI takes the calls


def called(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *arguments], capture_output=True, text=True)


def test_the_calls_of_the_help_are_those_that_there_are_and_ci_runs_each() -> None:
    listed = called("list").stdout.split()
    _, branches = SCRIPT.read_text().rsplit("esac", 1)[0].split('\ncase "$1" in\n')
    assert listed == re.findall(r"^    ([a-z-]+)\)", branches, re.MULTILINE)
    assert EACH in (ROOT / ".ci" / "bare.sh").read_text() and ".ci/bare.sh test" in (ROOT / ".ci" / "run").read_text()


def test_a_large_model_is_made_on_its_device_in_its_dtype() -> None:
    model = base_of("llama-2-7b", "meta", "bfloat16")  # with a copy on the CPU this would take 13 to 27 GB
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}
    assert sum(p.numel() for p in model.parameters()) > 6.4e9
    assert torch.get_default_dtype() == torch.float32

"""What `benchmarks/gpu.sh` promises: the calls of its help, models that are made on the device, records row by row."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import kept
from speed_models import base_of

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


@pytest.mark.parametrize("name", ["", "speeed", "list-all", "."])
def test_another_call_is_answered_with_the_help(name: str) -> None:
    found = called(name)
    assert found.returncode == 2 and "benchmarks/gpu.sh sweep" in found.stdout and "set -euo" not in found.stdout


def test_a_large_model_is_made_on_its_device_in_its_dtype() -> None:
    model = base_of("llama-2-7b", "meta", "bfloat16")  # with a copy on the CPU this would take 13 to 27 GB
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}
    assert sum(p.numel() for p in model.parameters()) > 6.4e9
    assert torch.get_default_dtype() == torch.float32


def test_a_record_is_whole_after_each_row(tmp_path: Path) -> None:
    rows: list[int] = []
    for row in range(3):
        rows.append(row)
        kept.keep({"rows": rows}, tmp_path / "new", "name.json", "cpu")
        found = json.loads((tmp_path / "new" / "name.json").read_text())
        assert found["rows"] == rows and found["device"] == "cpu" and "commit" in found["provenance"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["name.json"]


def test_records_of_devices_have_names_of_their_own() -> None:
    assert [kept.named("fit", device) for device in ("cpu", "cuda", "cuda:1")] == ["fit", "fit-cuda", "fit-cuda1"]

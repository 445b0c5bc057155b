"""docs/reference/numerics.md: merge, export and compress keep to their bounds; a training repeats to the byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import numerics
import pytest
from support.families import FIRST, PLANNED

ROOT = Path(__file__).parents[1]
EVERY = [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in PLANNED]


@pytest.mark.parametrize("parameterization", EVERY)
def test_merge_and_export_round_once(parameterization: str) -> None:
    found = numerics.measured(parameterization)
    within_bounds(found)
    for dtype, merge in found["merge"].items():  # merge says of its worst layer what was lost of all
        assert merge["said"] == 0 if dtype == "float32" else merge["lost"] <= merge["said"] < 1


def within_bounds(found: dict) -> None:
    for dtype in numerics.DTYPES:
        assert found["merge"][dtype]["error"] <= numerics.MERGE[dtype], ("merge", dtype)
        assert found["export"][dtype] <= numerics.EXPORT[dtype], ("export", dtype)


@pytest.mark.parametrize("parameterization", numerics.COMPRESSED)
def test_compress_states_the_error_that_the_saved_adapter_has(parameterization: str, tmp_path: Path) -> None:
    stated, found = numerics.compressed(parameterization, tmp_path)
    assert 0 < stated < 1 and abs(stated - found) <= numerics.COMPRESS


@pytest.mark.slow
def test_a_training_repeats_to_the_byte_in_another_process() -> None:
    command = [sys.executable, str(ROOT / "tests" / "support" / "short_fit.py")]
    environments = [{**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": seed} for seed in ("1", "2")]
    prints = {
        subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout for env in environments
    }
    assert len(prints) == 1 and len(prints.pop()) == 65

"""Plans and tiny runs are what they were before the records of adapters, trainings and runs were declared once."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from support import golden

PLANS = json.loads((golden.FOLDER / "plans.json").read_text())


@pytest.mark.parametrize("i", range(len(PLANS)))
def test_an_adapter_has_the_plan_it_had(i: int) -> None:
    adapter, expected = PLANS[i]
    assert golden.facts_of_plan(adapter) == expected


@pytest.mark.thorough
def test_tiny_runs_have_the_losses_and_predictions_they_had() -> None:
    expected: dict[str, Any] = json.loads((golden.FOLDER / "runs.json").read_text())
    found = golden.facts_of_runs()
    assert found.keys() == expected.keys()
    for name, run in expected.items():
        exact = {key: run[key] for key in ("status", "n_params")}
        assert {key: found[name][key] for key in exact} == exact, name
        # packed runs compute in bf16, which processors sum in ways of their own, so some of 32 answers may change sides
        atol, score = (1e-2, 3 / 32) if "packed" in name else (1e-5, 1e-6)
        for key in ("losses", "predictions"):
            np.testing.assert_allclose(found[name][key], run[key], rtol=1e-4, atol=atol, err_msg=f"{name}: {key}")
        for part in ("validation", "test"):
            assert found[name][part] == pytest.approx(run[part], abs=score), name

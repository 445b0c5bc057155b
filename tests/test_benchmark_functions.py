"""What benchmarks rest on: losses and sizes in factored form, and 8 bits a number."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import step_size
from step_size_rows import Point, adapter, layers_of, plan

SMALL = Point(rank=3, layers=2, width=128)


@pytest.mark.parametrize(
    "name", ["lora", "lorta", "lorta-peft", "tenslora-att", "metatt-4+1d", "fact-tk", "loha", "quanta", "tinylora"]
)
def test_the_factored_loss_is_the_sum_over_sites_of_gradient_times_update(name: str) -> None:
    made, _ = plan(name, SMALL, "matched")  # type: ignore[misc]
    own, drive = adapter(made, 1), step_size.Drive(SMALL.width, layers_of(made), 2, tasks=len(made.spec.tasks) or 1)
    generator = torch.Generator().manual_seed(3)
    for parameter in own.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    coefficients, expected = drive.coefficients(), 0.0
    whole = copy.deepcopy(own)  # without what a subtracted start takes away: the loss is of the factors alone
    for initial in [buffer for tensor in whole.factored for buffer in tensor.initial.buffers()]:
        initial.zero_()
    for task, value in enumerate(made.spec.tasks or (None,)):
        if value:
            whole.select(task=value)
        for site in made.sites:
            at = task, int(site.coord["layer"]), step_size.PROJECTIONS.index(str(site.coord["proj"]))
            u, v = drive.directions[at]
            expected += (whole.delta(site) * (u.T @ (coefficients[at][:, None] * v))).sum().item()
    pulls = [step_size.Pull(t, g.members, drive) for t, g in zip(own.factored, made.groups, strict=True)]
    assert sum(pull.loss(coefficients).item() for pull in pulls) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rank", [2, 20])  # from Gram matrices, and from the product
def test_the_size_of_a_change_is_that_of_the_dense_difference(rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b, c, d = (torch.randn(n, generator=generator, dtype=torch.float64) for n in ((rank, 30), (40, rank)) * 2)
    expected = (d @ c - b @ a).square().mean().sqrt()
    assert step_size.change([(a, b)], [(c, d)]) == pytest.approx(float(expected))
    assert step_size.change([], [(c, d)]) == pytest.approx(float((d @ c).square().mean().sqrt()))


def test_a_rows_drift_is_lora_s_own_for_lora() -> None:
    [found] = step_size.compared("lora", Point(width=128, layers=3), "paper", 0, (1,))
    assert found["rms_ratio_to_lora"] == pytest.approx(1)
    assert found["worst_site_ratio"] == pytest.approx(1, abs=0.2)

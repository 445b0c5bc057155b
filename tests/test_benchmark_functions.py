"""What benchmarks rest on: losses and sizes in factored form, the planted fits' optimizer, and 8 bits a number."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import planted
import step_size
import trained_library
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


def test_the_planted_fits_take_adams_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(5, generator=generator)
    theirs = torch.nn.Parameter(ours.clone())
    optimizer, first, second = torch.optim.Adam([theirs], lr=0.1), torch.zeros(5), torch.zeros(5)
    for step in range(1, 5):
        gradient = torch.randn(5, generator=generator)
        theirs.grad = gradient.clone()
        optimizer.step()
        ours = ours - 0.1 * planted.adam_step(first, second, gradient, step)
    torch.testing.assert_close(ours, theirs.detach())


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name for name in planted.METHODS if name != "Block-term"])  # which takes seconds
def test_a_planted_tensor_is_of_its_methods_structure(name: str) -> None:
    method = planted.METHODS[name]
    network = method.planted()
    tensor = planted.plant(network, 0)
    assert np.sqrt(np.mean(tensor**2)) == pytest.approx(1)
    assert dict(network.clipped().bonds) == dict(network.bonds)
    assert planted.by_als(method, network, tensor) < 1e-6


def test_budgets_hold_for_all_but_the_smallest_kronecker() -> None:
    for source in planted.METHODS.values():
        budget = source.planted().n_params
        for name, method in planted.METHODS.items():
            assert method.within(budget).n_params <= (max(budget, 2096) if name == "Kronecker" else budget)


def test_adam_finds_a_planted_lora_and_not_with_one_rank_less() -> None:
    method = planted.METHODS["LoRA"]
    source = method.planted()
    tensor = planted.plant(source, 0)
    assert max(planted.by_adam(source, tensor, steps=300)[0.1]) < 0.01
    assert min(planted.by_adam(method.within(source.n_params - 1), tensor, steps=300)[0.1]) > 0.1


def test_8_bits_keep_each_row_to_half_a_step_and_take_a_byte_a_number() -> None:
    value = (
        torch.randn(3, 5, 40, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1e-3, 1.0, 50.0])[:, None, None]
    )
    found = trained_library.quantised(value, 8)
    steps = value.abs().amax(-1, keepdim=True) / 127
    assert ((found - value).abs() <= 0.51 * steps).all()  # the scale itself has 16 bits
    assert all(len(row.unique()) <= 255 for row in found.flatten(0, 1))
    assert trained_library.n_bytes([value], 8) == 600 + 2 * 15
    assert trained_library.n_bytes([value], 16) == 1200
    torch.testing.assert_close(trained_library.quantised(value, 16), value, rtol=2**-8, atol=0)
    assert not trained_library.quantised(torch.zeros(2, 3), 8).any()


def test_the_forms_of_a_library_of_trained_adapters_have_names_of_their_own() -> None:
    assert len(set(trained_library.ADAPTERS)) == 24
    named = [tuple(trained_library.named(form, bits).values()) for form, bits in trained_library.WANTED]
    assert len(set(named)) == len(named) == 7


def test_each_adapter_of_a_library_has_a_seed_of_its_own_and_four_tasks_share_one() -> None:
    own, shared = (
        [trained_library.seed_of(name, seeds) for name in trained_library.ADAPTERS] for seeds in ("own", "shared")
    )
    assert len(set(own)) == 24 and not set(own) & set(shared) and set(shared) == {0, 1}

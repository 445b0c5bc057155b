"""What benchmarks rest on: the rows of speed.py, sizes in factored form, and the calls of gpu.sh."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import speed_costs
import step_size
from random_models import base_of, shared, sites_of
from speed_rows import LEAST, SAME, Ours, Row, rows_of
from step_size_rows import Point, adapter, layers_of, plan

import tensoradapt as ta

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # PEFT asks for it


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return {row.name: row for row in rows_of(base_of("small", "cpu", "float32"))}


def test_rows_at_a_count_have_at_most_that_of_lora_and_more_than_half(rows: dict[str, Row]) -> None:
    base = base_of("small", "cpu", "float32")
    counts = {
        g: ta.plan(sites_of(base), method="lora", paper=True, rank=r).n_params for g, r in ((LEAST, 1), (SAME, 8))
    }
    found = []
    for row in rows.values():
        if row.group in counts and isinstance(row, Ours):
            try:
                n = row.plan(base).n_params
            except ta.TensorAdaptError:
                continue
            assert counts[row.group] / 2 <= n <= counts[row.group], row.name
            found.append((row.method, row.group))
    assert {("cp", LEAST), ("tucker", LEAST), ("tensor_train", SAME), ("lotr", SAME), ("vera", SAME)} <= set(found)


@pytest.mark.parametrize("name", ["PEFT LoRA r=8", "lora r=8", "vera r=256"])
def test_held_bytes_are_those_of_the_adapter_alone(name: str, rows: dict[str, Row]) -> None:
    base = base_of("small", "cpu", "float32")
    model = rows[name].attach(shared(base), rows[name].plan(base))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = 2 * 64 * 256 if name.startswith("vera") else 0  # A and B, once for all matrices
    assert speed_costs.added_bytes(model, base) == pytest.approx(4 * (trained + frozen), abs=8)  # a gate's share


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


sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

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

"""Two ranks are one process: DDP and FSDP2 with factors that layers share, saving, checkpointing, and what is refused.

All that needs ranks runs once, in tests/support/distributed_worker.py; each test reads its part.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from support.families import PLANNED

import tensoradapt as ta

TESTS = Path(__file__).parents[1]
EXAMPLE = TESTS.parent / "docs" / "examples" / "train_fsdp.py"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
CHECKPOINTED = [
    f"{name}, {how}, {mode}"
    for name in ("cp", "lora")
    for how in ("ddp", "fsdp2", "static ddp")
    for mode in ("reentrant", "not reentrant")
]
REFUSED = "cp, ddp, reentrant"
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default:a rank died")]


def torchrun(*arguments: str | Path) -> str:
    """Return what two ranks print; raise AssertionError with their errors where one fails.

    A rank that dies of a segmentation fault is started once more: torch's gloo did so once in some thirty runs of the
    same commands, and no Python code can. What it was at is then in the warning, from faulthandler.
    """
    paths = [str(TESTS.parent), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    environment["PYTHONFAULTHANDLER"] = "1"
    for left in (1, 0):
        done = subprocess.run([*TORCHRUN, *map(str, arguments)], capture_output=True, text=True, env=environment)
        if "(SIGSEGV)" not in done.stderr or not left:
            break
        warnings.warn(f"a rank died of a segmentation fault:\n{done.stderr[-20000:]}", stacklevel=2)
    assert done.returncode == 0, done.stderr[-20000:]  # the ranks' own errors come before torchrun's
    return done.stdout


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank found."""
    printed = torchrun(TESTS / "support" / "distributed_worker.py", tmp_path_factory.mktemp("ranks"))
    return json.loads(next(line for line in printed.splitlines() if line.startswith("[{")))


@pytest.mark.parametrize("how", ["ddp", "fsdp2"])
@pytest.mark.parametrize("parameterization", ["dora", *PLANNED])
def test_two_steps_on_two_ranks_are_two_steps_in_one_process(
    ranks: list[dict[str, Any]], how: str, parameterization: str
) -> None:
    for rank in ranks:
        errors = rank["families"][how][parameterization]
        assert len(errors) == 5
        assert {what: error for what, error in errors.items() if not error < 1e-6} == {}


@pytest.mark.parametrize("parameterization", ["lora", "cp", "vera"])
def test_equal_steps_under_ddp_are_those_of_one_process(ranks: list[dict[str, Any]], parameterization: str) -> None:
    for rank in ranks:
        errors = rank["families"]["ddp"][f"{parameterization}, equal steps"]
        assert len(errors) == 5
        assert {what: error for what, error in errors.items() if not error < 1e-6} == {}


@pytest.mark.parametrize("how", [how for how in CHECKPOINTED if how != REFUSED])
def test_gradient_checkpointing_on_two_ranks_gives_the_gradients_of_one_process_without(
    ranks: list[dict[str, Any]], how: str
) -> None:
    for rank in ranks:
        assert rank["checkpointing"][how] < 1e-6


def test_reentrant_checkpointing_of_shared_factors_under_ddp_is_refused(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        message = rank["checkpointing"][REFUSED]
        assert message.startswith("site model.layers.0.self_attn.q_proj shares trainable factors with other layers")
        assert "it would be wrong, or torch fails" in message
        assert '"mark a variable ready only once"' in message
        assert 'gradient_checkpointing_kwargs={"use_reentrant": False}' in message
        assert "static_graph=True" in message


def test_fp32_factors_train_on_a_frozen_bf16_base_under_fsdp2(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["mixed"]["plain"] < 1e-6
        assert rank["mixed"]["policy"] < 1e-6


def test_shards_are_saved_loaded_and_put_back(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        found = rank["saving"]
        assert (found["files"], found["loaded"]) == (True, True)
        assert found["output"] < 1e-6
        assert found["restored"] < 1e-6


def test_a_folder_that_rank_0_cannot_write_is_refused_on_every_rank(ranks: list[dict[str, Any]]) -> None:
    first, second = (rank["saving"]["unwritable"] for rank in ranks)
    assert "cannot be written" in first
    assert second == f"rank 0: {first}"


def test_the_trained_part_goes_through_torch_s_own_checkpoint_each_number_once(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["trainable_part"] == {"names": [], "equal": True}


def test_rank_0_alone_saves_under_ddp(ranks: list[dict[str, Any]]) -> None:
    assert [rank["ddp_saving"] for rank in ranks] == [{"equal": True}, {}]


def test_transformers_trainer_saves_what_its_ranks_agree_on(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["trainer"] == {"ddp": True, "ranks": True, "saved": True}


@pytest.mark.parametrize("what", ["attach", "reduce_rank", "use"])
def test_factors_that_ddp_does_not_know_are_refused(ranks: list[dict[str, Any]], what: str) -> None:
    for rank in ranks:
        assert rank["too_late"][what].startswith(
            "DistributedDataParallel does not know the adapter's tensors.0.trained."
        )
        assert "DistributedDataParallel(model) anew" in rank["too_late"][what]


def test_a_head_that_was_frozen_when_ddp_was_made_is_refused(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["too_late"]["head"].startswith("DistributedDataParallel does not know the adapter's lm_head.weight")


@pytest.mark.parametrize(
    "what",
    [
        *("attach", "load", "merge", "detach", "export", "rank reduction"),
        *("preconditioned gradients", "orthonormal factors", "equal steps"),
    ],
)
def test_what_needs_whole_parameters_is_refused_of_a_sharded_model(ranks: list[dict[str, Any]], what: str) -> None:
    instead = {
        "attach": "call fully_shard after",
        "load": "call fully_shard after",
        "preconditioned gradients": "under DDP",
        "orthonormal factors": "under DDP",
        "equal steps": "under DDP",
    }
    for rank in ranks:
        message = rank["refused"][what]
        assert "is sharded over ranks" in message
        assert f"whole parameters are needed for {what}." in message
        assert instead.get(what, "Call adapter.save(folder) on every rank") in message


def test_the_example_trains_on_two_ranks_and_its_adapter_is_loaded(tmp_path: Path) -> None:
    printed = torchrun(EXAMPLE, tmp_path / "adapter", "--steps", "20")
    losses = [float(line.rpartition(" ")[2]) for line in printed.splitlines() if line.startswith("step ")]
    assert len(losses) == 20
    assert sum(losses[-5:]) / 5 < sum(losses[:3]) / 3 - 0.1  # batches differ by about 0.03
    example = runpy.run_path(str(EXAMPLE))
    model, tokens = example["base_and_tokens"](None, EXAMPLE.read_text())
    batch = tokens[None, :256]
    before = model(input_ids=batch, labels=batch).loss
    ta.load(model, tmp_path / "adapter")
    assert model(input_ids=batch, labels=batch).loss < before - 0.1

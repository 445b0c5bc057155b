"""Batches of runs reach a device without a wait, on a stand-in: in training ahead, for predictions in large ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from support.device_standin import Counts, Device, standin
from torch import Tensor, nn

from tensoradapt.lab.runs import batches
from tensoradapt.lab.runs.batches import predict
from tensoradapt.lab.runs.config import DataSpec, RunConfig
from tensoradapt.lab.runs.execute import execute, load_data, prepare
from tensoradapt.lab.tasks import Task
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.training.options import Training

RUN = RunConfig(
    "tiny-random-bert", "planted", Training(1e-3, 4), adapter=AdapterSpec("lora", rank=2),
    data=DataSpec(n_train=64, n_validation=200, n_test=700, batch=8),
)  # fmt: skip


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "stand-in")
    with standin() as device:
        yield device


class Sums(Task):
    """A task whose predictions are the sums of an example's numbers; nothing in it waits for a device."""

    name, metrics = "sums", "accuracy"

    def splits(self, n_train: int | None = None, n_test: int | None = None) -> Any:
        raise NotImplementedError

    def model(self, name: str) -> nn.Module:
        raise NotImplementedError

    def encode(self, split: Any, model: str, max_length: int) -> Any:
        raise NotImplementedError

    def collate(self, examples: Sequence[Any], model: nn.Module, device: str) -> Mapping[str, Tensor]:
        rows = [torch.tensor(row, dtype=torch.float32) for row in examples]
        return {"x": nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)}

    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return batch["x"].sum(1, keepdim=True)


@pytest.mark.thorough
def test_a_run_copies_no_batch_that_is_waited_for(gpu: Device) -> None:
    counted: list[Counts] = []

    def note(step: int, loss: float) -> None:
        counted.append(gpu.counts)
        gpu.counts = Counts()

    with gpu.counting():
        execute(RUN, "cuda", note)
        counted.append(gpu.counts)
    after_the_first = [counts.copies.total() for counts in counted[1:]]
    assert after_the_first == [0] * len(after_the_first), [+counts.copies for counts in counted[1:]]


def test_an_evaluation_waits_once(gpu: Device) -> None:
    rows = [[1.0] * (1 + i % 90) for i in range(1000)]
    with gpu.counting() as counts:
        found = predict(Sums(), nn.Identity(), rows, "cuda")
    assert counts.waits.total() == 1 and counts.copies.total() == 0, counts
    assert found[:, 0].tolist() == [len(row) for row in rows]


def test_batches_of_predictions_are_large_on_a_device_and_bounded_in_tokens(gpu: Device) -> None:
    seen: list[tuple[int, ...]] = []

    class Seen(Sums):
        def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
            seen.append(tuple(batch["x"].shape))
            return super().predict(model, batch)

    rows = [[1.0] * n for n in (*[10] * 600, *[200] * 600, *[3000] * 100)]
    expected = predict(Seen(), nn.Identity(), rows, "cpu")
    assert {n for n, _ in seen} <= {64, len(rows) % 64}
    seen.clear()
    assert (predict(Seen(), nn.Identity(), rows, "cuda") == expected).all()
    assert seen[0] == (512, 10) and (256, 200) in seen
    assert all(n <= 64 or n * width <= batches.TOKENS for n, width in seen) and sum(n for n, _ in seen) == len(rows)


def test_a_large_batch_without_memory_is_halved_and_a_small_one_fails(gpu: Device, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    room = 128

    class Narrow(Sums):
        def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
            if len(batch["x"]) > room:
                raise torch.OutOfMemoryError("no memory")
            return super().predict(model, batch)

    rows = [[float(i)] for i in range(1000)]
    assert predict(Narrow(), nn.Identity(), rows, "cuda")[:, 0].tolist() == list(range(1000))
    room = 32
    with pytest.raises(torch.OutOfMemoryError):
        predict(Narrow(), nn.Identity(), rows, "cuda")


def test_what_is_predicted_in_large_batches_is_what_small_ones_give(gpu: Device) -> None:
    data = load_data(RUN)
    rows = data.task.encode(data.test, RUN.model, RUN.data.max_length)
    found = [
        predict(data.task, prepare(data.task, RUN)[0].eval().to(device), rows, device) for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(*found, atol=1e-6)

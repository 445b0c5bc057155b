"""What a sweep will take: a few steps of each task's first run, and the sum over what is still to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from tensoradapt.runs.batches import load_data
from tensoradapt.runs.config import RunConfig
from tensoradapt.runs.execute import execute

STEPS, EXAMPLES = 3, 64  # of the probe
JSON_BYTES = 16_000  # of a run's documents, attempts and file headers


@dataclass(frozen=True)
class Forecast:
    """Seconds of one run after another, and bytes of their folders."""

    seconds: float
    bytes: int


def forecast(configs: Sequence[RunConfig], device: str, threads: int) -> Forecast:
    """Seconds and bytes of runs, estimated from one short run for each task on ``threads`` threads."""
    seconds, n_bytes = 0.0, 0
    for task in dict.fromkeys(config.task for config in configs):
        own = [config for config in configs if config.task == task]
        with _threads(threads):
            step, example, besides = _probe(own[0], device)
        data = load_data(task, own[0].model, own[0].n_train, own[0].n_test, own[0].seed)
        n_test, n_validation = len(data.test), min(own[0].n_validation or len(data.validation), len(data.validation))
        seconds += sum(config.steps * step + (n_test + n_validation) * example + besides for config in own)
        n_bytes += sum(JSON_BYTES + 8 * config.steps + n_test * (8 + 4 * data.task.n_labels) for config in own)
    return Forecast(seconds, n_bytes)


def _probe(config: RunConfig, device: str) -> tuple[float, float, float]:
    """Seconds of a step, of evaluating an example, and of what a run does once."""
    load_data(config.task, config.model, config.n_train, config.n_test, config.seed)  # a process does it once
    short = replace(config, steps=STEPS, n_train=EXAMPLES, n_validation=EXAMPLES, n_test=EXAMPLES)
    measured = execute(short, device)["measurements"]
    step, evaluation = measured["step_seconds_median"] or 0.0, measured["evaluation_seconds"]
    return step, evaluation / (2 * EXAMPLES), max(0.0, measured["seconds"] - evaluation - STEPS * step)


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)

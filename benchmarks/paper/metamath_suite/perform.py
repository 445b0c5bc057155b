"""One experiment from the model's weights to its files: the result, the answers, the steps and the adapter."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

import tensoradapt as ta
from metamath_suite import general_text, record
from metamath_suite.batches import batches
from metamath_suite.course import Course, Step
from metamath_suite.evaluation import Answer, accuracy, answered
from metamath_suite.loading import Loaded, load
from metamath_suite.memory import Memory
from metamath_suite.rows import Rows
from metamath_suite.setting import Experiment
from metamath_suite.training import train
from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import csv_bytes, replace_files
from tensoradapt.lab.runs.provenance import provenance

RESULTS, CANCELED, DETAILS = "results", "cancelled_results", "details"  # the first two as in PEFT's comparison
STOPS = (KeyboardInterrupt, torch.OutOfMemoryError, TensorAdaptError)
Say = Callable[[str], None]


@dataclass
class Run:
    """An experiment under way: what it has, and what it has found."""

    experiment: Experiment
    rows: Rows
    loaded: Loaded
    adapter: Any
    course: Course
    general: dict[str, float]  # cross entropy of general text before and after, nats a token
    tested: list[Answer] = field(default_factory=list)


def perform(experiment: Experiment, rows: Rows, out: Path, device: str, say: Say) -> dict[str, Any]:
    """Run one experiment and write its files below ``out``; returns the result in PEFT's format.

    A run that is interrupted, diverges or has too little memory is written among the cancelled results, without an
    adapter, and raises what stopped it.
    """
    created, start = datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat(), time.perf_counter()
    memory = Memory(device)
    stop: BaseException | None = None
    torch.manual_seed(experiment.setting.seed)
    loaded = load(experiment.setting, device)
    course = Course(experiment.setting.eval_steps)
    texts = general_text.texts_of(rows.general, loaded.tokenizer, experiment.setting.model_id)
    before = general_text.loss(loaded.model, texts, device)
    adapter = ta.attach(loaded.model, ta.plan(loaded.model, **experiment.plan), seed=experiment.setting.seed)
    say(f"{experiment.name}: {adapter.n_params:,} parameters, general text at {before:.3f} nats a token")
    run = Run(experiment, rows, loaded, adapter, course, {"before": before})
    try:
        _trained_and_tested(run, texts, memory, say)
    except STOPS as error:
        stop = error
    outcome = record.Outcome(
        created_at=created,
        train_time=course.train_time(),
        file_size=0 if stop else _saved(run, out),
        total_time=time.perf_counter() - start,
        peak_memory=memory.peak(),
        dtype=loaded.dtype,
        device=device,
        n_trained=adapter.n_params,
        n_total=sum(p.numel() for p in loaded.model.parameters()),
        model_sha=loaded.sha,
        error="" if stop is None else str(stop) or "manually canceled",
    )
    result = record.document(experiment, adapter.plan, course, outcome)
    place = out / (CANCELED if stop else RESULTS) / record.file_name(experiment)
    replace_files({**_details(run, out), place: record.as_bytes(result)})
    if stop:
        raise stop
    return result


def _trained_and_tested(run: Run, texts: list[torch.Tensor], memory: Memory, say: Say) -> None:
    setting, loaded, rows = run.experiment.setting, run.loaded, run.rows
    model, tokenizer, device = loaded.model, loaded.tokenizer, loaded.device

    def validate() -> float:
        right = accuracy(answered(model, tokenizer, rows.validation, setting, device))
        last = run.course.steps[-setting.eval_steps :]
        loss = sum(step.loss for step in last) / len(last)
        say(f"  step {len(run.course.steps)}: loss {loss:.4f}, {right:.1%} of validation right")
        return right

    train(model, batches(rows.train, tokenizer, setting, device), setting, run.course, memory, validate)
    run.tested = answered(model, tokenizer, rows.test, setting, device)
    run.general["after"] = general_text.loss(model, texts, device)
    run.course.add_test(accuracy(run.tested), run.general["after"] - run.general["before"])


def _folder(run: Run, out: Path) -> Path:
    return out / DETAILS / run.experiment.name.replace("/", "--")


def _saved(run: Run, out: Path) -> int:
    """Save the adapter and return the bytes of its numbers."""
    folder = _folder(run, out) / "adapter"
    run.adapter.save(folder)
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def _details(run: Run, out: Path) -> dict[str | Path, bytes]:
    """Return what PEFT's format has no place for: test answers, steps, general text, and how the run was made."""
    folder, names = _folder(run, out), [f.name for f in fields(Step)]
    lines = [json.dumps({**asdict(answer), "said": answer.said}) + "\n" for answer in run.tested]
    facts = {"plan": str(run.adapter.plan), "general_text": run.general, "answers": run.experiment.setting.answers}
    return {
        folder / "answers.jsonl": "".join(lines).encode(),
        folder / "steps.csv": csv_bytes(names, [asdict(step) for step in run.course.steps]),
        folder / "facts.json": record.as_bytes({**facts, "provenance": provenance()}),
    }

"""From a run to its model: load what it kept, or train it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.checks import as_path, check_arguments, text
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.execute import execution, load_data, model_of
from tensoradapt.lab.runs.kept import path_of
from tensoradapt.lab.runs.store import Run, is_finished, read_run
from tensoradapt.lab.tasks import Task
from tensoradapt.lab.tasks.registry import restore
from tensoradapt.storage.load import load
from tensoradapt.surgery.registry import attached


@dataclass(frozen=True)
class TrainedRun:
    """A run's model, ready to predict, with all that is needed to use it.

    ``adapter`` is None where the run trained the model itself, or its head. ``tokenizer`` is the model's tokenizer or
    image processor, None for "tiny-random-bert", which has none.
    """

    model: nn.Module
    adapter: Adapter | None
    tokenizer: Any
    task: Task
    config: RunConfig

    def __repr__(self) -> str:
        return f"TrainedRun({self.config.title} of {self.config.model} on {self.config.task})"


def load_run(root: Path | str, run: str | Run, *, device: str = "cpu") -> TrainedRun:
    """Load the model of a run with the adapter that it trained (docs/guides/sweeps/results.md).

    Args:
        root: the folder of a sweep or a frontier.
        run: the run's id, which is the name of its folder and the column ``id`` of ``ta.results``, or a ``Run``.
        device: where the model is put.

    Returns:
        The model in eval mode, its adapter and trained head, its tokenizer and its task.

    Raises:
        TensorAdaptError: for a run that is not there, one without an adapter, and one whose adapter was not kept.

    >>> import tempfile
    >>> import tensoradapt as ta
    >>> spec = {"model": "tiny-random-bert", "task": "planted", "method": "cp", "rank": 2}
    >>> spec |= {"lr": 1e-3, "seed": 0, "steps": 3}
    >>> folder = tempfile.mkdtemp()
    >>> done = ta.sweep(spec, folder, executor="inline", probe=False, say=lambda line: None)
    >>> trained = ta.load_run(folder, ta.load_runs(folder)[0])
    >>> trained.adapter.n_params, trained.task.name
    (82, 'planted')
    """
    check_arguments(locals(), root=as_path, device=text)
    found = read_run(Path(root) / _name(Path(root), run))
    config = RunConfig.from_dict(found.config)
    path = path_of(Path(root), config)
    if not (path / "adapter.json").is_file():
        raise TensorAdaptError(f"{found.path}: {_missing(Path(root), config, found)}")
    task = restore(config.task, config.own)
    model = model_of(task, config)
    adapter = load(model, path)
    return TrainedRun(model.to(device).eval(), adapter, task.processor(config.model), task, config)


def _name(root: Path, run: str | Run) -> str:
    name = run.name if isinstance(run, Run) else text(run, "run")
    if not is_finished(root, name):
        known = [path.parent.name for path in root.glob("*/result.json")]
        raise TensorAdaptError(f"{root} has no finished run {name!r}{did_you_mean(name, known)}")
    return name


def _missing(root: Path, config: RunConfig, found: Run) -> str:
    """Say why no adapter of a run is kept, and what to do."""
    again = "ta.train(run.config) trains it again, to the same numbers"
    if config.kind != "adapter":
        return f"{config.method} has no adapter, and whole models are not kept; {again}"
    if why := found.measurements.get("adapter_not_kept"):
        return f"its adapter was not kept: {why}; {again}"
    others = [path.name for path in path_of(root, config).parent.glob("*")]
    best = f', and of its size {others[0]} is kept (keep = "best")' if others else ""
    return f"its adapter was not kept{best}; {again}"


def train(config: RunConfig | Mapping[str, Any], *, device: str = "cpu") -> TrainedRun:
    """Train what a run trained, again: the same data, seed, rates and steps give the same numbers on the same machine.

    A sweep takes equal steps (``optimizer="equal_steps"``), by which one learning rate serves all sizes, where ``fit``
    takes AdamW's, so a rate that a sweep chose means something else there. This takes what the run took.

    Args:
        config: a run's, as in ``ta.load_runs(folder)[0].config``.
        device: "cpu", "cuda" or one GPU, such as "cuda:1".

    Returns:
        The trained model in eval mode, its adapter and trained head, its tokenizer and its task.

    Raises:
        TensorAdaptError: for a config that no run has, and data or a model that cannot be loaded.

    >>> import tempfile
    >>> import tensoradapt as ta
    >>> spec = {"model": "tiny-random-bert", "task": "planted", "method": "cp", "rank": 2}
    >>> spec |= {"lr": 1e-3, "seed": 0, "steps": 3}
    >>> folder = tempfile.mkdtemp()
    >>> done = ta.sweep(spec, folder, executor="inline", probe=False, say=lambda line: None)
    >>> ta.train(ta.load_runs(folder)[0].config).adapter.n_params
    82
    """
    check_arguments(locals(), device=text)
    config = config if isinstance(config, RunConfig) else RunConfig.from_dict(config)
    model = execution(config, device)["model"]
    task = load_data(config).task
    adapter = attached(model) if config.kind == "adapter" else None
    return TrainedRun(model.eval(), adapter, task.processor(config.model), task, config)

"""Trackers: TensorBoard, Weights & Biases and Trackio, which a sweep sends losses and scores to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = "tracking"


class TensorBoard:
    """A tracker that writes event files to ``tracking/tensorboard/<name>`` in the folder of runs."""

    def start(self, name: str, root: Path, config: Mapping[str, Any], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # purge_step hides what a killed attempt wrote of this step and later
        self._writer = SummaryWriter(str(root / FOLDER / "tensorboard" / name), purge_step=step)
        self._writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in config.items()))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def finish(self) -> None:
        self._writer.close()


class Wandb:
    """A tracker for Weights & Biases, in the mode that WANDB_MODE says; its files are in ``tracking``.

    The project has the name of the folder of runs. A killed run resumes under its name and skips steps already logged.
    """

    def start(self, name: str, root: Path, config: Mapping[str, Any], step: int) -> None:
        import wandb

        (root / FOLDER).mkdir(parents=True, exist_ok=True)
        self._run: Any = wandb.init(
            project=root.name,
            name=name,
            id=name,
            dir=str(root / FOLDER),
            config=dict(config),
            resume="allow",
            settings=wandb.Settings(console="off"),
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def finish(self) -> None:
        self._run.finish()


class Trackio(Wandb):
    """A tracker for Trackio, in its own folder (TRACKIO_DIR). The project has the name of the folder of runs."""

    def start(self, name: str, root: Path, config: Mapping[str, Any], step: int) -> None:
        import trackio

        self._run = trackio.init(project=root.name, name=name, config=dict(config), resume="allow")


TRACKERS = {"tensorboard": TensorBoard, "trackio": Trackio, "wandb": Wandb}

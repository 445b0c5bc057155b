"""Each kind of save twice into one place: old files, and a save of others over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from support.checkpoints import bert, trained
from support.models import perturb
from torch import nn

import tensoradapt as ta
from tensoradapt.lab.runs.store import write_run
from tensoradapt.lora.read_folder import read_lora
from tensoradapt.training.state import TrainingState


@dataclass(frozen=True)
class TwoSaves:
    """``first`` writes the old state, ``change`` alters what is saved, ``second`` writes it over.

    ``read`` reads what is there, and raises TensorAdaptError for what is damaged; ``quiet``: the save of a training's
    state, after whose failure the training goes on.
    """

    first: Callable[[], Any]
    change: Callable[[], Any]
    second: Callable[[], Any]
    read: Callable[[], Any]
    quiet: bool = False


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def published(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but those of a save that was killed."""
    return {name: data for name, data in contents(folder).items() if ".tmp" not in name}


@torch.no_grad()
def changed(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.mul_(1.01)


def adapters(folder: Path) -> TwoSaves:
    """Two saves of an adapter with a trained head."""
    model = bert()
    adapter = trained(model, "cp")

    def change() -> None:
        changed(adapter)
        changed(model.classifier)

    def save() -> None:
        adapter.save(folder)

    def read() -> dict[str, list[float]]:
        into = bert()
        ta.load(into, folder)
        return {name: p.flatten().tolist() for name, p in into.named_parameters() if p.requires_grad}

    return TwoSaves(save, change, save, read)


def exports(folder: Path) -> TwoSaves:
    """Two exports of one adapter."""
    model = bert()
    adapter = ta.attach(model, ta.plan(model, ": out : in", "lora", 2, train=()))
    perturb(adapter)

    def export() -> None:
        ta.export_lora(model, folder)

    def read() -> dict[str, bytes]:
        read_lora(folder)
        return published(folder)

    return TwoSaves(export, lambda: changed(adapter), export, read)


def runs(folder: Path) -> TwoSaves:
    """A run beside another."""

    def write(name: str) -> None:
        parts: Any = {part: {"status": "finished"} for part in ("result", "measurements", "provenance")}
        write_run(folder, name, config={"method": name}, arrays={"losses": np.arange(500.0)}, **parts)

    return TwoSaves(lambda: write("first"), lambda: None, lambda: write("second"), lambda: read_runs(folder))


def read_runs(folder: Path) -> dict[str, bytes]:
    for path in folder.glob("[!.]*"):
        assert len(list(path.iterdir())) == 6, "a run that is not whole"
    return published(folder)


def states(folder: Path) -> TwoSaves:
    """Two states of a training."""
    folder.mkdir(parents=True, exist_ok=True)
    state, tensors = TrainingState(folder / "state.safetensors"), {"model.a": torch.randn(300)}

    def read() -> list[float]:
        found = state.read()
        assert found is not None, "the state is damaged"
        return found["model.a"].tolist()

    def write() -> None:
        state.write(tensors)

    return TwoSaves(write, lambda: tensors["model.a"].mul_(2), write, read, quiet=True)


KINDS: Mapping[str, Callable[[Path], TwoSaves]] = {
    "adapter.save": adapters, "export_lora": exports, "a run": runs, "a training's state": states,
}  # fmt: skip

"""Keep the state of a training between two steps in a file: trained parameters, optimizer, random numbers.

A training that resumes from it on the same machine, with the same versions and threads, ends bit for bit like one that
never stopped. Nothing is pickled. The batches are not stored: they follow from their seed, and are drawn again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor, nn

from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError
from tensoradapt.files import replace_file

MODEL, OPTIMIZER, RANDOM = "model.", "optimizer.", "random."


@dataclass
class TrainingState:
    """The file in which ``fit`` keeps its state; only a state with the same ``key`` is put back."""

    path: Path
    every: int = 25  # steps between two writes; 0: none is made
    key: Mapping[str, str] = field(default_factory=dict)
    failures: int = 0  # writes that failed, as on a full disk; the training goes on
    resumed: int = 0  # the step that the training went on from

    def due(self, step: int) -> bool:
        """Say whether to write the state after this step."""
        return self.every > 0 and step % self.every == 0

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Replace the state, whole or not at all."""
        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        record = {"key": json.dumps(dict(self.key), sort_keys=True), "sha256": _digest(held)}
        try:
            replace_file(self.path, tensor_bytes(held, record))
        except TensorAdaptError:
            self.failures += 1

    def read(self) -> dict[str, Tensor] | None:
        """Return the state; None if there is none, or it is damaged, or of other settings or versions."""
        try:
            data = self.path.read_bytes()
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            record, tensors = header["__metadata__"], parse_tensors(data)
        except Exception:  # a damaged file can raise anything; the run then starts from its first step
            return None
        if record.get("key") != json.dumps(dict(self.key), sort_keys=True) or record.get("sha256") != _digest(tensors):
            return None
        return tensors


def collect(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return all that the next step depends on: trained parameters, buffers, optimizer state, random numbers."""
    state = {f"{MODEL}{name}": tensor for name, tensor in _held(model).items()}
    for name, parameter in trained_parameters(model).items():
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"{OPTIMIZER}{key}.{name}"] = value
    state[f"{RANDOM}cpu"] = torch.get_rng_state()
    if device := _cuda(model):
        state[f"{RANDOM}cuda"] = torch.cuda.get_rng_state(device)
    return state


@torch.no_grad()
def put_back(model: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> bool:
    """Undo ``collect``. Return False, with nothing changed, if the state is of another model."""
    held, trained = _held(model), trained_parameters(model)
    saved = {name.removeprefix(MODEL): tensor for name, tensor in state.items() if name.startswith(MODEL)}
    if {name: tensor.shape for name, tensor in held.items()} != {name: tensor.shape for name, tensor in saved.items()}:
        return False
    for name, tensor in held.items():
        tensor.copy_(saved[name])
    for full, tensor in state.items():
        if full.startswith(OPTIMIZER):
            key, name = full.removeprefix(OPTIMIZER).split(".", 1)
            # Adam counts its steps on the CPU, wherever the parameter is
            optimizer.state[trained[name]][key] = tensor if key == "step" else tensor.to(trained[name].device)
    torch.set_rng_state(state[f"{RANDOM}cpu"])
    if (device := _cuda(model)) and f"{RANDOM}cuda" in state:
        torch.cuda.set_rng_state(state[f"{RANDOM}cuda"], device)
    return True


def torch_optimizer(value: Any, where: str) -> torch.optim.Optimizer:
    """Return an optimizer of torch; raise TensorAdaptError for anything else."""
    if not isinstance(value, torch.optim.Optimizer):
        raise TensorAdaptError(
            f"{where} is {shown(value)}; expected a torch.optim.Optimizer. Of a library's wrapper pass the optimizer "
            "inside"
        )
    return value


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that require gradients, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _held(model: nn.Module) -> dict[str, Tensor]:
    """Return the trained parameters, and the buffers of a state dict."""
    kept = model.state_dict(keep_vars=True)
    return {**trained_parameters(model), **{name: buffer for name, buffer in model.named_buffers() if name in kept}}


def _cuda(model: nn.Module) -> torch.device | None:
    return next((p.device for p in model.parameters() if p.is_cuda), None)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

"""The measured calls of `speed.py`: step, forward pass and decoded tokens of a model; their memory and operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import transformers
from speed_setup import timed
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tensoradapt.adapter.forward_pass import ForwardPass
from tensoradapt.layers.wrapper import Wrapped

Turn = Callable[[], float]  # a measured call, in seconds
# what a competitor is measured without, by name: methods that then find nothing
BEFORE = {
    "each site by itself": ((Wrapped, "only_pair"), (ForwardPass, "once")),
    "contracted at each site": ((ForwardPass, "once"),),
    "unfused": ((Wrapped, "only_pair"),),
}
DECODED = 8  # tokens of a turn


class Competitor:
    """A model with its optimizer."""

    def __init__(self, model: nn.Module, batch: Mapping[str, Tensor], device: str) -> None:
        trained = [p for p in model.parameters() if p.requires_grad]
        self.model, self.batch, self.device = model, batch, device
        self.n_params = sum(p.numel() for p in trained)
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4) if trained else None

    def step(self) -> None:
        """Forward, backward and the update; without parameters the gradient of the batch alone."""
        self.model(**self.batch).last_hidden_state.square().mean().backward()
        if self.optimizer:
            self.optimizer.step()
            self.optimizer.zero_grad()
        for value in self.batch.values():
            value.grad = None

    @torch.no_grad()
    def forward(self) -> None:
        """A forward pass alone."""
        self.model(**self.batch)

    def turns(self) -> dict[str, Turn]:
        """The measured calls; causal models also decode."""
        calls: dict[str, Callable[[], None]] = {"step": self.step, "forward": self.forward}
        if hasattr(self.model.config, "num_key_value_heads"):
            calls["token"] = decoding(self.model, next(iter(self.batch.values())).detach()[:1])
        return {name: partial(_seconds, call, self.device) for name, call in calls.items()}


def _seconds(call: Callable[[], Any], device: str) -> float:
    return timed(call, device)[0]


@torch.no_grad()
def decoding(model: Any, embedded: Tensor) -> Callable[[], None]:
    """What decodes tokens one by one after a text, as ``generate`` does with a cache."""
    cache = transformers.DynamicCache(config=model.config)
    model(inputs_embeds=embedded, past_key_values=cache, use_cache=True)

    @torch.no_grad()
    def decode() -> None:
        for _ in range(DECODED):
            model(inputs_embeds=embedded[:, -1:], past_key_values=cache, use_cache=True)
        cache.crop(-DECODED)

    return decode


def without(turn: Turn, methods: tuple[tuple[type, str], ...]) -> float:
    """A turn where these methods find nothing."""
    with ExitStack() as held:
        for owner, name in methods:
            held.enter_context(patch.object(owner, name, lambda *_: None))
        return turn()


class _Counted(TorchDispatchMode):
    """Counts the operations of torch that compute: what a GPU would be asked to launch."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += not func.is_view
        return func(*args, **(kwargs or {}))


def operations_of(call: Callable[[], Any]) -> int:
    """The operations of a call, views aside."""
    with _Counted() as counted:
        call()
    return counted.n

"""What changes or reads an adapter has the same bits when it is called under autocast, whose products are narrow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import make, perturb
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt import doors
from tensoradapt.networks import starts

Case = Callable[[nn.Module, Any, Path], Iterable[Tensor]]


def stepped(wrap: Callable[..., Any]) -> Case:
    """Two steps of AdamW with gradients that were made outside."""

    def case(model: nn.Module, adapter: Any, _: Path) -> Iterable[Tensor]:
        optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2)
        wrap(optimizer, model)
        for _ in range(2):
            for number, p in enumerate(adapter.parameters()):
                p.grad = torch.linspace(-1, 1 + number, p.numel()).reshape(p.shape).sin()
            optimizer.step()
        return adapter.parameters()

    return case


def started(start: str) -> Case:
    def case(model: nn.Module, _: Any, __: Path) -> Iterable[Tensor]:
        ta.detach(model)
        return ta.attach(model, ta.plan(model, method="lora", rank=2, start=start), seed=0).parameters()

    return case


def merged(model: nn.Module, _: Any, __: Path) -> Iterable[Tensor]:
    ta.merge(model)
    return model.state_dict().values()


def unloaded(model: nn.Module, _: Any, __: Path) -> Iterable[Tensor]:
    return ta.merge_and_unload(model).state_dict().values()


def reduced(model: nn.Module, adapter: Any, _: Path) -> Iterable[Tensor]:
    ta.reduce_rank(model, rank=1)
    return adapter.parameters()


def compressed(model: nn.Module, _: Any, folder: Path) -> Iterable[Tensor]:
    ta.export_lora(model, folder / "lora", heads="leave")
    found = ta.compress(folder / "lora", make("bert", torch.float32), "layer proj : out : in", "tucker", rank=2)
    return [*found.attach(make("bert", torch.float32)).parameters(), torch.tensor(found.error)]


def reloaded(_: nn.Module, adapter: Any, folder: Path) -> Iterable[Tensor]:
    adapter.save(folder / "adapter")
    return ta.load(make("bert", torch.float32), folder / "adapter").parameters()


CASES: dict[str, Case] = {
    **{case.__name__: case for case in (merged, unloaded, reduced, compressed, reloaded)},
    **{
        wrap.__name__: stepped(wrap)
        for wrap in (
            ta.equal_steps,
            ta.preconditioned,
            *(getattr(ta, name) for name in doors.names("names") if name == "orthonormal"),
        )
    },
    **{f"start {start}": started(start) for start in ("pissa", "milora", "olora") if start in starts.names()},
}
EVERY = [
    (name, method)
    for name in CASES
    for method in ("lora", "cp", "tucker")
    if (name, method) != ("orthonormal", "cp")  # has no such form
]


@pytest.mark.parametrize(("name", "method"), EVERY)
def test_the_bits_are_those_of_a_call_outside(name: str, method: str, tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float32)

    def found(autocast: bool) -> list[Tensor]:
        model = make("bert", torch.float32)
        adapter = ta.attach(model, ta.plan(model, method=method, rank=2), seed=0)
        perturb(adapter)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return [value.detach().clone() for value in CASES[name](model, adapter, tmp_path / str(autocast))]

    outside, under = found(False), found(True)
    assert len(outside) == len(under) > 0 and all(map(torch.equal, outside, under))

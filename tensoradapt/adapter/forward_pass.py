"""Contract the pairs of all sites of a tensor together, and once in a forward pass of the model."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]  # A: (R, in), B: (out, R)
Mode = tuple[torch.dtype | None, bool]  # autocast's dtype, and whether a CUDA graph is captured
State = list[tuple[int, int, bool]]  # for each factor: identity, number of writes, whether it is trained
MOST = 2**22  # the most numbers, in factors and pairs, that a pass without gradients keeps for the next one


@dataclass(frozen=True)
class _Kept:
    """The pairs of a tensor's sites, and what they were contracted from."""

    pairs: Mapping[str, Pair]
    factors: Sequence[Tensor]
    state: State
    values: Sequence[Tensor] | None  # copies of the factors, None where the pairs are not to outlive the pass

    @property
    def size(self) -> int:
        """The count of numbers in factors and pairs."""
        return sum(p.numel() for p in self.factors) + sum(a.numel() + b.numel() for a, b in self.pairs.values())

    @property
    def comparable(self) -> bool:
        """Whether the factors can still have the very numbers that the pairs were contracted from."""
        if self.values is None or _captured(self.factors):
            return False
        return all(map(_alike, self.factors, self.values))


class _Pass(dict[Hashable, _Kept]):
    """The pairs that one forward pass has contracted, by tensor, task, gradient mode and ``_mode``.

    ``tensors`` changes when tensors are replaced or scaled. ``ready`` has the pairs that each site has used, with the
    task, the mode, the factors and the writes to them.
    """

    def __init__(self, tensors: Sequence[Any] = ()) -> None:
        super().__init__()
        self.tensors = tensors
        self.room = MOST
        self.ready: dict[str, tuple[Any, Mode, Sequence[Tensor], list[int], Pair]] = {}

    def keep(self, key: Hashable, state: State, factors: Sequence[Tensor], pairs: Mapping[str, Pair]) -> None:
        """Keep pairs until the pass ends; without gradients and where there is room, for the next pass too."""
        size = _Kept(pairs, factors, state, None).size
        # on a GPU, which a comparison waits for, one site's pair is as soon contracted
        stays = not torch.is_grad_enabled() and (len(pairs) > 1 or factors[0].device.type == "cpu")
        stays = stays and size <= self.room and not _captured(factors)
        self.room -= size * stays
        self[key] = _Kept(pairs, factors, state, [p.detach().clone() for p in factors] if stays else None)

    def staying(self) -> _Pass:
        """Return what is kept between passes."""
        found = _Pass(self.tensors)
        found.update((key, kept) for key, kept in self.items() if kept.values is not None)
        found.room = self.room
        return self if len(found) == len(self) else found

    def again(self, tensors: Sequence[Any]) -> _Pass:
        """Return what the next pass without gradients may use: all of it, or only those pairs that still hold."""
        found = _Pass(tensors)
        equal = _equal([kept for kept in self.values() if kept.comparable])
        found.update((key, kept) for key, kept in self.items() if id(kept) in equal)
        if len(found) == len(self) and tensors == self.tensors:
            return self
        found.room -= sum(kept.size for kept in found.values())
        return found


class ForwardPass:
    """The pairs of one adapter's sites while a forward pass of the model runs, for each thread that runs one.

    They are contracted when the first site of a tensor is reached and dropped when the pass ends. A pass without
    gradients, such as a generated token, goes on with those of the last one if every factor is equal to what it was, so
    that no pair outlives a change of the factors. Outside a pass, as in a layer that a checkpoint computes again, there
    are none. While a CUDA graph is captured, pairs are contracted within it and none is compared or kept.
    """

    def __init__(self) -> None:
        self._of_thread: dict[int, _Pass] = {}
        self._last = _Pass()  # the last one without gradients

    def begin(self, tensors: Callable[[], Sequence[Any]]) -> None:
        """Begin a pass in this thread; what ``tensors`` returns changes once tensors are replaced or scaled."""
        last, self._last = self._last, _Pass()
        self._of_thread[threading.get_ident()] = _Pass() if torch.is_grad_enabled() else last.again(tensors())

    def end(self) -> None:
        """End this thread's pass; drop its pairs, unless a pass without gradients may use them again."""
        passed = self._of_thread.pop(threading.get_ident(), None)
        if passed and not torch.is_grad_enabled():
            self._last = passed.staying()

    def ready(self, site: str, task: Any) -> Pair | None:
        """Return the pair that a site has used in this pass without gradients, if no factor was written to since."""
        passed = self._of_thread.get(threading.get_ident())
        if passed is None or site not in passed.ready or torch.is_grad_enabled():
            return None
        chosen, mode, factors, versions, pair = passed.ready[site]
        same = chosen is task and mode == _mode(factors) and [p._version for p in factors] == versions
        return pair if same else None

    def ready_for(self, site: str, task: Any, factors: Sequence[Tensor], pair: Pair) -> Pair:
        """Return a site's pair, which this pass keeps; without gradients it is ready for its next use."""
        if not torch.is_grad_enabled():
            passed = self._of_thread[threading.get_ident()]
            passed.ready[site] = (task, _mode(factors), factors, [p._version for p in factors], pair)
        return pair

    def once(
        self, key: Hashable, factors: Sequence[Tensor], contract: Callable[[], Mapping[str, Pair]]
    ) -> Mapping[str, Pair] | None:
        """Return the pairs ``key`` of all sites of a tensor, contracted unless this pass has them; None outside a pass.

        They are contracted anew if a factor was written to, replaced or moved since.
        """
        passed = self._of_thread.get(threading.get_ident())
        if passed is None or any(p.is_inference() for p in factors):
            return None
        state = [(id(p), p._version, p.requires_grad) for p in factors]
        key = (key, torch.is_grad_enabled(), _mode(factors))
        if key not in passed or passed[key].state != state:
            passed.keep(key, state, factors, contract())
        return passed[key].pairs

    def __reduce__(self) -> tuple[type[ForwardPass], tuple[()]]:
        return ForwardPass, ()  # a copy of an adapter begins without: pairs are parts of a graph


def _mode(factors: Sequence[Tensor]) -> Mode:
    """Return the dtype in which autocast contracts the factors, None where it is off, and whether it is captured."""
    kind = factors[0].device.type
    on = kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if on else None, _captured(factors)


def _captured(factors: Sequence[Tensor]) -> bool:
    """Say whether what is computed from these factors goes into a CUDA graph."""
    return factors[0].device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _alike(factor: Tensor, value: Tensor) -> bool:
    """Say whether a factor can have this value; False for one that was moved, retyped, or whose memory FSDP freed."""
    if type(factor) not in (Tensor, torch.nn.Parameter) or factor.untyped_storage().nbytes() == 0:
        return False
    return factor.dtype == value.dtype and factor.device == value.device and factor.shape == value.shape


def _equal(found: Sequence[_Kept]) -> set[int]:
    """Return the ids of those whose factors have the values that were kept, with one wait for each GPU they are on."""
    equal: set[int] = set()
    by_device: dict[torch.device, list[_Kept]] = {}
    for kept in found:
        by_device.setdefault(kept.factors[0].device, []).append(kept)
    for device, on in by_device.items():
        parts = [[kept] for kept in on] if device.type == "cpu" else [on]
        equal |= {id(kept) for part in parts if _all_equal(part) for kept in part}
    return equal


def _all_equal(part: Sequence[_Kept]) -> bool:
    factors = [p for kept in part for p in kept.factors]
    values = [v for kept in part for v in kept.values or ()]
    if factors[0].device.type == "cpu":
        return all(map(torch.equal, factors, values))
    return torch.equal(torch.cat([p.reshape(-1) for p in factors]), torch.cat([v.reshape(-1) for v in values]))


def without_autocast(like: Tensor) -> AbstractContextManager[object]:
    """Return a context in which products on the tensor's device keep their dtype."""
    kind = like.device.type
    on = kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if on else nullcontext()


def as_computed(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Make a node's backward pass compute in the dtypes of its forward pass, though autocast be on when it runs."""

    @functools.wraps(backward)
    def run(ctx: Any, *gradients: Tensor) -> Any:
        with without_autocast(gradients[0]):
            return backward(ctx, *gradients)

    return run


class _Contracted(torch.autograd.Function):
    """A contraction whose graph may be gone through several times, by checkpoints that each have a backward pass.

    Nothing is kept for the backward pass but the factors themselves: it contracts again. So a layer saves as much
    whether the pass had contracted before or not, which a checkpoint that computes it again relies on.
    """

    @staticmethod
    def forward(ctx: Any, contract: Callable[..., Tensor], *factors: Tensor) -> Tensor:
        ctx.contract = contract
        ctx.factors = factors
        ctx.versions = [p._version for p in factors]
        return contract(*factors)

    @staticmethod
    @as_computed
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if [p._version for p in ctx.factors] != ctx.versions:
            raise RuntimeError(
                "a factor of the adapter has been modified by an inplace operation between the forward pass and its "
                "backward pass; step the optimizer after backward()"
            )
        needs = ctx.needs_input_grad[1:]
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            given = (
                ctx.factors
                if again
                else [p.detach().requires_grad_(n) for p, n in zip(ctx.factors, needs, strict=True)]
            )
            wanted = [p for p, n in zip(given, needs, strict=True) if n]
            found = iter(torch.autograd.grad(ctx.contract(*given), wanted, gradient, create_graph=again))
        return None, *(next(found) if n else None for n in needs)


def contracted(contract: Callable[..., Tensor], factors: list[Tensor]) -> Tensor:
    """Return ``contract(*factors)``, with a graph that keeps nothing but the factors where it needs one."""
    plain = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if plain or not torch.is_grad_enabled() or not any(p.requires_grad for p in factors):
        return contract(*factors)
    return _Contracted.apply(contract, *factors)

"""Fuzzing of public calls: arguments of wrong types and extreme values, and what came of each call."""

from __future__ import annotations

import signal
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

import tensoradapt as ta

CALLBACKS = ("loss", "on_step", "say")  # errors of a caller's own function are theirs
ACCEPTED, REFUSED = "accepted", "refused"
LONGEST, SLOWEST = 600, 5  # characters of a message, seconds of a call


class Unprintable:
    """A value whose texts cannot be made."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    __str__ = __repr__


ODD: Sequence[Any] = (
    None, True, False, 0, 1, 2, 3, -1, 10**9, 10**400, 0.5, 2.0, -0.0, 1e39, 1e-320, float("nan"), float("inf"), 1j,
    "", " ", "x", "q", "all", "cp", "lora", "layer", "a\x00b", "\n", "x" * 5000, "*" * 50, "(", "[", "é", "a b : c : d",
    ": out : in", "layer proj : out : in", b"x", Path("x"), (), [], {}, set(), frozenset({"q"}), range(3), range(10**9),
    ("q",), ["q", 3], ("q", "q"), ("layer : out : in", 4), {"q": 1}, {"layer": 2}, {"layer": -1}, {1: 2}, {"A": 2.0},
    {"A": "x"}, {"": {}}, {"out": (4, 4)}, {"out": 3}, {"*": 2}, [[]], [None], [float("nan")], [0], [1, 2], ["x", "y"],
    object, object(), len, lambda *_: None, Ellipsis, NotImplemented, ValueError("x"), SimpleNamespace(), slice(3),
    iter([1]), (i for i in range(3)), np.int64(2), np.float32(0.5), np.array([1, 2]), np.array("q"), np.array([]),
    np.zeros((2, 2)), torch.tensor(2), torch.tensor([1.0, 2.0]), torch.tensor([]), torch.zeros(2, device="meta"),
    10**5000, Unprintable(), [Unprintable()], {"q": Unprintable()}, "\ud800", "x/" * 3000,
    torch.nn.Linear(2, 2), torch.float16, torch.device("cpu"), "1e400", "nan", "-1", "../..", "/dev/null",
)  # fmt: skip


class TooSlow(BaseException):
    """A call that took longer than ``SLOWEST``."""


@contextmanager
def limited(seconds: int = SLOWEST) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def escapes(calls: Iterator[tuple[str, Callable[[], Any]]]) -> tuple[int, Counter[str], dict[str, str]]:
    """How many calls there were; what came out that is no TensorAdaptError, by kind; and an example of each kind."""
    n, kinds, examples = 0, Counter[str](), dict[str, str]()
    for what, call in calls:
        n += 1
        kind = outcome(call)
        if kind:
            kinds[kind] += 1
            examples.setdefault(kind, what)
    return n, kinds, examples


def outcome(call: Callable[[], Any], seconds: int = SLOWEST) -> str:
    """What is wrong with how a call ended; empty if it returned or raised a TensorAdaptError."""
    ended = verdict(call, seconds)
    return "" if ended in (ACCEPTED, REFUSED) else ended


def verdict(call: Callable[[], Any], seconds: int = SLOWEST, strict: bool = False) -> str:
    """How a call ended: accepted, refused by a TensorAdaptError, or what is wrong; ``strict``: a warning is."""
    try:
        with limited(seconds), warnings.catch_warnings(record=strict) as caught:
            warnings.simplefilter("always" if strict else "ignore")
            call()
    except ta.TensorAdaptError as error:
        wrong = f"a message of {len(str(error))} characters: {str(error)[:80]}"
        return wrong if len(str(error)) > LONGEST else REFUSED
    except TooSlow:
        return f"over {seconds} s"
    except Exception as error:
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "/tensoradapt/" in frame.filename]
        at = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "the call"
        return f"{type(error).__name__} at {at}: {str(error)[:80]}"
    return f"a warning: {str(caught[0].message)[:80]}" if caught else ACCEPTED


def one_wrong(
    call: Callable[..., Any], good: Mapping[str, Any], odd: Sequence[Any] = ODD, every: int = 1
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Calls with one argument replaced by each odd value; with ``every``, by each of so many, others for each."""
    for place, name in enumerate(good):
        for value in odd[place % every :: every]:
            if name in CALLBACKS and callable(value):
                continue
            arguments = {**good, name: value}
            yield f"{name}={shown(value)}", lambda arguments=arguments: call(**arguments)


def several_wrong(
    call: Callable[..., Any], good: Mapping[str, Any], n: int, seed: int = 0, odd: Sequence[Any] = ODD
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """``n`` calls with two or three arguments replaced."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        names = rng.choice(list(good), size=min(len(good), int(rng.integers(2, 4))), replace=False)
        wrong = {str(name): odd[int(rng.integers(len(odd)))] for name in names}
        wrong = {name: value for name, value in wrong.items() if not (name in CALLBACKS and callable(value))}
        what = ", ".join(f"{name}={shown(value)}" for name, value in wrong.items())
        yield what, lambda wrong=wrong: call(**{**good, **wrong})


def shown(value: Any) -> str:
    try:
        return repr(value)[:80]
    except Exception:
        return f"<{type(value).__name__}>"

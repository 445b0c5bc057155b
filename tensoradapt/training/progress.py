"""A progress bar of a training, in a notebook or on stderr: its steps, their rate and the loss."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

import torch.distributed as dist

from tensoradapt.checks import check_is

with warnings.catch_warnings():  # a notebook without ipywidgets shows a bar of text, which needs no advice
    warnings.simplefilter("ignore")
    from tqdm.auto import tqdm

OnStep = Callable[[int, float], None]


class ProgressBar:
    """A bar that is shown from the beginning to the end of a ``with`` block, and is called as ``on_step`` is.

    The loss it shows is the number that ``fit`` keeps of each step, so a device is waited for no more often.
    """

    def __init__(self, steps: int, on_step: OnStep | None = None) -> None:
        if on_step is not None:
            check_is("on_step", on_step, Callable)  # type: ignore[arg-type]  # a kind, if no class
        self.steps, self.on_step = steps, on_step

    def __enter__(self) -> ProgressBar:
        self.bar = tqdm(total=self.steps, desc="fit", dynamic_ncols=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def __call__(self, step: int, loss: float) -> None:
        """Show a step (from 1) and its loss, at most ten times a second, and tell ``on_step``."""
        if self.bar.n == 0:  # steps before a state that was resumed from took no time
            self.bar.initial = self.bar.n = step - 1
        self.bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
        self.bar.update(step - self.bar.n)
        if self.on_step:
            self.on_step(step, loss)


def is_watched() -> bool:
    """Return whether somebody sees the bar, and no other rank of a distributed training shows its own there."""
    ranked = dist.is_available() and dist.is_initialized()
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return (terminal or _in_notebook()) and not (ranked and dist.get_rank() > 0)


def _in_notebook() -> bool:
    """Return whether the code runs in a kernel of Jupyter, whose stderr is no terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and "IPKernelApp" in shell.config

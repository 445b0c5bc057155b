"""What ``tensoradapt watch`` shows: plain text for a pipe, and the same live in a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tensoradapt.checks import number
from tensoradapt.errors import TensorAdaptError, missing_extra
from tensoradapt.sweeps.messages import duration
from tensoradapt.sweeps.reports.watch import Frame, InHand, Watch
from tensoradapt.text import align

COLUMNS = ("task", "method", "finished", "failed", "running", "waiting")


def show(root: Path, once: bool, every: float) -> None:
    """Shows a folder of runs every so many seconds until nothing is left to run; ``once``: one frame."""
    frames = _frames(Watch(root), number(every, "--every"))
    if once:
        print(text(root, next(frames)))
    elif sys.stdout.isatty():
        _live(root, frames)
    else:
        for frame in frames:
            print(text(root, frame), end="\n\n", flush=True)


def _frames(watch: Watch, every: float) -> Iterator[Frame]:
    yield (frame := watch.frame())
    while not frame.over:
        time.sleep(every)
        try:
            frame = watch.frame()
        except TensorAdaptError as error:  # the folder was moved, or is being put back: what was seen last stays
            frame = replace(frame, notes=(str(error),))
        yield frame


def text(root: Path, frame: Frame) -> str:
    """A frame as text."""
    table = align([COLUMNS, *(tuple(str(getattr(row, name)) for name in COLUMNS) for row in frame.rows)])
    return "\n".join([head(root, frame), *table, *_lines(frame)])


def head(root: Path, frame: Frame) -> str:
    """The counts and the time left, in a line."""
    counts = [f"{n} {what}" for what in ("failed", "running", "waiting") if (n := frame.count(what))]
    left = f"; about {duration(frame.seconds_left)} left" if frame.seconds_left is not None else ""
    return f"{root}: " + ", ".join([f"{frame.count('finished')} of {frame.total} runs finished", *counts]) + left


def _lines(frame: Frame) -> list[str]:
    parts = {"in hand": [*map(_in_hand_text, frame.in_hand)], "finished last": frame.last}
    named = [line for name, lines in parts.items() if lines for line in (f"{name}:", *(f"  {one}" for one in lines))]
    return [*named, *frame.notes]


def _in_hand_text(one: InHand) -> str:
    config = one.config
    what = f"{config.title} on {config.task}" + (f", tuning lr {config.lr:g}" if config.tuning else "")
    step = f"step {one.step} of {config.steps} saved" if one.step else f"{config.steps} steps, none saved yet"
    since = f"for {duration(one.seconds)}" if one.alive else "no process on this machine; the sweep goes on with it"
    return f"{what}: {step}, {since}"


def _live(root: Path, frames: Iterator[Frame]) -> None:
    try:
        from rich.live import Live
    except ImportError:
        raise missing_extra("rich", "demo", "tensoradapt watch in a terminal, without --once,") from None
    with Live(drawn(root, next(frames)), auto_refresh=False) as live:
        for frame in frames:
            live.update(drawn(root, frame), refresh=True)


def drawn(root: Path, frame: Frame) -> Any:
    """A frame for rich, with a bar for each method on each task."""
    from rich import box
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for name in (*COLUMNS[:2], "", *COLUMNS[2:]):
        table.add_column(name, justify="right" if name in COLUMNS[2:] else "left")
    for row in frame.rows:
        ended = row.finished + row.failed
        bar = ProgressBar(ended + row.running + row.waiting, ended, width=20)
        table.add_row(Text(row.task), Text(row.method), bar, *(str(getattr(row, name)) for name in COLUMNS[2:]))
    return Group(Text(head(root, frame)), table, *map(Text, _lines(frame)))

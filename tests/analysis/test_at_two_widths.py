"""Every kind of figure at the width of a paper's column and of a page, of few and many methods: nothing is cut off or
covers other text, and no two methods look alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from support.synthetic_runs import write_synthetic

import tensoradapt as ta
from tensoradapt.analysis.figures.catalogue import CATALOGUE
from tensoradapt.analysis.figures.styles import styles_of
from tensoradapt.analysis.names import display
from tensoradapt.runs.store import Run, load_runs

pyplot.switch_backend("agg")
NAMES = (
    *("lora", "cp", "tucker", "tensor_train", "vera", "lotr", "metatt-4d", "tenslora-att_qkv_depth", "randlora"),
    *("lora-xs", "kronecker", "quanta"),
)
OVER_TASKS = ("grid", "aggregates", "differences")
ROWS = {"grid": 3, "contrasts": 3, "aggregates": 3, "differences": 1.6}  # inches or rows for each method
KINDS = sorted(set(CATALOGUE) - {"progress"})  # which names no method


def made(root: Path, n: int, kind: str) -> list[Run]:
    rng = np.random.default_rng(n)
    for task in "abcde" if kind in OVER_TASKS else "a":
        for i, name in enumerate(NAMES[:n]):
            same = {"parameterization": name, "task": task, "predictions": False}
            if kind == "layouts":
                for layout in (": out : in", "layer proj : head dim : model"):
                    label = f"{name} over {layout}"
                    of = {"layout": [layout], "named": label, "rank": None, "budget": 2000}
                    write_synthetic(root, n_params=2000 - i, accuracy=0.7 + 0.01 * rng.normal(), **of, **same)
                continue
            same |= {"named": name}
            for j, rank in enumerate((1, 4, 16)):
                size = {"rank": rank if kind == "ranks" else None, "budget": None if kind == "ranks" else 3000 * rank}
                size["n_params"] = rank * (3000 - 7 * i)
                level = 0.65 + 0.04 * j + 0.01 * (i % 5)
                for seed in (0, 1, 2):
                    noise = 0.012 * rng.normal()
                    write_synthetic(root, seed=seed, lr=3e-3, accuracy=level + noise, **size, **same)
                for lr in (1e-3, 3e-3, 1e-2) if kind == "rates" else ():
                    write_synthetic(root, seed=1000, lr=lr, tuning=True, accuracy=level - 5 * abs(lr - 3e-3), **size,
                                    **same)  # fmt: skip
        for reference in ("head", "full"):
            accuracy = 0.6 if reference == "head" else 0.85
            write_synthetic(root, kind=reference, task=task, accuracy=accuracy, predictions=False)
    return load_runs(root)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    pyplot.close("all")


def seen(ax: Axes) -> list[tuple[str, Bbox]]:
    """Every text that is drawn, with its box."""
    ticks: list[Text] = []
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        ticks += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        ticks += [tick.label2 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    legend = ax.get_legend()
    texts = [*ticks, *ax.texts, ax.xaxis.label, ax.yaxis.label, *(legend.get_texts() if legend else ())]
    shown = [text for text in texts if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), Text.get_window_extent(text)) for text in shown]


def shared(one: Bbox, other: Bbox, dpi: float) -> float:
    """Points that two boxes overlap by, the smaller of both ways."""
    across, up = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
    return 72 / dpi * min(across, up)


def turned(kind: str) -> bool:
    """Whether names below the axes are turned, so that their boxes overlap where they do not."""
    return kind == "layouts"


@pytest.mark.parametrize("n", [pytest.param(2, marks=pytest.mark.slow), 8, pytest.param(12, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_no_text_is_cut_off_or_covers_another(tmp_path: Path, kind: str, n: int) -> None:
    runs = made(tmp_path, max(n, 3) if kind == "differences" else n, kind)
    for width in (3.3, 7.0):
        height = max(2.4 if width < 4 else 4.0, 1.0 + 0.18 * n * ROWS.get(kind, 0))
        figure, ax = pyplot.subplots(figsize=(width, height))
        getattr(ta.plots, kind)(runs, ax)
        for dpi in (72, 100, 110, 300):  # letters are up to 8 % wider at one resolution than at another
            figure.set_dpi(dpi)
            figure.canvas.draw()
            texts = seen(ax)
            assert len(texts) > 4
            for text, box in texts:
                assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, (width, dpi, text)
                assert box.y0 >= 0 and box.y1 <= figure.bbox.y1, (width, dpi, text)
            pairs = [] if turned(kind) else combinations(texts, 2)
            covered = [(one[0], other[0]) for one, other in pairs if shared(one[1], other[1], dpi) > 1.0]
            assert not covered, (width, dpi)
        assert ax.get_window_extent().height > 0.3 * figure.bbox.height


@pytest.mark.parametrize("n", [2, 8, 12])
@pytest.mark.parametrize("kind", ["frontier", "ranks", "rates"])
def test_no_two_methods_share_colour_and_marker(tmp_path: Path, kind: str, n: int) -> None:
    ax = getattr(ta.plots, kind)(made(tmp_path, n, kind), pyplot.subplots()[1])
    legend = ax.get_legend()
    looks = {
        text.get_text(): (line.get_color(), line.get_marker())
        for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
        if text.get_text() != "frontier"
    }
    assert set(looks) == set(map(display, NAMES[:n])) and len(set(looks.values())) == n
    assert looks == {display(name): (style.colour, style.marker) for name, style in styles_of(NAMES[:n]).items()}

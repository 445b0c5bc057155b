"""A figure of a file of ``plots`` in axes of its own, and where its marks stand, for tests."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pandas as pd
from matplotlib import pyplot
from matplotlib.axes import Axes


def drawn(module: ModuleType, rows: pd.DataFrame, width: float = 7, **options: object) -> Axes:
    """Draw rows into a new figure of this width, as high as the file asks for."""
    _, ax = pyplot.subplots(figsize=module.size(rows, width=width), layout="constrained")
    return module.draw(rows, ax, **options)


def lines(ax: Axes, gid: str) -> list[np.ndarray]:
    """The data (n, 2) of each line of a kind, which is its gid up to a colon."""
    return [np.asarray(line.get_xydata(), float) for line in ax.lines if f"{line.get_gid()}:".startswith(f"{gid}:")]

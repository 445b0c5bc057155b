"""Figures of tests are drawn without a window, and closed after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from matplotlib import pyplot

pyplot.switch_backend("agg")


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    pyplot.close("all")

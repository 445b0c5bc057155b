"""DataFrames that notebooks show in their own way; what pandas makes of one is a plain DataFrame again."""

from __future__ import annotations

from pandas import DataFrame

from tensoradapt.text import displayed


class Frame(DataFrame):  # type: ignore[misc]  # pandas is not typed here
    """A table that says what it is by its class."""

    def _repr_html_(self) -> str:
        return displayed(self)


class Methods(Frame):
    """What ``tensoradapt.methods`` returns."""


class Verdicts(Frame):
    """What ``tensoradapt.verdict`` returns."""

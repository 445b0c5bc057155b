"""Figures as bytes of files."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

UNDATED: dict[str, dict[str, Any]] = {  # kinds of files, and what makes the same figure the same bytes
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
    "svg": {"Date": None},
}
DPI = 200


def rendered(figure: Figure, kind: str) -> bytes:
    """Return a figure as the bytes of a file, of one of the kinds in ``UNDATED``."""
    file = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "tensoradapt"}):
        figure.savefig(file, format=kind, dpi=DPI, metadata=UNDATED[kind])
    return file.getvalue()

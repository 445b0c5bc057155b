"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

DEFAULT_OUT = Path("runs") / "frontier"


PROJECTIONS = "attention, mlp, all, or names such as q v"

"""Surgery: the only code that changes a model. Knows layer kinds and pairs (A, B), never parameterizations."""

from tensoradapt.surgery.attach import attach, attached, detach, disabled
from tensoradapt.surgery.load import load
from tensoradapt.surgery.merge import merge, unmerge

__all__ = ["attach", "attached", "detach", "disabled", "load", "merge", "unmerge"]

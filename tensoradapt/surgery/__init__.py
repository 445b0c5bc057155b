"""Surgery: the only code that changes a model. Knows layer kinds and pairs (A, B), never parameterizations."""

from tensoradapt.surgery.adapters import adapters, attached
from tensoradapt.surgery.attach import attach, detach, disabled
from tensoradapt.surgery.load import from_pretrained, load
from tensoradapt.surgery.merge import merge, unmerge
from tensoradapt.surgery.restore import restore
from tensoradapt.surgery.use import use

__all__ = [
    "adapters",
    "attach",
    "attached",
    "detach",
    "disabled",
    "from_pretrained",
    "load",
    "merge",
    "restore",
    "unmerge",
    "use",
]

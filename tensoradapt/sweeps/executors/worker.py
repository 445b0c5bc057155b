"""A worker process: reads ids of runs from its standard input, computes each, and says so on its standard output.

What it sees of the machine (``CUDA_VISIBLE_DEVICES``, ``OMP_NUM_THREADS``) its parent has set, before torch is loaded.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

from tensoradapt.errors import TensorAdaptError
from tensoradapt.runs.perform import perform

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(root: Path, device: str, parent: int) -> int:
    """Works until its input ends; returns the exit code."""
    die_with(parent)
    # an interrupt from the terminal reaches every process of the group; the parent decides
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        name = line.strip()
        try:
            said = perform(root, name, device)
        except TensorAdaptError as error:
            said = "stop " + " ".join(str(error).split())
        print(name, said, file=answers, flush=True)
    return 0


def die_with(parent: int) -> None:
    """The kernel kills this process when its parent dies, on Linux; elsewhere it ends with its input."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))

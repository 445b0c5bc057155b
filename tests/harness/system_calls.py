"""Faults at one system call of a function: a copy of this process runs it, and strace injects the fault."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tensoradapt.errors import TensorAdaptError

# what a save asks of files; other calls, of memory and signals, do not fail on a bad disk
OF_FILES = re.compile(
    r"open(at)?|p?write(64|v)?|f(data)?sync|rename(at2?)?|(mk|rm)dir(at)?|close|(un)?link(at)?|lseek|ftruncate|"
    r"(l|f|newf)?stat(at|x)?|getdents(64)?"
)
WELL, REFUSED, RAISED = 0, 3, 4  # how the copy ends: returned, TensorAdaptError, another exception


def traced(act: Callable[[], object], log: Path, fault: str = "") -> int:
    """Run ``act`` in a copy of this process; return its exit code, negative for the signal that killed it.

    ``fault`` as strace injects it, such as "write:signal=KILL:when=3"; the calls that were made are in ``log``.
    """
    pid = _forked(act)
    os.waitpid(pid, os.WUNTRACED)
    command = ["strace", "-q", "-o", str(log), "-p", str(pid), "-e", "trace=all"]
    command += ["-e", f"inject={fault}"] if fault else []
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as tracer:
        while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
            if tracer.poll() is not None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                pytest.skip("strace may not trace here")
            time.sleep(0.001)
        os.kill(pid, signal.SIGCONT)
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _forked(act: Callable[[], object]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns about threads, which a copy lacks
        pid = os.fork()
    if pid:
        return pid
    code = RAISED
    try:
        os.kill(os.getpid(), signal.SIGSTOP)
        act()
        code = WELL
    except TensorAdaptError:
        code = REFUSED
    finally:
        os._exit(code)


def system_calls(act: Callable[[], object], log: Path) -> list[tuple[str, int]]:
    """The system calls of a function in their order, each with how many of its name there were up to it."""
    assert traced(act, log) == WELL
    names, counts = re.findall(r"^(\w+)\(", log.read_text(), re.MULTILINE), Counter[str]()
    numbered = []
    for name in names:
        counts[name] += 1
        numbered.append((name, counts[name]))
    return numbered


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace: apt-get install strace")

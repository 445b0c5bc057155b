"""Tasks by name, found by folder: each file here, or in a folder here, that has ``TASKS``, its tasks by name."""

import importlib
import pkgutil

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.lab.tasks.splits import DataSpec, Split
from tensoradapt.lab.tasks.task import Data, Task

__all__ = ["Data", "DataSpec", "Split", "Task", "get", "names"]


def names() -> tuple[str, ...]:
    """Return all task names, by file.

    >>> names()[:2]
    ('sst2', 'cola')
    """
    return tuple(_tasks())


def get(name: str) -> Task:
    """Return the task of that name; raises TensorAdaptError with the closest name for an unknown one."""
    tasks = _tasks()
    if name not in tasks:
        raise TensorAdaptError(f'unknown task "{name}"{did_you_mean(name, tasks)}')
    return tasks[name]


def _tasks() -> dict[str, Task]:
    # not cached: a file dropped into the folder (or onto __path__) is there at once
    files = pkgutil.walk_packages(__path__, f"{__name__}.")
    modules = [importlib.import_module(file.name) for file in files]
    return {name: task for module in modules for name, task in getattr(module, "TASKS", {}).items()}

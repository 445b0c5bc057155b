"""Tasks by name, found by folder: each file here, or in a folder here, that has ``TASKS``, its tasks by name."""

import importlib
import pkgutil

from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.tasks.splits import DataSpec, Split
from tensoradapt.tasks.task import Data, Task

__all__ = ["Data", "DataSpec", "Split", "Task", "get", "load", "names"]


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


def load(name: str, *, n_train: int | None = None, n_test: int | None = None, seed: int = 0) -> Data:
    """Load the task's splits, fetched on first use where needed.

    Neither number moves an example between splits. "planted" is unlabelled (see `tasks.planted.label`).

    Args:
        name: one of ``names()``.
        n_train: the most training examples, drawn with `seed`; all by default.
        n_test: the most test examples, which do not depend on `seed`: runs of all seeds are judged on the same ones.
        seed: of the choice of training examples.

    Raises:
        TensorAdaptError: for an unknown name, numbers below 1 and data that cannot be loaded.
    """
    return get(name).load(None, DataSpec(n_train, None, n_test), seed)


def _tasks() -> dict[str, Task]:
    # not cached: a file dropped into the folder (or onto __path__) is there at once
    files = pkgutil.walk_packages(__path__, f"{__name__}.")
    modules = [importlib.import_module(file.name) for file in files]
    return {name: task for module in modules for name, task in getattr(module, "TASKS", {}).items()}

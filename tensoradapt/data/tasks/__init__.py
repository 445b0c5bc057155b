"""Tasks by name, found by folder: each file here that has ``TASKS`` and ``load_splits``.

``TASKS`` holds its tasks by name. ``load_splits(name, n_train, n_test)`` returns train, validation, test and notes; the
numbers are for tasks that draw their examples. Labels of ``UNLABELLED`` are set later, and chance is nan until then.
"""

import importlib
import pkgutil
from typing import Any

from tensoradapt.data.tasks import metrics
from tensoradapt.data.tasks.task import Data, Split, Task, disjoint, subsample
from tensoradapt.errors import TensorAdaptError, did_you_mean

__all__ = ["Data", "Split", "Task", "get", "load", "names", "subsample"]

_TEST_SEED = 0


def names() -> tuple[str, ...]:
    """All task names, by file.

    >>> names()[:2]
    ('sst2', 'cola')
    """
    return tuple(_files())


def get(name: str) -> Task:
    """The task of that name; raises TensorAdaptError with the closest name for an unknown one."""
    return _file(name).TASKS[name]


def load(name: str, *, n_train: int | None = None, n_test: int | None = None, seed: int = 0) -> Data:
    """Load the task's splits, fetched on first use where needed.

    Neither number moves an example between splits. "planted" is unlabelled (see `tasks.planted.label`).

    Args:
        name: one of ``names()``.
        n_train: training examples, drawn with `seed`; all by default.
        n_test: test examples, which do not depend on `seed`: runs of all seeds are judged on the same ones.
        seed: of the choice of training examples.

    Raises:
        TensorAdaptError: for an unknown name, data that cannot be loaded, and more examples than there are.
    """
    task = get(name)
    train, validation, test, notes = _file(name).load_splits(name, n_train, n_test)
    train, validation, removed = disjoint(train, validation, test)
    train = subsample(train, n_train, seed, "n_train")
    test = subsample(test, n_test, _TEST_SEED, "n_test")
    return Data(task, train, validation, test, metrics.chance(task, test.labels), (*notes, *removed))


def _files() -> dict[str, Any]:
    """The module of each task."""
    # not cached: a file dropped into the folder (or onto __path__) is there at once
    modules = [importlib.import_module(f"{__name__}.{file.name}") for file in pkgutil.iter_modules(__path__)]
    return {name: module for module in modules for name in getattr(module, "TASKS", ())}


def _file(name: str) -> Any:
    files = _files()
    if name not in files:
        raise TensorAdaptError(f'unknown task "{name}"{did_you_mean(name, files)}')
    return files[name]

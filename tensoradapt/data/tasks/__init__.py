"""Tasks by name: fixed disjoint splits, the metric each is judged by, and what chance would give."""

from tensoradapt.data.tasks import glue, metrics, planted, snippets
from tensoradapt.data.tasks.splits import disjoint, subsample
from tensoradapt.data.tasks.task import Data, Split, Task
from tensoradapt.errors import TensorAdaptError, did_you_mean

__all__ = ["Data", "Split", "Task", "get", "load", "names", "subsample"]

_TEST_SEED = 0
_TASKS = {task.name: task for task in (snippets.TASK, *glue.TASKS.values(), planted.TASK)}


def names() -> tuple[str, ...]:
    """All task names, the default first.

    >>> names()
    ('snippets', 'sst2', 'cola', 'rte', 'mrpc', 'stsb', 'planted')
    """
    return tuple(_TASKS)


def get(name: str) -> Task:
    """The task of that name; raises TensorAdaptError with the closest name for an unknown one."""
    if name not in _TASKS:
        raise TensorAdaptError(f'unknown task "{name}"{did_you_mean(name, _TASKS)}')
    return _TASKS[name]


def load(name: str, *, n_train: int | None = None, n_test: int | None = None, seed: int = 0) -> Data:
    """The task's splits, fetched on first use where needed.

    `n_train` examples of train are drawn with `seed`. The `n_test` examples of test do not depend on it, so that runs
    with different seeds are judged on the same ones; neither number moves an example between splits. "planted" comes
    unlabelled (see `tasks.planted.label`) and draws as many as asked for.

    Raises TensorAdaptError for an unknown name, data that cannot be had or read, and more examples than there are.
    """
    task = get(name)
    train, validation, test, notes = _splits(name, n_train, n_test)
    train, validation, removed = disjoint(train, validation, test)
    train = subsample(train, n_train, seed, "n_train")
    test = subsample(test, n_test, _TEST_SEED, "n_test")
    chance = float("nan") if name == "planted" else metrics.chance(task, test.labels)
    return Data(task, train, validation, test, chance, (*notes, *removed))


def _splits(name: str, n_train: int | None, n_test: int | None) -> tuple[Split, Split, Split, tuple[str, ...]]:
    if name == "planted":
        return planted.load_splits(n_train, n_test)
    return snippets.load_splits() if name == "snippets" else glue.load_splits(name)

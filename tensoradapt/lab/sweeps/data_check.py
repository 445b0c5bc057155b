"""What is wanting in the data of a sweep, found before its first run: validation examples, and room for whole texts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.names import display
from tensoradapt.lab.sweeps.plan_sweep import Sweep
from tensoradapt.lab.sweeps.spec import Method
from tensoradapt.lab.tasks import Data, DataSpec, Task
from tensoradapt.lab.tasks.lengths import cut, cut_text


def check_validation(sweep: Sweep) -> None:
    """Raise TensorAdaptError for a task without validation examples on which learning rates are to be chosen.

    A task that cannot be loaded here is left to its runs, which may compute elsewhere.
    """
    spec = sweep.spec
    for task in spec.task:
        tuned = [method for method in spec.methods if spec.search or len(sweep.rates(method, task)) > 1]
        for method in tuned[:1]:
            data = _loaded(sweep, task, method)
            if data is not None and not len(data.validation):
                what = "are searched" if spec.search else f"of {display(method.name)} are {len(method.lr)}"
                raise TensorAdaptError(
                    f"task {task!r} has no validation examples, and its learning rates {what}, of which one is chosen "
                    "on them; expected some: of own data give validation = a file or a split, or leave it out of train "
                    'by split = {validation = 0.1}; a task of your own returns them second in "splits". Or give each '
                    "method one lr"
                )


def cut_lines(sweep: Sweep) -> Iterator[str]:
    """Yield a warning for each task of which more than a tenth of the texts are cut off."""
    model, method = sweep.spec.model, sweep.spec.methods[0]
    for task in sweep.spec.task:
        if (data := _loaded(sweep, task, method)) is not None and data.test.texts is not None:
            length = sweep.data(method, task).max_length
            encoded = [data.task.encode(part, model, length) for part in data.parts]
            if found := cut(data.task, data.parts, encoded, model, length):
                yield cut_text(task, found, length)


def _loaded(sweep: Sweep, task: str, method: Method) -> Data | None:
    """Return the data that a method has of a task; None where it cannot be loaded here."""
    try:
        return _load(sweep.tasks[task], sweep.spec.model, sweep.data(method, task))
    except TensorAdaptError:
        return None


@lru_cache(maxsize=4)  # both are asked of each task
def _load(task: Task, model: str, data: DataSpec) -> Data:
    return task.load(model, data)

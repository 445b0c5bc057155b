"""Tasks by name: files of this folder, entry points, tasks that were registered, and own data; and their records.

The record of a task is empty for a task that its name alone loads. Otherwise it holds a hash of the data's content,
which is part of a run's id, and under "source" how any process loads it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from tensoradapt.checks import as_path, flag, imported, name_in, shown, text, whole
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.habits import answers_keywords
from tensoradapt.lab import tasks
from tensoradapt.lab.metrics.library import check_reported
from tensoradapt.lab.tasks import own
from tensoradapt.lab.tasks.own_settings import OwnData
from tensoradapt.lab.tasks.own_settings import settings_of as settings_of
from tensoradapt.lab.tasks.splits import DataSpec
from tensoradapt.lab.tasks.tables import HUB_NAME, SUFFIXES
from tensoradapt.lab.tasks.task import Data, Task
from tensoradapt.records import keywords, read

GROUP = "tensoradapt.tasks"
Record = Mapping[str, Any]
_REGISTERED: dict[str, tuple[Task, Record]] = {}


def names() -> tuple[str, ...]:
    """Return the names of all tasks that a name alone loads: built in, of installed plug-ins, and registered."""
    return tuple(dict.fromkeys((*tasks.names(), *_entries(), *_REGISTERED)))


@keywords(OwnData, leave_out=("name",))
def register_task(task: Task | str | None = None, train: Any = None, *, replace: bool = False, **settings: Any) -> Task:
    """Register a task by its name, which frontiers and sweeps then take (docs/start/your-data.md).

    Data is read and checked at once. Processes that compute runs read it again, and refuse it if it has changed.

    Args:
        task: the name of a task of own data, which the fields below describe; or a ``Task`` that a module holds under a
            name, such as ``my_tasks.TASK``, or that place as a text, "my_tasks:TASK".
        replace: whether a task that was registered under this name is replaced.
        {fields}

    Returns:
        The task, with its data read, split and checked.

    Raises:
        TensorAdaptError: for settings that are unknown, data that cannot be read or trained on, naming file, row or
            column, a metric that does not fit, a name that is taken, and a task that no module holds.

    >>> import tensoradapt as ta
    >>> rows = [{"text": f"{word} film {i}", "label": word} for i in range(40) for word in ("good", "bad")]
    >>> task = ta.register_task("films", train=rows, replace=True)
    >>> task.name, task.n_labels, task.metric.name
    ('films', 2, 'accuracy')
    """
    flag(replace, "replace")
    made, record = _made(task, settings if train is None else {"train": train, **settings})
    if made.name in (*tasks.names(), *_entries()):
        raise TensorAdaptError(
            f"task name {made.name!r} is taken by a task that is built in or installed; give another"
        )
    if made.name in _REGISTERED and not replace and _REGISTERED[made.name][1] != record:
        raise TensorAdaptError(f"task name {made.name!r} is registered already; give another, or replace=True")
    _REGISTERED[made.name] = made, record
    return made


@answers_keywords()
def load_task(name: str, *, n_train: int | None = None, n_test: int | None = None, seed: int = 0) -> Data:
    """Load the splits of a task: one that is built in, installed or registered, or a file of own data.

    Neither number moves an example between splits. Those that are built in are fetched on first use.

    Args:
        name: of the task, such as "snippets"; or a file, as in docs/start/your-data.md.
        n_train: the most training examples, drawn with ``seed``; all by default.
        n_test: the most test examples, which do not depend on ``seed``.
        seed: of the choice of training examples.

    Returns:
        ``train``, ``validation`` and ``test``, each with ``texts`` (a tuple of one or two for each example), ``labels``
        (n,) and ``ids``; ``task``, a ``Task``, which loads models and makes batches; ``chance``, the score of the best
        constant answer on ``test``.

    Raises:
        TensorAdaptError: for an unknown name, numbers below 1 and data that cannot be loaded.

    >>> import tensoradapt as ta
    >>> data = ta.load_task("planted", n_train=100)
    >>> len(data.train), data.task.n_labels
    (100, 2)
    """
    return resolve(name, "name")[0].load(None, DataSpec(n_train, None, n_test), whole(seed, "seed", 0))


def resolve(value: Any, where: str = "task") -> tuple[Task, Record]:
    """Return the task of a name, a path, a name on the hub, a place such as "module:TASK", or a table of settings."""
    if isinstance(value, Mapping):
        if set(value) == {"name"}:
            return resolve(value["name"], f"{where}.name")
        return _free(own.build(read(OwnData, value, where)))
    name = text(value, where)
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name in tasks.names():
        if name in _entries():
            raise TensorAdaptError(
                f"task {name!r} is both built in and {_shown(_entries()[name])}; uninstall the latter"
            )
        return tasks.get(name), {}
    if name in _entries():
        return _installed(_entries()[name])
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        return _free(_held(name))
    if Path(name).suffix.lower() in SUFFIXES or HUB_NAME.fullmatch(name) or as_path(name, where).exists():
        return _free(own.build(read(OwnData, settings_of(name), where)))
    raise TensorAdaptError(f'unknown task "{name}"{did_you_mean(name, names())}')


def restore(name: str, record: Record) -> Task:
    """Return the task of a run's config. Raises TensorAdaptError where its data is not what it was."""
    return _restored(name, json.dumps(record, sort_keys=True))


@lru_cache(maxsize=8)
def _restored(name: str, record: str) -> Task:
    said = json.loads(record)
    if not said:
        return resolve(name)[0]
    source = said.get("source", {})
    task, now = _held(source["object"]) if "object" in source else _again(name, source)
    if now.get("hash") != said.get("hash"):
        raise TensorAdaptError(
            f"the data of task {name!r} has changed since the run was planned (its hash was {said.get('hash')} and is "
            f"{now.get('hash')}); put it back, or run the sweep again, which computes new runs"
        )
    return task


def _again(name: str, source: Mapping[str, Any]) -> tuple[Task, Record]:
    return own.build(read(OwnData, source, f"task {name!r}")) if source else resolve(name)


def _made(task: Any, settings: Mapping[str, Any]) -> tuple[Task, Record]:
    if isinstance(task, str) and ":" not in task:
        return own.build(read(OwnData, {**settings, "name": task}, "register_task"))
    if settings and task is not None:
        raise TensorAdaptError(f"{min(settings)} was given with a task that is made; expected a name, then settings")
    if isinstance(task, str):
        return _held(task)
    if task is None:
        raise TensorAdaptError('the task has no name; expected one, as in register_task("reviews", train=...)')
    if not isinstance(task, Task):
        raise TensorAdaptError(f"task is {shown(task)}; expected a name with settings, or a tensoradapt.Task")
    return _held(_place_of(task))


def _place_of(task: Task) -> str:
    """Return where a task can be imported from, as "module:NAME" with the module of its class."""
    module = type(task).__module__
    held = name_in(module, task)
    if held is None:
        raise TensorAdaptError(
            f"task {task.name!r} is no value of module {module}, from which processes that compute runs import it; "
            "expected one in a module, such as TASK = MyTask() in my_tasks.py"
        )
    return f"{module}:{held}"


def _held(where: str) -> tuple[Task, Record]:
    """Return the task at a place such as "module:TASK", and its record."""
    task = _checked(imported(where, "task", "module:NAME of a Task"), repr(where))
    return task, {"hash": _content_hash(task), "source": {"object": where}}


def _content_hash(task: Task) -> str:
    """Return the hash of the text that identifies a task's data; without one, that of the data itself."""
    if task.content:
        return hashlib.sha256(task.content.encode()).hexdigest()[:16]
    data = task.load()
    if not isinstance(data, Data):
        raise TensorAdaptError(f"load of task {task.name!r} returned {shown(data)}; expected a Data")
    return own.content_hash(data)


def _free(made: tuple[Task, Record]) -> tuple[Task, Record]:
    """Return the given task and record; raise TensorAdaptError where another task has its name."""
    name = made[0].name
    if name in (*tasks.names(), *_entries()) or (name in _REGISTERED and _REGISTERED[name][1] != made[1]):
        raise TensorAdaptError(f"task name {name!r} is taken by another task; give it another name =")
    return made


@lru_cache(maxsize=1)
def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _installed(entry: EntryPoint) -> tuple[Task, Record]:
    """Return the task of an entry point: a ``Task``, or a table of settings, or a function that returns one."""
    try:
        found = entry.load()
        found = found() if callable(found) and not isinstance(found, Task) else found
    except Exception as error:
        raise TensorAdaptError(
            f"{_shown(entry)} raised {type(error).__name__}: {str(error)[:200]}; expected a Task: uninstall it"
        ) from error
    if isinstance(found, Mapping):
        return own.build(read(OwnData, {**found, "name": entry.name}, _shown(entry)))
    task = _checked(found, _shown(entry))
    if task.name != entry.name:
        raise TensorAdaptError(f"{_shown(entry)} gives a task called {task.name!r}; expected one of its own name")
    return task, {"hash": _content_hash(task), "source": {}}


def _shown(entry: EntryPoint) -> str:
    package = f" of {entry.dist.name}" if entry.dist else ""
    return f"the entry point {entry.name!r}{package}"


def _checked(found: Any, where: str) -> Task:
    texts = ("name", "content")
    named = isinstance(found, Task) and all(isinstance(getattr(found, key, None), str) for key in texts)
    if not named or not getattr(found, "metrics", ()):
        raise TensorAdaptError(
            f"{where} is {shown(found)}; expected a tensoradapt.Task with metrics, whose name and content are texts"
        )
    task: Task = found
    check_reported(task.metric)
    return task

"""The config of a run: records that its id and all its results follow from. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from tensoradapt import checks
from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError, located
from tensoradapt.lab.tasks.splits import DataSpec as DataSpec
from tensoradapt.planning.resolve import resolve, resolve_known
from tensoradapt.planning.size import Size
from tensoradapt.planning.spec import AdapterSpec, tasks_of
from tensoradapt.records import as_json, check_fields, digest, needed, of_record, read, said, value
from tensoradapt.training.options import Training

FORMAT = 1  # a part of every id; raise it when a default changes, or what a field means
# kinds of runs that are no adapter
REFERENCES = {"head": "frozen base + head", "full": "full fine-tuning", "bitfit": "BitFit"}
KINDS = ("adapter", *REFERENCES)
LONGEST = 1_000  # characters of a name
NO_PART = ("method",)  # fields that change nothing of what is computed


def _name(given: Any, where: str) -> str:
    """Check a text that can be a name, and return it."""
    if len(checks.text(given, where)) > LONGEST:
        raise TensorAdaptError(f"{where} is {shown(given)}; expected a name of at most {LONGEST:,} characters")
    return str(given)


def _adapter(given: Any, where: str) -> AdapterSpec:
    """Return the adapter of a run, its method in the usual spelling; what the run's task sets is refused."""
    adapter: AdapterSpec = of_record(AdapterSpec)(given, where)
    with located(where):
        if not isinstance(adapter.method, str):
            raise TensorAdaptError(
                f"method is {shown(adapter.method)}; expected the name of a method, which files hold"
            )
        resolved = resolve_known(adapter)  # a method that another process knew is refused where it is planned
        if resolved and resolved.begins.needs_batches:
            what = "start is" if adapter.start else f"method {adapter.method!r} has the start"
            raise TensorAdaptError(
                f'{what} "{resolved.spec.start}", which takes batches; expected "zero", "subtract" or "paper"'
            )
        for name, default in (("train", ("auto",)), ("tasks", ())):
            if getattr(adapter, name) != default:
                raise TensorAdaptError(f"{name} is {shown(getattr(adapter, name))}; leave it out, as the task sets it")
    return replace(adapter, method=resolved.spec.method) if resolved else adapter


@dataclass(frozen=True)
class RunConfig:
    """The config of a run: a model that learns a task.

    ``method`` is filled in where no sweep named it. Raises TensorAdaptError for a field that no run can use.

    >>> config = RunConfig("tiny-random-bert", "planted", Training(1e-3, 60), adapter=AdapterSpec("lotr", rank=2))
    >>> config.method, RunConfig.from_dict(config.as_dict()) == config
    ('lotr', True)
    """

    model: str = field(metadata=needed(_name, "name or folder of a model"))
    task: str = field(metadata=needed(_name, "name of a task", former=("tasks",)))
    training: Training = field(metadata=needed(of_record(Training), "how it is trained"))
    kind: str = value(
        partial(checks.one_of, KINDS),
        "adapter (and its head), head (on a frozen base), full (everything) or bitfit (the head and all biases)",
        "adapter",
    )
    adapter: AdapterSpec | None = value(_adapter, "the adapter, where kind is adapter")
    data: DataSpec = value(of_record(DataSpec), "how much data, in which batches", DataSpec())
    seed: int = value(
        partial(checks.whole, least=0, most=2**63 - 1), "of everything that is drawn", 0, former=("seeds",)
    )
    own: Mapping[str, Any] = value(
        partial(checks.named, checks.anything), "of a task of own data: its record (tasks.registry)", {}
    )
    tuning: bool = value(checks.flag, "whether it only helps to choose a learning rate, and is in no mean", False)
    fitted: bool = value(checks.flag, "whether the head of kind head is fitted, and not trained in steps", False)
    method: str | None = value(_name, "name of its method in tables, which is no part of the id", former=("label",))

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.adapter is None) == (self.kind == "adapter"):
            found = "no adapter was given" if self.adapter is None else "an adapter was given"
            raise TensorAdaptError(f'{found} with kind {self.kind!r}; expected one exactly where kind is "adapter"')
        if self.method is None:
            object.__setattr__(self, "method", REFERENCES.get(self.kind) or str(self.adapter and self.adapter.name))

    def as_dict(self) -> dict[str, Any]:
        """Return the contents of config.json: the format and all fields."""
        return {"format": FORMAT, **as_json(self)}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> RunConfig:
        """Return the config of a config.json; raises TensorAdaptError for another format and for fields it refuses."""
        if checks.mapping(record, "config").get("format") != FORMAT:
            raise TensorAdaptError(
                f"format is {shown(record.get('format'))}; this version of tensoradapt reads format {FORMAT}"
            )
        return read(cls, {key: item for key, item in record.items() if key != "format"})

    @cached_property
    def id(self) -> str:
        """Return the hash of what is computed.

        The hash covers the fields that differ from their defaults, so that a new field changes no id, but neither the
        method's name nor the place of own data.
        """
        parts = {name: item for name, item in said(self).items() if name not in NO_PART}
        if "own" in parts:
            parts["own"] = {name: item for name, item in parts["own"].items() if name != "source"}
        return digest({"format": FORMAT, **parts})

    @property
    def name(self) -> str:
        """A readable name, unique by the first half of the id, for trackers."""
        size = re.sub("[=≤,]", "", self.size.text).replace(" ", "_")
        parts = [self.adapter.name if self.adapter else self.kind, size, f"seed{self.seed}", self.id[:8]]
        return "-".join(part for part in parts if part)

    @property
    def title(self) -> str:
        """The name of the run in the lines that a sweep prints."""
        return f"{self.method} {self.size.text}".strip() + f", seed {self.seed}"

    @property
    def judged(self) -> str:
        """The part of the data whose score counts: validation where the run chooses a rate, else test."""
        return "validation" if self.tuning else "test"

    @property
    def size(self) -> Size:
        """The rank or budget of the adapter."""
        return Size.of(self.adapter)

    def to_plan(self, heads: tuple[str, ...] = ()) -> AdapterSpec:
        """Return the adapter with the modules trained beside it, and the task as the one value of runtime modes."""
        assert self.adapter is not None
        return replace(self.adapter, train=heads, tasks=tasks_of(resolve(self.adapter).layouts, (self.task,)))

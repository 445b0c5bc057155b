"""The config of a run: a frozen record that its id and all its results follow from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from tensoradapt import parameterizations
from tensoradapt.runs.canonical import run_id
from tensoradapt.runs.run_files import HEAD_LABEL
from tensoradapt.text import size_text

REFERENCES = {"head": HEAD_LABEL, "full": "full fine-tuning"}


@dataclass(frozen=True)
class RunConfig:
    """The config of a run. ``kind``: "adapter" (and its head), "head" (on a frozen base) or "full" (everything)."""

    kind: str
    seed: int
    model: str
    task: str
    lr: float
    steps: int
    parameterization: str | None = None
    layout: tuple[str, ...] | None = None
    projections: tuple[str, ...] = ("attention",)
    rank: int | Mapping[str, int] | None = None
    budget: int | None = None
    head_lr: float | None = None  # None: lr
    batch: int = 32
    n_train: int | None = None
    n_validation: int | None = None
    n_test: int | None = None
    max_length: int = 64
    scale: str | float = "matched"
    published: str | None = None  # then empty projections are the paper's own targets
    plan: Mapping[str, Any] = field(default_factory=dict)  # further arguments of ``tensoradapt.plan``
    training: Mapping[str, Any] = field(default_factory=dict)  # further options of ``tensoradapt.fit``
    tuning: bool = False  # made to choose a learning rate, and in no mean
    method: str | None = None  # its name in a sweep, which is not part of the id
    data: Mapping[str, Any] = field(default_factory=dict)  # the record of a task of own data (``tasks.registry``)

    def __post_init__(self) -> None:
        for name in ("layout", "projections"):  # JSON has lists
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def label(self) -> str:
        """Return the name shown in tables and figures."""
        if self.method or self.published:
            return self.method or str(self.published)
        if self.parameterization is None:
            return REFERENCES[self.kind]
        return getattr(parameterizations.get(self.parameterization), "label", self.parameterization)

    def as_dict(self) -> dict[str, Any]:
        """Return the contents of config.json: all fields, and the label."""
        return {**asdict(self), "label": self.label}

    @cached_property
    def id(self) -> str:
        """Return the hash of what is computed: of the fields that differ from their defaults, so that a new field
        changes no id, without the method's name and the place of own data.
        """
        said = {key: value for key, value in asdict(self).items() if key not in DEFAULTS or value != DEFAULTS[key]}
        said.pop("method", None)
        if "data" in said:
            said["data"].pop("source", None)
        return run_id(said)

    @classmethod
    def id_of(cls, record: Mapping[str, Any]) -> str | None:
        """Return the id of a config.json; None where its fields are others."""
        try:
            return cls.from_dict(record).id
        except (TypeError, ValueError, LookupError, AttributeError):
            return None

    @property
    def name(self) -> str:
        """A readable name, unique by the first half of the id, for trackers."""
        parts = [self.parameterization or self.kind, self._size(), f"seed{self.seed}", self.id[:8]]
        return "-".join(part for part in parts if part)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> RunConfig:
        """The config of a config.json.

        >>> config = RunConfig("head", 0, "tiny-random-bert", "planted", 1e-3, 60)
        >>> RunConfig.from_dict(config.as_dict()) == config
        True
        """
        return cls(**{key: value for key, value in record.items() if key != "label"})

    @property
    def title(self) -> str:
        """The run in the lines that a sweep prints."""
        return f"{self.label} {size_text(self.rank, self.budget)}".strip() + f", seed {self.seed}"

    def _size(self) -> str:
        if self.budget is not None:
            return f"n{self.budget}"
        if self.rank is None:
            return ""
        return f"r{self.rank}" if isinstance(self.rank, int) else "r" + "_".join(map(str, self.rank.values()))


DEFAULTS = {
    one.name: one.default if one.default_factory is MISSING else one.default_factory()
    for one in fields(RunConfig)
    if (one.default, one.default_factory) != (MISSING, MISSING)
}

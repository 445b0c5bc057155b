"""The config of a run: a frozen record that its id and all its results follow from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from tensoradapt import parameterizations
from tensoradapt.runs.canonical import run_id
from tensoradapt.runs.run_files import FORMER_HEAD_LABEL, HEAD_LABEL
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
    data: Mapping[str, Any] = field(default_factory=dict)  # of a task of own data: its record (``tasks.registry``)

    @property
    def label(self) -> str:
        """The name shown in tables and figures."""
        return self.method or self._label()

    def _label(self) -> str:
        if self.published is not None:
            return self.published
        if self.parameterization is None:
            return REFERENCES[self.kind]
        return getattr(parameterizations.get(self.parameterization), "label", self.parameterization)

    def as_dict(self) -> dict[str, Any]:
        """The contents of config.json, the same bytes as earlier versions wrote."""
        record = {**asdict(self), "label": self.label}
        for later in ("training", "data"):  # fields that came later
            if not record[later]:
                del record[later]
        return {key: FORMER_HEAD_LABEL if value == HEAD_LABEL else value for key, value in record.items()}

    @cached_property
    def id(self) -> str:
        """The hash of what is computed; fields that were added later count unless they are at their default."""
        later: dict[str, Any] = {"published": None, "plan": {}, "training": {}, "tuning": False, "method": self.method}
        later["data"] = {}
        said = {key: value for key, value in asdict(self).items() if key not in later or value != later[key]}
        if "data" in said:  # its content counts, wherever it is
            said["data"].pop("source", None)
        label = FORMER_HEAD_LABEL if self._label() == HEAD_LABEL else self._label()
        return run_id({**said, "label": label})

    @classmethod
    def id_of(cls, record: Mapping[str, Any]) -> str | None:
        """The id of a config.json; None where its parameterization is not known here, or its fields are others."""
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
        known = {key: value for key, value in record.items() if key != "label"}
        lists = {key: tuple(known[key]) for key in ("layout", "projections") if known.get(key) is not None}
        return cls(**{**known, **lists})

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

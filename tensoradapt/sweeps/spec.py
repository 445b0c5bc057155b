"""A sweep's specification: a TOML file or a mapping, typed, with every key known and every value within its range.

Two texts of one meaning give one sweep: ``1`` and ``1.0``, any order of keys, defaults written or left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tensoradapt.runs.store import run_id
from tensoradapt.sweeps.search_spec import Search

Size = Mapping[str, Any]  # {"rank": r}, {"budget": n}, or nothing for what has no rank


@dataclass(frozen=True)
class Method:
    """One way to fine-tune: a published adapter, a parameterization over layouts, or a reference (``kind``)."""

    name: str
    kind: str
    sizes: tuple[Size, ...]
    learning_rates: tuple[float, ...]
    published: str | None = None
    parameterization: str | None = None
    layout: tuple[str, ...] | None = None
    projections: tuple[str, ...] = ()
    scale: str | float = "matched"
    plan: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class SweepSpec:
    """Everything that is run: methods x sizes x tasks x seeds; ``runs`` are further settings of every run.

    ``search``: what is searched in the place of grids of learning rates.
    """

    model: str
    tasks: tuple[str, ...]
    methods: tuple[Method, ...]
    seeds: tuple[int, ...]
    tuning_seed: int
    runs: Mapping[str, Any]
    search: Search | None = None

    @property
    def id(self) -> str:
        """The hash of what the sweep means; without a search, which came later, it is what it was before."""
        return run_id({key: value for key, value in asdict(self).items() if key != "search" or value is not None})

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SweepSpec:
        """The specification that was recorded (``dataclasses.asdict``), as the JSON beside a sweep's runs has it.

        >>> from tensoradapt.sweeps.read_spec import read_spec
        >>> spec = read_spec({"model": "tiny-random-bert", "tasks": ["planted"], "published": ["lora"], "ranks": [1],
        ...                   "learning_rates": [1e-3], "seeds": [0], "steps": 60})
        >>> SweepSpec.from_dict(asdict(spec)) == spec
        True
        """
        methods, search = tuple(Method(**method) for method in record["methods"]), record.get("search")
        return cls(**{**record, "methods": methods, "search": Search(**search) if search else None})

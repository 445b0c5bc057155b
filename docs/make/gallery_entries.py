"""The entries of the gallery: each parameterization and published adapter, with what its page is made from."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gallery_counts import WIDTHS

import tensoradapt as ta
from tensoradapt import parameterizations, published
from tensoradapt.lab.methods import paper_arguments, usual_arguments
from tensoradapt.networks.layout import near_equal
from tensoradapt.networks.network import Network
from tensoradapt.planning.splits import nearest
from tensoradapt.published.row import Published

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent
TABLE = tomllib.loads((HERE / "gallery.toml").read_text())


def config(kind: str, width: int, layers: int, heads: int, ff: int) -> SimpleNamespace:
    """What the planner reads of a model's config."""
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": ff}
    return SimpleNamespace(model_type=kind, **sizes)


MODELS = {
    "BERT-base": config("bert", 768, 12, 12, 3072),
    "Llama-2-7B": config("llama", 4096, 32, 32, 11008),
}


@dataclass(frozen=True)
class Entry:
    """One page: a parameterization over its usual layout, or a published adapter (``row``)."""

    name: str
    row: Published | None = None

    @property
    def factoring(self) -> Any:
        return parameterizations.get(self.row.parameterization if self.row else self.name)

    @property
    def title(self) -> str:
        return self.name if self.row else getattr(self.factoring, "label", self.name)

    @property
    def slug(self) -> str:
        """The name of its files."""
        return f"paper-{self.name.replace('+', '-plus-')}".strip("-") if self.row else self.name

    def arguments(self, model: Any) -> dict[str, Any]:
        """The arguments of ``plan``, besides the rank."""
        return paper_arguments(self.row) if self.row else usual_arguments(self.name, model)

    @property
    def projections(self) -> tuple[str, ...]:
        """The matrices of a layer that it adapts in BERT."""
        return tuple(dict.fromkeys(str(site.coord["proj"]) for site in self.plan().sites))

    def plan(self, model: str = "BERT-base", rank: int = 8) -> ta.Plan:
        return _planned(self, model, rank)

    @cached_property
    def networks(self) -> list[tuple[int, Network]]:
        """The tensors that differ in more than sizes, with their numbers, at BERT-base's sizes and rank 8."""
        found: dict[tuple[Any, ...], tuple[int, Network]] = {}
        for number, group in enumerate(self.plan().groups):
            labels = tuple((factor.name, factor.labels) for factor in group.network.factors)
            found.setdefault(labels, (number, group.network))
        return list(found.values())

    @property
    def count(self) -> str:
        """The closed parameter count, as a formula; empty for a parameterization that gallery.toml does not have."""
        return self.row.formula if self.row else self.told("count")

    def told(self, key: str) -> str:
        """What gallery.toml says of a parameterization; empty where it says nothing."""
        return str(TABLE["parameterizations"].get(self.name, {}).get(key, ""))

    @property
    def tables(self) -> dict[str, Mapping[int, Sequence[int]]]:
        """Parts by width, where the count needs them."""
        if self.row:
            given = {"n": self.row.split.get("in", {}), "cores": self.row.options.get("cores", {})}
            return {name: {w: list(parts) for w, parts in table.items()} for name, table in given.items() if table}
        parts = getattr(self.factoring, "parts", (2,))[-1]
        near = getattr(self.factoring, "near", None)
        made = {width: nearest(width, near) if near else near_equal(width, parts) for width in WIDTHS}
        return {"n": made} if "n[" in self.count else {}


@lru_cache(maxsize=1024)
def _planned(entry: Entry, model: str, rank: int) -> ta.Plan:
    return ta.plan(MODELS[model], rank=rank, **entry.arguments(MODELS[model]))


def picture_name(entry: Entry, k: int) -> str:
    """The file of the drawing of a page's tensor."""
    return f"{entry.slug}{f'-{k + 1}' if k else ''}.png"


def entries() -> list[Entry]:
    """All pages: the parameterizations, then the published adapters."""
    return [*map(Entry, parameterizations.names()), *(Entry(row.name, row) for row in published.every())]

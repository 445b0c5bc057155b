"""What an adapter keeps of ``attach``: its settings, heads and origin (Attachment), and DoRA's lengths (Magnitudes)."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.adapter.sharding import gathered
from tensoradapt.sites.site import RowBlock

HUB_NAME = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")
LABELS = 2  # the default of num_labels in transformers


@dataclass(frozen=True)
class Origin:
    """The base model as its card names it: name on the hub, class in transformers, arguments that load it.

    Fields are empty where unknown. ``classes``: what its config calls the classes of its head.
    """

    name: str = ""
    kind: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    classes: tuple[str, ...] = ()


def origin_of(model: Any) -> Origin:
    """Return the origin of a model. A name that is a local folder is left out: it means nothing elsewhere."""
    config = getattr(model, "config", None)
    kind = type(model)
    name = str(getattr(config, "_name_or_path", None) or "")
    name = name if HUB_NAME.fullmatch(name) and not Path(name).exists() else ""
    if getattr(sys.modules.get("transformers"), kind.__name__, None) is not kind:
        return Origin(name)
    options: dict[str, Any] = {"dtype": str(model.dtype).removeprefix("torch.")}
    labels = getattr(config, "num_labels", LABELS)
    if kind.__name__.endswith("Classification") and labels != LABELS:
        options["num_labels"] = labels
    return Origin(name, kind.__name__, tuple(options.items()), class_names(config))


def class_names(config: Any) -> tuple[str, ...]:
    """Return the names that a config of transformers has for classes; none where they are its own LABEL_0, LABEL_1."""
    found = getattr(config, "id2label", None) or {}
    named = any(name != f"LABEL_{number}" for number, name in found.items())
    return tuple(str(found[number]) for number in sorted(found)) if named else ()


@dataclass
class Attachment:
    """What ``attach`` was given and found; a plain object, so that heads are registered in the model alone."""

    heads: Mapping[str, nn.Module] = field(default_factory=dict)  # base modules trained with the adapter, by name
    base: str = ""  # the hash of the base weights when it was attached
    origin: Origin = Origin()
    base_now: Callable[[], str] | None = None  # computes that hash at the time of the call
    steps: int = 0  # that ``fit`` trained it
    detached: bool = False
    inactive_heads: dict[str, Tensor] = field(default_factory=dict)  # kept while the model has another adapter's heads

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """Return the base parameters trained with the adapter, each once, by its first name in the model."""
        names: dict[nn.Parameter, str] = {}
        for head, module in self.heads.items():
            for name, parameter in module.named_parameters():
                names.setdefault(parameter, f"{head}.{name}")
        return {name: parameter for parameter, name in names.items()}

    def head_tensors(self) -> dict[str, Tensor]:
        """Return the adapter's own values of these parameters, on the CPU."""
        active = {name: gathered(p) for name, p in self.head_parameters().items()}
        return active | {name: value.cpu() for name, value in self.inactive_heads.items()}


class Magnitudes(nn.ParameterList):
    """DoRA's trained lengths of rows, one vector for each block of rows."""

    def __init__(self, row_blocks: Iterable[RowBlock]) -> None:
        number = {row_block: i for i, row_block in enumerate(row_blocks)}
        super().__init__(torch.zeros(row_block.out) for row_block in number)
        self.number = number

    def of(self, row_block: RowBlock) -> Tensor:  # (out,)
        """Return the lengths of a block."""
        return self[self.number[row_block]]

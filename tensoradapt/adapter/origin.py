"""Origin: what is known of the base model that an adapter was attached to."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


LABELS = 2  # what transformers gives a classifier that says nothing


@dataclass(frozen=True)
class Origin:
    """What a card says of the model that an adapter is attached to: its name on the hub, its class in transformers, and
    how that is loaded. Empty where it is not known.
    """

    name: str = ""
    kind: str = ""
    options: tuple[tuple[str, Any], ...] = ()


def origin_of(model: Any) -> Origin:
    """The origin of a model; a name that is a folder here is left out, as it says nothing elsewhere."""
    config, kind = getattr(model, "config", None), type(model)
    name = str(getattr(config, "_name_or_path", None) or "")
    name = name if HUB_NAME.fullmatch(name) and not Path(name).exists() else ""
    if getattr(sys.modules.get("transformers"), kind.__name__, None) is not kind:
        return Origin(name)
    options: dict[str, Any] = {"dtype": str(model.dtype).removeprefix("torch.")}
    labels = getattr(config, "num_labels", LABELS)
    if kind.__name__.endswith("Classification") and labels != LABELS:
        options["num_labels"] = labels
    return Origin(name, kind.__name__, tuple(options.items()))

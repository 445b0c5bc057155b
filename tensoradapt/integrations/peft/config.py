"""TensorConfig: what ``plan`` takes, as a PEFT config that survives JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Any

from peft.config import PeftConfig
from peft.utils import PeftType

from tensoradapt.adapter.checkpoint import Settings
from tensoradapt.checks import check_whole
from tensoradapt.errors import TensorAdaptError, did_you_mean

NAME = "tensoradapt"
CARD = "README.md"
LOADING = """## Load it

```python
import tensoradapt.integrations.peft  # registers the method; pip install "tensoradapt[peft]"
from peft import PeftModel

model = PeftModel.from_pretrained(base_model, "path/to/this/folder")
```
"""
# LoraConfig's other names, and what says the same here
INSTEAD = {
    "use_dora": 'give rule="dora"',
    "use_rslora": 'give published="rslora"',
    "rank_pattern": "give two adapters, each with its target_modules and rank",
    "alpha_pattern": "give two adapters, each with its target_modules and alpha",
    "init_lora_weights": "give start= (zero, subtract, paper), or init_weights=False for noise",
    "fan_in_fan_out": "how a layer stores its weight is read from the layer; leave it out",
    "layer_replication": "repeat the layers in the base model",
}
BIASES = ("none", "all", f"{NAME}_only")


def _peft_type() -> PeftType:
    """Add this method to PEFT's enum, which is closed; ``register_peft_method`` refuses names that are not in it."""
    name = NAME.upper()
    if name not in PeftType.__members__:
        member = str.__new__(PeftType, name)
        member._name_ = member._value_ = name
        PeftType._member_map_[name] = PeftType._value2member_map_[name] = member
        PeftType._member_names_.append(name)
        type.__setattr__(PeftType, name, member)
    return PeftType(name)


PEFT_TYPE = _peft_type()


@dataclass
class TensorConfig(PeftConfig):
    """An adapter as ``tensoradapt.plan`` describes it, for ``peft.get_peft_model`` (docs/peft.md).

    Raises TensorAdaptError for what ``plan`` refuses, and for names of LoraConfig that mean something else here.

    Multipliers of learning rates reach an optimizer only through ``parameter_groups``. A task is selected at the
    adapter, ``model.base_model.tensoradapt_bank["default"]``, whose ``plan`` lists what is adapted.

    Args:
        target_modules: as in PEFT. By default, in a model with a recipe, the published row's modules, or the
            attention's. In other models a layer has the modes ``out`` and ``in``, and the coordinates ``layer``, its
            place in the nearest list of modules, and ``proj``, its name without that place.
        exclude_modules, layers_to_transform, layers_pattern, modules_to_save: as in PEFT.
        bias: "none", "all" or "tensoradapt_only", as in PEFT.
        parameterization, rank: as in ``plan``, by default "cp" and 8.
        r, lora_alpha, lora_dropout: LoraConfig's names of ``rank``, ``alpha`` and ``dropout``.
        layout, budget, published, options, split, on_mismatch, scale, alpha, start, rule, rates, tasks: as in ``plan``.
        seed, dropout, rank_dropout: as in ``attach``.
        init_weights: False adds noise to every factor, so that the adapter changes the output; for tests.
    """

    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    bias: str = "none"
    parameterization: str | None = None
    layout: Any = None  # a text or several, each alone or with the projections it is for
    rank: Any = None  # a whole number, or one for each bond
    budget: int | None = None
    published: str | None = None
    options: dict[str, Any] | None = None
    split: dict[str, Any] | None = None
    on_mismatch: str | None = None
    scale: Any = None  # "matched", "paper", or a number
    alpha: float | None = None
    start: str | None = None
    rule: str = "add"
    rates: dict[str, float] | None = None
    tasks: list[str] | None = None
    seed: int = 0
    dropout: float = 0.0
    rank_dropout: float = 0.0
    init_weights: bool = True
    r: InitVar[Any] = None
    lora_alpha: InitVar[Any] = None
    lora_dropout: InitVar[Any] = None

    def __new__(cls, *args: Any, **kwargs: Any) -> TensorConfig:
        """Refuse names of LoraConfig that have another here."""
        if known := [name for name in kwargs if name in INSTEAD]:
            raise TensorAdaptError(f"TensorConfig has no {known[0]}; {INSTEAD[known[0]]}")
        return super().__new__(cls)

    def __post_init__(self, r: Any, lora_alpha: Any, lora_dropout: Any) -> None:
        super().__post_init__()
        self.rank = _alias("r", r, "rank", self.rank, None)
        self.alpha = _alias("lora_alpha", lora_alpha, "alpha", self.alpha, None)
        self.dropout = _alias("lora_dropout", lora_dropout, "dropout", self.dropout, 0.0)
        self.peft_type = PEFT_TYPE
        self.layout, self.split = _layouts(self.layout), _split(self.split)
        self._check()

    def _check(self) -> None:
        Settings(self.dropout, self.rank_dropout)
        check_whole("seed", self.seed, 0, 2**63 - 1)
        if self.bias not in BIASES:
            raise TensorAdaptError(f"bias is {self.bias!r}{did_you_mean(self.bias, BIASES)}")
        if self.start == "gradient":
            raise TensorAdaptError(
                'start="gradient" needs batches of data, which no PEFT config can hold; attach the adapter with '
                "tensoradapt.attach(model, plan, batches=[...]), or leave start= out"
            )
        if self.parameterization is not None and not isinstance(self.parameterization, str):
            raise TensorAdaptError(
                f"parameterization is a {type(self.parameterization).__name__}; a config that can be saved takes its "
                "name (an entry point of the group tensoradapt.parameterizations gives it one)"
            )
        if isinstance(self.target_modules, str) and self.layers_to_transform is not None:
            raise TensorAdaptError(
                f"layers_to_transform={self.layers_to_transform!r} and the text target_modules={self.target_modules!r} "
                "were given; PEFT picks layers from a list of names only: give target_modules as a list"
            )

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Save as PEFT does; the card beside it, or of the folder above, then says which import loads the adapter."""
        super().save_pretrained(save_directory, **kwargs)
        folder = Path(save_directory)
        card = next((place / CARD for place in (folder, folder.parent) if (place / CARD).is_file()), None)
        if card is not None and LOADING.strip() not in (text := card.read_text(encoding="utf-8")):
            card.write_text(f"{text.rstrip()}\n\n{LOADING}", encoding="utf-8")

    def arguments(self) -> dict[str, Any]:
        """The arguments of ``plan``, except the sites."""
        parameterization = self.parameterization if self.published or self.parameterization else "cp"
        rank = 8 if self.rank is None and self.budget is None else self.rank
        same = "layout published budget options split on_mismatch scale alpha start rates rule".split()
        arguments = {name: getattr(self, name) for name in same}
        return {**arguments, "parameterization": parameterization, "rank": rank, "tasks": tuple(self.tasks or ())}


def _alias(other: str, given: Any, name: str, value: Any, default: Any) -> Any:
    """The value of an argument that LoraConfig calls otherwise."""
    if given is None or given == value:
        return value
    if value != default:
        raise TensorAdaptError(f"{other}={given!r} and {name}={value!r} were given, and both are {name}; give one")
    return given


def _layouts(layout: Any) -> Any:
    """Make pairs of a text and its projections tuples again; JSON reads them as lists."""
    if isinstance(layout, list | tuple):
        return [(part[0], tuple(part[1])) if isinstance(part, list | tuple) else part for part in layout]
    return layout


def _split(split: Any) -> Any:
    """Make widths numbers again; JSON reads keys as texts."""
    if not isinstance(split, Mapping):
        return split
    by_width = {mode: parts for mode, parts in split.items() if isinstance(parts, Mapping)}
    whole = {mode: {int(width): tuple(part) for width, part in parts.items()} for mode, parts in by_width.items()}
    return {mode: whole[mode] if mode in whole else tuple(parts) for mode, parts in split.items()}

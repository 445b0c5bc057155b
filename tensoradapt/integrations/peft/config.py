"""TensorConfig has what ``plan`` takes, as a PEFT config that survives JSON."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft.config import PeftConfig
from peft.utils import PeftType

from tensoradapt.checks import check_whole, one_of
from tensoradapt.errors import TensorAdaptError
from tensoradapt.planning.resolve import resolve_known
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.records import as_json, check_keys

NAME = "tensoradapt"
CARD = "README.md"
LOADING = """## Load it

```python
import tensoradapt.integrations.peft  # registers the method; pip install "tensoradapt[peft]"
from peft import PeftModel

model = PeftModel.from_pretrained(base_model, "path/to/this/folder")
```
"""
# names of LoraConfig that are called otherwise here, and what to give instead
INSTEAD = {
    "use_dora": 'give rule="dora"',
    "use_rslora": 'give method="rslora" and paper=True',
    "rank_pattern": "give two adapters, each with its target_modules and rank",
    "alpha_pattern": "give two adapters, each with its target_modules and alpha",
    "init_lora_weights": "give start= (zero, subtract, paper, pissa, milora, olora), or init_weights=False for noise",
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


# fields of AdapterSpec that PEFT has its own words for, or that need two adapters there
PEFTS_OWN = ("projections", "train", "rank_pattern")
SHARED = tuple(f for f in fields(AdapterSpec) if f.name not in PEFTS_OWN)

if TYPE_CHECKING:
    _Fields = AdapterSpec
else:  # the same fields, and not frozen, as PEFT sets attributes
    _Fields = make_dataclass("_Fields", [(f.name, f.type, field(default=f.default, kw_only=True)) for f in SHARED])


@dataclass
class TensorConfig(PeftConfig, _Fields):  # type: ignore[misc]  # frozen for type checkers alone
    """An adapter as ``tensoradapt.plan`` describes it, for ``peft.get_peft_model`` (docs/guides/peft.md).

    Its fields are those of ``AdapterSpec`` (docs/reference/fields.md) but ``projections``, ``train`` and
    ``rank_pattern``, by default with method "cp" and rank 8, and these. Raises TensorAdaptError for what ``plan``
    refuses, and for names of LoraConfig that mean something else here.

    Multipliers of learning rates reach an optimizer only through ``parameter_groups``. A task is selected at the
    adapter, ``model.base_model.tensoradapt_bank["default"]``, whose ``plan`` lists what is adapted.

    Args:
        target_modules: as in PEFT. By default, in a model with a recipe, the attention's modules, or those of the paper
            with ``paper=True``. In other models a layer has the modes ``out`` and ``in``, and the coordinates
            ``layer``, its place in the nearest list of modules, and ``proj``, its name without that place.
        exclude_modules, layers_to_transform, layers_pattern, modules_to_save: as in PEFT.
        bias: "none", "all" or "tensoradapt_only", as in PEFT.
        r, lora_alpha, lora_dropout: LoraConfig's names of ``rank``, ``alpha`` and ``dropout``.
        seed: as in ``attach``.
        init_weights: False adds noise to every factor, so that the adapter changes the output; for tests.

    >>> import peft
    >>> from tensoradapt.integrations.peft import TensorConfig
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> tuned = peft.get_peft_model(model, TensorConfig(method="cp", rank=2))
    >>> tuned.print_trainable_parameters()
    trainable params: 50 || all params: 527,656 || trainable%: 0.0095
    """

    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    bias: str = "none"
    seed: int = 0
    init_weights: bool = True
    r: InitVar[Any] = None
    lora_alpha: InitVar[Any] = None
    lora_dropout: InitVar[Any] = None

    def __new__(cls, *args: Any, **kwargs: Any) -> TensorConfig:
        """Raise TensorAdaptError for names of LoraConfig that have another here."""
        if known := [name for name in kwargs if name in INSTEAD]:
            raise TensorAdaptError(f"TensorConfig has no {known[0]}; {INSTEAD[known[0]]}")
        check_keys(kwargs, SHARED, [*cls.__dataclass_fields__, "r", "lora_alpha", "lora_dropout"])
        return super().__new__(cls)

    def __post_init__(self, r: Any, lora_alpha: Any, lora_dropout: Any) -> None:
        super().__post_init__()
        theirs = {"r": (r, "rank", None), "lora_alpha": (lora_alpha, "alpha", None)}
        for other, (given, name, default) in {**theirs, "lora_dropout": (lora_dropout, "dropout", 0.0)}.items():
            setattr(self, name, _alias(other, given, name, getattr(self, name), default))
        self.peft_type = PEFT_TYPE
        self._check()
        spec = self.spec()
        for f in SHARED:  # in their normal form, and in JSON's types, as PEFT writes them
            setattr(self, f.name, as_json(getattr(spec, f.name)))

    def _check(self) -> None:
        check_whole("seed", self.seed, 0, 2**63 - 1)
        one_of(BIASES, self.bias, "bias")
        if self.method is not None and not isinstance(self.method, str):
            raise TensorAdaptError(
                f"method is a {type(self.method).__name__}; a config that can be saved takes its "
                "name (an entry point of the group tensoradapt.parameterizations gives it one)"
            )
        resolved = resolve_known(self.spec())
        if resolved and resolved.begins.needs_batches:
            raise TensorAdaptError(
                f'start="{resolved.spec.start}" needs batches of data, which no PEFT config can hold; attach the '
                "adapter with tensoradapt.attach(model, plan, batches=[...]), or give another start"
            )
        if isinstance(self.target_modules, str) and self.layers_to_transform is not None:
            raise TensorAdaptError(
                f"layers_to_transform={self.layers_to_transform!r} and the text target_modules={self.target_modules!r} "
                "were given; PEFT picks layers from a list of names only: give target_modules as a list"
            )

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Save as PEFT does, and write into the card which import loads the adapter."""
        super().save_pretrained(save_directory, **kwargs)
        folder = Path(save_directory)  # PEFT puts the card here, or into the folder above
        card = next((parent / CARD for parent in (folder, folder.parent) if (parent / CARD).is_file()), None)
        if card is not None and LOADING.strip() not in (text := card.read_text(encoding="utf-8")):
            card.write_text(f"{text.rstrip()}\n\n{LOADING}", encoding="utf-8")

    def spec(self) -> AdapterSpec:
        """Return the adapter that it describes; PEFT trains other modules, by ``modules_to_save``."""
        given = {f.name: getattr(self, f.name) for f in SHARED}
        given["method"] = "cp" if self.method is None else self.method
        given["rank"] = 8 if self.rank is None and self.budget is None else self.rank
        return AdapterSpec(**given, train=())


def _alias(other: str, given: Any, name: str, value: Any, default: Any) -> Any:
    """Return the value of an argument that LoraConfig calls otherwise."""
    if given is None or given == value:
        return value
    if value != default:
        raise TensorAdaptError(f"{other}={given!r} and {name}={value!r} were given, and both are {name}; give one")
    return given

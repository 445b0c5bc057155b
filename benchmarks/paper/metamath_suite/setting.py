"""The setting of a run under the names and defaults of PEFT's comparison, and the experiments of a specification."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from tensoradapt import checks
from tensoradapt.errors import TensorAdaptError, located
from tensoradapt.records import check_fields, needed, read, value

TYPES = ("auto", "bfloat16", "float32")
OPTIMIZERS = ("AdamW", "equal_steps")
RATES = {"lr": 1e-4, "weight_decay": 0.1}
LENGTHS = {"max_length": 800, "max_new_tokens": 300}
ANSWERS = ("greedy", "model")
TEMPLATE = "Question: {query} Think step by step.\nAnswer:"
QUERY = "{query}"


def _template(given: Any, where: str) -> str:
    if not isinstance(given, str) or QUERY not in given:
        raise TensorAdaptError(f"{where} is {checks.shown(given)}; expected a text with {QUERY}, such as {TEMPLATE!r}")
    return given


def _numbers(names: Iterable[str], check: Any, given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, Mapping) or set(given) != set(names):
        raise TensorAdaptError(f"{where} is {checks.shown(given)}; expected a table with {' and '.join(names)}")
    return {name: check(given[name], f"{where}.{name}") for name in names}


def _from_zero(given: Any, where: str) -> float:
    if not checks.is_number(given) or given < 0:
        raise TensorAdaptError(f"{where} is {checks.shown(given)}; expected a number from 0")
    return float(given)


@dataclass(frozen=True)
class Setting:
    """What a run trains with; the defaults are those of PEFT's default_training_params.json, of August 2026.

    Raises TensorAdaptError for values that no run can have, and for evaluations rarer than the training is long.
    """

    model_id: str = field(metadata=needed(checks.text, "hub name or folder of a causal model"))
    dtype: str = value(partial(checks.one_of, TYPES), "of the base weights; auto is bfloat16 on a GPU", "bfloat16")
    max_seq_length: int = value(checks.whole, "tokens that a text is cut to", 768)
    batch_size: int = value(checks.whole, "rows of a step, and texts at once for forgetting", 4)
    batch_size_eval: int = value(checks.whole, "questions that are answered at once", 50)
    max_steps: int = value(checks.whole, "optimizer steps", 5000)
    eval_steps: int = value(checks.whole, "steps between validations, over which losses are averaged", 250)
    query_template: str = value(_template, "the text of a question", TEMPLATE)
    seed: int = value(partial(checks.whole, least=0), "draws the factors", 0)
    grad_norm_clip: float = value(checks.number, "largest norm of the gradients", 1.0)
    optimizer_type: str = value(partial(checks.one_of, OPTIMIZERS), "AdamW, or equal_steps over it", "AdamW")
    optimizer_kwargs: Mapping[str, float] | None = value(
        partial(_numbers, RATES, _from_zero), "learning rate and weight decay; by default 1e-4 and 0.1"
    )
    generation_kwargs: Mapping[str, int] | None = value(
        partial(_numbers, LENGTHS, checks.whole), "most tokens of question and answer, and of an answer: 800 and 300"
    )
    answers: str = value(
        partial(checks.one_of, ANSWERS), "greedy, or model: as the model's generation_config.json says", "greedy"
    )

    def __post_init__(self) -> None:
        check_fields(self)
        for name, default in (("optimizer_kwargs", RATES), ("generation_kwargs", LENGTHS)):
            object.__setattr__(self, name, getattr(self, name) or dict(default))
        if self.eval_steps > self.max_steps:
            raise TensorAdaptError(
                f"eval_steps is {self.eval_steps} and max_steps {self.max_steps}; expected a validation by the last one"
            )
        if self.lengths["max_length"] <= self.max_seq_length:
            raise TensorAdaptError(
                f"max_length is {self.lengths['max_length']} and max_seq_length {self.max_seq_length}; expected room "
                "for an answer behind the longest question"
            )

    @property
    def rates(self) -> Mapping[str, float]:
        """The learning rate and the weight decay."""
        return self.optimizer_kwargs or {}

    @property
    def lengths(self) -> Mapping[str, int]:
        """The most tokens of a question with its answer, and of an answer."""
        return self.generation_kwargs or {}


@dataclass(frozen=True)
class Files:
    """Where the data is, below a folder; a file is .jsonl, .json or .parquet."""

    train: str = field(metadata=needed(checks.text, "rows of MetaMathQA: query, response"))
    validation: str = field(metadata=needed(checks.text, "rows of GSM8K's training part: question, answer"))
    test: str = field(metadata=needed(checks.text, "rows of GSM8K's test part: question, answer"))
    general_text: str | None = value(checks.text, "rows of general text: text; by default the toolkit's own text")
    n_validation: int = value(checks.whole, "questions of validation", 50)
    n_test: int | None = value(checks.whole, "test questions, the first so many; by default all")

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Method:
    """A method of a specification: one experiment for each of its learning rates."""

    name: str = field(metadata=needed(checks.text, "method/name, as in PEFT's table"))
    plan: Mapping[str, Any] = field(metadata=needed(checks.mapping, "arguments of tensoradapt.plan"))
    train_config: Mapping[str, Any] | None = value(checks.mapping, "what differs from the common setting")
    lr: tuple[float, ...] | None = value(partial(checks.listed, checks.number), "learning rates", listed=True)

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.name.split("/")) != 2 or not all(self.name.split("/")):
            raise TensorAdaptError(f"name is {self.name!r}; expected method/name, such as cp/llama-3.2-3B-rank16")


@dataclass(frozen=True)
class Experiment:
    """One line of the table: a name, the arguments of ``tensoradapt.plan``, and a setting."""

    name: str
    plan: Mapping[str, Any]
    setting: Setting


@dataclass(frozen=True)
class Specification:
    """The experiments of a file, the files of their data, and the config of the model for a dry run, if it says one."""

    experiments: tuple[Experiment, ...]
    files: Files
    config: Mapping[str, Any] | None = None


def specification(path: Path, model: str | None = None) -> Specification:
    """Read a specification, with another model if one is given; raises TensorAdaptError for what it may not say."""
    with located(str(path)):
        return _parsed(tomllib.loads(path.read_text()), model)


def _parsed(table: Mapping[str, Any], model: str | None) -> Specification:
    if odd := [key for key in table if key not in ("train_config", "data", "config", "method")]:
        raise TensorAdaptError(f"unknown key {odd[0]}; expected train_config, data, config and method")
    common = {**table.get("train_config", {}), **({"model_id": model} if model else {})}
    files = read(Files, table.get("data", {}), "data")
    methods = [read(Method, one, f"method {i + 1}") for i, one in enumerate(table.get("method", []))]
    found = tuple(one for method in methods for one in _of_rates(method, common))
    if not found:
        raise TensorAdaptError("there is no [[method]]; expected at least one")
    if twice := [one.name for i, one in enumerate(found) if one.name in [other.name for other in found[:i]]]:
        raise TensorAdaptError(f"two methods are called {twice[0]}; give each a name of its own")
    return Specification(found, files, table.get("config"))


def _of_rates(method: Method, common: Mapping[str, Any]) -> Iterator[Experiment]:
    """Yield the experiments of a method; the setting of a method replaces that of the file key by key, as in PEFT's."""
    setting = read(Setting, {**common, **(method.train_config or {})}, method.name)
    if method.lr is None:
        yield Experiment(method.name, method.plan, setting)
    for lr in method.lr or ():
        rates = {**setting.rates, "lr": lr}
        yield Experiment(f"{method.name}-lr{lr:g}", method.plan, replace(setting, optimizer_kwargs=rates))

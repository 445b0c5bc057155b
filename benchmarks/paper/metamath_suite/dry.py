"""The numbers of trained parameters of every experiment, on a model without weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

import tensoradapt as ta
from metamath_suite.setting import Specification
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import models


def counts(specification: Specification, model: str | None = None) -> Iterator[tuple[str, int, int]]:
    """Yield name, trained parameters and all parameters of each experiment; no weights are loaded.

    The model is that of the specification's config or, with ``model`` or without a config, of the named one's.
    """
    made: dict[str, Any] = {}
    for experiment in specification.experiments:
        name = experiment.setting.model_id
        if name not in made:
            made[name] = empty(name if model else specification.config or name)
        one = made[name]
        adapter = ta.attach(one, ta.plan(one, **experiment.plan))
        trained = sum(p.numel() for p in one.parameters() if p.requires_grad)
        if trained != adapter.n_params:
            raise TensorAdaptError(
                f"{experiment.name} trains {trained:,} parameters; its plan says {adapter.n_params:,}"
            )
        yield experiment.name, trained, sum(p.numel() for p in one.parameters())
        ta.detach(one)


def empty(config: Mapping[str, Any] | str) -> Any:
    """Return a causal model of a config's values, or of a named model's config, on the meta device."""
    hf = models.transformers()
    if isinstance(config, str):
        made = models.config(config)
    else:
        made = hf.AutoConfig.for_model(**config)
    with torch.device("meta"):
        return hf.AutoModelForCausalLM.from_config(made)

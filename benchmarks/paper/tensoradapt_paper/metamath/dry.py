"""The numbers of trained parameters of every experiment, on a model without weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

import tensoradapt as ta
from tensoradapt.data import models
from tensoradapt.errors import TensorAdaptError
from tensoradapt_paper.metamath.setting import Specification


def counts(specification: Specification, model: str | None = None) -> Iterator[tuple[str, int, int]]:
    """Yield name, trained parameters and all parameters of each experiment; no weights are loaded.

    The model is that of the specification's config or, with ``model`` or without a config, of the named one's.
    """
    for experiment in specification.experiments:
        config = specification.config if model is None else None
        made = empty(config or experiment.setting.model_id)
        adapter = ta.attach(made, ta.plan(made, **experiment.plan))
        trained = sum(p.numel() for p in made.parameters() if p.requires_grad)
        if trained != adapter.n_params:
            raise TensorAdaptError(
                f"{experiment.name} trains {trained:,} parameters; its plan says {adapter.n_params:,}"
            )
        yield experiment.name, trained, sum(p.numel() for p in made.parameters())


def empty(config: Mapping[str, Any] | str) -> Any:
    """Return a causal model of a config's values, or of a named model's config, on the meta device."""
    hf = models.transformers()
    if isinstance(config, str):
        made = models.config(config)
    else:
        made = hf.AutoConfig.for_model(**config)
    with torch.device("meta"):
        return hf.AutoModelForCausalLM.from_config(made)

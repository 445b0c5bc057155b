"""Learning rates by kind of model and of task: of the head that is trained beside an adapter, and of adapters.

AdamW moves each weight of a head by about its rate in every step, so logits move by the rate times the sum of the
features' sizes: a rate that suits the pooled features of a text encoder, below 1, makes the loss of a picture model
explode. The numbers were measured by benchmarks/head_rates.py (benchmarks/records/head_rates.csv).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from tensoradapt.files import is_folder
from tensoradapt.lab.data import models
from tensoradapt.lab.tasks.classification import Classification
from tensoradapt.lab.tasks.task import Task
from tensoradapt.lab.tasks.vision.task import Pictures

ENCODER, CAUSAL, PICTURES = "text encoder", "causal model", "picture model"
HEAD_RATES = {
    (ENCODER, "classification"): 0.06,
    (ENCODER, "regression"): 0.06,
    (CAUSAL, "classification"): 0.006,
    (CAUSAL, "regression"): 0.006,
    (PICTURES, "classification"): 0.006,
}
# how much other kinds take of a text encoder's rates, of adapters and of full fine-tuning; a causal model's are from
# benchmarks/records/causal_rates.csv
SHARES = {ENCODER: (1.0, 1.0), CAUSAL: (1.0, 0.33), PICTURES: (0.4, 0.1)}


def head_rate(task: Task, model: str) -> float | None:
    """Return the rate for a task's head on a named model; None for a task without such a head, as of language models.

    Raises TensorAdaptError for a model whose config cannot be loaded.
    """
    return HEAD_RATES[kind_of(task, model), task.kind] if isinstance(task, Classification) else None


def shares(task: Task, model: str) -> tuple[float, float]:
    """Return the shares of a text encoder's rates that adapters of a named model and its full fine-tuning take.

    All of them where the task has no such head, as its models may be of any library.

    Raises TensorAdaptError for a model whose config cannot be loaded.
    """
    return SHARES[kind_of(task, model)] if isinstance(task, Classification) else SHARES[ENCODER]


def kind_of(task: Task, model: str) -> str:
    """Return the kind of model below a head: a text encoder, a causal language model or a picture model."""
    if isinstance(task, Pictures):
        return PICTURES
    return _kind_of_texts(str(Path(model).absolute()) if is_folder(model) else model)


@lru_cache(maxsize=64)
def _kind_of_texts(model: str) -> str:
    hf, config = models.transformers(), type(models.config(model))
    causal = config in hf.MODEL_FOR_CAUSAL_LM_MAPPING and config not in hf.MODEL_FOR_MASKED_LM_MAPPING
    return CAUSAL if causal else ENCODER

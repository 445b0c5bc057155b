"""Pairs of answers of which one is preferred, trained by direct preference optimisation (Rafailov et al. 2023, eq. 7).

The reference is the model itself with its adapter switched off, so that no second model is in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.extras.answers import chat
from tensoradapt.extras.answers.task import Answers
from tensoradapt.lab.metrics.metric import Metric, always, averaged, of_share, quotient
from tensoradapt.lab.tasks.splits import Split
from tensoradapt.lab.tasks.task import Metrics

if TYPE_CHECKING:
    from torch import Tensor, nn

BETA = 0.1  # per nat: how much a margin over the base counts
AT_ONCE = 2  # pairs that are evaluated together: logits are (rows, tokens, vocabulary)


@dataclass(frozen=True)
class Pair:
    """A prompt with the answer that is preferred, and the same prompt with the other answer."""

    chosen: chat.Answered
    rejected: chat.Answered

    def __len__(self) -> int:
        return max(len(self.chosen), len(self.rejected))


@dataclass(frozen=True)
class Preferences(Answers):
    """A task of pairs of answers; the loss is minus the log sigmoid of ``beta`` times the margin over the frozen base.

    The margin of a pair is by how many nats the adapter raises the log-likelihood of the preferred answer, less that
    of the other. Stored of each held-out pair, (n, 4): both answers' changes in log-likelihood (nats), the
    KL divergence of the model from the base summed over the tokens of the preferred answer (nats), their number.

    The texts of an example are a prompt, the chosen and the rejected answer, and perhaps a message of the system.
    Another ``beta`` is another task: ``dataclasses.replace(task, name="pairs-0.5", beta=0.5)`` in a module.
    """

    beta: float = BETA
    metrics: Metrics = field(init=False, compare=False)
    references: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", _metrics(self.beta))

    def example(self, texts: tuple[str, ...], label: int, model: str) -> Pair:
        """Encode both sides of a pair."""
        prompt, chosen, rejected, *system = texts
        return Pair(*(chat.encode(model, prompt, answer, *system) for answer in (chosen, rejected)))

    def collate(self, examples: Sequence[Pair], model: nn.Module, device: str) -> Mapping[str, Tensor]:
        """Return all preferred answers, then the others in the same order, (2 batch, longest)."""
        return chat.collate([*(pair.chosen for pair in examples), *(pair.rejected for pair in examples)], device)

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the mean of minus the log sigmoid of beta times the margins."""
        from torch.nn.functional import logsigmoid

        before = reference(model, batch)
        chosen, rejected = (chat.log_likelihood(model, batch)[0] - before).chunk(2)
        return -logsigmoid(self.beta * (chosen - rejected)).mean()

    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return both changes in log-likelihood, KL and tokens of each pair, (batch, 4); the base sees this batch."""
        import torch

        n = len(batch["input_ids"]) // 2
        parts = [torch.arange(at, min(at + AT_ONCE, n)) for at in range(0, n, AT_ONCE)]
        return torch.cat([_compared(model, chat.rows(batch, torch.cat([part, part + n]))) for part in parts])


def _metrics(beta: float) -> tuple[Metric, ...]:
    """Return the metrics: share of margins above 0 (at 0, half a pair), beta times the mean margin, loss, KL per token.

    The last is KL(model || base), exact over the vocabulary at each token of the preferred answers, in nats.
    """

    def margins(stored: np.ndarray) -> np.ndarray:
        chosen, rejected = stored[:, :2].astype(np.float64).T
        return chosen - rejected

    def kl(stored: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
        nats, tokens = stored[:, 2:].astype(np.float64).T
        return nats, tokens

    less: dict[str, Any] = {"low": 0.0, "high": math.inf, "larger_is_better": False}
    return (
        averaged(
            "reward_accuracy",
            lambda stored, split: (np.sign(margins(stored)) + 1) / 2,
            chance=always(0.5),
            noise=of_share,
        ),
        averaged("reward_margin", lambda stored, split: beta * margins(stored), -math.inf, math.inf),
        averaged("loss", lambda stored, split: np.logaddexp(0, -beta * margins(stored)), **less),
        quotient("kl_per_token", kl, **less),
    )


def base_of(model: nn.Module) -> str:
    """Return the hash of the weights that the adapters of a model adapt, and where the model is from.

    Raises TensorAdaptError for a model without an adapter, and for one that trains numbers of its base too.
    """
    from tensoradapt.surgery.registry import adapters

    records = [adapter.attachment for adapter in adapters(model).values()]
    heads = [name for record in records for name in record.heads]
    if not records or heads:
        found = f"an adapter that trains {heads[0]} of the base too" if heads else "a model without an adapter"
        raise TensorAdaptError(
            f"a preference task was given {found}; expected an adapter beside a frozen base, which is the reference: "
            "leave out full and head of references, and adapters that train norms"
        )
    where = str(getattr(getattr(model, "config", None), "_name_or_path", ""))
    return " ".join((where, *sorted({record.base for record in records})))


@contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """Let the model compute what its frozen base does in a ``with`` block, without gradients and dropout.

    Raises as ``base_of``.
    """
    import torch

    from tensoradapt.surgery.attach import disabled

    base_of(model)
    training = model.training
    try:
        with torch.no_grad(), disabled(model):
            model.eval()
            yield
    finally:
        model.train(training)


def reference(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Return each answer's log-likelihood by the frozen base, (rows,), computed once in a process for each.

    Each row is computed alone, so that no number depends on the batch it is in: a run that is resumed, or takes turns
    with others, gets the same ones as a run that is not.
    """
    import torch

    device = batch["input_ids"].device
    low = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    kept = _kept(base_of(model), str(device), str(low or next(model.parameters()).dtype))
    # one read for all, as a device is waited for at each
    ids, mask, labels = torch.stack([batch[name] for name in ("input_ids", "attention_mask", "labels")]).cpu()
    starts = (labels != chat.IGNORED).int().argmax(1).tolist()
    tokens = [row[seen == 1].tolist() for row, seen in zip(ids, mask, strict=True)]
    rows = [chat.Answered(tuple(row), start) for row, start in zip(tokens, starts, strict=True)]
    if missing := [row for row in rows if row not in kept]:
        with switched_off(model):
            likelihoods = [chat.log_likelihood(model, chat.collate([row], str(device)))[0] for row in missing]
        kept.update(zip(missing, torch.cat(likelihoods).tolist(), strict=True))
    found = torch.tensor([kept[row] for row in rows])
    return (found.pin_memory() if device.type == "cuda" else found).to(device, non_blocking=True)


@lru_cache(maxsize=4)
def _kept(base: str, device: str, precision: str) -> dict[chat.Answered, float]:
    """Return the log-likelihoods by a frozen base that this process has computed so far, a dict to add to."""
    return {}


def _compared(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Return what is stored of a few pairs, (pairs, 4); see ``predict``."""
    import torch

    logits, where = chat.answer_logits(model, batch)
    with switched_off(model):
        before = chat.answer_logits(model, batch)[0]
    now, base = logits.log_softmax(1), before.log_softmax(1)
    words = batch["labels"][:, 1:][where][:, None]
    columns = ((now - base).gather(1, words)[:, 0], (now.exp() * (now - base)).sum(1), torch.ones_like(now[:, 0]))
    change, kl, tokens = (chat.summed(column, where).chunk(2) for column in columns)
    return torch.stack([*change, kl[0], tokens[0]], 1)

"""Masked residues of antibodies: the log-likelihood that a masked language model gives to those it does not see."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import models
from tensoradapt.lab.metrics.metric import Parts, Score, quotient
from tensoradapt.lab.tasks.classification import padded
from tensoradapt.lab.tasks.splits import Split, Splits, joined
from tensoradapt.lab.tasks.task import Task
from tensoradapt_paper.protein import sequences

if TYPE_CHECKING:
    from torch import Tensor, nn

SHARE = 0.15  # the share of residues that are masked, each by [MASK]
SEED = 0  # the seed of the masks of validation and test
IGNORED = -100  # the label of a token that is not predicted, as of torch's cross entropy


@dataclass(frozen=True)
class Sequenced:
    """The token ids of a sequence, the places of its known residues, and which of these are masked in evaluation."""

    ids: Sequence[int]
    known: Sequence[int]
    hidden: Sequence[int]
    mask: int

    def __len__(self) -> int:
        return len(self.ids)


def _frequencies(score: Score, split: Split, n_labels: int) -> float:
    """The log-likelihood for each residue of the frequencies of residues in the split."""
    found = Counter("".join(text for (text,) in split.texts or ()))
    total = sum(found.values())
    return sum(n / total * math.log(n / total) for n in found.values())


def _of_masked(column: int) -> Parts:
    """The log-likelihood (nats) of the masked residues of each sequence, or those found, and the number of all."""
    return lambda stored, split: (stored[:, column].astype(np.float64), stored[:, 2].astype(np.float64))


class AntibodyMlm(Task):
    """The residues that a masked language model finds behind masks: drawn anew in each step, fixed in evaluation."""

    name = "antibody-mlm"
    metrics = (
        quotient("log_likelihood", _of_masked(0), -math.inf, 0.0, chance=_frequencies),
        quotient("accuracy", _of_masked(1)),
    )
    source = sequences.SOURCE.format(test="Jain et al. 2017 and Shehata et al. 2019 (test)")
    licence = sequences.LICENCE
    content = "Boughter et al. 2020; Jain et al. 2017; Shehata et al. 2019"

    def splits(self, n_train: int | None = None, n_test: int | None = None) -> Splits:
        """Boughter's sequences to train and validate on, Jain's and Shehata's to test on, with notes."""
        found = sequences.load()
        return found.train, found.validation, joined(found.jain, found.shehata), found.notes

    def model(self, name: str) -> nn.Module:
        """Load the masked language model."""
        return models.from_pretrained(models.transformers().AutoModelForMaskedLM, name)

    def encode(self, split: Split, model: str, max_length: int) -> list[Sequenced]:
        """The token ids of each sequence, whole, and its masks; raises TensorAdaptError for one that is too long."""
        mask, unknown = _special(model)
        rows = sequences.encode(split, model, max_length)
        made = []
        for ids, (text,) in zip(rows, split.texts or (), strict=True):
            known = [place for place in range(1, len(ids) - 1) if ids[place] != unknown]
            made.append(Sequenced(ids, known, _hidden(text, known), mask))
        return made

    def collate(self, examples: Sequence[Sequenced], model: nn.Module, device: str) -> Mapping[str, Tensor]:
        """Padded ids, their mask, and which are known and which hidden in evaluation, all (batch, longest)."""
        import torch

        pad = getattr(getattr(model, "config", None), "pad_token_id", None) or 0
        batch = padded([row.ids for row in examples], device, pad)
        shape = tuple(batch["input_ids"].shape)
        known = _places(shape, [row.known for row in examples]).to(device)
        hidden = _places(shape, [row.hidden for row in examples]).to(device)
        return {**batch, "known": known, "hidden": hidden, "mask": torch.tensor(examples[0].mask, device=device)}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """The mean cross entropy (nats) of known residues that are masked at random, by torch's generator."""
        import torch

        drawn = (torch.rand(batch["known"].shape, device=batch["known"].device) < SHARE) & batch["known"]
        hidden = drawn if drawn.any() else batch["known"]
        nats, _ = _predicted(model, batch, hidden)
        return nats.sum() / hidden.sum()

    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the log-likelihood (nats, summed) of each sequence's masked residues, those found, all; (batch, 3)."""
        import torch

        nats, right = _predicted(model, batch, batch["hidden"])
        return torch.stack([-nats.sum(1), right.sum(1), batch["hidden"].sum(1)], 1)


def _hidden(text: str, known: Sequence[int]) -> list[int]:
    """The places that evaluation masks: a function of the sequence, so the same in any part of a split."""
    if not known:
        return []
    digest = hashlib.sha256(f"{SEED} {text}".encode()).digest()[:8]
    drawn = np.random.default_rng(int.from_bytes(digest)).permutation(known)
    return sorted(drawn[: max(1, round(SHARE * len(known)))].tolist())


def _places(shape: tuple[int, ...], rows: Sequence[Sequence[int]]) -> Tensor:
    import torch

    made = torch.zeros(shape, dtype=torch.bool)
    for row, places in enumerate(rows):
        made[row, list(places)] = True
    return made


def _predicted(model: nn.Module, batch: Mapping[str, Tensor], hidden: Tensor) -> tuple[Tensor, Tensor]:
    """The cross entropy of each hidden token, 0 of others, and whether it is the likeliest, both (batch, longest)."""
    import torch

    ids = batch["input_ids"]
    seen = torch.where(hidden, batch["mask"], ids)
    logits = model(input_ids=seen, attention_mask=batch["attention_mask"]).logits.float()
    labels = ids.masked_fill(~hidden, IGNORED)
    nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return nats, (logits.argmax(-1) == ids) & hidden


@lru_cache(maxsize=2)
def _special(name: str) -> tuple[int, int | None]:
    """The tokens for what is masked and for what is unknown. Raises TensorAdaptError where nothing can be masked."""
    found: Any = models.from_pretrained(models.transformers().AutoTokenizer, name)
    if found.mask_token_id is None:
        raise TensorAdaptError(
            f"the tokenizer of {name} has no token that masks; expected a masked language model of proteins, such as "
            "antiberty"
        )
    return int(found.mask_token_id), found.unk_token_id


ANTIBODY_MLM = AntibodyMlm()

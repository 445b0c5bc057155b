"""Texts, or rows of tokens, that are given a class or a number by a head on the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from tensoradapt.lab.data import models
from tensoradapt.lab.tasks.readout import READOUTS
from tensoradapt.lab.tasks.splits import Split, Splits
from tensoradapt.lab.tasks.task import Metrics, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

HEADS = ("classifier", "score")
Load = Callable[[int | None, int | None], Splits]


@dataclass(frozen=True)
class Row:
    """The token ids of an example, and its label."""

    ids: Sequence[int]
    label: float

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Classification(Task):
    """A task that gives each example a class, by transformers' classifier of the model.

    ``pair``: whether an example is two texts. ``load_splits``: what ``splits`` returns, of the same two numbers.
    ``classes``: names of the classes in the order of their labels, which the model's config keeps.
    """

    name: str
    n_labels: int = 2
    metrics: Metrics = ("accuracy",)
    pair: bool = False
    source: str = ""
    licence: str = ""
    load_splits: Load | None = field(default=None, repr=False)
    content: str = ""
    classes: tuple[str, ...] = ()
    kind: ClassVar[str] = "classification"
    readouts: ClassVar[tuple[str, ...]] = READOUTS

    def splits(self, n_train: int | None = None, n_test: int | None = None) -> Splits:
        """Return train, validation and test with notes."""
        assert self.load_splits is not None
        return self.load_splits(n_train, n_test)

    def base(self, name: str) -> Any:
        """Return the config of the model; raises TensorAdaptError for one that classifies no texts."""
        models.check_classifies(name, "texts")
        return models.config(name)

    def model(self, name: str) -> nn.Module:
        """Load the classifier; its head is drawn from torch's generator."""
        return models.load(name, self)

    def heads(self, model: nn.Module) -> tuple[str, ...]:
        """Return the names of the classifier's head."""
        return head_of(model)

    def encode(self, split: Split, model: str, max_length: int) -> list[Row]:
        """Return the token ids of each example, with its label."""
        rows = models.encoder(model)(split.texts or (), max_length) if split.tokens is None else split.tokens.tolist()
        return [Row(ids, label) for ids, label in zip(rows, split.labels.tolist(), strict=True)]

    def collate(self, examples: Sequence[Row], model: nn.Module, device: str) -> Mapping[str, Tensor]:
        """Pad ids with the model's own token, by which causal models find a text's end, and add mask and labels."""
        import torch

        kind = torch.float32 if self.kind == "regression" else torch.int64
        labels = torch.tensor([row.label for row in examples], dtype=torch.float64).to(kind)
        pad = getattr(getattr(model, "config", None), "pad_token_id", None) or 0
        return {**padded([row.ids for row in examples], device, pad), "labels": labels.to(device)}

    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits, (batch, n_labels)."""
        return model(**{key: value for key, value in batch.items() if key != "labels"}).logits


@dataclass(frozen=True)
class Regression(Classification):
    """A task that gives each example a number, by the same classifier with one output and the mean squared error."""

    n_labels: int = 1
    metrics: Metrics = ("spearman", "pearson")
    kind: ClassVar[str] = "regression"


def head_of(model: Any) -> tuple[str, ...]:
    """Return the names of the head of a transformers classifier."""
    return tuple(name for name, _ in model.named_children() if name in HEADS)


def padded(rows: Sequence[Sequence[int]], device: str, pad: int = 0) -> dict[str, Tensor]:
    """Return ids filled up with ``pad`` to the longest row, and their mask, (batch, longest)."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}

"""What a run asks of its task: its data, model, batches, loss, predictions and metrics. The run loop knows no more."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from tensoradapt.lab.data import models
from tensoradapt.lab.metrics.library import resolve
from tensoradapt.lab.metrics.metric import Metric
from tensoradapt.lab.tasks.splits import DataSpec, Split, Splits, at_most, disjoint
from tensoradapt.text import displayed

if TYPE_CHECKING:
    from torch import Tensor, nn

Metrics = str | Metric | tuple[str | Metric, ...]
SAME = 0  # the seed of validation and test examples, whatever that of the run
EVERYTHING = DataSpec()


@dataclass(frozen=True, eq=False)
class Data:
    """Three disjoint splits; `chance` is the task's metric for the best constant answer on `test`."""

    task: Task
    train: Split
    validation: Split
    test: Split
    chance: float
    notes: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        return displayed(self)

    @property
    def parts(self) -> tuple[Split, Split, Split]:
        """Train, validation and test."""
        return self.train, self.validation, self.test


class Measure(Protocol):
    """A quantity of a model. By how much a run's training raises it is a column of results, under the measure's name.

    Both calls raise TensorAdaptError, with what is missing, where the quantity cannot be measured.
    """

    def prepare(self) -> None:
        """Fetch what models are measured with, as a sweep starts."""

    def __call__(self, model: nn.Module, name: str, device: str) -> float:
        """Return the quantity of a model on a device, whose base has this name."""


class Task(ABC):
    """A task of runs. Subclasses give ``splits``, ``model``, ``encode``, ``collate``, ``predict`` and ``metrics``.

    An encoded example is any object with a length, by which batches of similar ones are made: a sequence of tokens, a
    prompt with its answer, a pair of answers. A subclass imports torch in its methods alone, as sweeps are planned
    without it. An example of a task of one's own: docs/start/your-data.md; what is wrong raises TensorAdaptError.

    Attributes:
        name: what specifications and results call it.
        metrics: the metrics of its predictions, each a name ("f1", a scorer of scikit-learn, "my_metrics:cost") or a
            ``Metric``. The first is the one that is reported, of which more is better; a single one needs no tuple.
        n_labels: the number of classes among which a constant answer may choose; 1 for labels that are numbers.
        source, licence: where the data comes from, and its licence, in a line each.
        content: a text that identifies the data of a task that a plug-in or a module holds, such as its name and
            version: it becomes part of a run's id. Without one, planning loads the data and hashes it.
        by_length: whether ``load`` leaves out examples that are too long, which the plan of a sweep then counts.
        references: the kinds of runs without an adapter that it allows.
        readouts: what its heads may read, as of the field ``readout`` of a run.

    >>> import tensoradapt as ta
    >>> data = ta.load_task("planted", n_train=100)
    >>> isinstance(data.task, ta.Task), data.task.n_labels, data.task.metric.name
    (True, 2, 'accuracy')
    """

    name: str
    metrics: Metrics
    n_labels: int = 1
    source: str = ""
    licence: str = ""
    content: str = ""
    by_length: ClassVar[bool] = False
    references: ClassVar[tuple[str, ...]] = ("head", "full", "bitfit")
    readouts: ClassVar[tuple[str, ...]] = ("model",)

    def _repr_html_(self) -> str:
        return displayed(self)

    @abstractmethod
    def splits(self, n_train: int | None = None, n_test: int | None = None) -> Splits:
        """Return train, validation and test with notes; the numbers are for tasks that draw their examples."""

    def base(self, name: str) -> Any:
        """Return what adapters of a named model are planned for: its config, or its modules without weights.

        Raises TensorAdaptError for a model that the task cannot use.
        """
        return models.config(name)

    def described(self, name: str) -> str:
        """Say what is done to examples for a named model, where the plan of a sweep should say so; else return ""."""
        return ""

    @abstractmethod
    def model(self, name: str) -> nn.Module:
        """Load a named model for the task; its new weights are drawn from torch's generator."""

    def processor(self, name: str) -> Any:
        """Return the tokenizer of a named model, None for "tiny-random-bert"; a task of pictures its image processor.

        It is what pipelines of transformers need beside a saved model.
        """
        return models.tokenizer(name)

    def heads(self, model: nn.Module) -> tuple[str, ...]:
        """Return the names of the modules of a model that are trained whole, beside its adapter."""
        return ()

    @abstractmethod
    def encode(self, split: Split, model: str, max_length: int) -> Sequence[Sized]:
        """Return the examples of a split, encoded for a named model and cut to a number of tokens."""

    @abstractmethod
    def collate(self, examples: Sequence[Any], model: nn.Module, device: str) -> Mapping[str, Tensor]:
        """Return one batch of encoded examples, on a device; runs ask for the CPU and move it, while a GPU computes."""

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss that is trained on, one number; here the model's own."""
        return model(**batch).loss

    @abstractmethod
    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return what is stored of each example of a batch, (batch, ...): logits, likelihoods of options, a loss."""

    @property
    def measures(self) -> Mapping[str, Measure]:
        """What runs measure of its models besides their score, by name; each name becomes a column of results."""
        return {}

    @property
    def all_metrics(self) -> tuple[Metric, ...]:
        """The records of ``metrics``, the reported one first; raises TensorAdaptError for an unknown name."""
        given = (self.metrics,) if isinstance(self.metrics, str | Metric) else self.metrics
        return tuple(map(resolve, given))

    @property
    def metric(self) -> Metric:
        """The metric that is reported."""
        return self.all_metrics[0]

    def evaluate(self, predictions: np.ndarray, split: Split) -> dict[str, float]:
        """Return the metrics by name of the predictions for a split, (len(split), ...).

        Of those beside the reported one, what has no value there (nan) is left out.
        """
        found = {metric.name: metric.score(predictions, split) for metric in self.all_metrics}
        return {name: value for i, (name, value) in enumerate(found.items()) if i == 0 or not math.isnan(value)}

    def chance(self, split: Split, model: str | None = None) -> float:
        """Return the reported metric of a model that has learned nothing; here as the metric says, for every model."""
        return self.metric.chance(self.metric.score, split, self.n_labels)

    def load(self, model: str | None = None, data: DataSpec = EVERYTHING, seed: int = 0) -> Data:
        """Return three disjoint splits, each of at most the numbers of examples that are asked for.

        Training examples are drawn with ``seed``; validation and test are the same for every seed. ``model``: that of
        the run, which some tasks need for labels, lengths or chance. Raises TensorAdaptError for data that cannot be
        loaded.
        """
        train, validation, test, notes = self.splits(data.n_train, data.n_test)
        train, validation, removed = disjoint(train, validation, test)
        train = at_most(train, data.n_train, seed)
        validation = at_most(validation, data.n_validation, SAME)
        test = at_most(test, data.n_test, SAME)
        return Data(self, train, validation, test, self.chance(test, model), (*notes, *removed))

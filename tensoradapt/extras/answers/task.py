"""What all tasks with answers to prompts share: causal models with a chat template, and examples that fit whole."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tensoradapt import doors
from tensoradapt.errors import TensorAdaptError
from tensoradapt.extras.answers import chat
from tensoradapt.lab.data import models
from tensoradapt.lab.tasks.splits import DataSpec, Split, Splits, joined, take
from tensoradapt.lab.tasks.task import EVERYTHING, SAME, Data, Measure, Task

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Answers(Task):
    """A task of prompts with answers, in the model's own chat template; ``load_splits`` gives the texts of each split.

    ``max_length`` of a run is the number of tokens that an example may have: longer ones are left out and counted.
    """

    name: str
    load_splits: Callable[[], Splits]
    source: str = ""
    licence: str = ""
    content: str = ""
    by_length: ClassVar[bool] = True

    def splits(self, n_train: int | None = None, n_test: int | None = None) -> Splits:
        """Return all prompts with their answers, of any length."""
        return self.load_splits()

    @property
    def measures(self) -> Mapping[str, Measure]:
        """What extras measure of models that write text."""
        return doors.table("measures")

    @abstractmethod
    def example(self, texts: tuple[str, ...], label: int, model: str) -> Sized:
        """Encode the texts of an example for a named model; its length is that of its longest chat."""

    def parts_of(self, test: Split) -> Mapping[str, Split]:
        """Return the parts of a test split, which share its number of examples equally, by their names in notes."""
        return {"test": test}

    def base(self, name: str) -> Any:
        """Return the config of the model; raises TensorAdaptError where it writes no text or has no chat template."""
        settings = models.config(name)
        if type(settings) not in models.transformers().MODEL_FOR_CAUSAL_LM_MAPPING:
            raise TensorAdaptError(
                f"{name} is a {settings.model_type} model, of which transformers has none that writes text; expected "
                "an instruction-tuned language model, such as HuggingFaceTB/SmolLM2-135M-Instruct"
            )
        chat.tokenizer(name)
        return settings

    def model(self, name: str) -> nn.Module:
        """Load the causal language model, in fp32."""
        self.base(name)
        loaded: nn.Module = models.load_causal(name)[0]
        return loaded

    def load(self, model: str | None = None, data: DataSpec = EVERYTHING, seed: int = 0) -> Data:
        """Return the examples that a length of tokens holds whole, all without a model; notes count the others.

        ``n_test`` is shared equally by the parts of the test split. Raises TensorAdaptError where none fits.
        """
        if model is None:
            return super().load(None, data, seed)
        train, validation, test, notes = self.splits()
        parts = self.parts_of(test)
        share = data.n_test and max(1, data.n_test // len(parts))
        wanted = [("train", train, data.n_train, seed), ("validation", validation, data.n_validation, SAME)]
        wanted += [(name, part, share, SAME) for name, part in parts.items()]
        found = [self._fitting(*part, model, data.max_length) for part in wanted]
        said = tuple(note for _, note in found if note)
        held_out, *asked = (split for split, _ in found[2:])
        for part in asked:
            held_out = joined(held_out, part)
        return Data(self, found[0][0], found[1][0], held_out, self.chance(held_out, model), (*notes, *said))

    def _fitting(
        self, what: str, split: Split, n: int | None, seed: int, model: str, max_length: int
    ) -> tuple[Split, str]:
        """Return the first ``n`` examples in drawn order that fit (None: all, in file order), and a note on others."""
        order = range(len(split)) if n is None else np.random.default_rng(seed).permutation(len(split)).tolist()
        rows, over = [], []
        for row in order:
            length = len(self._example(split, row, model))
            if length > max_length:
                over.append(length)
            else:
                rows.append(row)
            if len(rows) == n:
                break
        if not rows:
            raise TensorAdaptError(
                f"task {self.name!r}: none of {len(over):,} {what} examples has at most {max_length} tokens with "
                f"{model}'s template; expected some: the shortest has {min(over, default=0)}, raise max_length"
            )
        looked = len(over) + len(rows)
        note = f"{len(over):,} of {looked:,} {what} examples have more than {max_length} tokens and are left out"
        return take(split, np.array(rows)), note if over else ""

    def encode(self, split: Split, model: str, max_length: int) -> Sequence[Any]:
        """Encode each example; raises TensorAdaptError for one of more tokens, as ``load`` leaves them out."""
        found = [self._example(split, row, model) for row in range(len(split))]
        for one, name in zip(found, split.ids, strict=True):
            if len(one) > max_length:
                raise TensorAdaptError(
                    f"{name} has {len(one)} tokens; expected at most {max_length}, as a prompt without the end of its "
                    "answer teaches another one: raise max_length, or give load the model and a DataSpec"
                )
        return found

    def _example(self, split: Split, row: int, model: str) -> Sized:
        assert split.texts is not None
        return self.example(split.texts[row], int(split.labels[row]), model)

"""Callbacks of Hugging Face's Trainer: SaveAdapter saves the adapter, EqualSteps rescales the optimizer's steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tensoradapt.adapter.sharding import is_sharded
from tensoradapt.surgery.registry import attached, required
from tensoradapt.surgery.use import trained_by
from tensoradapt.training.equal_steps import equal_steps

__all__ = ["EqualSteps", "SaveAdapter"]
FOLDER = "adapter"
LEFT_OUT = "_keys_to_ignore_on_save"  # names that transformers does not save, nor miss when it resumes


class SaveAdapter(TrainerCallback):
    """Save the attached adapter into ``checkpoint-<step>/adapter`` of every checkpoint, for ``load`` and ``restore``.

    Pass it to ``Trainer(callbacks=[...])``. The first process writes; with sharded parameters all take part. It does
    not serve a search over hyperparameters, which saves into folders of its own (docs/guides/trainers.md).

    Args:
        trained_only: leave the frozen base, which does not change, out of the Trainer's ``model.safetensors``, which
            then has all adapters; training resumes from it as usual. Without its adapters (``detach``,
            ``merge_and_unload``) the model is saved whole.

    Raises:
        TensorAdaptError: when the Trainer is made, for a model without an adapter.

    >>> from transformers import BertConfig, BertForSequenceClassification, Trainer
    >>> import tensoradapt as ta
    >>> sizes = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3}
    >>> model = BertForSequenceClassification(BertConfig(vocab_size=30, **sizes))
    >>> adapter = ta.attach(model, ta.plan(model, "layer proj : head dim : model", "cp", 4, train="classifier"))
    >>> from tensoradapt.integrations.trainer import SaveAdapter
    >>> trainer = Trainer(model, callbacks=[SaveAdapter()])  # trainer.train() saves it, with its trained head
    """

    def __init__(self, trained_only: bool = True) -> None:
        self.trained_only = trained_only

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Check the model, before anything is trained or resumed."""
        model: nn.Module = kwargs["model"]
        attached(model)
        if self.trained_only and hasattr(model, LEFT_OUT):
            registry, named = required(model), model.named_parameters(remove_duplicate=False)
            registry.changed.append((model, LEFT_OUT, getattr(model, LEFT_OUT)))  # until the adapters are gone
            theirs = {id(p) for adapter in registry.named().values() for p in trained_by(adapter)}  # ``use`` may choose
            setattr(model, LEFT_OUT, {name for name, p in named if not (p.requires_grad or id(p) in theirs)})

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save the adapter into the checkpoint's folder."""
        adapter = attached(kwargs["model"])
        if state.is_world_process_zero or is_sharded(adapter):
            adapter.save(Path(args.output_dir) / f"checkpoint-{state.global_step}" / FOLDER)  # type: ignore[arg-type]


class EqualSteps(TrainerCallback):
    """Train with ``tensoradapt.equal_steps`` of the Trainer's own optimizer; for TRL's trainers too.

    Pass it to ``Trainer(callbacks=[...])``; the Trainer's learning rate, schedule and clipping stay as they are
    (docs/concepts/equal-steps.md).

    Raises:
        TensorAdaptError: when training begins, for what ``equal_steps`` refuses.

    >>> from transformers import BertConfig, BertForSequenceClassification, Trainer
    >>> import tensoradapt as ta
    >>> sizes = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3}
    >>> model = BertForSequenceClassification(BertConfig(vocab_size=30, **sizes))
    >>> adapter = ta.attach(model, ta.plan(model, "layer proj : head dim : model", "cp", 4, train="classifier"))
    >>> from tensoradapt.integrations.trainer import EqualSteps
    >>> trainer = Trainer(model, callbacks=[EqualSteps()])
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Wrap the optimizer, unless an earlier call of ``train`` did."""
        optimizer = kwargs["optimizer"]  # accelerate's, around torch's
        inner = getattr(optimizer, "optimizer", optimizer)
        if not hasattr(inner, "equal_steps"):
            equal_steps(inner, kwargs["model"])

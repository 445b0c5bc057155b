"""A TensorLinear is a linear layer with the updates of the adapters that target it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.chosen_updates import Samples
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.layers.stored_matrix import StoredMatrix
from tensoradapt.layers.weight_change import change
from tensoradapt.layers.wrapper import Update, Wrapped
from tensoradapt.sites.site import RowBlock, Site, row_blocks
from tensoradapt.surgery.merge import Snapshot, check_mergeable, merge_layer, renew
from tensoradapt.surgery.transaction import transaction

BASE = "__base__"  # PEFT's name for no adapter


class TensorLinear(nn.Module, BaseTunerLayer):
    """A layer that computes ``base_layer(x)`` plus the updates of the active adapters.

    The adapters, and the wrapper that computes their updates, are plain attributes here: adapters are registered (and
    saved, moved, counted) at the tuner's root alone.
    """

    adapter_layer_names = ("tensoradapt_bank",)
    other_param_names = ("tensoradapt_sites",)
    tensoradapt_bank: nn.ModuleDict  # the adapters that target this layer, by name
    wrapped: Wrapped

    def __init__(self, base_layer: nn.Module, matrix: StoredMatrix) -> None:
        super().__init__()
        self.base_layer, self.matrix = base_layer, matrix
        self.out_features, self.in_features = matrix.shape
        self.__dict__["tensoradapt_bank"] = nn.ModuleDict()
        self.__dict__["wrapped"] = Wrapped(base_layer, matrix)
        self.tensoradapt_sites: dict[str, tuple[RowBlock, ...]] = {}
        self.merged_adapters: list[str] = []
        self._original: Snapshot | None = None  # the weight and bias as they were, while merged
        self.train(base_layer.training)

    def add(self, name: str, adapter: Adapter, sites: Sequence[Site]) -> None:
        """Add an adapter, which stays registered at the root."""
        self.tensoradapt_bank[name] = adapter
        self.tensoradapt_sites[name] = row_blocks(sites)

    def train(self, mode: bool = True) -> TensorLinear:
        """Set the mode of the wrapper too, which is not a child."""
        self.wrapped.training = mode
        return super().train(mode)

    def forward(self, x: Tensor, *args: Any, adapter_names: list[str] | None = None, **kwargs: Any) -> Tensor:
        """Compute the layer; ``adapter_names`` has an adapter for each sample, instead of the active ones."""
        if self.disable_adapters and self.merged:
            self.unmerge()
        plain = adapter_names is None and not self.disable_adapters and not self.merged
        live = [self._update(name) for name in self.active_adapters if name in self.tensoradapt_sites] if plain else []
        if live and not args and not kwargs and (fused := self.wrapped.fused(live, x)) is not None:
            return fused
        base = y = self.base_layer(x, *args, **kwargs)
        if adapter_names is not None:
            return self._mixed(x, y, adapter_names)
        for update in live:
            y = self.wrapped.updated(y, base, *update, x)
        return y.to(base.dtype)

    def _mixed(self, x: Tensor, y: Tensor, names: list[str]) -> Tensor:
        if len(names) != len(x):
            raise TensorAdaptError(f"adapter_names has {len(names)} names and the batch {len(x)}; give each sample one")
        if self.merged:
            raise TensorAdaptError("adapter_names were given and adapters are merged; call unmerge_adapter() first")
        samples = Samples(names)
        ys, xs = samples.split(y), samples.split(x)
        for name, i in samples.number.items():
            if name in self.tensoradapt_sites:
                ys[i] = self.wrapped.updated(ys[i], ys[i], *self._update(name), xs[i]).to(y.dtype)
        return samples.join(ys)

    @torch.no_grad()
    def get_delta_weight(self, adapter: str) -> Tensor:  # as the weight is stored
        """Return one adapter's change of the weight, in fp32 or wider; PEFT's conversion to LoRA reads it too."""
        merged = Snapshot.of(self.wrapped)
        try:
            if self._original:
                self._original.restore()
            delta = change(*self._update(adapter), self.matrix.wide())
        finally:
            merged.restore()
        shape = delta.shape if self.matrix.quantisation else self.matrix.weight.shape
        return self.matrix.kind.stored(delta, shape).contiguous()

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add updates to the weight, summed in fp32 or wider and rounded once; ``unmerge`` puts the original back.

        Raises TensorAdaptError, with this layer unchanged, for weights that cannot be read or made anew and a shared
        bias without a place; and with ``safe_merge`` for a sum that is not finite.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.tensoradapt_sites]
        if not names:
            return
        layer, updates = self.wrapped, [self._update(name) for name in (*self.merged_adapters, *names)]
        check_mergeable(layer, updates)
        before = Snapshot.of(layer)
        with transaction(self) as undone:
            undone.undo += [before.restore] if before.codes else []
            if self._original:
                self._original.restore()
            renew(layer, updates)
            merge_layer(layer, updates, self._check_finite if safe_merge else lambda *_: None)
            self._original = self._original or before
            self.merged_adapters.extend(names)

    def _check_finite(self, adapter: Adapter, total: Tensor) -> None:
        if not torch.isfinite(total).all():
            name = next(name for name, other in self.tensoradapt_bank.items() if other is adapter)
            raise TensorAdaptError(
                f"NaNs detected in the merged weights. The adapter {name} seems to be broken; nothing was merged into "
                f"{self.matrix.site.module}. Load a good checkpoint first"
            )

    def unmerge(self) -> None:
        """Put the weight back as it was before ``merge``, bit for bit."""
        if self._original is None:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        with transaction(self) as undone:
            undone.undo += [Snapshot.of(self.wrapped).restore] if self._original.codes else []
            self._original.restore()
            self._original = None
            self.merged_adapters.clear()

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Return True, because every adapter adds to the weight."""
        return True

    def _update(self, name: str) -> Update:
        return self.tensoradapt_bank[name], self.tensoradapt_sites[name]  # type: ignore[return-value]

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Do nothing: the root puts an adapter beside the first layer that it adapts."""

    def extra_repr(self) -> str:
        return ", ".join(f"{name}: {len(blocks)} sites" for name, blocks in self.tensoradapt_sites.items())


@contextmanager
def mixed(tuner: nn.Module, names: Sequence[str], known: Sequence[str], beams: int = 1) -> Iterator[None]:
    """Give every adapted layer, inside this context, an adapter for each sample, repeated for each of its beams.

    This is what PEFT's argument ``adapter_names`` asks for. Raises TensorAdaptError in training mode, and for names
    that are not in ``known``.
    """
    if tuner.training:
        raise TensorAdaptError(
            "adapter_names were given in training mode; they are for inference: call model.eval() first"
        )
    for name in names:
        if name != BASE and name not in known:
            raise TensorAdaptError(
                f"adapter_names has {name!r}, which the model does not have{did_you_mean(name, [*known, BASE])}"
            )
    if beams > 1 and getattr(getattr(tuner, "config", None), "is_encoder_decoder", False):
        raise TensorAdaptError("adapter_names with beam search are for decoders; use num_beams=1 with this model")
    hook = partial(_with_names, [name for name in names for _ in range(beams)])
    with ExitStack() as hooks:
        for module in tuner.modules():
            if isinstance(module, TensorLinear | AuxiliaryTrainingWrapper):
                hooks.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _with_names(names: list[str], module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, {**kwargs, "adapter_names": names}

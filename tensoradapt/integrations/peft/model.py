"""TensorModel is the tuner that PEFT makes around a base model; it registers each adapter once, for all its layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _maybe_include_all_linear_layers
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.attachment import Attachment
from tensoradapt.errors import TensorAdaptError
from tensoradapt.integrations.peft.config import NAME, TensorConfig
from tensoradapt.integrations.peft.layer import TensorLinear, mixed
from tensoradapt.integrations.peft.targets import default_targets, planned
from tensoradapt.layers.stored_matrix import Matrices
from tensoradapt.planning.plan import Plan
from tensoradapt.planning.resolve import resolve
from tensoradapt.planning.trained_modules import trained_modules
from tensoradapt.surgery.attach import set_magnitudes
from tensoradapt.surgery.factors_from_model import factors_from_weights
from tensoradapt.surgery.fast_paths import switch_off_fast_paths
from tensoradapt.surgery.transaction import transaction

BANK = f"{NAME}_bank."  # part of a parameter's name; the adapter's name and the parameter's own name follow it
NOISE = 0.05  # the standard deviation of the noise that init_weights=False adds to each factor


class BankedAdapter(Adapter):
    """An adapter whose solved multipliers are saved with its numbers: solving them again may round differently."""

    def get_extra_state(self) -> Tensor:  # (tensors,)
        """Return the multipliers of the tensors, in double precision."""
        return torch.tensor([tensor.scale for tensor in self.factored], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over saved multipliers."""
        if state.shape != (len(self.factored),):
            raise TensorAdaptError(
                f"the saved adapter has the multipliers of {state.numel()} tensors, and this model and config make "
                f"{len(self.factored)}; load it on the model it was trained on, with its own config"
            )
        for tensor, scale in zip(self.factored, state.tolist(), strict=True):
            tensor.scale = scale

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, metadata: Any, *args: Any) -> None:
        if metadata.get("assign_to_params_buffers"):  # a file's memory is not aligned, and products round differently
            state_dict.update({k: v.clone() for k, v in state_dict.items() if k.startswith(prefix)})
        super()._load_from_state_dict(state_dict, prefix, metadata, *args)

    @property
    def is_empty(self) -> bool:
        """Whether the adapter's numbers are yet to be loaded; to save memory PEFT makes them on the meta device."""
        return any(parameter.is_meta for parameter in self.parameters())

    def move(self, device: torch.device) -> None:
        """Move the adapter to a device, unless its numbers are yet to be loaded."""
        if device.type != "meta" and not self.is_empty:
            self.to(device)


class TensorModel(BaseTuner):
    """The base model with its targeted layers replaced, as ``peft.get_peft_model`` makes it (docs/guides/peft.md).

    ``tensoradapt_bank`` holds the adapters by name, each with its ``plan``. Raises TensorAdaptError for what ``plan``
    refuses, with the model unchanged.

    Args:
        model: the base model.
        peft_config: a TensorConfig, or one for each adapter.
        adapter_name, low_cpu_mem_usage, state_dict: as PEFT passes them.

    >>> import peft
    >>> from tensoradapt.integrations.peft import TensorConfig
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> tuned = peft.get_peft_model(model, TensorConfig(method="cp", rank=2))
    >>> type(tuned.base_model).__name__, tuned.base_model.tensoradapt_bank["default"].n_params
    ('TensorModel', 50)
    """

    uses_shared_state = True  # makes PEFT refuse to inject it without this root
    prefix = f"{NAME}_"
    tuner_layer_cls = TensorLinear
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012  # PEFT reads it; recipes replace it

    def _pre_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        self.tensoradapt_bank = nn.ModuleDict()
        self._matrices: dict[str, Matrices] = {}  # by adapter

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Make an adapter and wrap its layers; an error leaves the model as it was."""
        flags = {parameter: parameter.requires_grad for parameter in self.tensoradapt_bank.parameters()}
        with transaction(self, model):
            super().inject_adapter(model, adapter_name, *args, **kwargs)
            for parameter, flag in flags.items():  # PEFT restores only those of the base model
                parameter.requires_grad_(flag)
            switch_off_fast_paths(self.model, TensorLinear)

    def merge_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Merge in all layers, or in none: PEFT's own method goes through the layers one by one."""
        with transaction(self):
            super().merge_adapter(*args, **kwargs)

    def unmerge_adapter(self) -> None:
        """Unmerge all layers, or none."""
        with transaction(self):
            super().unmerge_adapter()

    def _unload_and_optionally_merge(self, *args: Any, **kwargs: Any) -> Any:
        with transaction(self):
            return super()._unload_and_optionally_merge(*args, **kwargs)

    def _prepare_adapter_config(self, peft_config: Any, model_config: Any) -> Any:
        if peft_config.target_modules is None:
            peft_config.target_modules = default_targets(self.model, peft_config)
        return peft_config

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        """Make the adapter, with every check, before any layer is replaced."""
        named = [name for name, config in self.peft_config.items() if config is peft_config]  # several may share one
        name = next(name for name in named if name not in self.tensoradapt_bank)
        _add_trained(model, peft_config)
        targets = self._targets(model, _maybe_include_all_linear_layers(peft_config, model))
        if not targets:
            return  # PEFT raises, and says why nothing matches
        plan, self._matrices[name] = planned(model, targets, peft_config)
        self.tensoradapt_bank[name] = _banked(plan, self._matrices[name], peft_config)
        _check_clash(self.peft_config, self.tensoradapt_bank)

    def _targets(self, model: nn.Module, config: Any) -> dict[str, nn.Module]:
        """Return the modules that PEFT will match; for modules that other adapters wrap, the base layers."""
        wrappers = tuple(f"{name}." for name, m in model.named_modules() if isinstance(m, BaseTunerLayer))
        return {
            name: module.get_base_layer() if isinstance(module, TensorLinear) else module
            for name, module in model.named_modules()
            if name and not name.startswith(wrappers) and self._check_target_module_exists(config, name)
        }

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        adapter = self._adapter(adapter_name)
        sites = [site for site in adapter.plan.sites if site.module == current_key]
        matrix = self._matrices[adapter_name][sites[0].name]
        layer = target if isinstance(target, TensorLinear) else TensorLinear(target, matrix)
        layer.add(adapter_name, adapter, sites)
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)

    def delete_adapter(self, adapter_name: str) -> None:
        """Take an adapter out of every layer and out of the bank."""
        super().delete_adapter(adapter_name)
        del self.tensoradapt_bank[adapter_name], self._matrices[adapter_name]

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        _cast(self._adapter(adapter_name), self._weight(adapter_name).dtype, up=autocast_adapter_dtype)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Move an adapter beside its layers; PEFT asks for it once numbers that were on the meta device are loaded."""
        self._adapter(adapter_name).move(device or self._weight(adapter_name).device)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, adapter_names: Any = None, **kwargs: Any) -> Iterator[None]:
        """Begin a pass, in which pairs are contracted once; PEFT enters this context for each forward and generate.

        Without it PEFT would silently drop ``adapter_names``.
        """
        adapters = [] if torch.compiler.is_compiling() else [self._adapter(name) for name in self.tensoradapt_bank]
        beams, known = kwargs.get("num_beams") or 1, list(self.peft_config)
        for adapter in adapters:
            adapter.begin_pass()
        try:
            with mixed(self, adapter_names, known, beams) if adapter_names is not None else nullcontext():
                yield
        finally:
            for adapter in adapters:
                adapter.forward_pass.end()

    def _adapter(self, name: str) -> BankedAdapter:
        return self.tensoradapt_bank[name]  # type: ignore[return-value]

    def _weight(self, name: str) -> Tensor:
        """Return the first weight that an adapter adapts; the adapter lives beside it."""
        return next(iter(self._matrices[name].values())).weight

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        """Remove the name where it stands here, after the bank; PEFT looks for it at the end of a key."""
        head, bank, tail = key.partition(f"{BANK}{adapter_name}.")
        return f"{head}{BANK}{tail}" if bank else super()._remove_adapter_name_from_key(key, adapter_name)


def _banked(plan: Plan, matrices: Matrices, config: TensorConfig) -> BankedAdapter:
    """Make the adapter of a plan, beside its first weight; nothing in the model changes."""
    values = factors_from_weights(matrices, plan, config.seed) if plan.needs_weights else None
    adapter = BankedAdapter(plan, config.seed, values)
    adapter.attachment = Attachment()
    adapter.move(matrices[plan.sites[0].name].weight.device)
    if not adapter.is_empty:
        set_magnitudes(adapter, matrices)
    if not config.init_weights:
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=NOISE)
    return adapter


def _cast(adapter: Adapter, base: torch.dtype, up: bool) -> None:
    """Follow PEFT's rule: with ``up`` factors have at least fp32's precision, else that of the base weights."""
    if not up:
        adapter.to(base if base.is_floating_point and base.itemsize > 1 else torch.float32)
    elif any(parameter.dtype.itemsize < 4 for parameter in adapter.parameters()):
        adapter.float()


def _check_clash(names: Iterable[str], bank: nn.Module) -> None:
    """Raise TensorAdaptError for an adapter called like a part of a parameter's name."""
    # PEFT tells adapters apart by these parts
    parts = {part for key in bank.state_dict() for part in key.split(".")[1:]}
    if clash := sorted(parts.intersection(names)):
        raise TensorAdaptError(
            f"{clash[0]!r} is part of the names of this adapter's numbers, so an adapter of that name would be saved "
            "and loaded with parts of others; give adapter_name= another name"
        )


def _add_trained(model: nn.Module, config: TensorConfig) -> None:
    """Add the base modules that a published row trains to ``modules_to_save``."""
    row = resolve(config.spec()).row
    if config.paper and row and row.train:
        names = trained_modules(model, row.train, row.name)
        config.modules_to_save = list(dict.fromkeys((*(config.modules_to_save or ()), *names)))

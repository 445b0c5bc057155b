"""TensorModel: the tuner that PEFT makes around a base model. All layers of an adapter share what it registers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, _maybe_include_all_linear_layers
from torch import Tensor, nn

from tensoradapt import published as papers
from tensoradapt.errors import TensorAdaptError
from tensoradapt.integrations.peft.bank import BankedAdapter, banked, cast, placed, refuse_clash
from tensoradapt.integrations.peft.config import NAME, TensorConfig
from tensoradapt.integrations.peft.layer import TensorLinear
from tensoradapt.integrations.peft.mixed import mixed
from tensoradapt.integrations.peft.targets import default_targets
from tensoradapt.planning.trained_modules import trained_modules
from tensoradapt.surgery.fast_paths import fast_paths

BANK = f"{NAME}_bank."  # in the names of parameters: then come the adapter's name and its own


class TensorModel(BaseTuner):
    """The base model with its targeted layers replaced. ``tensoradapt_bank`` holds the adapters by name, each with its
    ``plan``.

    PEFT gives its hooks a ``PeftConfig``, which here is a TensorConfig."""

    uses_shared_state = True  # so PEFT refuses to inject it without this root
    prefix = f"{NAME}_"
    tuner_layer_cls = TensorLinear
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012  # PEFT's own attribute; recipes take its place

    def _pre_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        self.tensoradapt_bank = nn.ModuleDict()

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Makes an adapter and wraps its layers; a refusal leaves the model as it was."""
        flags = {parameter: parameter.requires_grad for parameter in self.tensoradapt_bank.parameters()}
        try:
            super().inject_adapter(model, adapter_name, *args, **kwargs)
        except Exception:
            if adapter_name in self.tensoradapt_bank:
                del self.tensoradapt_bank[adapter_name]
            raise
        for parameter, flag in flags.items():  # PEFT remembers those of the base model's modules alone
            parameter.requires_grad_(flag)
        for module, attribute, off in list(fast_paths(self.model, TensorLinear)):
            setattr(module, attribute, off)

    def _prepare_adapter_config(self, peft_config: Any, model_config: Any) -> Any:
        if peft_config.target_modules is None:
            peft_config.target_modules = default_targets(self.model, peft_config)
        return peft_config

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        """The adapter, made before any layer is replaced: what is refused is refused here."""
        name = next(name for name in self._named(peft_config) if name not in self.tensoradapt_bank)
        _add_trained(model, peft_config)
        targets = self._targets(model, _maybe_include_all_linear_layers(peft_config, model))
        if not targets:
            return  # PEFT says why nothing matches
        self.tensoradapt_bank[name] = banked(model, targets, peft_config)
        refuse_clash(self.peft_config, self.tensoradapt_bank)

    def _named(self, config: Any) -> list[str]:
        """The adapters that have this config: several may share one."""
        return [name for name, own in self.peft_config.items() if own is config]

    def _targets(self, model: nn.Module, config: Any) -> dict[str, nn.Module]:
        """The modules that PEFT will match, without the wrappers of other adapters."""
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
        sites = adapter.sites_of(current_key)
        layer = target if isinstance(target, TensorLinear) else TensorLinear(target, sites[0])
        layer.add(adapter_name, adapter, sites)
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)

    def delete_adapter(self, adapter_name: str) -> None:
        """Takes an adapter out of every layer and out of the bank."""
        super().delete_adapter(adapter_name)
        del self.tensoradapt_bank[adapter_name]

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        adapter = self._adapter(adapter_name)
        cast(adapter, self._weight(adapter).dtype, up=autocast_adapter_dtype)

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Called by PEFT once numbers that were on the meta device are loaded."""
        adapter = self._adapter(adapter_name)
        placed(adapter, device or self._weight(adapter).device)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, adapter_names: Any = None, **kwargs: Any) -> Iterator[None]:
        """Around each forward and generate; without it PEFT would drop ``adapter_names`` and say nothing."""
        if adapter_names is None:
            yield
            return
        with mixed(self, adapter_names, list(self.peft_config), kwargs.get("num_beams") or 1):
            yield

    def _adapter(self, name: str) -> BankedAdapter:
        return self.tensoradapt_bank[name]  # type: ignore[return-value]

    def _weight(self, adapter: BankedAdapter) -> Tensor:
        """The first weight that an adapter adapts: it lives beside it."""
        return self.model.get_submodule(adapter.plan.sites[0].module).weight  # type: ignore[return-value]

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        """PEFT looks for the name at the end of a key; here it stands behind the bank."""
        head, bank, tail = key.partition(f"{BANK}{adapter_name}.")
        return f"{head}{BANK}{tail}" if bank else super()._remove_adapter_name_from_key(key, adapter_name)


def parameter_groups(model: nn.Module, lr: float) -> list[dict[str, Any]]:
    """What requires gradients in a PEFT model, as an optimizer's groups: factors at ``lr`` times their own multiplier
    (``rates`` of the config, or of a published row), all else at ``lr``.

    Raises TensorAdaptError where nothing requires gradients.
    """
    banks = [module for module in model.modules() if isinstance(module, BankedAdapter)]
    rates = {parameter: rate for adapter in banks for parameter, rate in adapter.rates().items()}
    found: dict[float, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            found.setdefault(lr * rates.get(parameter, 1.0), []).append(parameter)
    if not found:
        raise TensorAdaptError("nothing in the model requires gradients; load the adapter with is_trainable=True")
    return [{"params": parameters, "lr": rate} for rate, parameters in found.items()]


def _add_trained(model: nn.Module, config: TensorConfig) -> None:
    """Base modules that a published row trains besides become modules to save."""
    patterns = papers.get(config.published).train if config.published else ()
    if patterns:
        names = trained_modules(model, patterns, config.published)
        config.modules_to_save = list(dict.fromkeys((*(config.modules_to_save or ()), *names)))

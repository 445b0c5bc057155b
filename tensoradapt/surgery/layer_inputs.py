"""Second moments of the inputs of layers, over batches, for starts that follow the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tensoradapt.errors import TensorAdaptError
from tensoradapt.sites.site import Site
from tensoradapt.surgery.transaction import transaction

Moments = dict[str, np.ndarray]  # by site name
Key = tuple[str, tuple[int, int] | None]  # a module, and the columns that a site reads of its input


@torch.no_grad()
def input_moments(
    model: nn.Module,
    sites: Iterable[Site],
    batches: Iterable[Any],
    run: Callable[[nn.Module, Any], object],
    prepare: Callable[[Tensor], Tensor] | None = None,
) -> Moments:
    """Return ``x^T x`` of the prepared inputs of each site, the mean over calls; float64.

    Positions that a batch's ``attention_mask`` leaves out do not count. Raises TensorAdaptError for a site whose layer
    no batch reaches.
    """
    sites, now = tuple(sites), dict[str, Any]()
    keys: dict[str, list[Key]] = {}
    for key in dict.fromkeys((site.module, site.cols) for site in sites):
        keys.setdefault(key[0], []).append(key)
    sums: dict[Key, Tensor] = {}
    calls = dict.fromkeys(keys, 0)

    def collect(module: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            calls[module] += 1
            rows = _rows(next(iter((*given, *named.values()))), now["batch"])
            for key in keys[module]:
                x = rows if key[1] is None else rows[:, slice(*key[1])]
                x = prepare(x) if prepare else x
                sums[key] = sums.get(key, 0) + (x.T @ x).cpu()

        return hook

    with transaction(model), ExitStack() as held:
        for module in keys:
            layer = model.get_submodule(module)
            held.callback(layer.register_forward_pre_hook(collect(module), with_kwargs=True).remove)
        for now["batch"] in batches:
            run(model, now["batch"])
    for site in sites:
        if not calls[site.module]:
            raise TensorAdaptError(
                f"no batch reaches site {site.name}, whose layer is not called; give batches that use it, or leave the "
                "site out"
            )
    return {site.name: (sums[site.module, site.cols] / calls[site.module]).numpy() for site in sites}


def _rows(x: Tensor, batch: Any) -> Tensor:  # (..., in) -> (n, in), float64
    """Return the inputs one a row, without those that the batch masks."""
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    x = x.detach() if x.device.type != "mps" else x.detach().cpu()  # which has no float64
    if isinstance(mask, Tensor) and mask.shape == x.shape[:-1]:
        return x[mask.to(x.device).bool()].double()
    return x.reshape(-1, x.shape[-1]).double()

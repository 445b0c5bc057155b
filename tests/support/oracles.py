"""Papers' formulas, entry by entry."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np

TIED, FREE = "layer proj : head dim : model", ": out : in"


RANKS = {"layer": 2, "proj": 1, "head": 3, "dim": 4, "model": 5}


def lora(f: Factors, i: int, j: int) -> float:  # LoRA, equation 3: W + B A
    return sum(f["B"][i, k] * f["A"][k, j] for k in range(3))


def cp(f: Factors, layer: int, proj: int, head: int, dim: int, model: int) -> float:  # LoRTA: sum_k of outer products
    return sum(
        f["layer"][layer, k] * f["proj"][proj, k] * f["head"][head, k] * f["dim"][dim, k] * f["model"][model, k]
        for k in range(3)
    )


def tucker(
    f: Factors, layer: int, proj: int, head: int, dim: int, model: int
) -> float:  # a core times a factor per mode
    place = dict(zip(RANKS, (layer, proj, head, dim, model), strict=True))
    total = 0.0
    for bonds in itertools.product(*(range(n) for n in RANKS.values())):
        total += f["core"][bonds] * math.prod(f[m][place[m], k] for m, k in zip(RANKS, bonds, strict=True))
    return total


def tensor_train(
    f: Factors, layer: int, proj: int, head: int, dim: int, model: int
) -> float:  # MetaTT: matrix products
    row = f["model"][model]
    for mode, i in (("layer", layer), ("proj", proj), ("head", head)):
        row = [sum(row[a] * f[mode][a, i, b] for a in range(len(row))) for b in range(f[mode].shape[2])]
    return sum(row[a] * f["dim"][a, dim] for a in range(len(row)))


def vera_entry(f: Factors, i: int, j: int) -> float:  # VeRA, equation 2: diag(b) B diag(d) A
    return f["b"][i] * sum(f["B"][i, k] * f["d"][k] * f["A"][k, j] for k in range(3))


PAPERS: dict[str, tuple[str, int | dict[str, int], Callable[..., float]]] = {
    "lora": (FREE, 3, lora),
    "cp": (TIED, 3, cp),
    "tucker": (TIED, RANKS, tucker),
    "tensor_train": (TIED, {"model": 5, "layer": 4, "proj": 3, "head": 2}, tensor_train),
    "vera": (FREE, 3, vera_entry),
}


Factors = Mapping[str, np.ndarray]

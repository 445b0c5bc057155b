"""Fit a tensor with the structure of one method by every method at one budget, and measure the errors.

    python benchmarks/planted.py            # about 5 minutes on one thread, writes records/planted.csv

The updates of 8 square matrices of width 48 (4 layers, 2 projections, 4 heads of 12). Each method draws one such
tensor: normal factors at the rank given in METHODS, brought to an RMS of 1. Every method is then fitted to it with the
largest ranks that have at most as many numbers; the method that drew it with the ranks it was drawn with. Kronecker and
TT-matrix split the widths into 16 x 3 and 3 x 4 x 4. Kronecker has 2,096 numbers at least, and so up to 20 % more than
six of the others plant.

Two ways of fitting, both by least squares on all entries. "adam": as adapters are trained, from the zero start of
scale="matched", with Adam and a rate that falls linearly to zero; the best of RATES by the median over seeds. "als":
the method's own ``decompose``, or alternating least squares where it has none, best of several starts: the best
fit that was found. The error is the Frobenius norm of the residual over that of the tensor; 0 means recovered, 1 that
nothing fits. Both ways stop early: an error below 0.01 counts as recovered.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept import append, read
from torch import Tensor

from tensoradapt import parameterizations
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.networks import least_squares
from tensoradapt.networks.contraction import compile_program
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Network
from tensoradapt.planning.builder import Builder
from tensoradapt.planning.ranks import within_budget

CSV = Path(__file__).parent / "records" / "planted.csv"
SIZES = {"layer": 4, "proj": 2, "head": 4, "dim": 12, "model": 48, "out": 48, "in": 48}
RATES, SEEDS, STEPS = (3e-2, 1e-1, 3e-1), (0, 1, 2), 1000
COLUMNS = ("planted", "fitted", "how", "n_planted", "n_fitted", "rank", "rate", "error", "error_min", "error_max")


@dataclass(frozen=True)
class Method:
    """A parameterization over a layout, and the rank it plants."""

    parameterization: str
    rank: Any
    layout: str = "layer proj : head dim : model"
    options: Mapping[str, Any] = field(default_factory=dict)
    split: tuple[int, ...] = ()

    @property
    def over(self) -> Layout:
        parts = {f"{side}{i}": n for side in ("out", "in") for i, n in enumerate(self.split, 1)}
        return Layout.parse(self.layout, {**SIZES, **parts})

    @property
    def family(self) -> Any:
        return parameterizations.get(self.parameterization)

    def planted(self) -> Network:
        """The network that draws a tensor."""
        return self.family.build(self.over, self.rank, **self.options)

    def within(self, budget: int) -> Network:
        """The largest network of at most ``budget`` numbers, or the smallest there is."""
        smallest = self.family.build(self.over, 1, **self.options)
        if smallest.n_params > budget:
            return smallest
        return within_budget(Builder(self.family, self.options), {self.over: 1}, budget)[self.over]


FREE, TWO, THREE = (
    f"layer proj : {sides}" for sides in ("out : in", "out1 out2 : in1 in2", "out1 out2 out3 : in1 in2 in3")
)
METHODS = {
    "LoRA": Method("lora", 3, FREE),
    "LoHa": Method("loha", 2, FREE),
    "Kronecker": Method("kronecker", 2, TWO, split=(16, 3)),
    "TT-matrix": Method("tt_matrix", {"layer": 4, "proj": 8, "out1": 8, "out2": 8}, THREE, split=(3, 4, 4)),
    "LoTR": Method("tucker", 11, "(layer proj) : out : in", {"only": ("out", "in")}),
    "CP": Method("cp", 28),
    "Tucker": Method("tucker", {"layer": 3, "proj": 2, "head": 3, "dim": 6, "model": 12}),
    "Tensor-train": Method("tensor_train", {"model": 12, "layer": 12, "proj": 12, "head": 12}),
    "Tensor ring": Method("tensor_ring", 5),
    "Block-term": Method("block_term", {"layer": 2, "proj": 2, "head": 2, "dim": 5, "model": 10}),
}


def plant(network: Network, seed: int) -> np.ndarray:  # layout.shape
    """A tensor of the network's structure with an RMS of 1."""
    tensor = least_squares.dense(network, least_squares.draw(network, seed))
    return tensor / np.sqrt(np.mean(tensor**2))


def by_adam(network: Network, tensor: np.ndarray, steps: int = STEPS) -> dict[float, list[float]]:
    """Errors of every seed by rate: all of them trained side by side, along a batch axis of every factor."""
    starts = [FactoredTensor(network, seed=seed) for seed in SEEDS] * len(RATES)
    rates = torch.tensor([rate for rate in RATES for _ in SEEDS])
    scales = torch.tensor([start.scale for start in starts]).reshape(-1, *[1] * tensor.ndim)
    factors = [torch.stack([start.trained[f.name].detach() for start in starts]) for f in network.factors]
    labels = [("seed", *f.labels) for f in network.factors]
    program = compile_program(labels, ("seed", *network.layout.names), {**network.sizes, "seed": len(starts)})
    target, memory = torch.from_numpy(tensor).float(), [(torch.zeros_like(f), torch.zeros_like(f)) for f in factors]
    for step in range(1, steps + 1):
        for factor in factors:
            factor.requires_grad_()
        left = scales * program.run(factors, torch.einsum) - target
        gradients = torch.autograd.grad(0.5 * left.square().sum(), factors)
        with torch.no_grad():
            factors = [
                factor - _along(rates, factor) * (1 - (step - 1) / steps) * adam_step(*own, gradient, step)
                for factor, gradient, own in zip(factors, gradients, memory, strict=True)
            ]
    left = scales * program.run(factors, torch.einsum) - target
    errors = left.flatten(1).norm(dim=1) / target.norm()
    return {rate: errors[i * len(SEEDS) : (i + 1) * len(SEEDS)].tolist() for i, rate in enumerate(RATES)}


def adam_step(first: Tensor, second: Tensor, gradient: Tensor, step: int) -> Tensor:
    """Adam's step of one factor per unit rate, betas 0.9 and 0.999; its two moments are updated in place."""
    first.lerp_(gradient, 0.1)
    second.lerp_(gradient.square(), 0.001)
    return first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)


def _along(rates: Tensor, factor: Tensor) -> Tensor:
    return rates.reshape(-1, *[1] * (factor.ndim - 1))


def by_als(method: Method, network: Network, tensor: np.ndarray) -> float:
    """The error of the method's own decomposition."""
    decompose = getattr(method.family, "decompose", None)
    factors = decompose(network, tensor, seed=0) if decompose else least_squares.decompose(network, tensor, seed=0)
    return least_squares.relative_error(network, tensor, factors, float(np.linalg.norm(tensor)))


def measured(planted: str, fitted: str) -> Iterator[dict[str, Any]]:
    """Fit one method to another's tensor in both ways."""
    source, method = METHODS[planted].planted(), METHODS[fitted]
    network = source if planted == fitted else method.within(source.n_params)
    tensor = plant(source, 0).reshape(network.layout.shape)
    rank = " ".join(f"{name}={n}" for name, n in network.bonds.items())
    row = {
        "planted": planted,
        "fitted": fitted,
        "n_planted": source.n_params,
        "n_fitted": network.n_params,
        "rank": rank,
    }
    by_rate = by_adam(network, tensor)
    rate = min(by_rate, key=lambda rate: statistics.median(by_rate[rate]))
    errors = by_rate[rate]
    yield {**row, "how": "adam", "rate": rate, **_spread(errors)}
    yield {**row, "how": "als", "rate": "", **_spread([by_als(method, network, tensor)])}


def _spread(errors: list[float]) -> dict[str, float]:
    row = {"error": statistics.median(errors), "error_min": min(errors), "error_max": max(errors)}
    return {key: float(f"{value:.3g}") for key, value in row.items()}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    done = {(row["planted"], row["fitted"]) for row in read(CSV) if row["how"] == "als"}
    for pair in itertools.product(METHODS, METHODS):
        if pair not in done:
            begun = time.process_time()
            for row in measured(*pair):
                append(CSV, {column: row[column] for column in COLUMNS})
                print(*(row[c] for c in ("planted", "fitted", "how", "n_planted", "n_fitted", "error")), end=" ")
            print(f"{time.process_time() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    main()

"""Rules by which factors could learn, each at its own best rate: rates by factor, gradients, and steps of their own.

    python benchmarks/learning_rules.py             # runs what is missing, then prints the means
    python benchmarks/learning_rules.py --part 0/2  # parts run side by side
    python benchmarks/learning_rules.py --times     # writes records/learning_rules_ms.csv

CP r=64 and tensor-train r=32 over LoRTA's layout on the rated sentences, 100 equal steps. Rates are 1.8 apart and
searched with one seed by the loss on validation until the best is inside; two more seeds are run at it. The rules:

- AdamW: as ``fit`` trains.
- balanced: layer, proj and head learn as fast as if their norm were that of the input side's factor.
- norms kept equal: after each step all factors are given one norm, and the moments of AdamW follow.
- twice the rank: until a third of the steps, then ``ta.reduce_rank``, as MetaTT does.
- preconditioned: ``ta.preconditioned`` before AdamW.
- whitened: Adam's division in coordinates in which all directions move the tensor equally far.
- RITE: second moments as a matrix over the bonds, carried from one whitening to the next (Yen et al., arXiv
  2410.20625).

The last two are written here alone. Writes records/learning_rules.csv. ``--times``: the processor time that the
optimizers take in a step, all rules in turns.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from kept import append, read
from minilm import Bench, Setting
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

import tensoradapt as ta
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.networks.gram import axes, fold, normal_matrix, unfold
from tensoradapt.networks.network import Factor, Network
from tensoradapt.training.equal_steps import squared_target

CSV = Path(__file__).parent / "records" / "learning_rules.csv"
TIMES = CSV.with_name("learning_rules_ms.csv")
SETTING = Setting(steps=100, n_train=4000, n_validation=400, n_test=1000, batch=16)
LAYOUT, HEAD, BASE, STEP, MOST = "layer proj : head dim : model", 0.06, 2e-3, 1.8, 4
SEARCHED, MORE = 1000, (0, 1)
NETWORKS = {"CP r=64": ("cp", 64), "Tensor-train r=32": ("tensor_train", 32)}


class Whitened(torch.optim.Optimizer):
    """Steps of a network's factors in coordinates in which every direction moves the tensor equally far.

    Each factor's gradient G, unfolded to (modes, bonds), is taken to G H^-1/2, where a rule makes a step of it, and
    back by H^-1/2. Equal steps give the whole step its length; beside the zero factor's part no other moves the tensor
    by more than ``most`` of its norm, as it has none at the start.
    """

    def __init__(self, adapter: Adapter, lr: float, rule: str, most: float = 0.1) -> None:
        self.tensors, self.rule, self.most = adapter.factored, RULES[rule], most
        self.target = math.sqrt(squared_target(adapter))
        super().__init__(list(adapter.parameters()), {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the factors of every tensor."""
        for tensor in self.tensors:
            self._move(tensor, self.param_groups[0]["lr"])

    def _move(self, tensor: FactoredTensor, lr: float) -> None:
        network, values = tensor.network, {name: value.detach().double() for name, value in tensor.factors.items()}
        zero = next(factor for factor in network.factors if factor.init == "zero")
        moves, lengths = {}, {}
        for factor in network.factors:
            root, inverse = roots(normal(network, factor, values))
            value = tensor.trained[factor.name]
            assert value.grad is not None
            moves[factor] = self.rule(self.state[value], unfold(network, factor, value.grad.double()), root, inverse)
            lengths[factor] = float((moves[factor] @ root).norm())
        size = float((unfold(network, zero, values[zero.name]) @ roots(normal(network, zero, values), 0)[0]).norm())
        unit = lr * self.target / tensor.scale / lengths[zero]  # what equal steps will make of the zero factor's part
        for factor, move in moves.items():
            held = factor is zero or unit * lengths[factor] <= self.most * size
            length = lr if held else lr * self.most * size / (unit * lengths[factor])
            value = tensor.trained[factor.name]
            value.sub_(length * fold(network, factor, move).to(value))


def normal(network: Network, factor: Factor, values: Mapping[str, Tensor]) -> Tensor:
    """Return the factor's normal matrix; of one without bonds the number one."""
    if axes(network, factor)[2]:
        return torch.as_tensor(normal_matrix(network, values, factor, torch.einsum))
    return torch.ones(1, 1, dtype=torch.float64)


def roots(matrix: Tensor, ridge: float = 1e-3) -> tuple[Tensor, Tensor]:
    """Return M^1/2 and M^-1/2 with a ridge of a part of the mean eigenvalue; zeros for a matrix of zeros."""
    found, vectors = torch.linalg.eigh(matrix)
    found = found.clamp_min(0) + ridge * found.clamp_min(0).mean(-1, keepdim=True)
    inverse = torch.where(found > 0, found.rsqrt(), 0.0)
    return (vectors * found.sqrt()[..., None, :]) @ vectors.mT, (vectors * inverse[..., None, :]) @ vectors.mT


def whitened(state: dict[str, Tensor], gradient: Tensor, _: Tensor, inverse: Tensor) -> Tensor:
    """Adam's step of whitened gradients, entry by entry."""
    first = decayed(state, "first", gradient, 0.9)
    second = decayed(state, "second", (gradient @ inverse) ** 2, 0.99)
    return (first @ inverse) / (second.sqrt() + 1e-12) @ inverse


def rite(state: dict[str, Tensor], gradient: Tensor, root: Tensor, inverse: Tensor) -> Tensor:
    """Divide by the root of a matrix of second moments over the bonds, which is carried to the new whitening."""
    white = gradient @ inverse
    if "second" in state:
        carry = root @ state["inverse"]
        state["second"] = carry @ state["second"] @ carry.mT
    state["inverse"] = inverse
    second = decayed(state, "second", white.mT @ white / white.shape[-2], 0.99)
    return decayed(state, "first", white @ roots(second, 1e-6)[1] @ inverse, 0.9)


def decayed(state: dict[str, Tensor], name: str, new: Tensor, beta: float) -> Tensor:
    """Return a running mean, without the bias of its start."""
    seen = beta * state.get(f"{name} seen", torch.zeros(())) + (1 - beta)
    state[name] = beta * state.get(name, torch.zeros_like(new)) + (1 - beta) * new
    state[f"{name} seen"] = seen
    return state[name] / seen


RULES: Mapping[str, Callable[..., Tensor]] = {"whitened": whitened, "RITE": rite}
# over those of equal sizes, the root of 384 columns over each factor's positions
RATES: Mapping[str, Mapping[str, float]] = {"balanced": {"layer": 4.23, "proj": 3.46, "head": 5.99}}
EVERY = ("AdamW", "balanced", "norms kept equal", "twice the rank", "preconditioned", *RULES)
CELLS = [("CP r=64", rule) for rule in EVERY]
CELLS += [("Tensor-train r=32", rule) for rule in ("AdamW", "preconditioned")]


def search(network: str, rule: str) -> None:
    """Run a cell: rates until the best is inside, then more seeds at it."""
    bench = Bench(SETTING, SEARCHED)
    while (k := missing(network, rule)) is not None:
        append(CSV, trained(bench, network, rule, k))
    for seed in MORE:
        if not rows(network, rule, seed):
            append(CSV, trained(Bench(SETTING, seed), network, rule, best(network, rule)))


def missing(network: str, rule: str) -> int | None:
    """Return the power of the ratio that is to be tried next, None where the best rate is inside."""
    tried = {int(row["k"]) for row in rows(network, rule, SEARCHED)}
    if not tried:
        return 0
    k = best(network, rule)
    return next((other for other in (k + 1, k - 1) if other not in tried and abs(other) <= MOST), None)


def best(network: str, rule: str) -> int:
    """Return the power at which the loss on validation is least."""
    return int(min(rows(network, rule, SEARCHED), key=lambda row: float(row["validation_loss"]))["k"])


def rows(network: str, rule: str, seed: int) -> list[dict[str, str]]:
    """The rows of a cell with a seed."""
    return [row for row in read(CSV) if (row["network"], row["rule"], row["seed"]) == (network, rule, str(seed))]


def trained(bench: Bench, network: str, rule: str, k: int) -> dict[str, Any]:
    """Train one run and return its row."""
    lr, rank = BASE * STEP**k, NETWORKS[network][1]
    model, adapter = attached(bench, network, rule)
    then = after(model, adapter, rule, rank, bench.setting.steps)
    losses, _ = trained_steps(bench, model, made(model, adapter, rule, lr), then)
    model.eval()
    return {
        **{"network": network, "rule": rule, "k": k, "lr": f"{lr:.3g}", "seed": bench.seed},
        **{"n_params": adapter.n_params, "loss": f"{np.mean(losses[-20:]):.4f}"},
        **{"validation_loss": f"{validated(bench, model):.4f}", "accuracy": f"{bench.accuracy(model):.4f}"},
    }


def attached(bench: Bench, network: str, rule: str) -> tuple[nn.Module, Adapter]:
    """Return a fresh model with the adapter of a cell."""
    method, rank = NETWORKS[network]
    model = bench.fresh()
    spec: dict[str, Any] = {"rates": RATES[rule]} if rule in RATES else {}
    wide = rank * (2 if rule == "twice the rank" else 1)
    return model, ta.attach(model, ta.plan(model, LAYOUT, method, wide, **spec), seed=bench.seed)


def made(model: nn.Module, adapter: Adapter, rule: str, lr: float) -> tuple[torch.optim.Optimizer, ...]:
    """Return the optimizer of the factors, whose steps are equal, and that of the head."""
    factors = set(adapter.parameters())
    groups = ta.parameter_groups(model, lr)
    own = [{**group, "params": [p for p in group["params"] if p in factors]} for group in groups]
    head = [p for group in groups for p in group["params"] if p not in factors]
    stepper = Whitened(adapter, lr, rule) if rule in RULES else torch.optim.AdamW(own, weight_decay=0.0)
    ta.equal_steps(stepper, model)
    if rule == "preconditioned":
        ta.preconditioned(stepper, model)
    return stepper, torch.optim.AdamW(head, HEAD, weight_decay=0.0)


def after(
    model: nn.Module, adapter: Adapter, rule: str, rank: int, steps: int
) -> Callable[[int, torch.optim.Optimizer], None]:
    """Return what a rule does after a step."""

    def then(step: int, optimizer: torch.optim.Optimizer) -> None:
        if rule == "norms kept equal":
            keep_norms_equal(adapter, optimizer)
        if rule == "twice the rank" and step == steps // 3:
            ta.reduce_rank(model, optimizer, rank=rank)

    return then


@torch.no_grad()
def keep_norms_equal(adapter: Adapter, optimizer: torch.optim.Optimizer) -> None:
    """Give the factors of each tensor one norm without a change of the tensor; Adam's moments are those of the new."""
    for tensor in adapter.factored:
        norms = {name: float(value.norm()) for name, value in tensor.trained.items()}
        if not all(norms.values()):  # before the first step of a rate above 0
            continue
        mean = math.exp(sum(map(math.log, norms.values())) / len(norms))
        for name, value in tensor.trained.items():
            times = mean / norms[name]
            value.mul_(times)
            optimizer.state[value]["exp_avg"].div_(times)
            optimizer.state[value]["exp_avg_sq"].div_(times**2)


def trained_steps(
    bench: Bench,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    then: Callable[[int, torch.optim.Optimizer], None],
) -> tuple[list[float], list[float]]:
    """Train, and return the losses and the processor time that the optimizers took in each step."""
    n, losses, seconds = bench.setting.steps, [], []
    schedules = [get_linear_schedule_with_warmup(each, n // 10, n) for each in optimizers]
    torch.manual_seed(bench.seed)
    model.train()
    for step, batch in enumerate(islice(bench.batches(model), n), 1):
        model.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
        begun = time.process_time()
        for part in (*optimizers, *schedules):
            part.step()
        then(step, optimizers[0])
        seconds.append(time.process_time() - begun)
        losses.append(loss.item())
    return losses, seconds


def write_times(turns: int = 3) -> None:
    """Write the median time that the optimizers of each rule take in a step (ms), all of them in turns."""
    bench = Bench(replace(SETTING, steps=16, n_train=400, n_validation=16, n_test=16), 0)
    times: dict[tuple[str, str], list[float]] = {}
    for network, rule in CELLS * turns:
        model, adapter = attached(bench, network, rule)
        then = after(model, adapter, rule, NETWORKS[network][1], bench.setting.steps)
        _, seconds = trained_steps(bench, model, made(model, adapter, rule, BASE), then)
        times.setdefault((network, rule), []).extend(seconds[1:])
    rows = [(*cell, round(1e3 * float(np.median(each)), 1)) for cell, each in times.items()]
    pd.DataFrame(rows, columns=["network", "rule", "ms"]).to_csv(TIMES, index=False)


def validated(bench: Bench, model: nn.Module) -> float:
    """Return the mean loss on validation."""
    logits = torch.from_numpy(bench.predictions(model, "validation"))
    return float(nn.functional.cross_entropy(logits, torch.as_tensor(bench.data.validation.labels)))


def main() -> None:
    """Run a part of the cells, then print the means at the best rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="0/1", help="K/N: every N-th cell from the K-th")
    parser.add_argument("--times", action="store_true")
    args = parser.parse_args()
    if args.times:
        write_times()
        return
    at, of = map(int, args.part.split("/"))
    for network, rule in CELLS[at::of]:
        search(network, rule)
    table = pd.DataFrame(read(CSV)).astype({"seed": int, "accuracy": float, "loss": float})
    chosen = table[table["seed"] != SEARCHED]
    print(chosen.groupby(["network", "rule", "lr"])[["accuracy", "loss"]].agg(["mean", "count"]).round(4))


if __name__ == "__main__":
    main()

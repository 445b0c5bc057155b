"""Rules by which factors could learn, each at its own best rate: rates by factor, gradients, and steps of their own.

    TENSORADAPT_DATA=... python benchmarks/learning_rules.py             # runs what is missing, then prints the means
    TENSORADAPT_DATA=... python benchmarks/learning_rules.py --part 0/2  # parts run side by side

MiniLM, q k v o, 100 equal steps in bf16 on the rated sentences, SST-2 and STS-B (the folder has glue/SST-2 and
glue/STS-B): CP and tensor-train over LoRTA's layout, CP over two layouts with whole outputs, and LoTR. Rates are 1.8
apart and searched by the mean loss on validation of three seeds until the best is inside; five more seeds, or ten, are
run at it and scored after a quarter, a half and all of the steps. The rules:

- AdamW: as ``fit`` trains.
- balanced: factors learn as fast as if their norm at the start were that of the input side's factor.
- preconditioned: ``ta.preconditioned`` before AdamW.
- whitened: Adam's division in coordinates in which all directions move the tensor equally far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from measure import RECORDS, append, options, part_of, place, read

ASKED = options(__name__, __doc__, part="0/1")

import numpy as np
import pandas as pd
import torch
from minilm import Bench, Setting
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

import tensoradapt as ta
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.lab.analysis.statistics.significance import holm, paired_p
from tensoradapt.networks.gram import axes, fold, normal_matrix, unfold
from tensoradapt.networks.network import Factor, Network
from tensoradapt.training.equal_steps import squared_target
from tensoradapt.training.fit import autocast

CSV = place(ASKED, "learning_rules.csv")
SETTING = Setting(4 if ASKED.quick else 100, n_train=4000, n_validation=400, n_test=1000, batch=16)
HEADS = {"snippets": 0.06, "sst2": 0.01, "stsb": 0.06}
BASE, STEP, MOST = 2e-3, 1.8, 4
SEARCHED = (1000, 1001, 1002)
PRECISION = "bf16"  # as the headline


class Shape(NamedTuple):
    """A network over a layout."""

    method: str
    rank: int
    layout: str


NETWORKS = {
    "CP r=64": Shape("cp", 64, "layer proj : head dim : model"),
    "Tensor-train r=32": Shape("tensor_train", 32, "layer proj : head dim : model"),
    "CP r=9, tied over layers": Shape("cp", 9, "layer : out : in"),
    "CP r=36, whole outputs": Shape("cp", 36, "layer proj : out : in"),
    "LoTR r=16": Shape("lotr", 16, ""),
}


class Whitened(torch.optim.Optimizer):
    """Steps of a network's factors in coordinates in which every direction moves the tensor equally far.

    Each factor's gradient G, unfolded to (modes, bonds), is taken to G H^-1/2, where Adam makes a step of it, and
    back by H^-1/2. Equal steps give the whole step its length; beside the zero factor's part no other moves the tensor
    by more than ``most`` of its norm, as it has none at the start.
    """

    def __init__(self, adapter: Adapter, lr: float, most: float = 0.1) -> None:
        self.tensors, self.most = adapter.factored, most
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
            moves[factor] = whitened(self.state[value], unfold(network, factor, value.grad.double()), inverse)
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


def whitened(state: dict[str, Tensor], gradient: Tensor, inverse: Tensor) -> Tensor:
    """Adam's step of whitened gradients, entry by entry."""
    first = decayed(state, "first", gradient, 0.9)
    second = decayed(state, "second", (gradient @ inverse) ** 2, 0.99)
    return (first @ inverse) / (second.sqrt() + 1e-12) @ inverse


def decayed(state: dict[str, Tensor], name: str, new: Tensor, beta: float) -> Tensor:
    """Return a running mean, without the bias of its start."""
    seen = beta * state.get(f"{name} seen", torch.zeros(())) + (1 - beta)
    state[name] = beta * state.get(name, torch.zeros_like(new)) + (1 - beta) * new
    state[f"{name} seen"] = seen
    return state[name] / seen


class Cell(NamedTuple):
    """What is trained, and by which rule."""

    task: str
    network: str
    rule: str


FIRST = [(name, rule) for name in list(NETWORKS)[:2] for rule in ("AdamW", "balanced")]
FIRST += [("CP r=64", rule) for rule in ("whitened", "preconditioned")]
FIRST += [("CP r=9, tied over layers", "whitened")]
FIRST += [(name, rule) for rule in ("AdamW", "balanced") for name in list(NETWORKS)[2:]]
CELLS = [Cell(task, *each) for each in FIRST for task in HEADS]
SHOWN = {"n_params": ("n_params", "first"), "lr": ("lr", "first"), "seeds": ("seed", "count")}
SHOWN |= {name: (name, "mean") for name in ("quarter", "half", "score")}


def seeds(cell: Cell) -> range:
    """Return the seeds that are scored: ten where five left it open whether a rule gains."""
    return range(10 if cell.network == "CP r=64" and cell.rule in ("AdamW", "whitened") else 5)


def search(cell: Cell) -> None:
    """Run a cell: rates until the best is inside, then more seeds at it."""
    while (todo := missing(cell)) is not None:
        k, seed = todo
        append(CSV, trained(Bench(SETTING, seed, cell.task), cell, k))
    for seed in seeds(cell):
        if not rows(cell, seed, best(cell)):
            append(CSV, trained(Bench(SETTING, seed, cell.task), cell, best(cell)))


def missing(cell: Cell) -> tuple[int, int] | None:
    """Return the power of the ratio and the seed that are to be run next, None where the best rate is inside."""
    tried = {int(row["k"]) for seed in SEARCHED for row in rows(cell, seed)} or {0}
    for k in tried:
        if left := [seed for seed in SEARCHED if not rows(cell, seed, k)]:
            return k, left[0]
    k = best(cell)
    return next(((other, SEARCHED[0]) for other in (k + 1, k - 1) if other not in tried and abs(other) <= MOST), None)


def best(cell: Cell) -> int:
    """Return the power at which the mean loss on validation is least."""
    losses: dict[int, list[float]] = {}
    for seed in SEARCHED:
        for row in rows(cell, seed):
            losses.setdefault(int(row["k"]), []).append(float(row["validation_loss"]))
    return min(losses, key=lambda k: float(np.mean(losses[k])))


def rows(cell: Cell, seed: int, k: int | None = None) -> list[dict[str, str]]:
    """The rows of a cell with a seed, at a rate where one is given."""
    found = [row for row in read(CSV) if (*(row[name] for name in Cell._fields), row["seed"]) == (*cell, str(seed))]
    return [row for row in found if k is None or row["k"] == str(k)]


def trained(bench: Bench, cell: Cell, k: int) -> dict[str, Any]:
    """Train one run and return its row; runs that choose a rate have no scores."""
    lr, steps, scores = BASE * STEP**k, bench.setting.steps, {}
    model, adapter = attached(bench, cell)

    def then(step: int) -> None:
        if step in (steps // 4, steps // 2, steps) and bench.seed not in SEARCHED:
            scores[step] = scored(bench, model)

    losses = trained_steps(bench, model, made(model, adapter, cell, lr), then)
    parts = zip(("quarter", "half", "score"), (steps // 4, steps // 2, steps), strict=True)
    return {
        **{**cell._asdict(), "k": k, "lr": f"{lr:.3g}", "seed": bench.seed, "n_params": adapter.n_params},
        **{"loss": f"{np.mean(losses[-20:]):.4f}", "validation_loss": f"{validated(bench, model):.4f}"},
        **{name: f"{scores[at]:.4f}" if at in scores else "" for name, at in parts},
    }


def scored(bench: Bench, model: nn.Module) -> float:
    """Return the score on the test examples; the model and the draws of its training go on as before."""
    with torch.random.fork_rng(devices=[]), autocast(PRECISION, "cpu"):
        found = bench.score(model.eval())
    model.train()
    return found


def attached(bench: Bench, cell: Cell) -> tuple[nn.Module, Adapter]:
    """Return a fresh model with the adapter of a cell."""
    method, rank, layout = NETWORKS[cell.network]
    model = bench.fresh()
    where: dict[str, Any] = {"layout": layout} if layout else {"projections": ("q", "k", "v", "o")}
    plan = ta.plan(model, method=method, rank=rank, **where)
    if cell.rule == "balanced":
        rates = balanced(bench.fresh(), plan, bench.seed)
        plan = ta.plan(model, method=method, rank=rank, rates=rates, **where)
    return model, ta.attach(model, plan, seed=bench.seed)


def balanced(model: nn.Module, plan: ta.Plan, seed: int) -> dict[str, float]:
    """Return the norm of each drawn factor at the start over that of the input side's, where a rate is that."""
    (tensor, *_) = ta.attach(model, plan, seed=seed).factored
    factors = {factor.name: tensor.factors[factor.name] for factor in tensor.network.factors if factor.init != "zero"}
    norms = {name: float(value.detach().norm()) for name, value in factors.items()}
    (entrance,) = [name for name in norms if name in ("in", "model")]
    return {name: norm / norms[entrance] for name, norm in norms.items() if name != entrance}


def made(model: nn.Module, adapter: Adapter, cell: Cell, lr: float) -> tuple[torch.optim.Optimizer, ...]:
    """Return the optimizer of the factors, whose steps are equal, and that of the head."""
    factors = set(adapter.parameters())
    groups = ta.parameter_groups(model, lr)
    own = [{**group, "params": [p for p in group["params"] if p in factors]} for group in groups]
    head = [p for group in groups for p in group["params"] if p not in factors]
    whitens = cell.rule == "whitened"
    stepper = Whitened(adapter, lr) if whitens else torch.optim.AdamW(own, weight_decay=0.0)
    ta.equal_steps(stepper, model)
    if cell.rule == "preconditioned":
        ta.preconditioned(stepper, model)
    return stepper, torch.optim.AdamW(head, HEADS[cell.task], weight_decay=0.0)


def trained_steps(
    bench: Bench, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], then: Callable[[int], None]
) -> list[float]:
    """Train, and return the losses; ``then`` is called after each step."""
    n, losses = bench.setting.steps, []
    schedules = [get_linear_schedule_with_warmup(each, n // 10, n) for each in optimizers]
    torch.manual_seed(bench.seed)
    model.train()
    for step, batch in enumerate(islice(bench.batches(model), n), 1):
        model.zero_grad()
        with autocast(PRECISION, "cpu"):  # of each step, as it keeps what it has cast until it ends
            loss = model(**batch).loss
        loss.backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
        for part in (*optimizers, *schedules):
            part.step()
        then(step)
        losses.append(loss.item())
    return losses


def means(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the mean scores over seeds of what has all of them, and each rule's gain over AdamW with its p.

    ``p_holm`` is corrected over the rules of all networks of a task.
    """
    cells = list(Cell._fields)
    tuned = runs[runs["seed"].isin(SEARCHED)].groupby([*cells, "k"])["validation_loss"].mean().unstack()
    chosen = tuned.idxmin(axis=1).rename("chosen")
    runs = runs.join(chosen, on=cells)
    reported = runs[~runs["seed"].isin(SEARCHED) & (runs["k"] == runs["chosen"])]
    whole = reported.groupby(cells).size()
    whole = whole == [len(seeds(Cell(*cell))) for cell in whole.index]
    baseline = [cell for cell in whole.index[whole] if whole.get((*cell[:2], "AdamW"), False)]
    reported = reported.set_index(cells).loc[baseline].reset_index()
    by_seed = reported.pivot(index="seed", columns=cells, values="score")
    table = reported.groupby(cells, sort=False).agg(**SHOWN).reset_index()
    apart = [by_seed[cell] - by_seed[*cell[:2], "AdamW"] for cell in table[cells].itertuples(index=False, name=None)]
    table["gain"] = [float(each.mean()) for each in apart]
    table["p"] = [paired_p(each.dropna().to_numpy()) if each.any() else math.nan for each in apart]
    table["p_holm"] = math.nan
    for _, own in table.dropna(subset="p").groupby("task"):
        table.loc[own.index, "p_holm"] = holm(own["p"].to_numpy())
    return table.round(4)


def validated(bench: Bench, model: nn.Module) -> float:
    """Return the mean loss on validation: of classes the cross entropy, of numbers the squared error."""
    with autocast(PRECISION, "cpu"):
        found = torch.from_numpy(bench.predictions(model.eval(), "validation"))
    wanted = torch.as_tensor(bench.data.validation.labels)
    if wanted.is_floating_point():
        return float(nn.functional.mse_loss(found.reshape(-1), wanted.to(found)))
    return float(nn.functional.cross_entropy(found, wanted))


def main() -> None:
    """Run a part of the cells, then print the means at the best rates."""
    if ASKED.quick:
        append(CSV, trained(Bench(SETTING, 0, "snippets"), CELLS[0], 0))
        return
    for cell in part_of(CELLS, ASKED.part):
        search(cell)
    print(means(pd.read_csv(RECORDS / "learning_rules.csv" if CSV is None else CSV)).to_string(index=False))


if __name__ == "__main__":
    main()

"""What an adapter can take of the gradient: how much lies in its tangent space, and where an optimizer's step goes.

G is the gradient of the loss in the weights that an adapter changes, J the Jacobian of these changes in its trained
factors. To first order a step changes the weights within the range of J, so ``|P G| / |G|``, with P the projection on
that range, is the largest cosine that any step of the factors can have with -G. The factors' own gradients are J^T G,
and J^T J follows from Gram matrices, so only |G| needs the gradient of a weight, one at a time.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tensoradapt.adapter.adapter import Adapter, check_filled
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.adapter.sharding import refuse_sharded
from tensoradapt.checks import check_arguments, of_kind, optional
from tensoradapt.errors import TensorAdaptError
from tensoradapt.layers.wrapper import wrapped
from tensoradapt.planning.plan import Group
from tensoradapt.sites.site import Site
from tensoradapt.surgery.factors_from_model import gradients_of
from tensoradapt.surgery.loss import loss_of
from tensoradapt.surgery.moved_batch import device_of, moved
from tensoradapt.surgery.registry import attached
from tensoradapt.surgery.transaction import transaction
from tensoradapt.training.distance.tangent import Tangent, Values
from tensoradapt.training.held import held_adapters, refuse_lbfgs
from tensoradapt.training.state import torch_optimizer

if TYPE_CHECKING:
    import pandas

ALL = "all"
COLUMNS = ("tensor", "factor", "share", "moved", "cosine")


def alignment(
    model: nn.Module,
    batch: Any,
    optimizer: torch.optim.Optimizer | None = None,
    loss: Callable[[nn.Module, Any], Tensor] | None = None,
) -> pandas.DataFrame:
    """Measure how much of the loss's gradient in the weights an adapter can follow, and how much a step does.

    The model is in eval mode meanwhile, and it, its gradients and the optimizer are left as they were. Share and cosine
    are to first order in the step.

    Args:
        model: a model with an attached adapter, the only one or the only one in use.
        batch: what the model is called with, or what ``loss`` takes.
        optimizer: one that trains the factors; the step that it would take with this batch is measured too.
        loss: called with model and batch; default ``model(**batch).loss``.

    Returns:
        A table. Its first row is of the whole adapter; then come its tensors, each in all and factor by factor.
        ``share`` is ``|P G| / |G|``: the part of the gradient's norm in the tangent space, of all factors together or
        of one alone. With an optimizer, ``moved`` is how far a factor's part of the step moves the weights, over the
        whole step, and ``cosine`` the cosine of what it moves with -G: at most ``share``.

    Raises:
        TensorAdaptError: without an adapter, for rules other than "add", maps, merged or sharded adapters, weights that
            take no gradient (quantised ones), and a loss or gradient that is not finite.

    >>> import torch
    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> adapter = ta.attach(model, "cp", rank=2)
    >>> batch = {"input_ids": torch.ones(2, 4, dtype=torch.long), "labels": torch.tensor([0, 1])}
    >>> table = ta.alignment(model, batch, torch.optim.AdamW(adapter.parameters(), lr=1e-3))
    >>> table.columns.tolist(), len(table)
    (['tensor', 'factor', 'share', 'moved', 'cosine'], 7)
    """
    check_arguments(
        locals(),
        model=of_kind(nn.Module),
        optimizer=optional(torch_optimizer),
        loss=optional(of_kind(Callable)),  # type: ignore[arg-type]  # a kind, if no class
    )
    adapter = attached(model)
    _check(model, adapter, optimizer)
    with _measured(model, adapter, batch, loss) as squares:
        step = _step(model, adapter, optimizer) if optimizer is not None else None
        rows = list(_rows(adapter, squares, step))
    import pandas

    return pandas.DataFrame(rows, columns=list(COLUMNS) if optimizer is not None else list(COLUMNS[:3]))


def _check(model: nn.Module, adapter: Adapter, optimizer: torch.optim.Optimizer | None) -> None:
    check_filled(adapter)
    if adapter.plan.spec.rule != "add":
        raise TensorAdaptError(
            f'alignment measures updates that are added to the weights, and the adapter has rule="'
            f'{adapter.plan.spec.rule}"; plan it with rule="add"'
        )
    if adapter.mapped:
        raise TensorAdaptError("a map makes the adapter's factors of other numbers; plan without map= to measure them")
    refuse_sharded(model, "alignment", "Measure it in one process, or under DDP")
    if adapter.gate.merged:
        raise TensorAdaptError("the adapter is merged into the weights; call unmerge(model)")
    if not any(p.requires_grad for p in adapter.rates()):
        raise TensorAdaptError("no factor of the adapter requires gradients; expected one that is trained")
    if optimizer is not None:
        refuse_lbfgs(optimizer)
        held_adapters(optimizer, model, "measure", "alignment")


@contextmanager
def _measured(
    model: nn.Module, adapter: Adapter, batch: Any, loss: Callable[[nn.Module, Any], Tensor] | None
) -> Iterator[dict[str, float]]:
    """Compute gradients, which are there within this context, and yield the squared norm of each site's."""
    squares: dict[str, float] = {}
    weights = _weights(model, adapter)
    trained = [p for p in model.parameters() if p.requires_grad]
    with transaction(model), gradients_of(model, [*weights, *trained]), ExitStack() as held:
        for weight, sites in weights.items():
            held.callback(weight.register_post_accumulate_grad_hook(_measurer(sites, squares)).remove)
        value = loss_of(model, moved(batch, device_of(model)), loss)
        value.backward()
        _check_finite(float(value.detach()), squares)
        yield squares


Read = Callable[[Tensor], Tensor]  # a parameter's gradient -> that of a site, (out, in)


def _weights(model: nn.Module, adapter: Adapter) -> dict[Tensor, list[tuple[Site, Read]]]:
    """Return the parameters that an adapter changes, with its sites in each."""
    found: dict[Tensor, list[tuple[Site, Read]]] = {}
    for _, layer in wrapped(model):
        for site in (site for block in layer.updates.get(adapter, ()) for site in block.sites):
            matrix = layer.matrices[site.parameter, site.slot]
            if not matrix.parameter.is_floating_point():
                raise TensorAdaptError(
                    f"the weight of site {site.name} is stored as {matrix.parameter.dtype}, which takes no gradient; "
                    "load the model without its quantisation to measure alignment"
                )
            read = lambda gradient, site=site, matrix=matrix: matrix.logical(gradient)[site.block]  # noqa: E731
            found.setdefault(matrix.parameter, []).append((site, read))
    return found


def _measurer(sites: list[tuple[Site, Read]], squares: dict[str, float]) -> Callable[[Tensor], None]:
    def measure(weight: Tensor) -> None:
        gradient, weight.grad = weight.grad, None  # one weight's at a time
        for site, read in sites:
            squares[site.name] = float(read(gradient).double().square().sum())  # type: ignore[arg-type]

    return measure


def _check_finite(loss: float, squares: Mapping[str, float]) -> None:
    if not math.isfinite(loss) or not all(map(math.isfinite, squares.values())):
        raise TensorAdaptError(
            f"the loss is {loss:.4g} and its gradients are not all finite; expected finite ones: give another batch, "
            "or train with a smaller rate"
        )
    if not any(squares.values()):
        raise TensorAdaptError("the loss has no gradient in the weights that the adapter changes; give another batch")


@torch.no_grad()
def _step(model: nn.Module, adapter: Adapter, optimizer: torch.optim.Optimizer) -> list[Values]:
    """Return how the optimizer would change each tensor's factors; undo what it changes."""
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    before = [p.detach().clone() for p in trained]
    gradients = [None if p.grad is None else p.grad.clone() for p in trained]  # hooks of a step change them
    state = {parameter: copy.deepcopy(held) for parameter, held in optimizer.state.items()}
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    stepper = getattr(optimizer, "equal_steps", None)
    record = dict(vars(stepper)) if stepper else {}
    factors = _factors(adapter)
    try:
        optimizer.step()
        moved = _factors(adapter)
    finally:
        for parameter, value, gradient in zip(trained, before, gradients, strict=True):
            parameter.copy_(value)
            parameter.grad = gradient
        optimizer.state.clear()
        optimizer.state.update(state)
        for group, values in zip(optimizer.param_groups, groups, strict=True):
            group.update(values)
        if stepper:
            vars(stepper).update(record)
    return [{name: new[name] - old[name] for name in old} for old, new in zip(factors, moved, strict=True)]


def _factors(adapter: Adapter) -> list[Values]:
    return [
        {name: p.detach().to(torch.float64, copy=True) for name, p in tensor.trained.items() if p.requires_grad}
        for tensor in adapter.factored
    ]


@dataclass(frozen=True)
class Measure:
    """Squared norms, over all entries of the matrices: of G, of its projection, of the step; and how far it goes on -G.

    ``along`` is the inner product of the step with -G.
    """

    gradient: float
    taken: float
    moved: float
    along: float

    def row(self, whole: Measure) -> tuple[float, float, float]:
        """Return share, moved and cosine as a part of a whole."""
        share = _over(self.taken, self.gradient) ** 0.5
        return share, _over(self.moved, whole.moved) ** 0.5, _over(self.along, (self.gradient * self.moved) ** 0.5)


def _rows(adapter: Adapter, squares: Mapping[str, float], step: list[Values] | None) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of the table: of the adapter, then of each tensor and its factors."""
    wholes, rows = [], []
    for i, (tensor, group) in enumerate(zip(adapter.factored, adapter.plan.groups, strict=True)):
        found = _tensor(Tangent(tensor, group, adapter.plan), tensor, group, squares, step[i] if step else None)
        wholes.append(found[ALL])
        rows += [(i, name, *one.row(found[ALL])) for name, one in found.items()]
    n = 5 if step else 3
    whole = Measure(*map(sum, zip(*map(astuple, wholes), strict=True)))
    total = whole.row(whole)
    yield from (row[:n] for row in [(ALL, ALL, *total), *rows])


def _tensor(
    tangent: Tangent, tensor: FactoredTensor, group: Group, squares: Mapping[str, float], step: Values | None
) -> dict[str, Measure]:
    """Measure a tensor's factors, all together and one by one."""
    gradient = sum(squares.get(name, 0.0) for name in dict.fromkeys(m.site.name for m in group.members))
    trained = {name: p for name, p in tensor.trained.items() if p.requires_grad}
    # in their own dtype, by which their rounding is known
    factors = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in trained.items()}

    def measure(names: Iterable[str]) -> Measure:
        part = {name: factors[name] for name in names}
        moves = {name: step[name] for name in part} if step else {}
        along = -sum(float((part[name].double() * move).sum()) for name, move in moves.items())
        moved = tangent.length(moves) ** 2 if moves else 0.0
        return Measure(gradient, tangent.projected(part) ** 2, moved, along)

    return {ALL: measure(factors), **{name: measure([name]) for name in factors}}


def _over(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan


NAMES = {"alignment": alignment}

"""Adapter: every trainable number of a plan, once, and the pair or delta of each site."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tensoradapt.adapter import checkpoint
from tensoradapt.adapter.factored import FactoredTensor, apply_pairs
from tensoradapt.adapter.frozen import Bases
from tensoradapt.adapter.origin import Origin
from tensoradapt.adapter.sharding import gathered, placed_like, write_once
from tensoradapt.adapter.task_choice import task_numbers
from tensoradapt.errors import TensorAdaptError, did_you_mean, located
from tensoradapt.networks.layout import RUNTIME, At
from tensoradapt.networks.network import Network
from tensoradapt.planning.grouping import Member
from tensoradapt.planning.plan import Plan
from tensoradapt.sites.site import RowBlock, Site

TASK = RUNTIME[0]


class Adapter(nn.Module):
    """The tensors of ``plan``, drawn from ``seed``; registered once, at the model's root.

    Wrapped layers read their pairs from here at forward time, so ``parameters()``, ``.to()`` and ``state_dict()`` see
    each number once. ``values``: of each tensor, factors that replace the drawn ones; ``scales``: the multipliers,
    where they are known and need not be solved.
    """

    def __init__(
        self,
        plan: Plan,
        seed: int = 0,
        values: Sequence[Mapping[str, Tensor]] | None = None,
        scales: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.plan, self.seed = plan, seed
        self.enabled, self.used, self.merged = True, True, False
        self.gated = False  # whether the update is multiplied by ``share``: a number, or one for each sample
        self.share: Tensor
        self.register_buffer("share", torch.ones(()), persistent=False)
        self.dropout = self.rank_dropout = 0.0  # of the input of the updates, of the components of each pair
        self.averaged_by = 0  # id of the DDP model that is known to hold the parameters
        self.base, self.origin = "", Origin()  # of the attached model: hash of its weights, and what its card says
        self._heads: tuple[Mapping[str, nn.Module]] = ({},)  # in a tuple: they are the model's, not registered here
        self.inactive_heads: dict[str, Tensor] = {}  # the heads' numbers while the model has those of another adapter
        self.bases = Bases([group.network for group in plan.groups], seed)
        self.tensors = nn.ModuleList(
            self._made(i, values[i] if values else None, scales[i] if scales else plan.scale)
            for i in range(len(plan.groups))
        )
        self.biases = nn.ParameterDict({proj: nn.Parameter(torch.zeros(width)) for proj, width in plan.biases})
        self._row_block: dict[RowBlock, int] = {row_block: i for i, row_block in enumerate(plan.row_blocks)}
        self.magnitudes = nn.ParameterList(torch.zeros(row_block.out) for row_block in plan.row_blocks)
        self._selected: int | Tensor | None = None  # the task, or one for each sample of a batch
        self._where: dict[str, tuple[int, Member, float]] = {
            member.site.name: (i, member, multiplier(plan, i, member.site))
            for i, group in enumerate(plan.groups)
            for member in group.members
        }

    def _made(self, i: int, values: Mapping[str, Tensor] | None, scale: str | float) -> FactoredTensor:
        plan, group = self.plan, self.plan.groups[i]
        with located(f"site {group.members[0].site.name}"):
            return FactoredTensor(
                group.network,
                seed=self.seed,
                name=str(i),
                scale=scale,
                alpha=plan.alpha,
                bases=self.bases,
                start=plan.start,
                values=values,
            )

    @property
    def factored(self) -> list[FactoredTensor]:
        """The tensors, typed."""
        return list(self.tensors)  # type: ignore[arg-type]  # nn.ModuleList does not know what it holds

    def pair(self, site: Site | str) -> tuple[Tensor, Tensor]:  # A: (R, in), B: (out, R)
        """LoRA factors of a site as its matrix is stored (out, in), scale included: ``B @ A == delta(site)``."""
        a, b = zip(*self.pairs(site), strict=True)
        return (torch.cat(a), torch.cat(b, dim=1)) if len(a) > 1 else (a[0], b[0])

    def pairs(self, site: Site | str) -> list[tuple[Tensor, Tensor]]:
        """Pairs whose products sum to ``delta(site)``: one, or two that cancel exactly at a subtracted start."""
        return self._pairs(site, self._at_task())

    def _pairs(self, site: Site | str, at: At) -> list[tuple[Tensor, Tensor]]:
        tensor, member, factor = self._at(site)
        found = tensor.pairs({**member.at, **at})
        if member.transposed:
            found = [(b.T, a.T) for a, b in found]
        return found if factor == 1 else [(a, factor * b) for a, b in found]

    def update(
        self,
        x: Tensor,  # (batch, ..., in) of the site
        site: Site,
        apply: Callable[[Tensor, list[tuple[Tensor, Tensor]]], Tensor] = apply_pairs,
    ) -> Tensor:  # (batch, ..., out)
        """``x delta^T``, for each sample of the batch with its own task where one was selected for each.

        ``apply`` computes it from pairs, for layers that are no matrix product.
        """
        if not isinstance(self._selected, Tensor):
            return apply(x, self.pairs(site))
        if len(self._selected) != len(x):
            raise TensorAdaptError(
                f"select(task=) was given {len(self._selected)} tasks and the batch has {len(x)} samples; give one each"
            )
        rows = [(self._selected == task).nonzero().squeeze(1).to(x.device) for task in range(len(self.plan.tasks))]
        parts = [apply(x[own], self._pairs(site, {TASK: task})) for task, own in enumerate(rows) if len(own)]
        return torch.cat(parts)[torch.cat(rows).argsort()]

    def bias(self, site: Site) -> Tensor | None:  # (out of the module,)
        """The shared bias of a site's projection."""
        proj = str(site.coord.get("proj"))
        return self.biases[proj] if proj in self.biases else None

    def magnitude(self, row_block: RowBlock) -> Tensor:  # (out of the row_block,)
        """DoRA's trained lengths of a block of rows."""
        return self.magnitudes[self._row_block[row_block]]

    @property
    def live(self) -> bool:
        """Whether the layers are to add its updates: it is used and enabled, and not in their weights already."""
        return self.used and self.enabled and not self.merged

    @property
    def per_sample(self) -> bool:
        """Whether each sample of the batch has a share of its own."""
        return self.gated and self.share.ndim > 0

    def shared(self, update: Tensor) -> Tensor:  # of the update's shape
        """An update times the adapter's share, of each sample where they differ."""
        if not self.gated:
            return update
        if self.share.ndim and len(self.share) != len(update):
            raise TensorAdaptError(
                f"use(model, samples=) was given {len(self.share)} samples and the batch has {len(update)}; give one "
                "each"
            )
        share = self.share.to(update)
        return (share.reshape(-1, *[1] * (update.ndim - 1)) if share.ndim else share) * update

    def select(self, *, task: str | int | Sequence[str | int] | Tensor) -> None:
        """Chooses the task of a plan made with ``tasks=``, by name or by index: one, or one for each sample of the next
        batches.

        Raises TensorAdaptError for what is none of the plan's tasks; the choice before stays.
        """
        self._selected = task_numbers(self.plan.tasks, task)

    def task(self) -> str | None:
        """The selected task, None of a plan without tasks; TensorAdaptError where it is not one."""
        if not self.plan.tasks:
            return None
        if not isinstance(self._selected, int):
            state = "no task is selected" if self._selected is None else "a task for each sample is selected"
            raise TensorAdaptError(
                f"{state}, and a site's update is of one task; call adapter.select(task=...) with one of "
                f"{', '.join(self.plan.tasks)}"
            )
        return self.plan.tasks[self._selected]

    def _at_task(self) -> dict[str, int]:
        task = self.task()
        return {} if task is None else {TASK: self.plan.tasks.index(task)}

    def delta(self, site: Site | str) -> Tensor:  # (out, in)
        """The dense update of a site as its matrix is stored, scale included."""
        tensor, member, factor = self._at(site)
        dense = tensor.delta({**member.at, **self._at_task()})
        return factor * (dense.T if member.transposed else dense)

    def _at(self, site: Site | str) -> tuple[FactoredTensor, Member, float]:
        name = site if isinstance(site, str) else site.name
        if name not in self._where:
            raise TensorAdaptError(
                f"site {name!r} is not in this adapter{did_you_mean(name, list(self._where)[:8])} ..."
            )
        i, member, factor = self._where[name]
        return self.tensors[i], member, factor  # type: ignore[return-value]

    def rates(self) -> dict[nn.Parameter, float]:
        """Learning-rate multipliers of the factors."""
        return {
            tensor.trained[factor.name]: factor.rate  # type: ignore[misc]
            for tensor in self.factored
            for factor in tensor.network.factors
            if factor.trainable
        }

    def replace_tensor(self, i: int, network: Network, values: Mapping[str, Tensor]) -> None:
        """Puts another network with these values in the place of a tensor, whose multiplier stays."""
        old = self.factored[i]
        new = FactoredTensor(network, seed=self.seed, name=str(i), scale=old.scale, bases=self.bases, values=values)
        new.to(next(old.parameters())).train(old.training)
        with torch.no_grad():
            for name, value in values.items():  # again, in their own dtype: tensors are made in torch's default one
                new.trained[name].copy_(value).requires_grad_(old.trained[name].requires_grad)
        self.tensors[i], self.averaged_by = new, 0
        groups = [replace(g, network=network) if k == i else g for k, g in enumerate(self.plan.groups)]
        self.plan = replace(self.plan, groups=tuple(groups))

    def save(self, path: str | Path) -> None:
        """Writes the adapter and the heads trained with it into a folder, for ``load``.

        Under DDP one rank is enough. Under FSDP2 every rank calls it: shards are gathered, and rank 0 writes. Raises
        TensorAdaptError while merged, for non-finite numbers, for factors that are not of the plan's shapes (as other
        libraries leave them that partition in place), and for a folder that cannot be written.
        """
        if self.merged:
            raise TensorAdaptError("the adapter is merged into the weights; call unmerge(model) before saving")
        saved = {name: gathered(p) for name, p in self._stored()}
        heads = head_tensors(self._heads[0]) | {k: v.cpu() for k, v in self.inactive_heads.items()}
        checkpoint.check_tensors(saved, checkpoint.expected(self.plan), Path(path))
        checkpoint.check_tensors(heads, {name: tuple(p.shape) for name, p in heads.items()}, Path(path))
        scales = tuple(tensor.scale for tensor in self.factored)
        numbers = self.seed, self.dropout, self.rank_dropout, scales
        found = checkpoint.Checkpoint(self.plan, *numbers, self.base, saved, heads)
        write_once(self, lambda: checkpoint.write(found, Path(path)))

    def _stored(self) -> Iterator[tuple[str, Tensor]]:
        """Every number a checkpoint has to hold, by its name there."""
        for i, tensor in enumerate(self.factored):
            yield from ((f"{i}.{name}", value) for name, value in {**tensor.trained, **tensor.held}.items())
        yield from ((f"bias.{proj}", value) for proj, value in self.biases.items())
        yield from ((f"magnitude.{i}", value) for i, value in enumerate(self.magnitudes))

    @torch.no_grad()
    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Takes over a checkpoint's numbers, those of the heads too."""
        for name, number in self._stored():
            number.copy_(placed_like(saved.factors[name], number))
        for head, module in self._heads[0].items():
            for name, parameter in module.named_parameters():
                parameter.copy_(placed_like(saved.heads[f"{head}.{name}"], parameter))

    def record_attachment(
        self, heads: Mapping[str, nn.Module], dropouts: tuple[float, float], base: str, origin: Origin
    ) -> None:
        """Told by ``attach`` what it was attached to."""
        self._heads, (self.dropout, self.rank_dropout), self.base, self.origin = (heads,), dropouts, base, origin

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """The base numbers trained with it, by their names in the model."""
        return {f"{head}.{name}": p for head, m in self._heads[0].items() for name, p in m.named_parameters()}

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Within it the wrapped layers are the base layers."""
        before, self.enabled = self.enabled, False
        try:
            yield
        finally:
            self.enabled = before

    @property
    def n_params(self) -> int:
        """Trainable numbers of the adapter."""
        return sum(p.numel() for p in self.parameters())

    @property
    def n_bytes(self) -> int:
        """Bytes of the numbers that ``save`` stores, heads aside."""
        return sum(value.nbytes for _, value in self._stored())

    def extra_repr(self) -> str:
        return f"{self.plan.parameterization}, {len(self._where)} sites, {self.n_params:,} parameters"


def head_tensors(heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Trained numbers of base modules by name, on the CPU."""
    return {f"{head}.{k}": gathered(p) for head, m in heads.items() for k, p in m.named_parameters()}


def multiplier(plan: Plan, group: int, site: Site) -> float:
    """The fixed factor of one site: matched scale steps as sqrt(1 / d_in) of each stored matrix, its tensor has one
    width.
    """
    return math.sqrt(plan.groups[group].network.layout.in_ / site.in_) if plan.scale == "matched" else 1.0

"""An Adapter has every trainable number of a plan, once, and gives the pair or delta of each site."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tensoradapt.adapter import checkpoint
from tensoradapt.adapter.attachment import Attachment, Magnitudes
from tensoradapt.adapter.chosen_updates import Gate, TaskChoice
from tensoradapt.adapter.draws import drawn_together
from tensoradapt.adapter.factor_map import factor_map
from tensoradapt.adapter.factored import FactoredTensor, apply_pair
from tensoradapt.adapter.forward_pass import ForwardPass, Pair
from tensoradapt.adapter.frozen import Bases
from tensoradapt.adapter.sharding import gathered, placed_like, write_once
from tensoradapt.checks import as_path, shown
from tensoradapt.errors import TensorAdaptError, did_you_mean, located
from tensoradapt.habits import ADAPTER, no_attribute
from tensoradapt.networks.layout import At
from tensoradapt.networks.network import Network
from tensoradapt.planning.plan import KINDS, Member, Plan, tensor_table
from tensoradapt.planning.scale import is_matched
from tensoradapt.sites.site import Site
from tensoradapt.text import count_text, displayed, screen


class Adapter(nn.Module):
    """The tensors of ``plan``, drawn from ``seed``; registered once, at the model's root.

    Wrapped layers read their pairs from here at forward time, so ``parameters()``, ``.to()`` and ``state_dict()`` see
    each number once.

    Args:
        plan: the plan whose tensors are made.
        seed: the seed of the draws and of the frozen bases.
        values: for each tensor, factors that replace the drawn ones.
        scales: for each tensor, its multiplier where it is known; solved by default.
        empty: make all numbers on the meta device, without values.

    Made by ``attach`` (docs/start/first-run.md). Raises TensorAdaptError for values and names of sites that do not fit.

    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> model = BertForSequenceClassification(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> adapter = ta.attach(model, "cp", rank=2)
    >>> adapter.n_params, adapter.delta("bert.encoder.layer.0.attention.self.query").shape
    (50, torch.Size([12, 12]))
    """

    def __init__(
        self,
        plan: Plan,
        seed: int = 0,
        values: Sequence[Mapping[str, Tensor]] | None = None,
        scales: Sequence[float] | None = None,
        empty: bool = False,
    ) -> None:
        super().__init__()
        self.plan = plan
        self.seed = seed
        self.empty = empty  # True while its values are yet to come
        self.given = False  # True where attach was given values
        self.gate = Gate()
        self.task_choice = TaskChoice(plan.spec.runtime)
        self.attachment = Attachment()
        self.forward_pass = ForwardPass()
        self.averaged_by = 0  # id of the DDP model that is known to hold the parameters
        self.bases = Bases([group.network for group in plan.groups], seed, empty, is_matched(plan.scale))
        self.mapped = factor_map(plan, seed, empty)
        given = values or [{}] * len(plan.groups)
        solved = () if empty or scales or self.mapped else drawn_together(plan, seed, self.bases, given)
        tensors = {i: _drawn(self, i, factors, scale) for i, factors, scale in solved}
        self.tensors = nn.ModuleList(
            tensors[i] if i in tensors else _drawn(self, i, given[i], scales[i] if scales else plan.scale)
            for i in range(len(plan.groups))
        )
        self.biases = nn.ParameterDict({proj: nn.Parameter(torch.zeros(width)) for proj, width in plan.biases})
        self.magnitudes = Magnitudes(plan.row_blocks)
        self._members = [members_alike(group.members) for group in plan.groups]
        self._parts: dict[str, SitePart] = {}
        for i, group in enumerate(plan.groups):
            for member in group.members:
                factor = plan.multiplier(group.network, member.site)
                self._parts[member.site.name] = SitePart(i, member, factor)

    def __getattr__(self, name: str) -> Any:
        if name in ADAPTER:
            raise no_attribute("an Adapter", name, ADAPTER, ())
        return super().__getattr__(name)

    @property
    def factored(self) -> list[FactoredTensor]:
        """The tensors, with their type."""
        return list(self.tensors)  # type: ignore[arg-type]  # nn.ModuleList does not know what it holds

    def pair(self, site: Site | str, task: int | None = None) -> tuple[Tensor, Tensor]:  # A: (R, in), B: (out, R)
        """Return LoRA factors of a site as its matrix is stored, scale included: ``B @ A == delta(site)``.

        ``task`` is an index that stands in for the selected one.
        """
        part, chosen = self._at(site), self.task_choice.at(task)
        pair = self._kept(part, chosen)
        if pair is None:
            return self._contracted(part, chosen)
        factors = self.factored[part.number].stored
        return self.forward_pass.ready_for(part.member.site.name, self.task_choice.selected, factors, pair)

    def _kept(self, part: SitePart, chosen: At) -> Pair | None:
        """Return a site's pair in one tensor as this pass has it; None where there is no pass, or the pair is large."""
        if torch.compiler.is_compiling() or not self.plan.groups[part.number].pairs_are_small:
            return None
        tensor = self.factored[part.number]
        key = (part.number, id(tensor), tensor.scale, *chosen.items())
        pairs = self.forward_pass.once(key, tensor.stored, lambda: self._pairs_of_group(part.number, chosen))
        return None if pairs is None else pairs[part.member.site.name]

    def _contracted(self, part: SitePart, chosen: At) -> Pair:
        pair = self.factored[part.number].pair({**part.member.at, **chosen})
        return as_stored(pair, part.member, part.factor)

    def begin_pass(self) -> None:
        """Begin a forward pass of the model in this thread; ``forward_pass.end`` ends it."""
        self.forward_pass.begin(lambda: [(tensor.scale, *map(id, tensor.stored)) for tensor in self.factored])

    def _pairs_of_group(self, number: int, chosen: At) -> dict[str, Pair]:
        """Contract the pairs of all sites of a tensor; those of the same ranges are contracted together."""
        found = {}
        for members in self._members[number]:
            pairs = self.factored[number].pairs_of([{**member.at, **chosen} for member in members])
            for member, pair in zip(members, pairs, strict=True):
                found[member.site.name] = as_stored(pair, member, self._parts[member.site.name].factor)
        return found

    def adapts(self, site: Site) -> bool:
        """Say whether a matrix is one of the plan's sites."""
        return site.name in self._parts

    def copies(self, site: Site) -> int:
        """Return how often each rank component is in the pair of a site (``FactoredTensor.copies``)."""
        return self.factored[self._at(site).number].copies

    @property
    def has_one_pair(self) -> bool:
        """Whether the update of a site is ``B A`` of one pair, the same for all samples and times one."""
        return not self.gate.by_share and not self.task_choice.by_sample

    def update(
        self,
        x: Tensor,  # (samples, ..., in of the site)
        site: Site,
        apply: Callable[[Tensor, Pair], Tensor] = apply_pair,
    ) -> Tensor:  # (samples, ..., out)
        """Compute ``x delta^T``, with each sample's own task where one was selected for each.

        ``apply`` computes it from a pair, for layers that are not a matrix product.
        """
        if (samples := self.task_choice.samples(x, self.gate)) is None:
            return apply(x, self.pair(site))
        tasks, back = samples
        parts = [apply(x[rows], self.pair(site, task)) for task, rows in enumerate(tasks) if len(rows)]
        return torch.cat(parts)[back]

    def bias(self, site: Site) -> Tensor | None:  # (out of the module,)
        """Return the shared bias of a site's projection, None where it has none.

        It has the multiplier of the site's tensor, as in CaRA's code; a matched one, made for tensors, is left out.
        """
        proj = str(site.coord.get("proj"))
        if proj not in self.biases:
            return None
        scale = self.factored[self._at(site).number].scale
        return self.biases[proj] * (1.0 if is_matched(self.plan.scale) else scale)

    def select(self, **chosen: str | int | Sequence[str | int] | Tensor) -> None:
        """Select the task of a plan made with ``tasks=``, by name or index; a sequence has one for each sample.

        Each runtime mode of the layout is an argument: ``select(task="rte")``, or ``select(scene="hall", env="rain")``,
        of which a mode that is left out keeps its value. Raises TensorAdaptError for anything that is not of the plan,
        for a mode that has no value yet, and while merged; the old choice stays.
        """
        if self.gate.merged:
            raise TensorAdaptError(
                f"the adapter is merged into the weights with task {self.task()!r}; call unmerge(model) first"
            )
        self.task_choice.select(**chosen)

    def task(self) -> str | Mapping[str, str] | None:
        """Return the selected task, by mode where there are several; None without tasks.

        Raises TensorAdaptError where it is not exactly one.
        """
        return self.task_choice.name()

    def delta(self, site: Site | str) -> Tensor:  # (out, in)
        """Return the dense update of a site as its matrix is stored, scale included."""
        part = self._at(site)
        dense = self.factored[part.number].delta({**part.member.at, **self.task_choice.at()})
        dense = dense.T if part.member.transposed else dense
        return dense if part.factor == 1 else part.factor * dense

    def _at(self, site: Site | str) -> SitePart:
        name = site.name if isinstance(site, Site) else site
        if not isinstance(name, str) or name not in self._parts:
            raise TensorAdaptError(f"site {shown(name)} is not in this adapter{did_you_mean(name, self._parts)}")
        if self.empty and not next(self.parameters()).is_meta:
            check_filled(self)
        return self._parts[name]

    def rates(self) -> dict[nn.Parameter, float]:
        """Return the learning-rate multiplier of each factor, or of the numbers that a map makes it of."""
        if mapped := self.mapped:
            networks = enumerate(mapped.networks)
            trained = [(mapped.key(str(i), f.name), f.rate) for i, net in networks for f in net.factors if f.trainable]
            return {mapped.numbers[key]: rate for key, rate in trained}
        return {
            tensor.trained[factor.name]: factor.rate
            for tensor in self.factored
            for factor in tensor.network.factors
            if factor.trainable
        }

    def replace_tensor(self, i: int, network: Network, values: Mapping[str, Tensor]) -> None:
        """Replace tensor ``i`` by another network with these values; its multiplier stays."""
        old = self.factored[i]
        new = FactoredTensor(network, seed=self.seed, name=str(i), scale=old.scale, bases=self.bases, values=values)
        new.to(next(old.parameters())).train(old.training)
        with torch.no_grad():
            for name, value in values.items():  # again, in their own dtype: tensors are made in torch's default one
                new.trained[name].copy_(value).requires_grad_(old.trained[name].requires_grad)
        self.tensors[i] = new
        self.averaged_by = 0
        groups = [replace(g, network=network) if k == i else g for k, g in enumerate(self.plan.groups)]
        self.plan = replace(self.plan, groups=tuple(groups))

    def save(self, path: str | Path) -> None:
        """Write the adapter and the heads trained with it into a folder, for ``load``.

        Under DDP one rank is enough. Under FSDP2 every rank calls it: shards are gathered, and rank 0 writes.

        Raises:
            TensorAdaptError: while merged, for non-finite numbers, for factors that are not of the plan's shapes (as
                libraries leave them that partition in place), and for a folder that cannot be written.
        """
        if self.gate.merged:
            raise TensorAdaptError("the adapter is merged into the weights; call unmerge(model) before saving")
        path = as_path(path, "path")
        check_filled(self)
        stored = {name: gathered(p) for name, p in self.stored()}
        at = self.attachment
        heads = at.head_tensors()
        checkpoint.check_tensors(stored, checkpoint.expected(self.plan), path)
        checkpoint.check_tensors(heads, {name: tuple(p.shape) for name, p in heads.items()}, path)
        scales = tuple(tensor.scale for tensor in self.factored)
        base = at.base_now() if at.base_now else at.base
        saved = checkpoint.Checkpoint(self.plan, self.seed, scales, base, stored, heads, at.origin.classes)
        write_once(self, lambda: checkpoint.write(saved, path))

    def stored(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every number that a checkpoint holds, heads aside, by its name there."""
        yield from ((f"map.{key}", value) for key, value in (self.mapped.numbers.items() if self.mapped else ()))
        for i, tensor in enumerate(self.factored):
            yield from ((f"{i}.{name}", value) for name, value in {**tensor.trained, **tensor.held}.items())
        yield from ((f"bias.{proj}", value) for proj, value in self.biases.items())
        yield from ((f"magnitude.{i}", value) for i, value in enumerate(self.magnitudes))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Give every number the value that ``attach`` gives it, after ``model.to_empty`` moved it off the meta device.

        Under FSDP2 every rank calls it. Raises TensorAdaptError on the meta device, for plans that take values from the
        base weights, and for an adapter whose values ``attach`` was given.
        """
        self._check_drawn()
        drawn = Adapter(self.plan, self.seed)
        for (_, number), (_, value) in zip(self.stored(), drawn.stored(), strict=True):
            number.copy_(placed_like(value, number))
        self._take_over([tensor.scale for tensor in drawn.factored])

    @torch.no_grad()
    def restore(self, saved: checkpoint.Checkpoint, write: Callable[[Tensor, Tensor], object] = Tensor.copy_) -> None:
        """Copy a checkpoint's numbers into the adapter and its heads, each by ``write(number, value)``."""
        self._check_moved()
        for name, number in self.stored():
            write(number, placed_like(saved.factors[name], number))
        for name, parameter in self.attachment.head_parameters().items():
            write(parameter, placed_like(saved.heads[name], parameter))
        self._take_over(saved.scales)

    def _check_drawn(self) -> None:
        """Raise TensorAdaptError where it cannot be drawn from its plan and seed, or is on the meta device."""
        plan = self.plan
        if self.given or any(factor.source == "given" for group in plan.groups for factor in group.network.factors):
            raise TensorAdaptError(
                "factors of the adapter were given, by values= of attach, and it does not keep what they began as; "
                "detach(model) and attach(model, plan, values=...) again, or restore(model, folder) what was saved"
            )
        if plan.needs_weights or plan.spec.rule == "dora":
            raise TensorAdaptError(
                f"{plan.spec.name} with start={plan.start!r} and rule={plan.spec.rule!r} takes "
                "values from the base weights. Load these, then detach(model) and attach(model, plan); or "
                "restore(model, folder) what was saved"
            )
        self._check_moved()

    def _check_moved(self) -> None:
        """Raise TensorAdaptError on the meta device, where numbers cannot be written."""
        if any(number.is_meta for _, number in self.stored()):
            raise TensorAdaptError(
                "the adapter is on the meta device, which holds no values; move it with its model first, by "
                "model.to_empty(device=...)"
            )

    def _take_over(self, scales: Sequence[float]) -> None:
        """Set the multipliers once the numbers have come, and draw the frozen ones if it was empty."""
        for tensor, scale in zip(self.factored, scales, strict=True):
            tensor.scale = scale
        if self.empty:
            self.bases.reset_parameters()
            if self.mapped:
                self.mapped.reset_buffers()
            self.empty = False

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Switch the updates off within the context."""
        before, self.gate.enabled = self.gate.enabled, False
        try:
            yield
        finally:
            self.gate.enabled = before

    @property
    def trained(self) -> list[nn.ParameterDict]:
        """The trained numbers: for each tensor its factors by name, or once those that a map makes them of."""
        return [self.mapped.numbers] if self.mapped else [tensor.trained for tensor in self.factored]

    def as_factors(self, numbers: Sequence[Mapping[str, Tensor]], change: bool = False) -> list[Mapping[str, Tensor]]:
        """Return for each tensor the factors that values of ``trained`` make; with ``change``, those of a change."""
        if (mapped := self.mapped) is None:
            return list(numbers)
        return [mapped.made(str(i), numbers[0], change) for i in range(len(mapped.networks))]

    @property
    def n_params(self) -> int:
        """The number of trainable entries of the adapter."""
        return sum(p.numel() for p in self.parameters())

    @property
    def n_bytes(self) -> int:
        """The bytes of the numbers that ``save`` stores, heads aside."""
        return sum(value.nbytes for _, value in self.stored())

    @property
    def state(self) -> str:
        """Say where it is and whether it is trained; steps of other loops than ``fit`` are not counted."""
        steps = self.attachment.steps
        trained = f"trained for {count_text(steps, 'step')}" if steps else "trained" if self._moved() else ""
        where = (
            "detached" if self.attachment.detached else "merged into the weights" if self.gate.merged else "attached"
        )
        return ", ".join(filter(None, (where, trained)))

    def _moved(self) -> bool:
        """Say whether the first factor that starts at zero is zero no more; False where this process cannot read it."""
        begins, tensor = self.plan.begins, self.factored[0]
        zero = tensor.trained.get(tensor.network.zero.name)
        if begins.update != "zero" or begins.nearest or zero is None or zero.is_meta or hasattr(zero, "placements"):
            return False
        return bool(zero.detach().any())

    def extra_repr(self) -> str:
        sites = f"{self.plan.parameterization}, {len(self._parts)} sites"
        return f"{sites}, {self.n_params:,} parameters, {self.state}"

    def __repr__(self) -> str:
        lines = (self.extra_repr(), *tensor_table(self.plan.groups, KINDS))
        return screen("\n  ".join(("Adapter(", *lines)) + "\n)")

    def _repr_html_(self) -> str:
        return displayed(self)


def check_filled(adapter: Adapter) -> None:
    """Raise TensorAdaptError for an adapter without values: attached on the meta device, or moved there."""
    if adapter.empty:
        raise TensorAdaptError(
            "the adapter was attached on the meta device and has no values yet. Load the base weights, then "
            "detach(model) and attach(model, plan) again; or move the model with to_empty(device=...), then call "
            "adapter.reset_parameters(), which draws the adapter's numbers, or restore(model, folder)"
        )
    if any(parameter.is_meta for parameter in adapter.parameters()):
        raise TensorAdaptError(
            "the adapter was moved to the meta device, where it lost its values. Load the base model again, then "
            "load(model, folder) for an adapter that was saved, or attach(model, plan) for a new one"
        )


@dataclass(frozen=True)
class SitePart:
    """Where a site reads its tensor: the number of the tensor, the slice, and a multiplier."""

    number: int
    member: Member
    factor: float


def members_alike(members: Sequence[Member]) -> list[list[Member]]:
    """Return the members that can be contracted together: those of the same ranges."""
    found: dict[tuple[Any, ...], list[Member]] = {}
    for member in members:
        found.setdefault(tuple((k, v) for k, v in member.at.items() if isinstance(v, range)), []).append(member)
    return list(found.values())


def as_stored(pair: Pair, member: Member, factor: float) -> Pair:
    """Return a tensor's pair as a site's matrix is stored, with its multiplier."""
    a, b = (pair[1].T, pair[0].T) if member.transposed else pair
    return a, (b if factor == 1 else factor * b)


def _drawn(adapter: Adapter, i: int, values: Mapping[str, Tensor], scale: str | float) -> FactoredTensor:
    """Draw tensor ``i`` of a plan."""
    plan = adapter.plan
    group = adapter.plan.groups[i]
    if adapter.mapped and not adapter.empty:
        values = {**values, **adapter.mapped.starts(str(i))}
    with located(f"site {group.members[0].site.name}"):
        tensor = FactoredTensor(
            group.network,
            seed=adapter.seed,
            name=str(i),
            scale=scale,
            alpha=plan.spec.alpha,
            bases=adapter.bases,
            start=plan.begins.update,
            values=values,
            empty=adapter.empty,
        )
    if adapter.mapped:
        tensor.made_by(adapter.mapped)
        tensor.scale *= adapter.mapped.gain(str(i)) if is_matched(scale) else 1
    return tensor

"""FactorMap makes all trained factors of an adapter from fewer trained numbers, by a map that the seed fixes.

``unilora`` (Li et al., arXiv 2506.00799): every entry is theta[index] / sqrt(uses of that index). ``nola``
(Koohpayegani et al., arXiv 2310.02556): a factor is the sum of a_n basis_n / sqrt(n) over n bases, uniform in (-1, 1),
the same for all tensors. To either the fixed draw is added that the factor would start with; only Uni-LoRA's own start,
of theta, has none. A map is affine in its numbers, and what is fixed follows from seed and names: no file holds it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tensoradapt.adapter import rules
from tensoradapt.adapter.draws import starts_at_zero
from tensoradapt.adapter.frozen import frozen_uniform
from tensoradapt.networks.mapped import entries, lengths
from tensoradapt.networks.network import Factor, Network
from tensoradapt.planning.plan import Plan
from tensoradapt.planning.scale import is_matched

UNILORA, NOLA = "unilora", "nola"
BOUND = 0.02  # theta's where it has the start of its own, as in PEFT
CHUNK = 2**22  # entries of bases that are drawn at once, in float64


class FactorMap(nn.Module):
    """The trained numbers of a plan with ``map=``, and the factors that they make.

    ``numbers`` has them by the names of ``mapped.lengths``; all else is buffers that no file holds. A tensor's name is
    its number in the plan.
    """

    def __init__(self, plan: Plan, seed: int, empty: bool = False) -> None:
        super().__init__()
        assert isinstance(plan.spec.map, Mapping)  # ``plan`` has given it a size
        [(self.kind, self.size)] = plan.spec.map.items()
        self.networks = [group.network for group in plan.groups]
        self.seed, self.start, self.matched = seed, plan.start, is_matched(plan.scale)
        device = "meta" if empty else "cpu"
        self._begins = _begins(self.networks)
        for name, shape in self.shapes(plan).items():
            dtype = torch.int64 if name == "index" else None
            self.register_buffer(name, torch.empty(shape, dtype=dtype, device=device), persistent=False)
        sizes = lengths(plan.spec.map, self.networks)
        self.numbers = nn.ParameterDict({key: nn.Parameter(torch.zeros(n, device=device)) for key, n in sizes.items()})
        if not empty:
            self.reset_buffers()
            if self.kind == UNILORA:
                self.numbers["theta"].data.copy_(self.get_buffer("first"))

    @staticmethod
    def shapes(plan: Plan) -> dict[str, tuple[int, ...]]:
        """Return the shape of each buffer that a plan's map holds."""
        assert isinstance(plan.spec.map, Mapping)
        [(kind, n)] = plan.spec.map.items()
        found: dict[str, tuple[int, ...]] = {}
        networks = [group.network for group in plan.groups]
        if kind == UNILORA:
            total = sum(network.n_params for network in networks)
            found |= {"index": (total,), "weights": (n,), "first": (n,)}
        for i, network in enumerate(networks):
            for name, m in entries(network).items():
                if kind == NOLA:
                    rows, columns = found.get(f"basis {name}", (0, 0))
                    found[f"basis {name}"] = max(rows, min(n, m)), max(columns, m)
            found |= {f"offset {i} {f.name}": network.shape(f) for f in _drawn(kind, network, plan.start)}
        return found

    @torch.no_grad()
    def reset_buffers(self) -> None:
        """Draw again all that is fixed."""
        for name, buffer in self.named_buffers():
            if name.startswith("basis "):
                self._draw_bases(name, buffer)
        for i, network in enumerate(self.networks):
            for factor in network.factors:
                if (offset := self._buffers.get(f"offset {i} {factor.name}")) is not None:
                    numbers = rules.Computed(self.seed, f"{i}/{factor.name}")
                    offset.copy_((rules.matched if self.matched else rules.paper)(network, factor, numbers))
        if self.kind == UNILORA:
            self._draw_index()

    def _draw_index(self) -> None:
        """Shuffle the numbers over all entries, so that each is used as often as any other, or once more."""
        words = np.random.Philox(key=np.array([self.seed, zlib.crc32(b"index")], dtype=np.uint64))
        index = self.get_buffer("index")
        self.set_index(torch.from_numpy(np.argsort(words.random_raw(len(index)), kind="stable") % self.size))
        uniform = rules.Computed(self.seed, "theta").uniform((self.size,))
        self.get_buffer("first").copy_((2 * uniform - 1) * (BOUND if _is_own_start(self.kind, self.start) else 0.0))

    def set_index(self, index: Tensor) -> None:  # (entries,)
        """Set which number each entry is made of, for the entries of all factors in the plan's order."""
        self.get_buffer("index").copy_(index)
        self.get_buffer("weights").copy_(torch.bincount(index, minlength=self.size).double().rsqrt())

    def _draw_bases(self, name: str, buffer: Tensor) -> None:
        rows = max(1, CHUNK // buffer.shape[1])
        for at in range(0, len(buffer), rows):
            n = min(rows, len(buffer) - at)
            drawn = frozen_uniform(self.seed, name, n, buffer.shape[1], at) / math.sqrt(3)
            buffer[at : at + n].copy_(torch.from_numpy(drawn))

    @property
    def subtracts(self) -> bool:
        """Whether the factors of the start are subtracted."""
        return self.start == "subtract"

    def key(self, tensor: str, factor: str) -> str:
        """Return the name of the numbers that a factor is made of."""
        return "theta" if self.kind == UNILORA else f"{tensor}_{factor}"

    def of(self, tensor: str, factors: Sequence[str]) -> dict[str, nn.Parameter]:
        """Return the numbers that these factors of a tensor are made of, each once."""
        return {key: self.numbers[key] for key in dict.fromkeys(self.key(tensor, name) for name in factors)}

    def value(self, tensor: str, factor: Factor, numbers: Tensor, change: bool = False) -> Tensor:
        """Return a factor made of ``numbers``; with ``change``, by how much a change of the numbers changes it."""
        network, name = self.networks[int(tensor)], factor.name
        shape = network.shape(factor)
        with torch.autocast(numbers.device.type, enabled=False):
            if self.kind == UNILORA:
                begin = self._begins[tensor, name]
                index = self.get_buffer("index")[begin : begin + math.prod(shape)]
                made = (numbers * self.get_buffer("weights").to(numbers)).index_select(0, index)
            else:
                basis = self.get_buffer(f"basis {name}")[: len(numbers), : math.prod(shape)]
                made = (numbers / math.sqrt(len(numbers))) @ basis.to(numbers)
        offset = None if change else self._buffers.get(f"offset {tensor} {name}")
        return made.view(shape) if offset is None else made.view(shape) + offset.to(numbers)

    def made(self, tensor: str, numbers: Mapping[str, Tensor], change: bool = False) -> dict[str, Tensor]:
        """Return all trained factors of a tensor from values of ``numbers``, as ``value`` does."""
        trained = [factor for factor in self.networks[int(tensor)].factors if factor.trainable]
        return {f.name: self.value(tensor, f, numbers[self.key(tensor, f.name)], change) for f in trained}

    def initial(self, tensor: str, factor: Factor) -> Tensor:
        """Return a factor as it starts."""
        numbers = self.numbers[self.key(tensor, factor.name)]
        first = self.get_buffer("first") if self.kind == UNILORA else torch.zeros_like(numbers)
        return self.value(tensor, factor, first.to(numbers))

    @torch.no_grad()
    def starts(self, tensor: str) -> dict[str, Tensor]:
        """Return the factors of a tensor as they start."""
        return {f.name: self.initial(tensor, f) for f in self.networks[int(tensor)].factors if f.trainable}

    def gain(self, tensor: str) -> float:
        """Return what the matched scale is multiplied by, as a step of the numbers moves entries less than their own.

        An entry moves by 1 / sqrt(uses), or by the sum of n bases with signs, of variance 1/3: these agree by the
        arcsine law where n is not small beside the m entries.
        """
        if self.kind == UNILORA:
            return math.sqrt(len(self.get_buffer("index")) / self.size)
        zero = self.networks[int(tensor)].zero.name
        n, m = len(self.numbers[f"{tensor}_{zero}"]), entries(self.networks[int(tensor)])[zero]
        return math.sqrt(3 / (1 + 2 / math.pi * (n - 1) / m))


def _begins(networks: Sequence[Network]) -> dict[tuple[str, str], int]:
    """Return where the entries of each factor of a tensor begin in the index."""
    found, at = {}, 0
    for i, network in enumerate(networks):
        for name, n in entries(network).items():
            found[str(i), name], at = at, at + n
    return found


def _is_own_start(kind: str, start: str) -> bool:
    return kind == UNILORA and start != "zero"


def _drawn(kind: str, network: Network, start: str) -> list[Factor]:
    """Return the factors to whose numbers a draw is added."""
    own = _is_own_start(kind, start)
    return [f for f in network.factors if f.trainable and not own and not starts_at_zero(f, start)]

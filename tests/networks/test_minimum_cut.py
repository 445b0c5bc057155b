"""The minimum cut by flow is that of a search over all splits."""

import itertools
import math

import numpy as np
import pytest

from tensoradapt.networks.layout import Layout
from tensoradapt.networks.minimum_cut import sides_by_flow
from tensoradapt.networks.network import Factor, Network, crossing_labels


def drawn(seed: int) -> Network:
    """A random connected network of up to eight factors."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    modes = {"layer": 3, "out1": 4, "out2": 5, "in1": 6, "in2": 7}
    labels: list[set[str]] = [set() for _ in range(n)]
    for mode in modes:
        for i in rng.choice(n, size=int(rng.integers(1, 3)) if mode != "layer" else 1, replace=False):
            labels[i].add(mode)
    bonds = {}
    for i in range(1, n):
        ends = {i, int(rng.integers(0, i)), *map(int, rng.choice(n, size=int(rng.integers(0, 2)), replace=False))}
        bonds[f"r{i}"] = int(rng.integers(1, 20))
        for end in ends:
            labels[end].add(f"r{i}")
    layout = Layout.parse("layer : out1 out2 : in1 in2", modes)
    factors = tuple(
        Factor(f"f{i}", tuple(sorted(held)), "zero" if i == 0 else "normal") for i, held in enumerate(labels)
    )
    return Network(layout, factors, bonds)


def size(network: Network, sides: tuple[str, ...]) -> int:
    return math.prod(network.sizes[label] for label in crossing_labels(network, sides))


@pytest.mark.parametrize("seed", range(60))
def test_it_is_that_of_a_search(seed: int) -> None:
    network = drawn(seed)
    rows, cols = ({m.name: m.size for m in modes} for modes in (network.layout.rows, network.layout.cols))
    by_flow = sides_by_flow([f.labels for f in network.factors], rows, cols, network.bonds)
    every = itertools.product("AB", repeat=len(network.factors))
    assert size(network, by_flow) == min(size(network, sides) for sides in every)


class Chain:
    """A tensor-train of very many cores, whose layout splits both widths into prime factors."""

    name, decompose = "chain", None

    def build(self, layout: Layout, rank: int, **_: object) -> Network:
        modes = [mode.name for mode in (*layout.rows, *layout.cols)]
        ends = [tuple(f"r{j}" for j in (i, i + 1) if 0 < j < len(modes)) for i in range(len(modes))]
        factors = [Factor(f"G{i}", (mode, *bonds)) for i, (mode, bonds) in enumerate(zip(modes, ends, strict=True))]
        factors[0] = Factor("G0", factors[0].labels, "zero")
        return Network(layout, tuple(factors), {f"r{i}": rank for i in range(1, len(modes))})


def test_a_network_of_many_factors_has_its_cut_at_once() -> None:
    n = 12
    layout = Layout.parse(
        f": {' '.join(f'out{i}' for i in range(n))} : {' '.join(f'in{i}' for i in range(n))}",
        {f"{side}{i}": 2 for side in ("out", "in") for i in range(n)},
    )
    cut = Chain().build(layout, 4).cut  # a search over 2^24 splits would take minutes
    assert cut.rank == 4 and len(cut.a) == len(cut.b) == n

"""The papers' equations, entry by entry in plain loops over raw factors. Imports nothing of the library.

``o`` is an output's number, ``i`` an input's; heads are counted head by head, as attention reads them. The sizes are
those of test_published's BERT: width 30, 5 heads of 6, 3 layers, an MLP of 60; rank 2.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Factors = Mapping[str, np.ndarray]
D, DIM, RANK = 30, 6, 2
PARTS, KRONECKER = (2, 3, 5), (5, 6)  # the parts test_published splits the width into


@dataclass(frozen=True)
class Place:
    """The layer of a matrix, its number among the adapted matrices of the layer, and how many of these there are."""

    layer: int
    proj: str
    number: int
    of: int

    @property
    def slot(self) -> int:
        """The number of the matrix among those of all layers."""
        return self.layer * self.of + self.number

    @property
    def attention(self) -> int:
        """The number of the matrix among the q, k and v of all layers."""
        return self.layer * 3 + self.number

    @property
    def others(self) -> int:
        """The number of the matrix among those of all layers that are not q, k or v."""
        return self.layer * (self.of - 3) + self.number - 3


Entry = Callable[[Factors, Place, int, int], float]


# LoRA and what is made of one matrix


def lora(f: Factors, at: Place, o: int, i: int) -> float:  # B A
    return sum(f["B"][o, k] * f["A"][k, i] for k in range(RANK))


def sharelora_a(f: Factors, at: Place, o: int, i: int) -> float:  # B of a layer, A of a projection
    return sum(f["B"][at.layer, o, k] * f["A"][k, i] for k in range(RANK))


def sharelora_b(f: Factors, at: Place, o: int, i: int) -> float:
    return sum(f["B"][o, k] * f["A"][at.layer, k, i] for k in range(RANK))


def tied_lora(f: Factors, at: Place, o: int, i: int) -> float:  # v B u A, on rows of q, k and v as one matrix
    parts = (f["B"][at.number, o, k] * f["d"][at.layer, k] * f["A"][k, i] for k in range(RANK))
    return f["b"][at.layer, at.number, o] * sum(parts)


def flora(f: Factors, at: Place, o: int, i: int) -> float:  # A G B
    return sum(f["out"][o, a] * f["core"][a, b] * f["in"][i, b] for a in range(RANK) for b in range(RANK))


def stella_diagonal(f: Factors, at: Place, o: int, i: int) -> float:  # U S V^T, S diagonal
    return sum(f["out"][o, k] * f["weights"][k] * f["in"][i, k] for k in range(RANK))


def vera(f: Factors, at: Place, o: int, i: int) -> float:  # diag(b) B diag(d) A
    return f["b"][o] * sum(f["B"][o, k] * f["d"][k] * f["A"][k, i] for k in range(RANK))


def randlora(f: Factors, at: Place, o: int, i: int) -> float:  # sum_j B_j L_j A G_j, B on the larger side
    big, small = (i, o) if at.proj == "down" else (o, i)
    total = 0.0
    for j in range(math.ceil(D / RANK)):
        total += sum(f["B"][j, big, k] * f["L"][j, k] * f["A"][k, small] * f["G"][j, small] for k in range(RANK))
    return total


def lora_xs(f: Factors, at: Place, o: int, i: int) -> float:  # U R (S V^T)
    return sum(f["B"][o, a] * f["R"][a, b] * f["A"][b, i] for a in range(RANK) for b in range(RANK))


def tinylora(f: Factors, at: Place, o: int, i: int) -> float:  # R = sum_k v_k P_k, of 3 singular vectors
    total = 0.0
    for k, a, b in itertools.product(range(RANK), range(3), range(3)):
        total += f["B"][o, a] * f["v"][k] * f["P"][k, a, b] * f["A"][b, i]
    return total


def loha(f: Factors, at: Place, o: int, i: int) -> float:  # (B1 A1) o (B2 A2)
    first, second = (sum(f[f"B{n}"][o, k] * f[f"A{n}"][k, i] for k in range(RANK)) for n in (1, 2))
    return first * second


def lokr(f: Factors, at: Place, o: int, i: int) -> float:  # C (x) (B A)
    (o1, o2), (i1, i2) = digits(o, KRONECKER), digits(i, KRONECKER)
    return f["C"][o1, i1] * sum(f["B"][o2, k] * f["A"][k, i2] for k in range(RANK))


def krona(f: Factors, at: Place, o: int, i: int) -> float:  # C (x) D
    (o1, o2), (i1, i2) = digits(o, KRONECKER), digits(i, KRONECKER)
    return f["C"][o1, i1] * f["D"][o2, i2]


def phm(f: Factors, at: Place, o: int, i: int) -> float:  # sum_k A_k (x) B_k
    (o1, o2), (i1, i2) = digits(o, KRONECKER), digits(i, KRONECKER)
    return sum(f["out1"][o1, i1, k] * f["out2"][k, o2, i2] for k in range(RANK))


def compacter(f: Factors, at: Place, o: int, i: int) -> float:  # sum_k R_k (x) (S_k T_k), R the same everywhere
    (o1, o2), (i1, i2), here, total = digits(o, KRONECKER), digits(i, KRONECKER), (at.layer, at.number), 0.0
    for k, s in itertools.product(range(5), range(RANK)):
        total += f["R"][k, o1, i1] * f["S"][here][k, o2, s] * f["T"][here][k, s, i2]
    return total


def gralora(f: Factors, at: Place, o: int, i: int) -> float:  # block (o1, i1) is B A of its own
    (o1, o2), (i1, i2) = digits(o, KRONECKER), digits(i, KRONECKER)
    return sum(f["B"][o1, i1, s, o2] * f["A"][i1, i2, o1, s] for s in range(RANK))


def more(f: Factors, at: Place, o: int, i: int) -> float:  # the same, neighbouring outputs from different blocks
    o2, o1 = divmod(o, 5)
    return gralora(f, at, o1 * 6 + o2, i)


def kradapter(f: Factors, at: Place, o: int, i: int) -> float:  # a square matrix: the input has the parts
    i1, i2 = digits(i, KRONECKER)
    o1, o2 = digits(o, KRONECKER)
    return f["V"][o1, o2, i1] * f["U"][o1, o2, i2]


def c3a(f: Factors, at: Place, o: int, i: int) -> float:  # each block a circulant matrix, divided by the inputs
    (o1, t), (i1, s) = digits(o, KRONECKER), digits(i, KRONECKER)
    return f["K"][o1, i1, (s - t) % 6] / D


def miss(f: Factors, at: Place, o: int, i: int) -> float:  # one row of blocks, repeated over the input
    return f["D"][o, i % 6]


def miss_mini(f: Factors, at: Place, o: int, i: int) -> float:  # one block, repeated over both sides
    return f["D"][o % 6, i % 6]


# CP


def lorta(f: Factors, at: Place, o: int, i: int) -> float:  # each head reads and writes its own slice
    return lorta_on(f, at, inner=i, stream=o) if at.proj == "o" else lorta_on(f, at, inner=o, stream=i)


def lorta_litgpt(f: Factors, at: Place, o: int, i: int) -> float:  # heads on every matrix's output
    return lorta_on({**f, "model": f["in"]}, at, inner=o, stream=i)


def lorta_peft(f: Factors, at: Place, o: int, i: int) -> float:  # heads on every matrix's input
    return lorta_on({**f, "model": f["out"]}, at, inner=i, stream=o)


def lorta_on(f: Factors, at: Place, inner: int, stream: int) -> float:  # sum_k C_L C_M C_H B A
    head, j = divmod(inner, DIM)
    places = {"layer": at.layer, "proj": at.number, "head": head, "dim": j, "model": stream}
    return sum(math.prod(f[mode][n, k] for mode, n in places.items()) for k in range(RANK))


def cara(f: Factors, at: Place, o: int, i: int) -> float:  # sum_k l_k A1 A2 A3 A4; sum_k l'_k P1 P2 P3, P2 on the input
    head, j = divmod(o, DIM)
    if at.proj in ("q", "k", "v"):
        places = {"layer_proj": at.attention, "head": head, "dim": j, "in": i}
    else:
        places = {"layer_proj_block": at.others, "out": o, "in": i}
    return sum(f["weights"][k] * math.prod(f[mode][n, k] for mode, n in places.items()) for k in range(RANK))


def cara_released(f: Factors, at: Place, o: int, i: int) -> float:
    """The second tensor as in the code, with P2, zero at the start, on the output of o and up and on the input of
    down.
    """
    two, three = (i, o) if at.proj == "down" else (o, i)
    places = {"layer_proj_block": at.others, "in": two, "out": three}  # the library's in is P2
    return sum(f["weights"][k] * math.prod(f[mode][n, k] for mode, n in places.items()) for k in range(RANK))


def tenslora_places(modes: str, at: Place, o: int, i: int) -> list[tuple[str, int]]:
    """The modes of one of TensLoRA's tensors in the core's order: depth, qkv, att, input."""
    made = [("layer", at.layer)] * ("depth" in modes) + [("proj", at.number)] * ("qkv" in modes)
    heads = [("head", o // DIM), ("dim", o % DIM)] if "att" in modes.split("_") else [("out", o)]
    return [*made, *heads, ("in", i)]


def tenslora(modes: str, f: Factors, at: Place, o: int, i: int) -> float:
    total, places = 0.0, tenslora_places(modes, at, o, i)
    for ranks in itertools.product(range(RANK), repeat=len(places)):
        total += f["core"][ranks] * math.prod(f[mode][n, k] for (mode, n), k in zip(places, ranks, strict=True))
    return total


def tenslora_cp(modes: str, f: Factors, at: Place, o: int, i: int) -> float:
    places = tenslora_places(modes, at, o, i)
    return sum(math.prod(f[mode][n, k] for mode, n in places) for k in range(RANK))


# two shared factors around a small matrix of each site


def lotr(f: Factors, at: Place, o: int, i: int) -> float:  # U G_l V
    return sum(f["out"][o, a] * f["core"][at.slot, a, b] * f["in"][i, b] for a in range(RANK) for b in range(RANK))


def fact_tk(f: Factors, at: Place, o: int, i: int) -> float:  # U (sum_p C_p P[p, l]) V
    weights = f["layer_proj_block" if "layer_proj_block" in f else "layer_proj"][at.slot]
    total = 0.0
    for a, b, p in itertools.product(range(RANK), repeat=3):
        total += f["out"][o, a] * f["core"][p, a, b] * weights[p] * f["in"][i, b]
    return total


# trains


def through(row: Sequence[float], core: np.ndarray) -> list[float]:
    """A row vector times a matrix."""
    return [sum(row[a] * core[a, b] for a in range(len(row))) for b in range(core.shape[1])]


def metatt_4d(f: Factors, at: Place, o: int, i: int) -> float:  # G1[i] G2[l] G3[m] G4[o]
    row = through(through(f["in"][i], f["layer"][:, at.layer]), f["proj"][:, at.number])
    return sum(row[a] * f["out"][a, o] for a in range(RANK))


def metatt_5d(f: Factors, at: Place, o: int, i: int) -> float:  # G1[i] G2[l] G3[m] G4[h] G5[j]
    row = through(through(f["in"][i], f["layer"][:, at.layer]), f["proj"][:, at.number])
    row = through(row, f["head"][:, o // DIM])
    return sum(row[a] * f["dim"][a, o % DIM] for a in range(RANK))


def metatt_task(f: Factors, at: Place, o: int, i: int) -> float:  # the task is test_published's second of three
    row = through(through(f["in"][i], f["layer"][:, at.layer]), f["proj"][:, at.number])
    row = through(row, f["task"][:, 1])
    return sum(row[a] * f["out"][a, o] for a in range(RANK))


def tt_lora(f: Factors, at: Place, o: int, i: int) -> float:  # the input's parts, the last first, then the output's
    (i1, i2, i3), (o1, o2, o3) = digits(i, PARTS), digits(o, PARTS)
    row: Sequence[float] = f["in3"][i3]
    for core in (f["in2"][:, i2], f["in1"][:, i1], f["out1"][:, o1], f["out2"][:, o2]):
        row = through(row, core)
    return sum(row[a] * f["out3"][a, o3] for a in range(RANK))


def dota(f: Factors, at: Place, o: int, i: int) -> float:  # G1[o1, i1] G2[o2, i2] G3[o3, i3]
    (i1, i2, i3), (o1, o2, o3) = digits(i, PARTS), digits(o, PARTS)
    row = through(f["out1"][o1, i1], f["out2"][:, o2, i2])
    return sum(row[a] * f["out3"][a, o3, i3] for a in range(RANK))


def loretta(sizes: Mapping[str, tuple[int, ...]], bottleneck: int, f: Factors, at: Place, o: int, i: int) -> float:
    """x A B, the entries of A (in, bottleneck) and of B (bottleneck, out) in reading order, each a train."""

    def entry(letter: str, n: int) -> float:
        row: Sequence[float] = [1.0]
        for k, digit in enumerate(digits(n, sizes[letter])):
            ends = (1 if k == 0 else RANK, sizes[letter][k], 1 if k == len(sizes[letter]) - 1 else RANK)
            row = through(row, f[f"{letter}{k + 1}"].reshape(ends)[:, digit])
        return row[0]

    return sum(entry("A", i * bottleneck + b) * entry("B", b * D + o) for b in range(bottleneck))


def quanta(f: Factors, at: Place, o: int, i: int) -> float:
    """A gate on the last two axes, one on the outer two, one on the first two."""
    (i1, i2, i3), (o1, o2, o3) = digits(i, PARTS), digits(o, PARTS)
    total = 0.0
    for a, b, c in np.ndindex(*PARTS):
        total += f["G3"][o1, o2, a, b] * f["G2"][a, o3, i1, c] * f["G1"][b, c, i2, i3]
    return total


def digits(n: int, parts: Sequence[int]) -> tuple[int, ...]:
    """A number's digits where the parts are the bases, the most significant first."""
    found = []
    for part in reversed(parts):
        n, digit = divmod(n, part)
        found.append(digit)
    return tuple(reversed(found))


CORES = {"A": (5, 6, 4), "B": (4, 6, 5)}
KINDS = ("att", "qkv", "depth", "att_qkv", "att_depth", "qkv_depth", "att_qkv_depth")
# the equation, and the multiplier alpha / r^p of the paper
ROWS: dict[str, tuple[Entry, float]] = {
    "lora": (lora, 16 / RANK),
    "rslora": (lora, 16 / math.sqrt(RANK)),
    "hira": (lora, 1),  # of which W is multiplied by
    "lora+": (lora, 16 / RANK),
    **dict.fromkeys(("pissa", "milora", "olora", "corda-ipm", "corda-kpm"), (lora, 1)),
    "mica": (lora, 16 / RANK),
    "eva": (lora, 1 / RANK),
    "lora-fa": (lora, 16 / RANK),
    "unilora": (lora, 1),  # of factors whose entries tests/extras/test_factor_map.py has
    "nola": (lora, 1 / RANK),
    "sharelora-a": (sharelora_a, 16 / RANK),
    "sharelora-b": (sharelora_b, 16 / RANK),
    "sharelora-ab": (lora, 16 / RANK),
    "tied-lora": (tied_lora, 1 / RANK),
    "lorta": (lorta, 16 / RANK),
    "lorta-litgpt": (lorta_litgpt, 16 / RANK),
    "lorta-peft": (lorta_peft, 8 / RANK),
    "lotr": (lotr, 1 / RANK),
    "fact-tt": (lotr, 1),
    "fact-tk": (fact_tk, 1),
    "aurora": (fact_tk, 1),
    "metatt-4d": (metatt_4d, 1),
    "metatt-5d": (metatt_5d, 1),
    "metatt-4+1d": (metatt_task, 1),
    "cara": (cara, 1),
    **{f"tenslora-{modes}": (functools.partial(tenslora, modes), 1) for modes in KINDS},
    **{f"tenslora-cp-{modes}": (functools.partial(tenslora_cp, modes), 1) for modes in KINDS},
    "tenslora+": (functools.partial(tenslora, "att_qkv_depth"), 1),
    "tt-lora": (tt_lora, 16),
    "loretta-rep": (functools.partial(loretta, CORES, 4), 16 / 4),
    "flora": (flora, 16 / RANK),
    "polar": (flora, 32 / RANK),  # X Theta Y^T
    "stella": (flora, 16 / RANK),  # U S V^T
    "stella-diagonal": (stella_diagonal, 16 / RANK),
    "vera": (vera, 2 / math.sqrt(RANK)),  # and 1 / sqrt(in): A and B have variance 2 / in and 2 / r in the paper
    "randlora": (randlora, 640 / RANK),
    "lora-xs": (lora_xs, 16 / RANK),
    "lora-sb": (lora_xs, 1),
    "tinylora": (tinylora, 1 / math.sqrt(3)),  # P has variance 1 / 3, one over the number of singular vectors
    "loha": (loha, 8 / RANK),
    "abba": (loha, 8),
    "lokr": (lokr, 8 / RANK),
    "krona": (krona, 1),
    "phm": (phm, 1),
    "compacter": (compacter, 1),
    "gralora": (gralora, 64 / (5 * RANK)),
    "more": (more, 1),
    "kradapter": (kradapter, 2),
    "c3a": (c3a, 1),
    "miss": (miss, 1),
    "miss-mini": (miss_mini, 1),
    "quanta": (quanta, 1),
    "dota": (dota, 1),
}

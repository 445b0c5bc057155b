"""One file in the folder is a parameterization: named, under the laws, planned, attached and trained; nothing else."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.models import assert_identical, inputs, make

import tensoradapt as ta
from tensoradapt.testing import laws

HEAD = '''"""{title}"""
import math
import numpy as np
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.network import Factor, Network
'''
FILES = {
    # one dense matrix with a gain for each position of the index modes: no bond, so A or B is an identity
    "toy_dense": """
def build(layout, rank):
    index, matrix = (tuple(m.name for m in modes) for modes in (layout.index, (*layout.rows, *layout.cols)))
    gains = [Factor("g", index)] if index else []
    return Network(layout, (Factor("W", matrix, "zero"), *gains), {})

def count(layout, rank):
    return layout.out * layout.in_ + (math.prod(m.size for m in layout.index) if layout.index else 0)

def oracle(layout, factors):
    return np.multiply.outer(factors["g"], factors["W"]) if layout.index else factors["W"]
""",
    # CP with all index modes in one factor and all row modes in another
    "toy_matrix_cp": """
def build(layout, rank):
    index, rows, cols = (tuple(m.name for m in modes) for modes in (layout.index, layout.rows, layout.cols))
    parts = (Factor("i", (*index, "r")), Factor("o", (*rows, "r"), "zero"), Factor("c", (*cols, "r")))
    return Network(layout, parts, {"r": rank})

def count(layout, rank):
    return rank * (math.prod(m.size for m in layout.index) + layout.out + layout.in_)

def oracle(layout, factors):
    i, o, c = (factors[name].reshape(-1, factors[name].shape[-1]) for name in "ioc")
    return sum(np.multiply.outer(np.outer(i[:, k], o[:, k]), c[:, k]) for k in range(i.shape[1])).reshape(layout.shape)
""",
    # sum_k S_k kron L_k, on one row and one column mode each; both factors have rows and columns, so legs cross the cut
    "toy_kronecker": """
def build(layout, rank):
    if len(layout.rows) != 2 or len(layout.cols) != 2:
        raise TensorAdaptError("expected two row and two column modes")
    (o1, o2), (i1, i2) = ((m.name for m in modes) for modes in (layout.rows, layout.cols))
    index = tuple(m.name for m in layout.index)
    return Network(layout, (Factor("L", (*index, o1, i1, "r")), Factor("S", (o2, i2, "r"), "zero")), {"r": rank})

def count(layout, rank):
    (o1, o2), (i1, i2) = ((m.size for m in modes) for modes in (layout.rows, layout.cols))
    return rank * (math.prod(m.size for m in layout.index) * o1 * i1 + o2 * i2)

def oracle(layout, factors):
    large, small = factors["L"], factors["S"]
    blocks = large.reshape(-1, *large.shape[-3:])
    made = [sum(np.kron(block[..., k], small[..., k]) for k in range(small.shape[-1])) for block in blocks]
    return np.stack(made).reshape(layout.shape)
""",
}
LAYOUTS = {"toy_kronecker": "layer proj : out1 out2 : in1 in2"}


@pytest.fixture(params=FILES)
def toy(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = request.param
    (tmp_path / f"{name}.py").write_text(HEAD.format(title=f"{name}: a toy.") + FILES[name])
    monkeypatch.setattr(ta.parameterizations, "__path__", [*ta.parameterizations.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield name
    sys.modules.pop(f"tensoradapt.parameterizations.{name}", None)


def test_a_file_dropped_into_the_folder_has_a_name(toy: str) -> None:
    assert toy in ta.parameterizations.names()
    assert ta.parameterizations.name_of(ta.parameterizations.get(toy)) == toy


@pytest.mark.thorough
def test_it_passes_the_laws_like_any_other(toy: str) -> None:
    laws(toy, examples=15)
    laws(ta.parameterizations.get(toy), examples=5)


def test_it_plans_attaches_trains_and_leaves_no_trace(toy: str) -> None:
    model, base = make("bert", torch.float32), make("bert", torch.float32)
    sites = ta.find_sites(model, ("q", "v"))
    layout = LAYOUTS.get(toy, "layer proj : out : in")
    split = {"out": (5, 6), "in": (3, 10)} if toy in LAYOUTS else {}
    plan = ta.plan(sites, layout, toy, rank=2, split=split)
    assert toy in str(plan)
    adapter = ta.attach(model, plan)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = model(**inputs("bert"), labels=torch.tensor([2, 5])).loss
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    ta.detach(model)
    assert_identical(model, base)

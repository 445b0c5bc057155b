"""Factors that are made of fewer numbers: Uni-LoRA's and NOLA's maps by their equations, in every parameterization."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import peft
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.families import PLANNED, planned
from support.models import inputs, make, perturb
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import tensoradapt as ta
from tensoradapt.adapter.frozen import frozen_uniform
from tensoradapt.errors import BudgetError
from tensoradapt.layers import ddp_checks
from tensoradapt.networks import mapped
from tensoradapt.sites.site import row_blocks
from tensoradapt.storage.load import unattached
from tensoradapt.testing.laws import float64
from tensoradapt.training.distance.adapter_distance import Distance
from tensoradapt.training.fit import fit
from tensoradapt.training.state import TrainingState

BERT = make("bert")
FEW = tuple(name for name in PLANNED if name != "randlora")  # which has more numbers than these matrices
UNILORA, NOLA = {"unilora": 20}, {"nola": 5}
GOLDEN = {
    "index": [11, 1, 6, 17, 6, 17],
    "basis": [-0.62789607, 0.40649864, -0.54050499],
    "offset": [-0.17651950, -0.08132230, 0.08567109],
}


@st.composite
def adapters(draw: st.DrawFn, name: str) -> ta.Adapter:
    """An adapter of the small BERT whose factors are made by a map of any kind and size, with normal numbers."""
    sites = ta.find_sites(BERT, draw(st.sampled_from([("q", "v"), ("q", "up", "down")])))
    given = {"rank": draw(st.integers(1, 3)), "start": draw(st.sampled_from(["zero", "subtract"]))}
    kind, seed = draw(st.sampled_from(("unilora", "nola"))), draw(st.integers(0, 99))
    limit = mapped.most(kind, [group.network for group in planned(sites, name, **given).groups])
    plan = planned(sites, name, **given, map={kind: draw(st.integers(1, min(limit, 40) if kind == "nola" else limit))})
    with float64():
        adapter = ta.attach(make("bert"), plan, seed=seed) if plan.needs_weights else ta.Adapter(plan, seed)
    perturb(adapter)
    return adapter


def changes(adapter: ta.Adapter) -> Iterator[dict[str, np.ndarray]]:
    """What each tensor's trained factors are since numbers of zero, entry by entry."""
    fmap = adapter.mapped
    assert fmap is not None
    index = fmap.get_buffer("index").tolist() if fmap.kind == "unilora" else []
    uses, at = np.bincount(index) if index else np.zeros(0), 0
    for i, group in enumerate(adapter.plan.groups):
        made = {}
        for name, m in mapped.entries(group.network).items():
            if fmap.kind == "unilora":
                theta = fmap.numbers["theta"].tolist()
                entries = [theta[j] / math.sqrt(uses[j]) for j in index[at : at + m]]
            else:
                a = fmap.numbers[f"{i}_{name}"].tolist()
                basis = frozen_uniform(adapter.seed, f"basis {name}", len(a), m) / math.sqrt(3)
                entries = [sum(x * basis[n, k] for n, x in enumerate(a)) / math.sqrt(len(a)) for k in range(m)]
            made[name], at = np.array(entries), at + m
        yield made


def equation(adapter: ta.Adapter, folder: Path) -> None:
    """Every trained factor is what it is at numbers of zero and its map's equation."""
    found = [{k: v.detach().clone() for k, v in tensor.factors.items()} for tensor in adapter.factored]
    expected = [*changes(adapter)]
    for number in adapter.parameters():
        number.data.zero_()
    for tensor, moved, made in zip(adapter.factored, found, expected, strict=True):
        for name, entries in made.items():
            change = (moved[name] - tensor.factors[name].detach()).flatten()
            np.testing.assert_allclose(change.numpy(), entries, rtol=0, atol=1e-12 * max(1, np.abs(entries).max()))


def count(adapter: ta.Adapter, folder: Path) -> None:
    """The count is the closed formula's."""
    assert isinstance(adapter.plan.spec.map, dict)
    [(kind, n)] = adapter.plan.spec.map.items()
    sizes = [math.prod(g.network.shape(f)) for g in adapter.plan.groups for f in g.network.factors if f.trainable]
    closed = n if kind == "unilora" else sum(min(n, size) for size in sizes)
    assert adapter.n_params == adapter.plan.n_params == closed


def oracle(adapter: ta.Adapter, folder: Path) -> None:
    """The tensor is the parameterization's own definition of the factors, less that of those at the start."""
    module = ta.parameterizations.get(adapter.plan.parameterization)
    assert adapter.mapped is not None
    for tensor in adapter.factored:
        starts = {**tensor.factors, **adapter.mapped.starts(tensor.name)}
        now, first = (
            module.oracle(tensor.network.layout, {k: v.detach().numpy() for k, v in each.items()})
            for each in (tensor.factors, starts)
        )
        expected = tensor.scale * (now - first if adapter.plan.start == "subtract" else now)
        size = max(1, np.abs(tensor.scale * now).max())
        np.testing.assert_allclose(tensor.full().detach().numpy(), expected, rtol=0, atol=1e-11 * size)


def pair(adapter: ta.Adapter, folder: Path) -> None:
    """A site's pair is its update."""
    for site in adapter.plan.sites[:3]:
        (a, b), dense = adapter.pair(site), adapter.delta(site)
        size = max(1, float(b.detach().norm() * a.detach().norm()))
        torch.testing.assert_close(b @ a, dense, rtol=0, atol=1e-12 * size)


def distance(adapter: ta.Adapter, folder: Path) -> None:
    """The distance of a change of the numbers is that of the dense updates."""
    generator = torch.Generator().manual_seed(0)
    before = [{k: p.detach().clone() for k, p in named.items()} for named in adapter.trained]
    change = [{k: 0.1 * torch.randn(p.shape, generator=generator).double() for k, p in of.items()} for of in before]
    curve = Distance(adapter).along(adapter.as_factors(before), adapter.as_factors(change, change=True))

    def deltas(c: float) -> Tensor:
        for key, number in adapter.trained[0].items():
            number.data = before[0][key] + c * change[0][key]
        return torch.cat([adapter.delta(site).detach().flatten() for site in adapter.plan.sites])

    for c in (-2.0, 0.03, 1.0):
        assert curve(c) == pytest.approx(float((deltas(c) - deltas(0.0)).square().sum()), rel=1e-9), c


def file(adapter: ta.Adapter, folder: Path) -> None:
    """A file holds the numbers alone, and gives the updates again."""
    adapter.save(folder)
    held = load_file(folder / "adapter.safetensors")
    based = {f.name for g in adapter.plan.groups for f in g.network.factors if f.source == "base"}
    assert sum(v.numel() for k, v in held.items() if k.startswith("map.")) == adapter.n_params
    assert {k.split(".")[-1] for k in held if not k.startswith("map.")} == based
    with float64():
        again = unattached(folder)
    assert all(torch.equal(again.delta(site), adapter.delta(site)) for site in adapter.plan.sites)


LAWS = (equation, count, oracle, pair, distance, file)


@pytest.mark.thorough
@pytest.mark.parametrize("name", FEW)
@settings(max_examples=max(8, settings.default.max_examples // 4))  # of all laws together
@given(data=st.data())
def test_a_law_holds_for_mapped_factors(name: str, data: st.DataObject, tmp_path_factory: Any) -> None:
    law = data.draw(st.sampled_from(LAWS))
    law(data.draw(adapters(name)), tmp_path_factory.mktemp("saved"))


@pytest.mark.parametrize("kind", [UNILORA, NOLA])
@pytest.mark.parametrize("start", ["zero", "subtract"])
@pytest.mark.parametrize("name", ["lora", "cp", "tensor_train", "tucker"])
def test_a_start_is_exactly_zero_and_moves(name: str, start: str, kind: dict[str, int]) -> None:
    model, base = make("bert"), make("bert")
    adapter = ta.attach(model, planned(ta.find_sites(model, ("q", "v")), name, rank=2, map=kind, start=start))
    assert torch.equal(model(**inputs("bert")).logits, base(**inputs("bert")).logits)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=1e-3)
    before = {key: number.detach().clone() for key, number in adapter.named_parameters()}
    for _ in range(2):
        optimizer.zero_grad()
        model(**inputs("bert"), labels=torch.tensor([2, 5])).loss.backward()
        optimizer.step()
    assert not [key for key, number in adapter.named_parameters() if torch.equal(number, before[key])]


class Two(nn.Module):
    """A model of two matrices."""

    def __init__(self, out: int, in_: int) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(in_, out), nn.Linear(out, in_)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(x)))


@pytest.mark.parametrize(("out", "in_", "rank", "size"), [(12, 8, 2, 7), (30, 18, 3, 40)])
def test_unilora_is_pefts_with_its_index_and_theta(out: int, in_: int, rank: int, size: int) -> None:
    torch.manual_seed(0)
    base, x = Two(out, in_).double(), torch.randn(5, in_, dtype=torch.float64)
    config = peft.UniLoraConfig(r=rank, theta_d_length=size, target_modules=["one", "two"], init_theta_d_bound=1.0)
    with float64():
        theirs = peft.get_peft_model(copy.deepcopy(base), config).double()
        sites = ta.find_sites(base, (), modules=("one", "two"))
        plan = ta.plan(sites, "unilora", rank=rank, map={"unilora": size}, paper=True)
        adapter = ta.attach(base, plan)
    layers = theirs.base_model.model.one, theirs.base_model.model.two
    index = [part["default"].flatten() for one in layers for part in (one.unilora_indices_A, one.unilora_indices_B)]
    assert adapter.mapped is not None and [f.name for f in plan.groups[0].network.factors] == ["A", "B"]
    adapter.mapped.set_index(torch.cat(index))
    theta = theirs.base_model.unilora_theta_d["default"].detach()
    adapter.mapped.numbers["theta"].data.copy_(theta)
    assert adapter.n_params == sum(p.numel() for p in theirs.parameters() if p.requires_grad) == size
    for layer, site in zip(layers, plan.sites, strict=True):
        expected = layer.get_delta_weight("default").detach()
        torch.testing.assert_close(
            adapter.delta(site).detach(), expected, rtol=0, atol=1e-6 * float(expected.abs().max())
        )
    torch.testing.assert_close(base(x), theirs(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("rank", "size"), [(2, 3), (3, 17)])
def test_nola_is_its_equation_in_loops(rank: int, size: int) -> None:
    with float64():
        model = make("bert")
        adapter = ta.attach(model, ta.plan(model, "nola", rank=rank, map={"nola": size}, paper=True), seed=6)
    perturb(adapter)
    fmap = adapter.mapped
    assert fmap is not None
    bases = {name: fmap.get_buffer(f"basis {name}") for name in ("A", "B")}
    numbers = {key: number.detach() for key, number in fmap.numbers.items()}
    assert all(-1 <= float(basis.min()) < -0.5 and 0.5 < float(basis.max()) <= 1 for basis in bases.values())
    for i, tensor in enumerate(adapter.factored[:2]):
        site, start = adapter.plan.groups[i].members[0].site, fmap.get_buffer(f"offset {i} A")
        assert float(start.abs().max()) <= 1 / math.sqrt(site.in_)  # Kaiming's bound
        a, b = start.clone().tolist(), np.zeros((site.out, rank)).tolist()
        for n in range(size):
            for k in range(rank):
                for j in range(site.in_):
                    a[k][j] += float(numbers[f"{i}_A"][n] * bases["A"][n, k * site.in_ + j]) / math.sqrt(size)
                for o in range(site.out):
                    b[o][k] += float(numbers[f"{i}_B"][n] * bases["B"][n, o * rank + k]) / math.sqrt(size)
        expected = np.array(b) @ np.array(a) / rank  # alpha 1
        np.testing.assert_allclose(tensor.delta({}).detach().numpy(), expected, rtol=0, atol=1e-12)


def test_what_no_file_holds_is_the_same_in_every_version_and_for_each_seed() -> None:
    one, same, other = (ta.Adapter(ta.plan(BERT, "lora", rank=2, map=UNILORA), seed=seed) for seed in (3, 3, 4))
    nola = ta.Adapter(ta.plan(BERT, "lora", rank=2, map=NOLA), seed=3)
    assert one.mapped and same.mapped and other.mapped and nola.mapped
    assert torch.equal(one.mapped.get_buffer("index"), same.mapped.get_buffer("index"))
    assert not torch.equal(one.mapped.get_buffer("index"), other.mapped.get_buffer("index"))
    found = {
        "index": one.mapped.get_buffer("index")[:6].tolist(),
        "basis": nola.mapped.get_buffer("basis A")[4, :3].tolist(),
        "offset": nola.mapped.get_buffer("offset 1 A")[0, :3].tolist(),
    }
    assert found == {key: pytest.approx(value, abs=1e-6) for key, value in GOLDEN.items()}


@pytest.mark.parametrize("kind", [UNILORA, NOLA])
def test_an_adapter_that_was_attached_on_the_meta_device_has_the_same_map(kind: dict[str, int], tmp_path: Path) -> None:
    plain = make("bert", torch.float32)
    plan = ta.plan(plain, "lora", rank=2, map=kind, start="subtract")
    expected = ta.attach(plain, plan, seed=5)
    with torch.device("meta"):
        model = make("bert", torch.float32).to("meta")
    adapter = ta.attach(model, plan, seed=5)
    model.to_empty(device="cpu")
    adapter.reset_parameters()
    perturb(adapter)
    perturb(expected)
    for site in plan.sites:
        assert torch.equal(adapter.delta(site), expected.delta(site))


@pytest.mark.parametrize("kind", [UNILORA, NOLA])
def test_a_map_goes_with_ties_frozen_and_shared_factors_tasks_and_rules(kind: dict[str, int]) -> None:
    every: list[dict[str, Any]] = [
        {"layout": "layer : out : in", "shared": {"A": ["layer"]}},
        {"frozen": ["A"]},
        {"frozen": {"A": "ones"}, "start": "subtract"},
        {"layout": "layer task : out : in", "tasks": ("a", "b")},
        {"rule": "hira"},
        {"rule": "dora"},
    ]
    for more in every:
        model = make("bert")
        adapter = ta.attach(model, ta.plan(model, "lora", rank=2, map=kind, projections=["q", "v"], **more))
        if "tasks" in more:
            adapter.select(task="b")
        if "frozen" in more:  # it is not mapped
            assert set(mapped.entries(adapter.plan.groups[0].network)) == {"B"}
        assert adapter.n_params == adapter.plan.n_params
        perturb(adapter)
        moved = model(**inputs("bert")).logits
        ta.merge(model)
        torch.testing.assert_close(model(**inputs("bert")).logits, moved, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", [UNILORA, NOLA])
def test_equal_steps_move_the_weights_as_far_as_asked(kind: dict[str, int]) -> None:
    with float64():
        model = make("bert")
        adapter = ta.attach(model, ta.plan(model, "cp", rank=2, map=kind, projections=["q", "v"]))
        optimizer = ta.equal_steps(torch.optim.AdamW(adapter.parameters(), lr=1e-3), model)

    def deltas() -> Tensor:
        return torch.cat([adapter.delta(site).detach().flatten() for site in adapter.plan.sites])

    for _ in range(3):
        before = deltas()
        optimizer.zero_grad()
        model(**inputs("bert"), labels=torch.tensor([2, 5])).loss.backward()
        optimizer.step()
        rms = float((deltas() - before).square().mean().sqrt())
        assert rms == pytest.approx(1e-3 * 2 * math.sqrt(8 / (3 * 30)), rel=1e-9)


def test_a_budget_decides_the_size_of_a_map() -> None:
    for method, size in (("unilora", {"unilora": 100}), ("nola", {"nola": 4})):
        plan = ta.plan(BERT, method, budget=100, rank=2, projections=["q", "v", "k", "o"])
        assert plan.spec.map == size and plan.n_params <= 100 and plan.groups[0].rank == 2
    assert ta.plan(BERT, "cp", map="nola", budget=10**6).spec.map == {"nola": 240}  # all entries of the largest factor
    assert ta.plan(BERT, "unilora", budget=100).groups[0].rank == 8
    with pytest.raises(BudgetError, match="budget 10 is below the smallest possible: map 'nola' of 1 takes 12"):
        ta.plan(BERT, "nola", budget=10, projections=["q", "v"])
    with pytest.raises(BudgetError, match="takes 12 numbers, above the budget of 11"):
        ta.plan(BERT, "lora", rank=2, map={"nola": 1}, budget=11, projections=["q", "v"])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"map": {"unilora": 0}}, "map of 'unilora' is 0; expected a whole number from 1"),
        ({"map": {"unlora": 8}}, "map is 'unlora'; did you mean \"unilora\""),
        ({"map": "nola"}, r'map is .nola. and no size was given; expected {"nola": 256}, or budget='),
        (
            {"map": {"unilora": 10**6}},
            "map 'unilora' is 1,000,000, and the trained factors have only 720 entries; expected",
        ),
        (
            {"map": {"nola": 61}},
            "map 'nola' is 61, and the largest trained factor has only 60 entries; expected at most 60",
        ),
        ({"map": NOLA, "start": "gradient"}, "map was given and the start is from gradients, which no map makes"),
        (
            {"map": UNILORA, "rates": {"B": 2.0}},
            "factor 'B' has a learning rate of its own, and map 'unilora' makes all",
        ),
        ({"map": NOLA, "frozen": ["A", "B"]}, "names every trained factor"),
        ({"num_basis": 8}, "map"),
    ],
)
def test_a_map_that_cannot_be_is_refused_when_planning(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ta.TensorAdaptError, match=says):
        ta.plan(BERT, **{"method": "lora", "rank": 2, "projections": ["q", "v"], **given})


def test_what_a_mapped_adapter_cannot_do_says_what_to_do() -> None:
    model = make("bert")
    plan = ta.plan(model, "lora", rank=2, map=NOLA)
    values = [{"A": torch.zeros(2, 30), "B": torch.zeros(30, 2)}] * len(plan.groups)
    with pytest.raises(ta.TensorAdaptError, match=r"values= was given, and a map makes the factors"):
        ta.attach(model, plan, values=values)
    adapter = ta.attach(model, plan)
    with pytest.raises(ta.TensorAdaptError, match=r"a map makes the adapter's factors .* plan with a smaller rank"):
        ta.reduce_rank(model, rank=1)
    with pytest.raises(ta.TensorAdaptError, match=r"a map makes the adapter's factors .* train with a plain optimizer"):
        ta.preconditioned(torch.optim.AdamW(adapter.parameters(), lr=1e-3), model)
    with pytest.raises(ta.TensorAdaptError, match=r"method 'nola' has the map {'nola': 60}, of whose numbers given"):
        ta.compress(adapter, adapter.plan.sites, method="nola", rank=2)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [{"unilora": 20}, {"unilora": 200}, {"nola": 4}, {"nola": 60}])
@pytest.mark.parametrize("name", ["lora", "cp", "tucker", "tensor_train", "vera", "loha"])
def test_the_first_step_at_the_matched_scale_is_loras_within_a_tenth(name: str, kind: dict[str, int]) -> None:
    config = SimpleNamespace(
        model_type="bert", hidden_size=64, num_hidden_layers=8, num_attention_heads=8, intermediate_size=128
    )
    plan, found = ta.plan(ta.find_sites(config, ("q", "v")), name, rank=8, map=kind), []
    for seed in range(4):
        with float64():
            adapter = ta.Adapter(plan, seed)
        generator = torch.Generator().manual_seed(seed)
        pull = torch.randn(len(plan.sites), 64, 64, generator=generator, dtype=torch.float64)
        before = torch.stack([adapter.delta(site) for site in plan.sites])
        (pull * before).sum().backward()
        torch.optim.Adam(adapter.parameters(), lr=1e-5, eps=1e-30).step()
        after = torch.stack([adapter.delta(site) for site in plan.sites])
        found.append(float((after - before).detach().square().mean().sqrt()) / 1e-5)
    assert sum(found) / 4 == pytest.approx(2 * math.sqrt(8 / (3 * 64)), rel=0.1)


@pytest.mark.parametrize("kind", [UNILORA, NOLA])
def test_a_training_resumes_bit_for_bit(kind: dict[str, int], tmp_path: Path) -> None:
    found = []
    for _ in range(2):  # the second goes on from the state that the first wrote after four steps
        model = make("bert", torch.float32)
        adapter = ta.attach(model, ta.plan(model, "cp", rank=2, map=kind), seed=1)
        batch, state = {**inputs("bert"), "labels": torch.tensor([2, 5])}, TrainingState(tmp_path / "state", every=4)
        fit(model, [batch] * 6, lr=1e-3, steps=6, checkpoint=state)
        found.append([number.detach().clone() for number in adapter.parameters()])
        resumed = state.resumed
    assert resumed == 4 and all(map(torch.equal, *found))


def test_one_vector_in_reentrant_checkpoints_under_ddp_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each segment would hand in its gradient anew, also where no tensor spans layers."""
    for kind, refused in ((UNILORA, True), (NOLA, False)):
        model = make("bert")
        adapter = ta.attach(model, ta.plan(model, "lora", rank=2, map=kind))
        adapter.requires_grad_(True)
        bucket = SimpleNamespace(parameters=lambda model=model: list(model.parameters()))
        reducer = SimpleNamespace(_get_zeros_like_grad_buckets=lambda bucket=bucket: [bucket])
        known = SimpleNamespace(reducer=reducer, static_graph=False)
        monkeypatch.setattr(DistributedDataParallel, "_active_ddp_module", known)
        monkeypatch.setattr(ddp_checks, "_in_segment", lambda: True)
        blocks = tuple(row_blocks(adapter.plan.sites))
        says = pytest.raises(ta.TensorAdaptError, match="shares trainable factors with other layers")
        with torch.no_grad(), says if refused else nullcontext():
            ddp_checks.check_ddp([(adapter, blocks)])

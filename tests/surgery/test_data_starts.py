"""Starts that take their values from weights, gradients or inputs of layers, against the papers' equations."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.models import assert_identical, inputs, logical, make, perturb, weights_with_deltas
from torch import nn
from torch.func import functional_call

import tensoradapt as ta
from tensoradapt.networks.starts import STARTS
from tensoradapt.sites.site import Site
from tensoradapt.testing.laws import float64

FREE, RATE = ": out : in", 3e-4
MODELS = {"bert": ("q", "up", "down"), "gpt2": ("q", "v", "o")}  # rectangular matrices; blocks of a Conv1D
SUBTRACTED = [name for name, start in STARTS.items() if start.halves and start.update == "subtract"]
NAMES = [name for name, start in STARTS.items() if start.halves]


def batches(name: str = "bert") -> list[dict[str, torch.Tensor]]:
    given = inputs(name)
    labels = [given["input_ids"]] * 2 if name == "gpt2" else [torch.tensor([2, 5]), torch.tensor([1, 1])]
    return [{**given, "input_ids": given["input_ids"] + i, "labels": one} for i, one in enumerate(labels)]


def attached(start: str, name: str = "bert", layout: str = FREE, rank: int = 2, **changes: Any) -> Any:
    """The model, its copy from before, and the adapter of the start's own row."""
    model = make(name)
    sites = ta.find_sites(model, MODELS[name])
    rate = {"start_rate": RATE} if start == "lora-sb" else {}
    plan = ta.plan(sites, layout, start, rank=rank, **{"paper": True, "train": (), **rate, **changes})
    with float64():
        adapter = ta.attach(model, plan, batches=batches(name), seed=1)
    return model, make(name), adapter


def answers(model: nn.Module, name: str = "bert") -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs(name)).logits


def inputs_of(model: nn.Module, site: Site, name: str) -> list[np.ndarray]:
    """What a site's layer is given in each batch, one input a row."""
    found: list[np.ndarray] = []
    hook = model.get_submodule(site.module).register_forward_hook(
        lambda _, given, __: found.append(given[0].detach().flatten(0, -2).numpy())
    )
    for batch in batches(name):
        model(**batch)
    hook.remove()
    return found


def gradient_of(model: nn.Module, site: Site, name: str) -> np.ndarray:
    model = copy.deepcopy(model)
    for batch in batches(name):
        model(**batch).loss.backward()
    return logical(model, site, {k: p.grad for k, p in model.named_parameters()})[site.block].numpy()


def svd(matrix: np.ndarray) -> Any:
    return np.linalg.svd(matrix, full_matrices=False)


def expected(start: str, weight: np.ndarray, base: nn.Module, site: Site, name: str, rank: int) -> tuple[Any, Any]:
    """The papers' B and A: each up to the signs of its directions, None where it is zero."""
    u, s, vt = svd(weight)
    first, last = slice(0, rank), slice(len(s) - rank, len(s))
    if start == "olora":
        q, r = np.linalg.qr(weight)
        return q[:, first], r[first]
    if start == "mica":
        return u[:, last], None
    if start in ("pissa", "milora"):
        taken = first if start == "pissa" else last
        return u[:, taken] * np.sqrt(s[taken]), np.sqrt(s[taken])[:, None] * vt[taken]
    if start == "lora-sb":
        u, _, vt = svd(-np.sign(gradient_of(base, site, name)))
        return u[:, first], vt[first]
    seen = inputs_of(base, site, name)
    if start == "eva":
        whole = np.concatenate(seen)
        return None, svd(whole - whole.mean(0))[2][first]
    context = sum((x / abs(x.max())).T @ (x / abs(x.max())) for x in seen) / len(seen)
    context += 0.01 * np.diag(context).mean() * np.eye(len(context))
    u, s, vt = svd(weight @ context)
    taken = first if start == "corda-ipm" else last
    return u[:, taken] * np.sqrt(s[taken]), np.sqrt(s[taken])[:, None] * (vt[taken] @ np.linalg.inv(context))


def assert_directions(found: np.ndarray, wanted: np.ndarray) -> None:
    """The same rows but for the sign of each."""
    signs = np.sign((found * wanted).sum(1, keepdims=True))
    np.testing.assert_allclose(found, signs * wanted, rtol=0, atol=1e-8 * abs(wanted).max())


@pytest.mark.thorough
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("start", NAMES)
def test_factors_start_as_the_papers_equations_say(start: str, name: str) -> None:
    for rank in (2, 5):
        _, base, adapter = attached(start, name, rank=rank)
        for tensor, site in zip(adapter.factored, adapter.plan.sites, strict=True):
            weight = logical(base, site, dict(base.named_parameters()))[site.block].detach().numpy()
            b, a = expected(start, weight, base, site, name, rank)
            held = {key: value.detach().numpy() for key, value in tensor.factors.items()}
            assert (b is None) != held["B"].any() and (a is None) != held["A"].any()
            if b is not None:
                assert_directions(held["B"].T, b.T)
            if a is not None:
                assert_directions(held["A"], a)
            if a is not None and b is not None:  # the signs of both go together
                np.testing.assert_allclose(held["B"] @ held["A"], b @ a, rtol=0, atol=1e-8 * abs(b @ a).max())


@pytest.mark.parametrize("start", [name for name in NAMES if name != "lora-sb"])
def test_the_output_stays_as_it_was(start: str) -> None:
    model, base, adapter = attached(start)
    assert torch.equal(answers(model), answers(base))
    assert not any(adapter.delta(site).count_nonzero() for site in adapter.plan.sites)
    model(**batches()[0]).loss.backward()
    assert all(any(p.grad.count_nonzero() for p in tensor.trained.values()) for tensor in adapter.factored)


@pytest.mark.parametrize("scale", ["paper", "matched", 0.25])
@pytest.mark.parametrize(
    ("method", "layout"),
    [
        ("lora_xs", FREE),
        ("lora", FREE),
        ("lora", "layer : out : in"),
        ("lora", "proj : head dim : model"),
        ("tucker", FREE),
    ],
)
def test_lora_sb_begins_with_the_nearest_of_its_rank_to_a_step(method: str, layout: str, scale: Any) -> None:
    model, base = make("bert"), make("bert")
    sites = ta.find_sites(model, ("q", "o"))
    plan = ta.plan(sites, layout, method, 3, start="lora-sb", start_rate=RATE, scale=scale)
    with float64():
        adapter = ta.attach(model, plan, batches=batches())
    for site in adapter.plan.sites:
        u, s, vt = svd(-RATE * np.sign(gradient_of(base, site, "bert")))
        wanted = (u[:, :3] * s[:3]) @ vt[:3]
        np.testing.assert_allclose(adapter.delta(site).detach().numpy(), wanted, rtol=0, atol=1e-9)
    moved = functional_call(base, weights_with_deltas(base, adapter), (), inputs("bert")).logits
    torch.testing.assert_close(answers(model), moved.detach())
    assert not torch.equal(answers(model), answers(base))


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["cp", "tucker", "tensor_train", "tensor_ring", "block_term", "vera", "loha"])
def test_in_any_network_the_zero_factor_is_the_best_that_the_others_allow(method: str) -> None:
    model, base = make("bert"), make("bert")
    layout = FREE if method in ("vera", "loha") else "layer proj : head dim : model"
    plan = ta.plan(ta.find_sites(model, ("q", "o")), layout, method, 2, start="lora-sb", start_rate=1.0)
    with float64():
        adapter = ta.attach(model, plan, batches=batches())
    steps = {site.name: torch.from_numpy(-np.sign(gradient_of(base, site, "bert"))) for site in adapter.plan.sites}
    far = sum((steps[site.name] - adapter.delta(site)).square().sum() for site in adapter.plan.sites)
    whole = sum(s.square().sum() for s in steps.values())
    assert 0.1 * whole < far < whole  # LoHa's fit is at 0.19 or 0.21 of it, by the last bits of the gradient
    far.backward()
    for tensor in adapter.factored:
        zero = tensor.trained[tensor.network.zero.name]
        assert zero.grad.norm() * zero.norm() < 1e-6 * far


def test_dora_begins_with_the_step_too() -> None:
    model, base = make("bert"), make("bert")
    plan = ta.plan(ta.find_sites(model, ("q",)), FREE, "lora-sb", 3, start_rate=RATE, rule="dora")
    with float64():
        adapter = ta.attach(model, plan, batches=batches())
    moved = functional_call(base, weights_with_deltas(base, adapter), (), inputs("bert")).logits
    torch.testing.assert_close(answers(model), moved.detach())
    assert not torch.equal(answers(model), answers(base))


def part(start: str, site: Site, base: nn.Module, rank: int) -> np.ndarray:
    """What of a matrix a subtracted start takes."""
    weight = logical(base, site, dict(base.named_parameters()))[site.block].detach().numpy()
    b, a = expected(start, weight, base, site, "bert", rank)
    return b @ a


@pytest.mark.parametrize("start", SUBTRACTED)
@pytest.mark.parametrize(
    ("method", "layout", "rank"),
    [
        ("lora", "layer proj : head dim : model", 3),
        ("cp", FREE, 3),
        ("tucker", FREE, 3),
        ("dense", FREE, None),
        ("lora_xs", FREE, 3),
    ],
)
def test_a_subtracted_start_holds_its_part_of_each_matrix_in_any_network(
    start: str, method: str, layout: str, rank: int | None
) -> None:
    model, base = make("bert"), make("bert")
    plan = ta.plan(ta.find_sites(model, ("q", "o")), layout, method, rank=rank, start=start)
    with float64():
        adapter = ta.attach(model, plan, batches=batches())
    assert torch.equal(answers(model), answers(base))
    for tensor in adapter.factored:
        with torch.no_grad():
            for name in tensor.trained:
                tensor.initial.get_buffer(name).zero_()
    for site in adapter.plan.sites:
        wanted = part(start, site, base, rank or 30)
        number = next(i for i, group in enumerate(adapter.plan.groups) if site in [m.site for m in group.members])
        found = adapter.delta(site).detach().numpy() / adapter.factored[number].scale
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * abs(wanted).max())


def test_frozen_factors_stay_and_the_others_are_fitted() -> None:
    """VeRA's random A and B are those of its seed; a frozen A of LoRA is the weight's, and stored."""
    model = make("bert")
    sites = ta.find_sites(model, ("q",))
    started = ta.attach(model, ta.plan(sites, FREE, "vera", 3, start="milora"))
    plain = ta.attach(make("bert"), ta.plan(sites, FREE, "vera", 3))
    assert torch.equal(started.bases.A, plain.bases.A) and started.factored[0].factors["b"].count_nonzero()
    frozen = ta.plan(sites, FREE, "lora", 3, start="milora", frozen=["A"])
    assert frozen.n_params == 3 * 30 * 3 and frozen.n_base == 3 * 30 * 3


def test_abba_starts_with_the_weights_first_directions_and_ranks_of_its_own(tmp_path: Path) -> None:
    model, base = make("bert"), make("bert")
    plan = ta.plan(ta.find_sites(model, ("q", "up")), FREE, "abba", 3, paper=True, options={"second": 5})
    assert plan.n_params == 3 * (3 + 5) * (30 + 30 + 30 + 34)
    with float64():
        adapter = ta.attach(model, plan, seed=2)
    assert torch.equal(answers(model), answers(base))
    for tensor, site in zip(adapter.factored, adapter.plan.sites, strict=True):
        u, s, vt = svd(model.get_submodule(site.module).weight.numpy())
        f = {name: value.detach().numpy() for name, value in tensor.factors.items()}
        np.testing.assert_allclose(f["B1"] @ f["A1"], (u[:, :3] * s[:3]) @ vt[:3], rtol=0, atol=1e-10)
        np.testing.assert_allclose(np.linalg.norm(f["B1"], axis=0), np.sqrt(s[:3]))
        bound = np.sqrt(6 / site.in_)  # Kaiming's, of a matrix (r2, in)
        assert f["A2"].shape == (5, site.in_) and 0.8 * bound < abs(f["A2"]).max() <= bound
        assert not f["B2"].any() and tensor.scale == 8
    perturb(adapter)
    site = adapter.plan.sites[0]
    f = {name: value.detach() for name, value in adapter.factored[0].factors.items()}
    torch.testing.assert_close(adapter.delta(site).detach(), 8 * (f["B1"] @ f["A1"]) * (f["B2"] @ f["A2"]))
    adapter.save(tmp_path)
    again = make("bert")
    with float64():
        ta.load(again, tmp_path)
    assert torch.equal(answers(again), answers(model))


@pytest.mark.parametrize("start", NAMES)
def test_an_adapter_is_saved_loaded_merged_and_exported(start: str, tmp_path: Path) -> None:
    model, base, adapter = attached(start)
    perturb(adapter)
    here = answers(model)
    adapter.save(tmp_path / "own")
    again = make("bert")
    with float64():
        loaded = ta.load(again, tmp_path / "own")
    assert torch.equal(answers(again), here)
    assert loaded.plan.spec.start_rate == (RATE if start == "lora-sb" else None)
    ta.export_lora(model, tmp_path / "lora")
    ta.merge(model)
    torch.testing.assert_close(answers(model), here)
    ta.unmerge(model)
    assert torch.equal(answers(model), here)
    ta.detach(model)
    assert_identical(model, base)


def test_masked_positions_do_not_count_and_the_model_is_left_as_it_was() -> None:
    model = make("bert").train()
    short = {**batches()[0], "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0, 0]] * 2)}
    other = {**short, "input_ids": short["input_ids"].clone()}
    other["input_ids"][:, 5:] = 3
    found = []
    for given in (short, other):
        with float64():
            adapter = ta.attach(model, ta.plan(ta.find_sites(model, ("q",)), FREE, "eva", 2), batches=[given])
        found.append(adapter.factored[0].factors["A"].detach().clone())
        ta.detach(model)
    torch.testing.assert_close(*found)
    assert model.training and not any(m._forward_pre_hooks for m in model.modules())


def test_inputs_that_layers_are_given_by_name_are_measured_too() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.last = nn.Linear(6, 5), nn.Linear(5, 1)

        def forward(self, x: torch.Tensor, by_name: bool) -> torch.Tensor:
            return self.last(self.layer(input=x) if by_name else self.layer(x)).mean()

    torch.manual_seed(0)
    model, x = Named(), torch.randn(9, 6)
    plan = ta.plan([Site("layer", "layer", (("layer", 0), ("proj", "x")), 5, 6, ())], FREE, "eva", rank=2)
    found = []
    for by_name in (False, True):
        adapter = ta.attach(model, plan, batches=[{"x": x, "by_name": by_name}])
        found.append(adapter.factored[0].factors["A"].detach().clone())
        ta.detach(model)
    assert torch.equal(*found)


def test_columns_of_a_layer_have_their_own_moments() -> None:
    """Blocks of a matrix read a part of the layer's inputs."""
    model = make("bert")
    sites = ta.find_sites(model, ("o",))
    blocks = [
        Site(f"{s.name}[{i}]", s.module, (*s.coords, ("block", i)), s.out, 15, (), cols=(15 * i, 15 * i + 15))
        for s in sites[:1]
        for i in range(2)
    ]
    with float64():
        adapter = ta.attach(model, ta.plan(blocks, FREE, "eva", 2), batches=batches())
    whole = np.concatenate(inputs_of(make("bert"), sites[0], "bert"))
    for i, tensor in enumerate(adapter.factored):
        own = whole[:, 15 * i : 15 * i + 15]
        assert_directions(tensor.factors["A"].detach().numpy(), svd(own - own.mean(0))[2][:2])


class Idle(nn.Module):
    """A model one of whose layers is never called, and one looks ids up."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.used, self.idle = nn.Embedding(11, 6), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.used(self.embed(ids))


def of_idle(module: str, out: int = 6, in_: int = 6) -> list[Site]:
    return [Site(module, module, (("layer", 0),), out, in_, ())]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "one side in another form": (
        {"method": "cp", "layout": "layer proj : out : in", "start": "eva"},
        "start='eva' has values for a factor of the input side and one bond, and in layer.* factor 'layer' is none; "
        "expected LoRA's form with zero on the output side, as method='eva' has",
    ),
    "one side where it is zero": (
        {"method": "lora", "start": "mica"},
        "start='mica' has values for a factor of the output side .* factor 'A' is none; .* zero on the input side",
    ),
    "one side that is transposed": (
        {"method": "eva", "layout": "proj : head dim : model", "projections": ("q", "o")},
        "start='eva' has values for a factor of the input side .* a matrix is transposed; expected",
    ),
    "one side of a network without it": ({"method": "dense", "rank": None, "start": "eva"}, "there is none; expected"),
    "too large a rank": (
        {"method": "milora", "rank": 31},
        "rank 31 is above the 30 singular directions of site .*query, from which start='milora' takes factor 'A'; "
        "give 30 or less",
    ),
    "a shared factor": (
        {"method": "corda-ipm", "layout": "layer : out : in", "shared": {"A": "layer"}},
        "factor 'A' is shared over layer and would start from the layers' inputs",
    ),
    "a step that HiRA multiplies": (
        {"method": "lora-sb", "rule": "hira"},
        "start='lora-sb' is a step of full fine-tuning, and rule='hira' multiplies it by the weight",
    ),
    "a rate without a step": (
        {"method": "lora", "start_rate": 1e-4},
        "start_rate=0.0001 was given with start='zero'; expected start='lora-sb', or no start_rate",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_such_start_is_refused_when_it_is_planned(name: str) -> None:
    asked, says = REFUSED[name]
    asked = {"layout": FREE, "rank": 2, **asked}
    sites = ta.find_sites(make("bert").config, asked.pop("projections", ("q", "v")))
    with pytest.raises(ta.TensorAdaptError, match=says):
        ta.plan(sites, **asked)


@pytest.mark.parametrize("given", [None, []])
@pytest.mark.parametrize(
    ("start", "what"),
    [
        ("eva", "inputs of layers it measures"),
        ("corda-kpm", "inputs of layers it measures"),
        ("lora-sb", "gradient it takes"),
    ],
)
def test_without_batches_an_error_says_what_to_do_and_nothing_is_allocated(
    start: str, what: str, given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make("bert")
    plan = ta.plan(model, method=start, rank=2)
    assert plan.needs_weights and "needs the base weights and attach(..., batches=)" in str(plan)
    monkeypatch.setattr("tensoradapt.surgery.attach.Adapter", None)
    with pytest.raises(
        ta.TensorAdaptError, match=f'start="{start}" needs the batches whose {what}; pass attach.*batches='
    ):
        ta.attach(model, plan, batches=given)
    assert_identical(model, make("bert"))


@pytest.mark.parametrize(
    ("module", "size", "given", "says"),
    [
        (
            "idle",
            (6, 6),
            torch.tensor([[1, 2, 3]]),
            "no batch reaches site idle, whose layer is not called; give batches",
        ),
        (
            "used",
            (6, 6),
            torch.tensor([[1, 1, 1]]),
            "site used: the inputs vary in 0 directions, fewer than rank 2; give",
        ),
        (
            "embed",
            (6, 11),
            torch.tensor([[1, 2, 3]]),
            "site embed is a Embedding, and start='eva' measures the inputs of",
        ),
    ],
)
def test_layers_whose_inputs_say_nothing_are_refused_and_the_model_stays(
    module: str, size: tuple[int, int], given: torch.Tensor, says: str
) -> None:
    model = Idle()
    before = copy.deepcopy(model)
    with pytest.raises(ta.TensorAdaptError, match=says):
        ta.attach(
            model, ta.plan(of_idle(module, *size), FREE, "eva", 2), batches=[given], loss=lambda model, ids: model(ids)
        )
    assert_identical(model, before)


def test_a_step_of_no_gradient_is_refused() -> None:
    model = make("bert")
    with pytest.raises(ta.TensorAdaptError, match="what the start measures in the batches is zero; give other batches"):
        ta.attach(
            model,
            ta.plan(model, method="lora-sb", rank=2),
            batches=batches(),
            loss=lambda model, _: sum((p * 0).sum() for p in model.parameters()),
        )
    assert_identical(model, make("bert"))

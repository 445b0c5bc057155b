"""compress: any trained update in any factored form, the error it states against plain numpy, training that goes on."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from support.models import inputs, make, perturb, weights_with_deltas
from torch.func import functional_call

import tensoradapt as ta
from tensoradapt import parameterizations
from tensoradapt.compression.compress import compress
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks import least_squares
from tensoradapt.networks.layout import Layout
from tensoradapt.parameterizations import cp, tucker
from tensoradapt.testing.laws import float64

TIED, MATRIX = "layer proj : head dim : model", "(layer proj) : out : in"
Pairs = dict[str, tuple[np.ndarray, np.ndarray]]
peft_on_transformers = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def sites() -> ta.sites.Sites:
    return ta.find_sites(make("bert"))


def pairs(sites: Any, rank: int = 2, seed: int = 0) -> Pairs:
    g = np.random.default_rng(seed)
    return {s.name: (g.standard_normal((rank, s.in_)), g.standard_normal((s.out, rank))) for s in sites}


def shared(sites: Any, width: int = 3, rank: int = 2, noise: float = 0.0) -> Pairs:
    """LoRA pairs whose A and B all lie in one space of a few dimensions: what a tied tensor is good at."""
    g = np.random.default_rng(1)
    rows, cols = (np.linalg.qr(g.standard_normal((n, width)))[0] for n in (sites[0].out, sites[0].in_))
    made = {}
    for site in sites:
        a, b = g.standard_normal((rank, width)) @ cols.T, rows @ g.standard_normal((width, rank))
        made[site.name] = (a + noise * g.standard_normal(a.shape), b + noise * g.standard_normal(b.shape))
    return made


def dense(found: Pairs) -> dict[str, np.ndarray]:
    return {name: b @ a for name, (a, b) in found.items()}


def approximation(result: Any) -> dict[str, np.ndarray]:
    """Each site's matrix from the parameterization's own oracle, sliced and turned by hand."""
    found = {}
    for group, factors in zip(result.plan.groups, result.factors, strict=True):
        layout = group.network.layout
        tensor = parameterizations.get(result.plan.parameterization).oracle(layout, factors)
        for member in group.members:
            matrix = tensor[tuple(member.at[mode.name] for mode in layout.index)].reshape(layout.out, layout.in_)
            found[member.site.name] = matrix.T if member.transposed else matrix
    return found


def relative(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    left = math.hypot(*(np.linalg.norm(found[name] - expected[name]) for name in expected))
    return left / math.hypot(*(np.linalg.norm(matrix) for matrix in expected.values()))


# The error, and the way to it

FORMS: list[tuple[str, str, dict[str, Any]]] = [
    ("cp", TIED, {}),
    ("cp", MATRIX, {}),
    ("tucker", TIED, {}),
    ("tucker", MATRIX, {"only": ("out", "in")}),
    ("tensor_train", TIED, {}),
    ("tensor_train", "layer proj : out : in", {"order": ("out", "proj", "layer", "in")}),
    ("tensor_ring", MATRIX, {}),
    ("block_term", MATRIX, {"terms": 2}),
    ("lora", ": out : in", {}),
    ("lora", "layer : out : in", {}),
]
forms = pytest.mark.parametrize(("family", "layout", "options"), FORMS)


@pytest.mark.thorough
@forms
def test_the_errors_are_those_of_the_dense_matrices(sites: Any, family: str, layout: str, options: Any) -> None:
    source = pairs(sites)
    result = compress(source, sites, layout, family, 2 if family != "lora" else 1, options=options)
    found, expected = approximation(result), dense(source)
    assert 0.01 < result.error < 1
    assert result.error == pytest.approx(relative(found, expected), rel=1e-10)
    for name, matrix in expected.items():
        own = np.linalg.norm(found[name] - matrix) / np.linalg.norm(matrix)
        assert result.site_errors[name] == pytest.approx(own, rel=1e-10)
    assert result.n_params == sum(values.size for own in result.factors for values in own.values())


@pytest.mark.parametrize("family", ["tucker", "tensor_train", "lora"])
@pytest.mark.parametrize("layout", [MATRIX, ": out : in", "layer proj : out : in", TIED, "layer proj : head dim : in"])
def test_small_cores_give_what_the_dense_stack_gives(sites: Any, family: str, layout: str) -> None:
    """Also at ranks above the stack's own, where the bases need more vectors than the stack has."""
    source = shared(sites, noise=0.1)
    few = sites[:4]
    for rank in (1, 3):
        some = {site.name: source[site.name] for site in few}
        small, whole = (compress(one, few, layout, family, rank) for one in (some, dense(some)))
        assert small.error == pytest.approx(whole.error, rel=1e-10, abs=1e-10)
        assert whole.error == pytest.approx(relative(approximation(whole), dense(some)), rel=1e-10, abs=1e-14)


def test_a_model_of_width_4096_never_has_its_stack_in_memory() -> None:
    sizes = {"hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32}
    wide = ta.find_sites(transformers.LlamaConfig(**sizes), ("q", "v"))
    assert len(wide) == 64
    source = {name: (a.astype(np.float32), b.astype(np.float32)) for name, (a, b) in shared(wide, 2, 1).items()}
    tracemalloc.start()
    result = compress(source, wide, MATRIX, "tucker", {"layer_proj": 4, "out": 2, "in": 2})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.error < 1e-6
    assert peak < 200e6 < 64 * 4096 * 4096 * 8 / 40


# Ranks, errors, budgets


@pytest.mark.parametrize("family", ["cp", "tucker", "tensor_train", "tensor_ring", "lora"])
def test_more_rank_is_never_further(sites: Any, family: str) -> None:
    layout = ": out : in" if family == "lora" else MATRIX
    source = {site.name: pairs(sites, 5)[site.name] for site in sites[:6]}
    errors = [compress(source, sites[:6], layout, family, rank).error for rank in (1, 2, 4)]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize(("family", "layout"), [("tucker", MATRIX), ("tensor_train", TIED)])
def test_max_error_takes_the_smallest_rank_that_reaches_it(sites: Any, family: str, layout: str) -> None:
    source = shared(sites, width=5, noise=0.05)
    result = compress(source, sites, layout, family, max_error=0.3)
    reached = min(one.rank for one in result.tried if one.error <= 0.3)
    assert result.error == pytest.approx(compress(source, sites, layout, family, reached).error, rel=1e-9)
    assert result.error <= 0.3 < compress(source, sites, layout, family, reached - 1).error
    assert f"{reached}: {result.error:.3g}" in str(result)


def test_an_error_out_of_reach_names_the_best(sites: Any) -> None:
    source = pairs(sites, 20)
    best = compress(source, sites, ": out : in", "lora", 15).error
    with pytest.raises(TensorAdaptError, match=rf"max_error=0.01 is not reached by lora .* {best:.3g} at rank 15 with"):
        compress(source, sites, ": out : in", "lora", max_error=0.01)


def test_a_budget_is_kept(sites: Any) -> None:
    result = compress(shared(sites), sites, MATRIX, "tucker", budget="0.5k")
    assert 400 < result.n_params <= 500
    assert result.plan.spec.budget == 500


@pytest.mark.parametrize("asked", [{}, {"rank": 2, "max_error": 0.1}, {"rank": 2, "budget": 9}])
def test_exactly_one_of_rank_max_error_and_budget(sites: Any, asked: dict[str, Any]) -> None:
    with pytest.raises(TensorAdaptError, match=r"rank=.*, max_error=.*, budget=.* were given; expected exactly one"):
        compress(pairs(sites), sites, MATRIX, "cp", **asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"max_error": 1.0}, r"max_error is 1.0, which no update at all meets"),
        ({"max_error": -0.1}, r"max_error is -0.1; expected a finite number above 0"),
        ({"rank": 2, "order": "best"}, r"order is 'best'; expected one of given, search"),
        (
            {"rank": 2, "order": "search"},
            r"order='search' is for chains \(tensor_ring, tensor_train\), and the modes of 'cp' have no order",
        ),
    ],
)
def test_senseless_wishes_are_refused(sites: Any, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(TensorAdaptError, match=message):
        compress(pairs(sites), sites, MATRIX, "cp", **asked)


def test_frozen_factors_cannot_take_on_updates(sites: Any) -> None:
    with pytest.raises(TensorAdaptError, match="'vera' has the frozen factor 'A'"):
        compress(pairs(sites), sites, ": out : in", "vera", 4)


def test_the_order_of_modes_is_searched(sites: Any) -> None:
    """A train that has the matrices' shared spaces at its ends needs them once: out, (layer proj), in."""
    source = shared(sites, width=3, noise=0.02)
    rank = {"out": 3, "layer_proj": 3}
    best = compress(source, sites, MATRIX, "tensor_train", rank, options={"order": ("out", "layer_proj", "in")})
    found = compress(source, sites, MATRIX, "tensor_train", 3, order="search")
    usual = compress(source, sites, MATRIX, "tensor_train", 3, options={"order": ("layer_proj", "out", "in")})
    assert found.orders == (("in", "layer_proj", "out"),)
    assert found.error == pytest.approx(best.error, rel=1e-4)  # TT-SVD from the other end
    assert found.error < 0.1 < 0.3 < usual.error
    close = {
        how: compress(source, sites, MATRIX, "tensor_train", max_error=0.1, order=how) for how in ("given", "search")
    }
    assert close["search"].n_params <= close["given"].n_params
    assert "mode order in layer_proj out" in str(found)


# Sources


@pytest.mark.thorough
@peft_on_transformers
@pytest.mark.parametrize(
    ("family", "projections", "targets"),
    [
        ("bert", ("q", "v", "up"), ["query", "value", "intermediate.dense"]),
        ("gpt2", ("q", "k", "v", "down"), ["attn.c_attn", "mlp.c_proj"]),
        ("llama", ("q", "k", "o"), ["q_proj", "k_proj", "o_proj"]),
    ],
)
def test_a_folder_of_pefts_is_read_for_the_sites_of_its_model(
    family: str, projections: tuple[str, ...], targets: list[str], tmp_path: Path
) -> None:
    options = {"r": 3, "lora_alpha": 5, "target_modules": targets, "fan_in_fan_out": family == "gpt2"}
    model = peft.get_peft_model(make(family, torch.float32), peft.LoraConfig(**options))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(str(tmp_path))
    found = ta.find_sites(make(family), projections)
    result = compress(tmp_path, found, ": out : in", "lora", 3)
    assert result.error < 1e-6
    assert result.n_source_params == sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)
    base = make(family, torch.float32)
    result.attach(base)
    ours, theirs = (one.eval()(**inputs(family)).logits for one in (base, model))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    for how in (make(family), make(family).config):  # the sites that the folder has
        assert [s.name for s in compress(tmp_path, how, ": out : in", "lora", 3).plan.sites] == [s.name for s in found]


@peft_on_transformers
def test_a_folder_and_sites_that_differ_are_named(tmp_path: Path) -> None:
    model = peft.get_peft_model(
        make("gpt2", torch.float32), peft.LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True)
    )
    model.save_pretrained(str(tmp_path))
    base = make("gpt2")
    with pytest.raises(
        TensorAdaptError, match=r"sites without a LoRA module: transformer.h.0.attn.c_proj.* and 1|c_proj"
    ):
        compress(tmp_path, ta.find_sites(base), MATRIX, "cp", 2)
    with pytest.raises(
        TensorAdaptError, match=r"a LoRA module: none; LoRA modules without a site: transformer.h.2.attn"
    ):
        compress(tmp_path, ta.find_sites(base, ("q", "k", "v"), layers=(0, 1)), MATRIX, "cp", 2)
    with pytest.raises(
        TensorAdaptError, match=r"c_attn is updated as a whole \(90 x 30\), and only .*c_attn\[q\].* find_sites for all"
    ):
        compress(tmp_path, ta.find_sites(base, ("q", "k")), MATRIX, "cp", 2)
    with pytest.raises(TensorAdaptError, match="does not say what model it is for"):
        compress(tmp_path, None, MATRIX, "cp", 2)


def test_a_full_fine_tune_minus_its_base() -> None:
    base, tuned = make("gpt2"), make("gpt2")
    adapter = ta.attach(tuned, ta.plan(ta.find_sites(tuned, "all"), rank=2, method="cp", scale=1.0))
    perturb(adapter, 0.2)
    ta.merge(tuned, keep=False)
    ta.detach(tuned)
    result = compress((tuned, base), method="cp", rank=2)
    assert len(result.site_errors) == 18
    assert result.error < 1e-5
    assert not result.left_out
    module = "transformer.h.1.attn.c_proj"  # a Conv1D, stored (in, out)
    expected = (tuned.get_submodule(module).weight - base.get_submodule(module).weight).detach().T
    np.testing.assert_allclose(approximation(result)[module], expected.numpy(), atol=1e-5)
    with torch.no_grad():
        tuned.transformer.h[0].ln_1.bias += 1
    sites = ta.find_sites(base)
    left = compress((tuned, base), sites, method="cp", rank=2)
    assert set(left.left_out) == {f"transformer.h.{i}.mlp.{p}.weight" for i in range(3) for p in ("c_fc", "c_proj")} | {
        "transformer.h.0.ln_1.bias"
    }
    assert "not in the error: 7 other parameters changed" in str(left)
    with pytest.raises(TensorAdaptError, match=r"no module 'transformer.h.0.attn.c_attn'"):
        compress((make("bert"), base), sites, method="cp", rank=2)


ADAPTERS = [
    ("lora", ": out : in", 2),
    ("vera", ": out : in", 3),
    ("tucker", TIED, 2),
    ("tensor_train", "(layer proj) : out : in", 2),
]


@pytest.mark.parametrize(("family", "layout", "rank"), ADAPTERS)
@pytest.mark.parametrize("scale", ["matched", 0.3])
def test_an_adapter_of_any_family_is_a_source(family: str, layout: str, rank: int, scale: Any) -> None:
    model = make("llama")
    adapter = ta.attach(model, ta.plan(ta.find_sites(model, ("q", "o")), layout, family, rank, scale=scale))
    perturb(adapter)
    adapter.tensors[0].scale *= 3  # as a checkpoint may restore one that this draw would not give
    result = compress(adapter, None, "layer proj : out : in", "tensor_train", 2)
    expected = {site.name: adapter.delta(site).detach().numpy().astype(float) for site in adapter.plan.sites}
    assert result.error == pytest.approx(relative(approximation(result), expected), rel=1e-5, abs=1e-6)
    assert result.n_source_params == adapter.plan.n_params
    again = compress(adapter, None, ": out : in", "lora", 9)
    assert relative(approximation(again), expected) < 1e-5


@pytest.mark.parametrize("family", ["tucker", "tensor_train"])
@pytest.mark.parametrize("rank", [2, 7])
def test_cp_adapters_are_converted_exactly(family: str, rank: int) -> None:
    model = make("bert")
    adapter = ta.attach(model, ta.plan(ta.find_sites(model), TIED, "cp", rank, scale="matched"))
    perturb(adapter)
    result = compress(adapter, None, TIED, family, rank)
    assert result.exact
    assert result.error < 1e-12
    assert "exact by construction" in str(result)
    other = compress(adapter, None, MATRIX, family, rank)  # another layout: through decomposition
    less = compress(adapter, None, TIED, family, rank - 1)
    assert not other.exact
    assert not less.exact
    assert less.error > 1e-3


def test_what_is_subtracted_is_part_of_the_update() -> None:
    model = make("bert")
    plan = ta.plan(ta.find_sites(model), TIED, "cp", 2, start="subtract", scale=1.0)
    adapter = ta.attach(model, plan)
    perturb(adapter)
    result = compress(adapter, None, TIED, "tucker", 4)
    assert not result.exact
    assert result.error < 1e-7
    assert not compress(adapter, None, TIED, "tucker", 2).exact


def test_mappings_must_be_of_the_sites(sites: Any) -> None:
    source = pairs(sites)
    name = sites[3].name
    with pytest.raises(TensorAdaptError, match=rf"without an update: {name}; updates without a site: other"):
        compress({**{n: p for n, p in source.items() if n != name}, "other": source[name]}, sites, MATRIX, "cp", 2)
    with pytest.raises(
        TensorAdaptError, match=rf"update of site {name} has shape \(2, 30\) and \(29, 2\); expected \(30, 30\)"
    ):
        compress({**source, name: (source[name][0], source[name][1][1:])}, sites, MATRIX, "cp", 2)
    with pytest.raises(TensorAdaptError, match=rf"update of site {name} has shape \(30, 29\)"):
        compress({**source, name: np.ones((30, 29))}, sites, MATRIX, "cp", 2)
    broken = source[name][1].copy()
    broken[0, 0] = math.inf
    with pytest.raises(TensorAdaptError, match=rf"update of site {name} has non-finite entries"):
        compress({**source, name: (source[name][0], broken)}, sites, MATRIX, "cp", 2)
    with pytest.raises(TensorAdaptError, match="needs sites= from find_sites"):
        compress(source, None, MATRIX, "cp", 2)
    with pytest.raises(TensorAdaptError, match=r"source is \[.*\]; expected the path of a LoRA folder"):
        compress([source], sites, MATRIX, "cp", 2)


# What is zero, the same twice, or less than it seems


@pytest.mark.parametrize("family", ["cp", "tucker", "tensor_train", "tensor_ring", "block_term", "lora"])
def test_no_update_at_all_gives_an_adapter_that_can_be_trained(sites: Any, family: str) -> None:
    source = {name: (a, 0 * b) for name, (a, b) in pairs(sites).items()}
    layout = ": out : in" if family == "lora" else MATRIX
    result = compress(source, sites, layout, family, 2)
    assert result.error == 0
    assert set(result.site_errors.values()) == {0}
    for group, factors in zip(result.plan.groups, result.factors, strict=True):
        assert [name for name, values in factors.items() if not values.any()] == [group.network.zero.name]


def test_cancelling_components_of_cp_are_reported(sites: Any) -> None:
    """A tensor on the border of rank 2: components grow without bound and cancel."""
    layout = Layout.parse(MATRIX, {"layer proj": 12, "out": 30, "in": 30})
    g = np.random.default_rng(3)
    (a, b), (c, d), (e, f) = (np.linalg.qr(g.standard_normal((n, 2)))[0].T for n in layout.shape)
    border = sum(np.einsum("i,j,k->ijk", *v) for v in ((a, c, f), (a, d, e), (b, c, e)))
    source = {site.name: border[i] for i, site in enumerate(sites)}
    result = compress(source, sites, MATRIX, "cp", 2)
    assert result.growth == pytest.approx(cp.growth(result.factors[0], float(np.linalg.norm(border))))
    assert 1.2 < result.growth < 2
    assert "components cancel" not in str(result)
    assert "largest component 12 times the tensor: components cancel" in str(replace(result, growth=12.0))


# Going on from it


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("family", "layout"), [("cp", TIED), ("tucker", TIED), ("tensor_train", MATRIX), ("lora", ": out : in")]
)
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_the_attached_model_computes_with_the_stated_updates(name: str, family: str, layout: str) -> None:
    base, model = make(name), make(name)
    sites = ta.find_sites(model)
    result = compress(pairs(sites), sites, layout, family, 1 if family == "lora" else 3)
    with float64():
        adapter = result.attach(model)
    found = approximation(result)
    for site in adapter.plan.sites:
        torch.testing.assert_close(adapter.delta(site).detach(), torch.from_numpy(found[site.name].copy()))
    expected = functional_call(base, weights_with_deltas(base, adapter), kwargs=inputs(name)).logits
    torch.testing.assert_close(model(**inputs(name)).logits, expected)


def test_training_goes_on_from_the_result(sites: Any, tmp_path: Path) -> None:
    model = make("bert", torch.float32)
    adapter = compress(pairs(sites), sites, TIED, "cp", 3).attach(model, dropout=0.1)
    assert adapter.plan.spec.dropout == 0.1
    before = {name: p.detach().clone() for name, p in adapter.named_parameters()}
    optimizer = torch.optim.Adam(adapter.parameters(), lr=1e-2)
    model(**inputs("bert")).logits.square().sum().backward()
    optimizer.step()
    assert all(not torch.equal(p, before[name]) for name, p in adapter.named_parameters())
    adapter.save(tmp_path)
    again = make("bert", torch.float32)
    loaded = ta.load(again, tmp_path)
    assert torch.equal(loaded.delta(sites[0].name), adapter.delta(sites[0].name))


def test_the_result_is_the_same_each_time_and_leaves_torchs_generator_alone(sites: Any) -> None:
    state = torch.random.get_rng_state()
    first, again = (compress(pairs(sites), sites, MATRIX, "cp", 3, seed=5) for _ in range(2))
    assert all(np.array_equal(first.factors[0][key], again.factors[0][key]) for key in first.factors[0])
    assert torch.equal(state, torch.random.get_rng_state())


def test_families_without_a_way_of_their_own_are_fitted_by_least_squares(sites: Any) -> None:
    class Plain:
        """Tucker, but for decompose."""

        build, count, oracle = staticmethod(tucker.build), staticmethod(tucker.count), staticmethod(tucker.oracle)

    source = shared(sites, noise=0.1)
    plain, own = (compress(source, sites, MATRIX, family, 2) for family in (Plain(), "tucker"))
    assert plain.error == pytest.approx(own.error, rel=1e-3)
    assert least_squares.dense(plain.plan.groups[0].network, plain.factors[0]).shape == (12, 30, 30)


@pytest.mark.parametrize(("family", "layout"), [("dense", ": out : in"), ("dense", MATRIX), ("quanta", ": out* : in*")])
def test_one_factor_takes_on_the_updates_as_they_are(sites: Any, family: str, layout: str) -> None:
    """A gate over both axes is the matrix, its axes in another order."""
    source = pairs(sites)
    split = {"out": (5, 6), "in": (5, 6)} if family == "quanta" else None
    result = compress(source, sites, layout, family, split=split)
    assert result.error < 1e-13
    assert relative(approximation(result), dense(source)) < 1e-13


def test_a_result_saved_without_a_model(sites: Any, tmp_path: Path) -> None:
    result = compress(pairs(sites), sites, TIED, "tucker", 2)
    result.save(tmp_path)
    attached, loaded = result.attach(make("bert")), ta.load(make("bert"), tmp_path, strict=False)
    assert all(torch.equal(attached.delta(site), loaded.delta(site)) for site in sites)
    with pytest.raises(TensorAdaptError, match="strict=False"):
        ta.load(make("bert", torch.float32), tmp_path)

"""compress: any trained update in any factored form, the error it states against plain numpy, training that goes on."""

from __future__ import annotations

import itertools
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
from tensoradapt.compression.core import core_of
from tensoradapt.compression.sources import difference, norm_of, read
from tensoradapt.errors import TensorAdaptError
from tensoradapt.layers.stored_matrix import StoredMatrix
from tensoradapt.lora.pair import LoraPair
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


def test_sides_of_one_mode_are_cut_to_the_rank_of_the_stack_and_others_kept(sites: Any) -> None:
    """Duplicates do not count; one mode of a side with head and dim has no basis of its own."""
    source = shared(sites, width=3)
    group = ta.plan(sites, MATRIX, "tucker", rank=2).groups[0]
    core = core_of(group, {"": {name: LoraPair(*pair) for name, pair in source.items()}})
    assert core.values.shape == (12, 3, 3)
    assert core_of(group, {"": {n: b @ a for n, (a, b) in source.items()}}).values.shape == (12, 30, 30)
    assert "sides out 30 cut to 3, in 30 cut to 3" in str(compress(source, sites, MATRIX, "tucker", 2))
    few = {name: source[name] for name in list(source)[:4]}
    assert "sides model 30 cut to 5, head 5 dim 6 kept whole" in str(compress(few, sites[:4], TIED, "tucker", 2))


def test_a_side_is_kept_whole_where_the_ranks_sum_to_its_width_and_the_result_says_so(sites: Any) -> None:
    less = compress(pairs(sites, rank=2), sites, MATRIX, "tucker", 2)
    assert "sides out 30 cut to 24, in 30 cut to 24: a core of 0.0527 MiB" in str(less)
    more = compress(pairs(sites, rank=3), sites, MATRIX, "tucker", 2)
    assert "sides out 30 and in 30 kept whole: a core of 0.0824 MiB" in str(more)
    assert "kept whole are" in str(more) and "kept whole are" not in str(less)
    core = core_of(more.plan.groups[0], {"": {name: LoraPair(*pair) for name, pair in pairs(sites, rank=3).items()}})
    assert core.values.nbytes == pytest.approx(0.0824 * 2**20, rel=1e-3)


def test_sides_have_a_line_for_each_shape_and_one_that_says_why_they_are_kept() -> None:
    every = ta.find_sites(make("bert"), "all")
    lines = str(compress(pairs(every, rank=34), every, ": out : in", "lora", 2)).splitlines()
    shapes = [line.partition(" kept")[0] for line in lines if line.startswith("sides")]
    assert shapes == ["sides out 30 and in 30", "sides out 34 cut to 30, in 30", "sides in 34 cut to 30, out 30"]
    assert sum(line.startswith("kept whole are") for line in lines) == 1 and max(map(len, lines)) <= 120


def test_ranks_above_the_stacks_own_have_bases_to_grow_into(sites: Any) -> None:
    result = compress(shared(sites, width=3), sites, MATRIX, "tucker", {"layer_proj": 9, "out": 5, "in": 4})
    assert result.error < 1e-12
    for values in (result.factors[0]["out"], result.factors[0]["in"]):
        np.testing.assert_allclose(values.T @ values, np.eye(values.shape[1]), atol=1e-12)


def test_a_pair_with_all_its_size_on_one_side_counts_as_its_product_does(sites: Any) -> None:
    source = shared(sites, width=3)
    a, b = pairs(sites)[sites[2].name]
    lopsided = {**source, sites[2].name: (1e16 * a, 1e-16 * b)}
    result = compress(lopsided, sites, MATRIX, "tucker", {"layer_proj": 12, "out": 5, "in": 5})
    assert result.error < 1e-12
    assert max(result.site_errors.values()) < 1e-11


def test_a_side_is_cut_only_where_one_mode_and_one_factor_hold_it(sites: Any) -> None:
    """LoHa has two factors on each side, and 5 heads are more than the rank of a single matrix."""
    name = sites[0].name
    source = {name: pairs(sites)[name]}
    for family, layout in (("loha", ": out : in"), ("tucker", TIED)):
        small, whole = (compress(one, sites[:1], layout, family, 2) for one in (source, dense(source)))
        assert small.error == pytest.approx(whole.error, rel=1e-6)
        assert "kept whole" in str(small)


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


def test_max_error_looks_at_every_rank_that_is_no_larger_than_the_matrices(sites: Any) -> None:
    """Twice the rank would be refused, the ranks between are not."""
    source = pairs(sites[:2], 15)
    result = compress(source, sites[:2], ": out : in", "lora", max_error=1e-6)
    assert max(one.rank for one in result.tried) == 15
    assert {group.rank for group in result.plan.groups} == {15}


def test_an_error_out_of_reach_names_the_best(sites: Any) -> None:
    source = pairs(sites, 20)
    best = compress(source, sites, ": out : in", "lora", 15).error
    with pytest.raises(TensorAdaptError, match=rf"max_error=0.01 is not reached by lora .* {best:.3g} at rank 15 with"):
        compress(source, sites, ": out : in", "lora", max_error=0.01)


def test_a_family_that_no_rank_makes_larger_is_tried_once(sites: Any) -> None:
    class One:
        """CP of rank 1, whatever is asked."""

        count, oracle = staticmethod(cp.count), staticmethod(cp.oracle)

        @staticmethod
        def build(layout: Layout, rank: int) -> Any:
            return cp.build(layout, 1)

    with pytest.raises(TensorAdaptError, match=r"not reached by One .* at rank 1 with 72 parameters"):
        compress(pairs(sites), sites, MATRIX, One(), max_error=0.1)


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


def test_the_order_of_tensors_with_other_modes_cannot_be_searched_together() -> None:
    every = ta.find_sites(make("bert"), "all")
    with pytest.raises(TensorAdaptError, match="needs one set of modes, and the tensors have layer proj ff model and"):
        compress(pairs(every), every, [TIED, "layer proj : ff : model"], "tensor_train", 2, order="search")


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


@peft_on_transformers
def test_heads_that_peft_saved_are_left_out_and_named(tmp_path: Path) -> None:
    for name in "ab":
        config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], init_lora_weights=False)
        peft.get_peft_model(make("bert", torch.float32), config).save_pretrained(str(tmp_path / name))
    one = compress(tmp_path / "a", make("bert"), ": out : in", "lora", 2)
    assert sorted(one.left_out) == ["classifier.bias", "classifier.weight"] and one.error < 1e-6
    assert "not in the error: 2 other parameters changed, such as classifier." in str(one)
    both = compress([tmp_path / "a", tmp_path / "b"], make("bert"), "task layer : out : in", "tucker", 2)
    expected = [f"adapter {name!r}: {head}" for name in "ab" for head in one.left_out]
    assert sorted(both.left_out) == sorted(expected) and f"left out: {both.left_out[0]}, and 3 more" in str(both)
    more = both.with_adapter("c", tmp_path / "a")
    assert set(more.left_out) - set(both.left_out) == {f"adapter 'c': {head}" for head in one.left_out}


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


@pytest.mark.parametrize(
    ("family", "projections", "parameter", "outside"),
    [
        ("gpt2", ("q",), "transformer.h.1.attn.c_attn.weight", (slice(None), slice(30, None))),  # stored (in, out)
        ("gpt_neox", ("q", "v"), "gpt_neox.layers.1.attention.query_key_value.weight", (slice(6, 7),)),
        ("mixtral", ("up",), "model.layers.1.mlp.experts.gate_up_proj", (2, slice(0, 1))),
        ("mixtral", ("up", "gate"), "model.layers.1.mlp.experts.down_proj", ()),
    ],
)
def test_what_changed_in_a_fused_matrix_outside_its_sites_is_named(
    family: str, projections: tuple[str, ...], parameter: str, outside: tuple[Any, ...]
) -> None:
    base, tuned = make(family), make(family)
    sites = ta.find_sites(base, projections)
    assert read((tuned, base), sites).left_out == ()
    with torch.no_grad():
        for site in sites:  # inside nothing is left out
            StoredMatrix.of(tuned.get_submodule(site.module), site).read()[site.block] += 1
    assert read((tuned, base), sites).left_out == ()
    with torch.no_grad():
        tuned.get_parameter(parameter)[outside] += 1
    whole = not any(site.key == parameter for site in sites)
    assert read((tuned, base), sites).left_out == (parameter if whole else f"{parameter} outside its sites",)


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


def test_of_an_adapter_with_tasks_the_selected_one_is_converted() -> None:
    model = make("bert")
    adapter = ta.attach(model, ta.plan(ta.find_sites(model), f"task {TIED}", "cp", 2, tasks=("rte", "cola")))
    perturb(adapter)
    says = r"no task is selected.*call adapter.select\(task=...\) with one of rte, cola"
    with pytest.raises(TensorAdaptError, match=says):
        compress(adapter, None, TIED, "tucker", 2)
    adapter.select(task=["rte", "cola"])
    with pytest.raises(TensorAdaptError, match=r"a task for each sample is selected.*one of rte, cola"):
        compress(adapter, None, TIED, "tucker", 2)
    for task in adapter.plan.spec.tasks:
        adapter.select(task=task)
        result = compress(adapter, None, TIED, "tensor_train", 2)
        expected = {site.name: adapter.delta(site).detach().numpy().astype(float) for site in adapter.plan.sites}
        assert relative(approximation(result), expected) < 1e-5
        assert f"tensor_train of cp adapter, task {task}: " in str(result)
        assert result.plan.spec.tasks == ()


def test_what_cara_shares_besides_its_tensors_is_left_out_and_named() -> None:
    config = transformers.BertConfig(hidden_size=30, intermediate_size=60, num_hidden_layers=2, num_attention_heads=5)
    adapter = ta.Adapter(ta.plan(config, method="cara", paper=True, rank=2))
    layout = "(layer proj block) : out : in"  # the layout of both tensors, whose rank is 2
    assert compress(adapter, None, layout, "tucker", 4).left_out == ()  # biases that are zero are no loss
    perturb(adapter)
    result = compress(adapter, None, layout, "tucker", 4)
    expected = {site.name: adapter.delta(site).detach().numpy().astype(float) for site in adapter.plan.sites}
    assert relative(approximation(result), expected) < 1e-5
    assert "not in the error: 3 other parameters changed, such as bias.o" in str(result)
    assert result.left_out == ("bias.o", "bias.up", "bias.down")
    assert result.n_source_params == adapter.plan.n_params - adapter.plan.n_biases


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


def test_some_sites_without_an_update(sites: Any) -> None:
    source = shared(sites)
    names = [site.name for site in sites[:5]]
    source |= {name: (source[name][0], 0 * source[name][1]) for name in names}
    exact = compress(source, sites, MATRIX, "tucker", {"layer_proj": 7, "out": 3, "in": 3})
    assert exact.error < 1e-12
    assert max(exact.site_errors.values()) < 1e-11
    rough = compress(source, sites, TIED, "tucker", 2)
    scale = math.hypot(*(np.linalg.norm(d) for d in dense(source).values())) / math.sqrt(12)
    found = approximation(rough)
    for name in names:
        assert rough.site_errors[name] == pytest.approx(np.linalg.norm(found[name]) / scale, rel=1e-9)
    assert rough.site_errors[names[-1]] > 1e-3  # the only one of its layer
    lora = compress(source, sites, "layer : out : in", "lora", 2)  # both factors of one layer come as zeros
    for group, factors in zip(lora.plan.groups, lora.factors, strict=True):
        for at in range(group.network.layout.shape[0]):
            assert factors["A"][at].any() or factors["B"][at].any()


def test_the_same_update_everywhere_needs_one_component_less(sites: Any) -> None:
    one = pairs(sites)[sites[0].name]
    result = compress({site.name: one for site in sites}, sites, MATRIX, "tucker", {"layer_proj": 1, "out": 2, "in": 2})
    assert result.error < 1e-12


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


def test_a_result_saved_without_a_model(sites: Any, tmp_path: Path) -> None:
    result = compress(pairs(sites), sites, TIED, "tucker", 2)
    result.save(tmp_path)
    attached, loaded = result.attach(make("bert")), ta.load(make("bert"), tmp_path, strict=False)
    assert all(torch.equal(attached.delta(site), loaded.delta(site)) for site in sites)
    with pytest.raises(TensorAdaptError, match="strict=False"):
        ta.load(make("bert", torch.float32), tmp_path)


def test_the_result_is_the_same_each_time_and_leaves_torchs_generator_alone(sites: Any) -> None:
    state = torch.random.get_rng_state()
    first, again = (compress(pairs(sites), sites, MATRIX, "cp", 3, seed=5) for _ in range(2))
    assert all(np.array_equal(first.factors[0][key], again.factors[0][key]) for key in first.factors[0])
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("family", ["cp", "tucker", "tensor_train"])
def test_an_adapter_of_no_update_is_drawn_in_all_of_the_space_from_the_seed(sites: Any, family: str) -> None:
    none = {name: (a, 0 * b) for name, (a, b) in pairs(sites).items()}
    drawn = [compress(none, sites, MATRIX, family, 3, seed=seed).factors[0]["in"] for seed in (5, 6)]
    assert not np.allclose(*drawn)
    assert np.linalg.matrix_rank(drawn[0]) == 3


# Norms of pairs


def test_updates_know_their_norm_and_differences_without_the_matrix() -> None:
    g = np.random.default_rng(0)
    one, two = (LoraPair(g.standard_normal((r, 9)), g.standard_normal((8, r))) for r in (2, 3))
    dense_one, dense_two = one.b @ one.a, two.b @ two.a
    for left, right in itertools.product((one, dense_one), (two, dense_two)):
        assert norm_of(difference(left, right)) == pytest.approx(np.linalg.norm(dense_one - dense_two), rel=1e-13)
    assert isinstance(difference(one, two), LoraPair)
    assert one.minus(one).norm < 1e-14 * one.norm  # Gram matrices would leave 1e-8
    np.testing.assert_allclose(one.T.b @ one.T.a, dense_one.T)
    assert (one.rank, one.shape, one.T.shape) == (2, (8, 9), (9, 8))


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


def test_what_a_family_of_ones_own_leaves_dead_is_revived(sites: Any) -> None:
    seeds = []

    class Still:
        """Tucker that gives up: all its factors are zero."""

        build, count, oracle = staticmethod(tucker.build), staticmethod(tucker.count), staticmethod(tucker.oracle)

        @staticmethod
        def decompose(network: Any, tensor: np.ndarray, seed: int) -> dict[str, np.ndarray]:
            seeds.append(seed)
            return {factor.name: np.zeros(network.shape(factor)) for factor in network.factors}

    result = compress(pairs(sites), sites, MATRIX, Still(), 2, seed=4)
    assert seeds == [4]
    assert result.error == pytest.approx(1)
    assert [name for name, values in result.factors[0].items() if not values.any()] == ["out"]


@pytest.mark.parametrize("kind", ["dense", "pair"])
def test_updates_whose_squares_vanish_are_refused_and_zeros_and_single_ones_are_not(sites: Any, kind: str) -> None:
    g = np.random.default_rng(0)

    def updates(*sizes: float) -> dict[str, Any]:
        drawn = {site.name: (g.standard_normal((2, site.in_)), g.standard_normal((site.out, 2))) for site in sites}
        scaled = zip(drawn.items(), itertools.cycle(sizes), strict=False)
        return {name: (b @ a * n if kind == "dense" else (a * n, b)) for (name, (a, b)), n in scaled}

    with pytest.raises(TensorAdaptError, match="all updates have norms below 1e-150, whose squares float64 does not"):
        compress(updates(1e-170, 0.0), sites, "layer proj : out : in", "tucker", 2)
    assert compress(updates(0.0), sites, "layer proj : out : in", "tucker", 2).error == 0
    usual, small = (compress(updates(n), sites, "layer proj : out : in", "lora", 1).error for n in (1.0, 1e-140))
    assert 0.3 < usual < 1 and 0.3 < small < 1
    assert compress(updates(1.0, 1e-170), sites, "layer proj : out : in", "lora", 1).error > 0.3

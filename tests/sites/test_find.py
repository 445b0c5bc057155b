"""Sites: found in a model, computed from its config, and the same in both."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from support.models import CONFIGURED, FAMILIES, logical, make
from torch import nn

import tensoradapt as ta
from tensoradapt.networks.modes import MODES
from tensoradapt.sites.recipe import Part, Recipe
from tensoradapt.sites.site import Site

every_model = pytest.mark.parametrize("name", FAMILIES)
LLAMA = SimpleNamespace(
    model_type="llama",
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=8,
    intermediate_size=34,
)


@pytest.mark.parametrize("name", CONFIGURED)
def test_a_config_has_the_sites_of_its_model_under_a_prefix(name: str) -> None:
    from_model = ta.find_sites(make(name), "all")
    from_config = ta.find_sites(FAMILIES[name].config(), "all", scope=FAMILIES[name].scope)
    assert len(from_model) == len(from_config)
    for found, computed in zip(from_model, from_config, strict=True):
        shorter, longer = sorted((found.module, computed.module), key=len)
        assert f".{longer}".endswith(f".{shorter}")
        assert dataclasses.replace(computed, name=found.name, module=found.module) == found
        assert found.name.removeprefix(found.module) == computed.name.removeprefix(computed.module)


@every_model
def test_sites_on_the_meta_device_are_those_of_real_weights(name: str) -> None:
    with torch.device("meta"):
        model = FAMILIES[name].make()
    assert ta.find_sites(model, "all") == ta.find_sites(make(name), "all")


@every_model
def test_a_site_has_the_shape_of_its_block_and_a_name_and_coordinates_of_its_own(name: str) -> None:
    model, sites = make(name), ta.find_sites(make(name), "all")
    assert len({site.name for site in sites}) == len({site.coords for site in sites}) == len(sites)
    values, sources = dict(model.named_parameters()), {mode.name: mode.size for mode in MODES}
    for site in sites:
        assert {sources[name] for name in site.coord} == {"coordinate"}
        assert {sources[name] for name, _ in site.inner} <= {"inner"}
        assert tuple(logical(model, site, values)[site.block].shape) == (site.out, site.in_)
        assert site.modes("model")["model"] == (site.in_ if site.reads else site.out)


@every_model
def test_every_number_of_a_layers_matrices_is_in_one_site_and_the_rest_is_passed_over_by_name(name: str) -> None:
    model, sites = make(name), ta.find_sites(make(name), "all")
    matrices = {key: torch.zeros_like(p) for key, p in model.named_parameters(remove_duplicate=False) if p.ndim >= 2}
    for site in sites:
        logical(model, site, matrices)[site.block] += 1
    inside = {key for key in matrices if ".0." in key or ".1." in key or ".2." in key}
    inside = {key for key in inside if not key.removesuffix(".weight").endswith(FAMILIES[name].passed)}
    assert {key for key, found in matrices.items() if (found == 1).all()} == inside
    assert all(not found.any() for key, found in matrices.items() if key not in inside)
    holders = {f"{key}.weight" for key, module in model.named_modules() if not isinstance(module, nn.ModuleList)}
    passed = {key for key, why in sites.skipped if "not an attention or MLP projection" in why}
    assert passed == {key.removesuffix(".weight") for key in matrices.keys() & holders - inside}


def test_fused_projections_share_a_module_and_split_its_rows_in_order() -> None:
    first = [site for site in ta.find_sites(make("gpt2")) if site.coord["layer"] == 0]
    assert [(s.name, s.rows) for s in first[:3]] == [
        ("transformer.h.0.attn.c_attn[q]", (0, 30)),
        ("transformer.h.0.attn.c_attn[k]", (30, 60)),
        ("transformer.h.0.attn.c_attn[v]", (60, 90)),
    ]
    assert (first[3].name, first[3].rows) == ("transformer.h.0.attn.c_proj", None)


def test_an_explicit_head_dim_wins_over_width_by_heads() -> None:
    by_proj = {site.coord["proj"]: site for site in ta.find_sites(LLAMA, layers=[1])}
    assert (by_proj["q"].out, by_proj["q"].in_, by_proj["q"].inner) == (48, 24, (("head", 6), ("dim", 8)))
    assert (by_proj["k"].out, by_proj["k"].in_, by_proj["k"].inner) == (16, 24, (("head", 2), ("dim", 8)))
    assert (by_proj["o"].out, by_proj["o"].in_, by_proj["o"].inner) == (24, 48, (("head", 6), ("dim", 8)))


@pytest.mark.parametrize(
    ("projections", "expected"),
    [
        ("attention", {"q", "k", "v", "o"}),
        ("mlp", {"gate", "up", "down"}),
        ("all", {"q", "k", "v", "o", "gate", "up", "down"}),
        ("v", {"v"}),
        (("down", "q"), {"down", "q"}),
    ],
)
def test_projections_are_asked_for_by_name_or_group(projections: str | tuple[str, ...], expected: set[str]) -> None:
    sites = ta.find_sites(LLAMA, projections)
    assert {site.coord["proj"] for site in sites} == expected
    assert len(sites) == 3 * len(expected)


def test_a_bare_model_has_the_sites_of_the_whole_one_without_its_prefix() -> None:
    whole = make("bert")
    bare = ta.find_sites(whole.bert)
    assert [renamed(site, "bert.") for site in bare] == list(ta.find_sites(whole))


def test_a_recipe_of_ones_own_makes_any_model_adaptable() -> None:
    config = SimpleNamespace(hidden_size=30, num_hidden_layers=2, num_attention_heads=5, intermediate_size=34)
    recipe = Recipe("mine", (), ("blocks.{}",), (Part("q", ("query",)), Part("down", ("out",))))
    sites = ta.find_sites(config, "all", recipe=recipe)
    assert [(site.name, site.out, site.in_, site.reads) for site in sites] == [
        ("blocks.0.query", 30, 30, True),
        ("blocks.0.out", 30, 34, False),
        ("blocks.1.query", 30, 30, True),
        ("blocks.1.out", 30, 34, False),
    ]
    assert ta.find_sites(LLAMA, recipe="bert")[0].name == "encoder.layer.0.attention.self.query"


def renamed(site: Site, prefix: str) -> Site:
    return dataclasses.replace(site, name=prefix + site.name, module=prefix + site.module)


@pytest.mark.parametrize("name", ["bert", "gpt2", "mixtral", "torch-encoder"])
def test_a_model_with_an_adapter_has_the_sites_it_had(name: str) -> None:
    model = make(name)
    before = ta.find_sites(model, "all")
    ta.attach(model, ta.plan(before, method="lora", rank=2))
    after = ta.find_sites(model, "all")
    assert (after.sites, after.skipped, after.source) == (before.sites, before.skipped, before.source)
    second = ta.attach(model, ta.plan(model, method="cp", rank=2), name="second")
    assert set(ta.adapters(model)) == {"default", "second"}
    assert set(second.plan.sites) == set(ta.find_sites(model))


def test_a_scope_of_a_recipe_is_not_the_beginning_of_another_name() -> None:
    model = nn.Module()
    model.one, model.one_more = make("bert"), make("bert")
    model.config = model.one.config
    found = ta.find_sites(model, ("q",), recipe="bert", scope="one")
    assert {site.module.split(".")[0] for site in found} == {"one"}

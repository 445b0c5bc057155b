"""Recipes: each projection is the one its name says, and published models have the matrices they are known to have."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from models import FAMILIES, inputs, make, perturb
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.sites import Site

HEAD, TOKEN = 1, 2
every_model = pytest.mark.parametrize("name", FAMILIES)


def first_layer(model: nn.Module) -> dict[str, Site]:
    return {str(site.coord["proj"]): site for site in ta.find_sites(model, "all", layers=[0])}


def moved(name: str, proj: str, reader: str, step: float, head: bool = True) -> Tensor:
    """By how much the input of ``reader`` moves (token, column) when one token's ``proj`` does, in one head of it."""
    model, seen = make(name), []
    site = first_layer(model)[proj]
    start, stop = site.rows or (0, site.out)
    if head:
        dim = dict(site.inner)["dim"]
        start, stop = start + HEAD * dim, start + (HEAD + 1) * dim

    def shift(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        tokens = out.unflatten(0, (2, -1)) if out.ndim == 2 else out  # some MLPs see tokens without a batch
        if len(tokens) == 2:  # DeBERTa's modules also read its relative positions, as a batch of one
            tokens[:, TOKEN, start:stop] += step * torch.linspace(1, 2, stop - start, dtype=out.dtype)
        return out

    model.get_submodule(first_layer(model)[reader].module).register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    with torch.no_grad():
        model(**inputs(name))
        model.get_submodule(site.module).register_forward_hook(shift)
        model(**inputs(name))
    before, after = (x.unflatten(0, (2, -1)) if x.ndim == 2 else x for x in seen)
    return (after - before)[0]


def linear(move: partial[Tensor]) -> bool:
    """Whether a step of twice the length moves twice as far."""
    one, two = move(step=0.5), move(step=1.0)
    return bool((two - 2 * one).abs().max() < 1e-4 * one.abs().max())


@every_model
def test_a_query_moves_its_own_token_and_head_and_only_a_value_moves_the_others_in_proportion(name: str) -> None:
    sites = first_layer(make(name))
    heads, kv_heads = (dict(sites[proj].inner)["head"] for proj in ("q", "k"))
    for proj, shared in (("q", 1), ("k", heads // kv_heads), ("v", heads // kv_heads)):
        move = partial(moved, name, proj, "o")
        changed = move(step=0.5).unflatten(-1, (heads, -1)).abs().amax(-1) > 1e-7
        tokens, places = (set(changed.any(axis).nonzero().flatten().tolist()) for axis in (1, 0))
        assert (tokens == {TOKEN}) == (proj == "q"), proj
        assert TOKEN in tokens
        assert places == set(range(HEAD * shared, (HEAD + 1) * shared)), proj
        assert linear(move) == (proj == "v"), proj


@every_model
def test_beside_a_gate_only_up_moves_what_down_reads_in_proportion(name: str) -> None:
    projections = first_layer(make(name)).keys() & {"gate", "up"}
    for proj in projections:
        move = partial(moved, name, proj, "down", head=False)
        assert set(move(step=0.5).any(1).nonzero().flatten().tolist()) == {TOKEN}
        assert linear(move) == (proj == "up" and "gate" in projections), proj


@every_model
def test_a_saved_adapter_is_the_same_on_another_copy(name: str, tmp_path: Path) -> None:
    model, again = make(name), make(name)
    adapter = ta.attach(model, ta.plan(ta.find_sites(model, "all"), parameterization="cp", rank=2))
    perturb(adapter)
    adapter.save(tmp_path)
    ta.load(again, tmp_path)
    with torch.no_grad():
        found, expected, base = (one(**inputs(name)).logits for one in (again, model, make(name)))
    assert torch.equal(found, expected)
    assert not torch.equal(expected, base)


def config(family: str, layers: int, width: int, heads: int, ff: int, **more: int) -> Any:
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    sizes = dict(zip(names, (layers, width, heads, ff), strict=True))
    return getattr(transformers, f"{family}Config")(**sizes, **more)


KNOWN: dict[str, tuple[Any, int, int, int]] = {
    # config, sites of attention, parameters of the published model, those of them that are in no site
    "distilbert-base": (
        transformers.DistilBertConfig(dim=768, n_heads=12, n_layers=6, hidden_dim=3072),
        *(6 * 4, 66_362_880, (30_522 + 512 + 2) * 768 + 6 * (4 * 768 + 3072 + 768 + 4 * 768)),
    ),
    "deberta-v3-base": (
        config("DebertaV2", 12, 768, 12, 3072),
        *(12 * 4, 183_831_552, (128_100 + 512 + 4) * 768 + 12 * (4 * 768 + 3072 + 768 + 4 * 768)),
    ),
    "modernbert-base": (
        config("ModernBert", 22, 768, 12, 1152),
        *(22 * 4, 149_014_272, (50_368 + 2 * 22 + 1) * 768),
    ),
    "gemma-2b": (
        config("Gemma", 18, 2048, 8, 16_384, num_key_value_heads=1, head_dim=256),
        *(18 * 4, 2_506_172_416, (256_000 + 2 * 18 + 1) * 2048),
    ),
    "gemma-2-2b": (
        config("Gemma2", 26, 2304, 8, 9216, num_key_value_heads=4, head_dim=256),
        *(26 * 4, 2_614_341_888, (256_000 + 4 * 26 + 1) * 2304),
    ),
    "gemma-3-1b": (
        config("Gemma3Text", 26, 1152, 4, 6912, num_key_value_heads=1, head_dim=256),
        *(26 * 4, 999_885_952, (262_144 + 4 * 26 + 1) * 1152 + 26 * 2 * 256),
    ),
    "phi-3-mini": (
        config("Phi3", 32, 3072, 32, 8192, num_key_value_heads=32),
        *(32 * 4, 3_821_079_552, (2 * 32_064 + 2 * 32 + 1) * 3072),
    ),
    "mixtral-8x7b": (
        config("Mixtral", 32, 4096, 32, 14_336, num_key_value_heads=8),
        *(32 * 4, 46_702_792_704, (2 * 32_000 + 2 * 32 + 1 + 32 * 8 * (1 + 3 * 14_336)) * 4096),
    ),
    "qwen3-30b-a3b": (
        config("Qwen3Moe", 48, 2048, 32, 6144, num_key_value_heads=4, head_dim=128),
        *(48 * 4, 30_532_122_624, (2 * 151_936 + 2 * 48 + 1 + 48 * 128 * (1 + 3 * 768)) * 2048 + 48 * 2 * 128),
    ),
    "whisper-base's encoder": (
        transformers.WhisperConfig(d_model=512, encoder_layers=6, encoder_attention_heads=8, encoder_ffn_dim=2048),
        *(6 * 4, 20_590_592, (3 * 80 + 3 * 512 + 1500 + 2 + 2) * 512 + 6 * (3 * 512 + 2048 + 512 + 4 * 512)),
    ),
    "esm2_t12_35M's layers": (
        config("Esm", 12, 480, 20, 1920),
        *(12 * 4, 12 * 2_771_040, 12 * (4 * 480 + 1920 + 480 + 4 * 480)),
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_sites_of_a_published_model_are_all_its_parameters_but_those_named(name: str) -> None:
    given, n_attention, n_parameters, n_others = KNOWN[name]
    assert len(ta.find_sites(given)) == n_attention
    assert sum(site.out * site.in_ for site in ta.find_sites(given, "all")) == n_parameters - n_others

"""Recipes: each projection is the one its name says, and published models have the matrices they are known to have."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from support.models import FAMILIES, inputs, logits, make, perturb
from torch import Tensor, nn

import tensoradapt as ta
from tensoradapt.sites.site import Site

HEAD, TOKEN = 1, 2
every_model = pytest.mark.parametrize("name", FAMILIES)
Parts = dict[str, Site]


def first_layers(model: nn.Module, projections: str, layer: int = 0) -> list[Parts]:
    """The attentions, or the MLPs, of the first layer of each stack: those that are modules of their own."""
    found: dict[Any, Parts] = {}
    for site in ta.find_sites(model, projections, layers=[layer]):
        if site.parameter == "weight":
            kind, _, proj = str(site.coord["proj"]).rpartition("_")
            found.setdefault((kind, site.coord.get("stack"), site.coord.get("attn")), {})[proj] = site
    return list(found.values())


def moved(name: str, site: Site, reader: Site, step: float, head: bool = True) -> Tensor:
    """By how much the input of ``reader`` moves (token, column) when one token's ``site`` does, in one head of it."""
    model, seen = make(name), []
    rows = torch.arange(model.get_submodule(site.module).weight.numel() // site.in_)[site.block[0]]
    if head:
        dim = dict(site.inner)["dim"]
        rows = rows[HEAD * dim : (HEAD + 1) * dim]

    def shift(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        tokens = out.unflatten(0, (2, -1)) if out.ndim == 2 else out  # some MLPs see tokens without a batch
        if len(tokens) == 2:  # DeBERTa's modules also read its relative positions, as a batch of one
            tokens[:, TOKEN, rows] += step * torch.linspace(1, 2, len(rows), dtype=out.dtype)
        return out

    model.get_submodule(reader.module).register_forward_pre_hook(lambda _, x: seen.append(x[0]))
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


@pytest.mark.thorough
@every_model
def test_a_query_moves_its_own_token_and_head_and_only_a_value_moves_the_others_in_proportion(name: str) -> None:
    for sites in first_layers(make(name), "attention"):
        heads, kv_heads = (dict(sites[proj].inner)["head"] for proj in ("q", "k"))
        for proj, shared in (("q", 1), ("k", heads // kv_heads), ("v", heads // kv_heads)):
            move = partial(moved, name, sites[proj], sites["o"])
            changed = move(step=0.5).unflatten(-1, (heads, -1)).abs().amax(-1) > 1e-7
            tokens, places = (set(changed.any(axis).nonzero().flatten().tolist()) for axis in (1, 0))
            assert (tokens == {TOKEN}) == (proj == "q"), sites[proj].name
            assert TOKEN in tokens
            assert places == set(range(HEAD * shared, (HEAD + 1) * shared)), sites[proj].name
            assert linear(move) == (proj == "v"), sites[proj].name


@pytest.mark.parametrize(("name", "layer"), [*((name, 0) for name in FAMILIES), ("qwen2_moe-mixed", 1)])
def test_beside_a_gate_only_up_moves_what_down_reads_in_proportion(name: str, layer: int) -> None:
    for sites in first_layers(make(name), "mlp", layer):
        for proj in sites.keys() & {"gate", "up"}:
            move = partial(moved, name, sites[proj], sites["down"], head=False)
            assert set(move(step=0.5).any(1).nonzero().flatten().tolist()) == {TOKEN}
            assert linear(move) == (proj == "up" and "gate" in sites), sites[proj].name


@pytest.mark.parametrize("name", ["torch-encoder", "torch-decoder"])
def test_the_rows_of_an_attention_module_are_its_queries_keys_and_values_head_by_head(name: str) -> None:
    model, generator = make(name), torch.Generator().manual_seed(2)
    asked, read = (torch.randn(2, n, 30, generator=generator, dtype=torch.float64) for n in (4, 5))
    values = dict(model.named_parameters())
    for module in dict.fromkeys(site.module for site in ta.find_sites(model)):
        own = {str(s.coord["proj"]): s for s in ta.find_sites(model) if s.module == module}
        bias = dict(zip("qkv", values[f"{module}.in_proj_bias"].chunk(3), strict=True))
        q, k, v = (
            (x @ values[own[proj].key][own[proj].block].T + bias[proj]).unflatten(-1, [n for _, n in own[proj].inner])
            for proj, x in (("q", asked), ("k", read), ("v", read))
        )
        weights = torch.einsum("bihd,bjhd->bhij", q, k).div(6**0.5).softmax(-1)
        mixed = torch.einsum("bhij,bjhd->bihd", weights, v).flatten(-2)
        expected = mixed @ values[own["o"].key][own["o"].block].T + values[f"{module}.out_proj.bias"]
        torch.testing.assert_close(model.get_submodule(module)(asked, read, read)[0], expected)


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_an_expert_is_its_gate_up_and_down(name: str) -> None:
    model, generator = make(name), torch.Generator().manual_seed(2)
    sites = ta.find_sites(model, "experts", layers=[1])
    (module,) = {site.module for site in sites}
    values = dict(model.named_parameters())
    matrix = {(s.coord["expert"], s.coord["proj"]): values[s.key][s.slot][s.block] for s in sites}
    x = torch.randn(4, sites[0].in_, generator=generator, dtype=torch.float64)
    chosen = torch.tensor([[0, 2], [2, 1], [1, 0], [0, 1]])
    share = torch.rand(4, 2, generator=generator, dtype=torch.float64)
    expected = torch.zeros_like(x)
    for token in range(4):
        for place, expert in enumerate(chosen[token].tolist()):
            gate, up, down = (matrix[expert, proj] for proj in ("gate", "up", "down"))
            inner = nn.functional.silu(gate @ x[token]) * (up @ x[token])
            expected[token] += share[token, place] * (down @ inner)
    torch.testing.assert_close(model.get_submodule(module)(x, chosen, share), expected)


@every_model
def test_a_saved_adapter_is_the_same_on_another_copy(name: str, tmp_path: Path) -> None:
    model, again = make(name), make(name)
    adapter = ta.attach(model, ta.plan(ta.find_sites(model, "all"), method="cp", rank=2))
    perturb(adapter)
    adapter.save(tmp_path)
    ta.load(again, tmp_path)
    with torch.no_grad():
        found, expected, base = (logits(one(**inputs(name))) for one in (again, model, make(name)))
    assert torch.equal(found, expected)
    assert not torch.equal(expected, base)


def config(family: str, layers: int, width: int, heads: int, ff: int, **more: int) -> Any:
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    sizes = dict(zip(names, (layers, width, heads, ff), strict=True))
    return getattr(transformers, f"{family}Config")(**sizes, **more)


QWEN3_MOE = {"num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "moe_intermediate_size": 768}
SPEECH = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 6), ("ffn_dim", 2048))}
SPEECH |= {"encoder_attention_heads": 8, "decoder_attention_heads": 8}
SPEECH_EMBEDDINGS = (3 * 80 + 1) + (3 * 512 + 1) + 1500 + 51_865 + 448 + 2 + 2  # rows of 512
CLIP_TEXT = (49_408 + 77 + 2) * 512 + 12 * (4 * 512 + 2048 + 512 + 4 * 512)
CLIP_VISION = (3 * 32 * 32 + 1 + 50 + 4) * 768 + 12 * (4 * 768 + 3072 + 768 + 4 * 768)
KNOWN: dict[str, tuple[Any, int, int, int]] = {
    # config, sites of attention, parameters of the published model, those of them that are in no site
    "distilbert-base": (
        transformers.DistilBertConfig(dim=768, n_heads=12, n_layers=6, hidden_dim=3072),
        *(6 * 4, 66_362_880, (30_522 + 512 + 2) * 768 + 6 * (4 * 768 + 3072 + 768 + 4 * 768)),
    ),
    "mpnet-base": (
        transformers.MPNetConfig(vocab_size=30_527, max_position_embeddings=514),
        *(12 * 4, 109_486_464, (30_527 + 514 + 2) * 768 + 32 * 12 + 769 * 768 + 12 * (4 * 768 + 3072 + 768 + 4 * 768)),
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
        *(32 * 4, 46_702_792_704, (2 * 32_000 + 2 * 32 + 1 + 32 * 8) * 4096),
    ),
    "qwen3-30b-a3b": (
        config("Qwen3Moe", 48, 2048, 32, 6144, **QWEN3_MOE),
        *(48 * 4, 30_532_122_624, (2 * 151_936 + 2 * 48 + 1 + 48 * 128) * 2048 + 48 * 2 * 128),
    ),
    "whisper-base": (
        transformers.WhisperConfig(d_model=512, **SPEECH),
        *(6 * 4 + 6 * 8, 72_593_920, SPEECH_EMBEDDINGS * 512 + 6 * (7 * 512 + 2048 + 512) + 6 * (12 * 512 + 2560)),
    ),
    "t5-small": (
        transformers.T5Config(d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_heads=8),
        *(6 * 4 + 6 * 8, 60_506_624, (32_128 + 13 + 19) * 512 + 2 * 32 * 8),
    ),
    "pythia-70m": (
        config("GPTNeoX", 6, 512, 8, 2048),
        *(6 * 4, 70_426_624, 2 * 50_304 * 512 + 6 * (8 * 512 + 2048 + 512) + 2 * 512),
    ),
    "clip-vit-base-patch32": (
        transformers.CLIPConfig(),
        *(2 * 12 * 4, 151_277_313, CLIP_TEXT + CLIP_VISION + 512 * (512 + 768) + 1),
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


def test_the_sites_of_timms_vit_base_are_all_its_parameters_but_those_named() -> None:
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224")
    embedded, norms = (3 * 16 * 16 + 1 + 1 + 197) * 768, 25 * 2 * 768
    others = embedded + norms + 12 * (4 * 768 + 3072 + 768) + 1000 * 769
    assert sum(p.numel() for p in model.parameters()) == 86_567_656
    assert len(ta.find_sites(model)) == 12 * 4
    assert sum(site.out * site.in_ for site in ta.find_sites(model, "all")) == 86_567_656 - others

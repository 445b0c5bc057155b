"""Published adapters: counts against closed formulas at real sizes, and every row attached, moved, saved and loaded."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.models import inputs, perturb, weights_with_deltas
from support.published_rows import TASKS, attached, tiny
from torch import nn
from torch.func import functional_call

import tensoradapt as ta
from tensoradapt import parameterizations, published
from tensoradapt.errors import TensorAdaptError
from tensoradapt.published.row import Published
from tensoradapt.sites import recipe

sys.path.append(str(Path(__file__).parents[2] / "docs" / "make"))
from gallery_counts import evaluated  # the formulas' functions are there

CONFIGS = {
    "roberta-base": transformers.RobertaConfig(),
    "roberta-large": transformers.RobertaConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    ),
    "vit-b": transformers.ViTConfig(),
    "llama-2-7b": transformers.LlamaConfig(
        hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, intermediate_size=11008
    ),
}
BLOCKS = ("fact-tt", "fact-tk", "cara")  # where the MLP's width is no multiple of the model's they are not defined
GROUPED: dict[str, Any] = {  # fewer key and value heads; in the second the heads are wider than the model besides
    "llama-3-8b": transformers.LlamaConfig(
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=14336,
    ),
    "qwen3-0.6b": transformers.Qwen3Config(
        hidden_size=1024,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=3072,
    ),
}
OF_EXTRAS = {  # which may be deleted: q, k, v, up and down; all seven
    "milora": (64, 64 * 32 * (6 * 4096 + 2 * (4096 + 11008))),
    **dict.fromkeys(("corda-ipm", "corda-kpm", "eva"), (16, 39_976_960)),
}
every_row = pytest.mark.parametrize("name", published.names())
TIED = [name for name in published.names() if any("proj" in text.split(":")[0] for text in published.get(name).layout)]


@every_row
@pytest.mark.parametrize("model", CONFIGS)
def test_every_count_is_the_closed_formula_at_real_sizes(name: str, model: str) -> None:
    row, config = published.get(name), CONFIGS[model]
    for rank in (4, 8):
        if (name, model) in {(block, "llama-2-7b") for block in BLOCKS}:
            with pytest.raises(
                ta.TensorAdaptError, match=r"not defined on this model: .*up_proj.*11008 x 4096.*multiple"
            ):
                ta.plan(config, method=name, paper=True, rank=rank)
            continue
        expected = closed_count(row, config, rank, n_tasks=3)
        assert ta.plan(config, method=name, paper=True, rank=rank, **TASKS.get(name, {})).n_params == expected


@every_row
@pytest.mark.parametrize("model", GROUPED)
def test_grouped_queries_are_counted_matrix_by_matrix_or_refused_by_name(name: str, model: str) -> None:
    row, config = published.get(name), GROUPED[model]
    settings = {"method": name, "paper": True, "rank": 8, **TASKS.get(name, {})}
    no_parts = row.split and model == "qwen3-0.6b" and 2048 not in row.split["in"]  # its queries' width
    if name in TIED or row.one_shape or name == "quanta" or no_parts:
        with pytest.raises(ta.TensorAdaptError):
            ta.plan(config, **settings)
        with pytest.raises(ta.TensorAdaptError, match=rf"{re.escape(name)} has no count "):
            closed_count(row, config, 8, n_tasks=3)
        return
    assert ta.plan(config, **settings).n_params == closed_count(row, config, 8, n_tasks=3)


@pytest.mark.parametrize("name", TIED)
@pytest.mark.parametrize("model", GROUPED)
def test_a_tied_row_refuses_matrices_of_several_shapes_and_what_it_advises_works(name: str, model: str) -> None:
    """TensLoRA's code alone defines them, by means. FacT and CaRA take the MLP of the second model alone."""
    row, config = published.get(name), GROUPED[model]
    settings: dict[str, Any] = {"method": name, "paper": True, "rank": 2, **TASKS.get(name, {})}
    if row.blocks and model == "llama-3-8b":
        return
    with pytest.raises(ta.TensorAdaptError) as error:
        ta.plan(config, **settings)
    message = str(error.value)
    assert f"{name} with paper=True is not defined on these matrices: site model.layers.0.self_attn." in message
    assert "another count than the paper has" in message
    calls = re.findall(r"find_sites[(]model, [(].*?[)](?:, blocks=True)?[)]", message)
    assert len(calls) >= 2
    for call in calls:
        alone = ta.plan(eval(call, {"find_sites": ta.find_sites, "model": config}), **settings)
        assert "split by shape" not in str(alone)
    split = ta.plan(config, on_mismatch="split", **settings)
    whole = len(row.tensors) * (config.num_hidden_layers if "layer" not in row.layout[0] else 1)
    said = f"split by shape: {len(split.groups)} tensors where {name} has {whole}; not the paper's count"
    assert len(split.groups) > whole
    assert said in str(split)
    assert len(ta.plan(config, on_mismatch="crop", **settings).groups) == whole


@pytest.mark.parametrize(
    ("name", "model", "rank", "expected"),
    [
        ("lorta", "roberta-base", 8, 6_880),
        ("lorta", "roberta-large", 4, 4_528),
        ("lorta", "llama-2-7b", 8, 34_336),
        ("metatt-4d", "roberta-base", 8, 13_184),
        ("metatt-4d", "roberta-base", 64, 155_648),
        ("metatt-5d", "roberta-base", 16, 19_968),
        ("lotr", "roberta-base", 40, 99_840),
        ("fact-tt", "vit-b", 4, 8_448),
        ("fact-tt", "vit-b", 16, 61_440),
        ("fact-tk", "vit-b", 16, 30_976),
        ("fact-tk", "vit-b", 32, 86_528),
        ("cara", "vit-b", 32, 85_440),
        ("cara", "vit-b", 16, 45_024),
        ("loretta-rep", "roberta-base", 5, 27_840),
        ("loretta-rep", "llama-2-7b", 8, 249_856),
        ("quanta", "llama-2-7b", 1, 2_752_512),
        ("vera", "llama-2-7b", 256, 278_528),
        ("lora-xs", "roberta-large", 16, 24_576),  # query, value and both output.dense
        ("tt-lora", "roberta-base", 5, 24 * (2 * 5 * 64 + 5 * 5 * 14)),  # cores of 64, 4, 3, 3, 4, 64
        ("pissa", "llama-2-7b", 128, 319_815_680),  # all seven matrices
        *((name, "llama-2-7b", *size) for name, size in OF_EXTRAS.items() if name in published.names()),
        ("lora", "llama-3-8b", 8, 32 * 8 * (4096 + 4096 + 1024 + 4096)),
        ("vera", "llama-3-8b", 8, 32 * (4096 + 8 + 1024 + 8)),
    ],
)
def test_counts_that_the_sources_print(name: str, model: str, rank: int, expected: int) -> None:
    assert ta.plan({**CONFIGS, **GROUPED}[model], method=name, paper=True, rank=rank).n_params == expected


def test_what_a_source_trains_besides_is_counted_apart() -> None:
    cara = ta.plan(CONFIGS["vit-b"], method="cara", paper=True, rank=32)
    assert (cara.n_params, cara.n_biases) == (85_440, 4_608)
    assert "of these, 4,608 in biases of o, up, down that all layers share" in str(cara)
    with torch.device("meta"):
        llama = transformers.LlamaForCausalLM(CONFIGS["llama-2-7b"])
        roberta = transformers.RobertaForMaskedLM(CONFIGS["roberta-base"])
    loretta = ta.plan(llama, method="loretta-rep", paper=True, rank=8)
    assert (loretta.n_params, loretta.n_trained_base) == (249_856, 266_240)
    assert "trained in place: *[nN]orm* (266,240 parameters, not in the figure above)" in str(loretta)
    small = ta.plan(ta.find_sites(roberta.roberta, ("q", "v")), method="loretta-rep", paper=True, rank=5)
    assert small.n_params == 27_840
    norms = ta.plan(roberta.roberta, method="loretta-rep", paper=True, rank=5)
    assert norms.n_trained_base == 38_400


MOVES_AT_ONCE = ("tt-lora", "loretta-rep", "lora-xs", "lora-sb", "stella", "stella-diagonal", "unilora")  # as sources


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs("bert")).logits


@every_row
def test_every_row_starts_where_its_source_does_and_is_its_deltas(name: str) -> None:
    base, model = tiny(), tiny()
    torch.set_default_dtype(torch.float64)
    try:
        adapter = attached(name, model)
    finally:
        torch.set_default_dtype(torch.float32)
    same = torch.equal(logits(model), logits(base))
    assert same != (name in MOVES_AT_ONCE)
    perturb(adapter)
    weights = weights_with_deltas(base, adapter)
    if adapter.plan.spec.rule == "hira":
        weights |= {
            s.key: w + w * (weights[s.key] - w) for s in adapter.plan.sites for w in [base.get_parameter(s.key)]
        }
    for site in adapter.plan.sites:
        if (bias := adapter.bias(site)) is not None:
            own = dict(base.named_parameters())[f"{site.module}.bias"].detach()
            weights[f"{site.module}.bias"] = own + bias.detach()
    weights |= {n.replace(".base.", "."): p for n, p in model.named_parameters() if "norm" in n.lower()}
    expected = functional_call(base, weights, (), inputs("bert")).logits
    torch.testing.assert_close(model(**inputs("bert")).logits, expected, rtol=1e-10, atol=1e-10)
    moved = logits(model)
    ta.merge(model)
    torch.testing.assert_close(logits(model), moved, rtol=1e-9, atol=1e-9)
    ta.unmerge(model)
    assert torch.equal(logits(model), moved)


@every_row
def test_every_row_is_saved_and_loaded_bit_for_bit(name: str, tmp_path: Path) -> None:
    model = tiny()
    adapter = attached(name, model)
    perturb(adapter)
    before = logits(model)
    adapter.save(tmp_path)
    again = tiny()
    loaded = ta.load(again, tmp_path)
    if loaded.plan.spec.tasks:
        loaded.select(task="cola")
    assert torch.equal(logits(again), before)
    assert replace(loaded.plan, skipped=()) == replace(adapter.plan, skipped=())
    assert loaded.n_params == adapter.plan.n_params == sum(p.numel() for p in adapter.parameters())


@every_row
def test_every_row_learns(name: str) -> None:
    model = tiny().float()
    attached(name, model)
    batch = {**inputs("bert"), "labels": torch.tensor([2, 5])}
    fitted = ta.fit(model, [batch] * 12, lr=3e-3, steps=12, warmup=0)
    assert fitted.status == "finished"
    assert fitted.losses[-1] < fitted.losses[0]


def closed_count(row: Published, config: Any, rank: int, n_tasks: int = 1) -> int:
    """The row's formula at a model's sizes, matrix by matrix where it ties none, without what the source trains of the
    base model.

    Raises TensorAdaptError where the row is not defined: matrices of several shapes in one tensor, or widths without
    parts.
    """
    dims, projections = recipe.dims(config), row.projections
    if projections == ("all",):
        projections = (*recipe.ATTENTION, *(("gate",) if config.model_type in ("llama", "qwen3") else ()), "up", "down")
    if "unilora" in row.map:  # one vector for all matrices
        first = _sizes(row, row.projections[0], dims)
        return _evaluated(row, {"L": dims.layers, "r": rank, "M": len(row.projections), **first})
    letters = {"d": dims.width, "f": dims.ff, "h": dims.head_dim, "L": dims.layers, "T": n_tasks, "r": rank}
    if not row.one_shape and not any("proj" in layout.split(":")[0] for layout in row.layout):
        return sum(_evaluated(row, {**letters, **_sizes(row, proj, dims), "M": 1}) for proj in projections)
    for layout, projections in row.tensors:
        _check_one_shape(row, layout, {proj: _sizes(row, proj, dims) for proj in projections})
    return _evaluated(row, {**letters, **_sizes(row, row.projections[0], dims), "M": len(row.projections)})


def _sizes(row: Published, proj: str, dims: recipe.Dims) -> dict[str, int]:
    """Outputs, inputs and heads of a matrix as it is stored; an MLP's may be cut into square blocks."""
    heads = dims.kv_heads if proj in ("k", "v") else dims.heads
    across = heads * dims.head_dim if proj in recipe.ATTENTION else dims.width if row.blocks else dims.ff
    out, in_ = (dims.width, across) if proj in recipe.WRITES else (across, dims.width)
    if (row.split and not {out, in_} <= set(row.split["in"])) or (out != in_ and _is_square(row)):
        raise TensorAdaptError(
            f"{row.name} has no count for {proj}, {out} x {in_}: it takes "
            f"{'square matrices' if _is_square(row) else 'matrices'} of widths {', '.join(map(str, row.split['in']))}"
        )
    return {"o": out, "i": in_, "H": heads}


def _is_square(row: Published) -> bool:
    return bool(getattr(parameterizations.get(row.parameterization), "square", False))


def _check_one_shape(row: Published, layout: str, sizes: Mapping[str, Mapping[str, int]]) -> None:
    turned = {proj: layout.endswith("model") and proj in recipe.WRITES for proj in sizes}
    shapes = {proj: (s["o"], s["i"])[:: -1 if turned[proj] else 1] for proj, s in sizes.items()}
    first, shape = next(iter(shapes.items()))
    for proj, other in shapes.items():
        if other != shape:
            raise TensorAdaptError(
                f"{row.name} has no count here: it ties {first}, {shape[0]} x {shape[1]}, and {proj}, "
                f'{other[0]} x {other[1]}, in one tensor of one shape; plan(..., on_mismatch="split").n_params counts '
                "a tensor for each"
            )


def _evaluated(row: Published, letters: Mapping[str, int]) -> int:
    return evaluated(row.formula, {**letters, "n": row.split.get("in", {}), "cores": row.options.get("cores", {})})

"""The table of recipes says which module of each model family holds which projection."""

from __future__ import annotations

from typing import Any

from tensoradapt.errors import TensorAdaptError, did_you_mean, few
from tensoradapt.sites import recipe as shared
from tensoradapt.sites.recipe import Recipe, Stack, each, parts

RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "bert",
        ("bert", "roberta", "xlm-roberta", "camembert", "electra", "esm"),
        ("encoder.layer.{}",),
        (
            *parts(q="attention.self.query", k="attention.self.key", v="attention.self.value"),
            *parts(o="attention.output.dense", up="intermediate.dense", down="output.dense"),
        ),
    ),
    Recipe(
        "distilbert",
        ("distilbert",),
        ("transformer.layer.{}",),
        (
            *parts(q="attention.q_lin", k="attention.k_lin", v="attention.v_lin", o="attention.out_lin"),
            *parts(up="ffn.lin1", down="ffn.lin2"),
        ),
    ),
    Recipe(
        "deberta-v2",
        ("deberta-v2",),
        ("encoder.layer.{}",),
        (
            *parts(q="attention.self.query_proj", k="attention.self.key_proj", v="attention.self.value_proj"),
            *parts(o="attention.output.dense", up="intermediate.dense", down="output.dense"),
        ),
    ),
    Recipe(
        "mpnet",
        ("mpnet",),
        ("encoder.layer.{}",),
        (
            *parts(q="attention.attn.q", k="attention.attn.k", v="attention.attn.v", o="attention.attn.o"),
            *parts(up="intermediate.dense", down="output.dense"),
        ),
    ),
    Recipe(
        "modernbert",
        ("modernbert",),
        ("layers.{}",),
        (
            *parts(("q", "k", "v"), q="attn.Wqkv", k="attn.Wqkv", v="attn.Wqkv", o="attn.Wo"),
            *parts(("gate", "up"), gate="mlp.Wi", up="mlp.Wi", down="mlp.Wo"),
        ),
        prefix="model.",
    ),
    Recipe(
        "gpt2",
        ("gpt2",),
        ("h.{}",),
        (
            *parts(("q", "k", "v"), **dict.fromkeys("qkv", "attn.c_attn"), o="attn.c_proj"),
            *parts(up="mlp.c_fc", down="mlp.c_proj"),
        ),
        prefix="transformer.",
    ),
    Recipe(
        "llama",
        ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
        ("layers.{}",),
        (*shared.SEPARATE, *shared.GATED),
        prefix="model.",
    ),
    Recipe(
        "phi3",
        ("phi3",),
        ("layers.{}",),
        (
            *parts(("q", "k", "v"), **dict.fromkeys("qkv", "self_attn.qkv_proj"), o="self_attn.o_proj"),
            *parts(("gate", "up"), gate="mlp.gate_up_proj", up="mlp.gate_up_proj", down="mlp.down_proj"),
        ),
        prefix="model.",
    ),
    Recipe(
        "gpt_neox",
        ("gpt_neox",),
        ("layers.{}",),
        (
            *each(parts(("q", "k", "v"), **dict.fromkeys("qkv", "attention.query_key_value")), interleaved=True),
            *parts(o="attention.dense", up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h"),
        ),
        prefix="gpt_neox.",
    ),
    Recipe("mixtral", ("mixtral",), ("layers.{}",), (*shared.SEPARATE, *shared.EXPERTS), prefix="model."),
    Recipe(
        "qwen3_moe",
        ("qwen3_moe",),
        ("layers.{}",),
        (*shared.SEPARATE, *shared.EXPERTS, *shared.DENSE_LAYERS),
        prefix="model.",
    ),
    Recipe(
        "qwen2_moe",
        ("qwen2_moe",),
        ("layers.{}",),
        (*shared.SEPARATE, *shared.EXPERTS, *shared.SHARED, *shared.DENSE_LAYERS),
        prefix="model.",
    ),
    Recipe(
        "t5",
        ("t5", "mt5"),
        stacks=(
            Stack(("encoder.block.{}",), (*shared.t5("self", 0), *shared.t5_mlp(1)), "encoder"),
            Stack(
                ("decoder.block.{}",),
                (*shared.t5("self", 0), *shared.t5("cross", 1), *shared.t5_mlp(2)),
                "decoder",
                sizes=(("layers", "num_decoder_layers"),),
            ),
        ),
    ),
    Recipe(
        "whisper",
        ("whisper",),
        stacks=(
            Stack(("encoder.layers.{}",), (*each(shared.OUT_PROJ, attn="self"), *shared.FC), "encoder", "model."),
            Stack(
                ("decoder.layers.{}",),
                (*each(shared.OUT_PROJ, attn="self"), *each(shared.CROSS, attn="cross"), *shared.FC),
                "decoder",
                "model.",
                sizes=(("layers", "decoder_layers"), ("heads", "decoder_attention_heads"), ("ff", "decoder_ffn_dim")),
            ),
        ),
    ),
    Recipe(
        "clip",
        ("clip",),
        stacks=(
            Stack(("text_model.encoder.layers.{}",), shared.TOWER, "text", config="text_config"),
            Stack(("vision_model.encoder.layers.{}",), shared.TOWER, "vision", config="vision_config"),
        ),
    ),
    Recipe("clip_tower", ("clip_text_model", "clip_vision_model"), ("encoder.layers.{}",), shared.TOWER),
    Recipe("vit", ("vit", "deit"), ("layers.{}", "encoder.layer.{}"), (*shared.VIT_ATTENTION, *shared.VIT_MLP)),
    Recipe("dinov2", ("dinov2",), ("encoder.layer.{}", "layers.{}"), (*shared.VIT_ATTENTION, *shared.DINO_MLP)),
)
BY_TYPE = {kind: row for row in RECIPES for kind in row.model_types}
BY_NAME = {row.name: row for row in RECIPES}


def find(config: Any, recipe: str | Recipe | None = None) -> Recipe:
    """Return the recipe that is given or named, else that of the config's ``model_type``."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is not None:
        if recipe not in BY_NAME:
            raise TensorAdaptError(f"unknown recipe {recipe!r}{did_you_mean(recipe, BY_NAME)}")
        return BY_NAME[recipe]
    kind = getattr(config, "model_type", None) or ""
    if kind not in BY_TYPE:
        subject = f"model type {kind!r}" if kind else f"a {type(config).__name__} without a model_type"
        raise TensorAdaptError(
            f"no recipe for {subject}{did_you_mean(kind, BY_TYPE)}. Pass recipe= (one of {few(list(BY_NAME))}) if its "
            'modules are named alike, or your own: Recipe("mine", (), ("layers.{}",), (Part("q", ("attn.q",)), ...)) '
            "from tensoradapt.sites.recipe, with the layer's path, and the paths of q, k, v, o, gate, up, down below. "
            "Without one, pass the model itself: its layers are then looked for in its module tree"
        )
    return BY_TYPE[kind]


def known(config: Any) -> bool:
    """Say whether there is a recipe for the config's ``model_type``."""
    return getattr(config, "model_type", None) in BY_TYPE

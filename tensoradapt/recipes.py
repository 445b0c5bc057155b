"""Recipes: which module of which model family holds which projection, as a table of names.

A part says where a projection lives: the module path below the layer, whether it *reads* the residual stream (q, k, v,
up, gate) or *writes* it (o, down), and, where one module holds several projections, which block of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tensoradapt.errors import TensorAdaptError, did_you_mean

Kind = Literal["attention", "mlp"]
ATTENTION = ("q", "k", "v", "o")
WRITES = ("o", "down")


@dataclass(frozen=True)
class Part:
    """One projection; ``paths`` are tried in order (libraries rename modules between releases)."""

    proj: str
    paths: tuple[str, ...]
    fused: tuple[str, ...] = ()  # all projections stacked on the module's rows, in order

    @property
    def kind(self) -> Kind:
        return "attention" if self.proj in ATTENTION else "mlp"

    @property
    def writes(self) -> bool:
        return self.proj in WRITES


@dataclass(frozen=True)
class Dims:
    """The sizes of one model family member that decide every site's shape."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int


@dataclass(frozen=True)
class Recipe:
    """A model family: the ``model_type`` values it covers, the layer paths tried in order, and its parts."""

    name: str
    model_types: tuple[str, ...]
    layers: tuple[str, ...]
    parts: tuple[Part, ...]
    prefix: str = ""  # where the layers stand in the usual task model, for sites made from a config alone
    swiglu: tuple[Part, ...] = ()  # the MLP parts where the config says use_swiglu_ffn

    def parts_for(self, config: Any) -> tuple[Part, ...]:
        """The parts of one member of the family."""
        if not getattr(config, "use_swiglu_ffn", False):
            return self.parts
        return tuple(p for p in self.parts if p.kind == "attention") + self.swiglu


def _parts(fused: tuple[str, ...] = (), **paths: str | tuple[str, ...]) -> tuple[Part, ...]:
    """Parts by projection; those in ``fused`` share one module's rows."""
    texts = {proj: (path,) if isinstance(path, str) else path for proj, path in paths.items()}
    return tuple(Part(proj, path, fused if proj in fused else ()) for proj, path in texts.items())


_GATED = _parts(gate="mlp.gate_proj", up="mlp.up_proj", down="mlp.down_proj")
_SEPARATE = _parts(q="self_attn.q_proj", k="self_attn.k_proj", v="self_attn.v_proj", o="self_attn.o_proj")
_VIT = _parts(
    q=("attention.q_proj", "attention.attention.query"),
    k=("attention.k_proj", "attention.attention.key"),
    v=("attention.v_proj", "attention.attention.value"),
    o=("attention.o_proj", "attention.output.dense"),
    up=("mlp.fc1", "intermediate.dense"),
    down=("mlp.fc2", "output.dense"),
)
RECIPES: tuple[Recipe, ...] = (
    Recipe(
        "bert",
        ("bert", "roberta", "xlm-roberta", "camembert", "electra", "esm"),
        ("encoder.layer.{}",),
        _parts(
            q="attention.self.query",
            k="attention.self.key",
            v="attention.self.value",
            o="attention.output.dense",
            up="intermediate.dense",
            down="output.dense",
        ),
    ),
    Recipe(
        "distilbert",
        ("distilbert",),
        ("transformer.layer.{}",),
        _parts(
            q="attention.q_lin",
            k="attention.k_lin",
            v="attention.v_lin",
            o="attention.out_lin",
            up="ffn.lin1",
            down="ffn.lin2",
        ),
    ),
    Recipe(
        "deberta-v2",
        ("deberta-v2",),
        ("encoder.layer.{}",),
        _parts(
            q="attention.self.query_proj",
            k="attention.self.key_proj",
            v="attention.self.value_proj",
            o="attention.output.dense",
            up="intermediate.dense",
            down="output.dense",
        ),
    ),
    Recipe(
        "modernbert",
        ("modernbert",),
        ("layers.{}",),
        (
            *_parts(("q", "k", "v"), q="attn.Wqkv", k="attn.Wqkv", v="attn.Wqkv", o="attn.Wo"),
            *_parts(("gate", "up"), gate="mlp.Wi", up="mlp.Wi", down="mlp.Wo"),
        ),
        prefix="model.",
    ),
    Recipe(
        "gpt2",
        ("gpt2",),
        ("h.{}",),
        _parts(
            ("q", "k", "v"),
            q="attn.c_attn",
            k="attn.c_attn",
            v="attn.c_attn",
            o="attn.c_proj",
            up="mlp.c_fc",
            down="mlp.c_proj",
        ),
        prefix="transformer.",
    ),
    Recipe(
        "llama",
        ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"),
        ("layers.{}",),
        (*_SEPARATE, *_GATED),
        prefix="model.",
    ),
    Recipe(
        "phi3",
        ("phi3",),
        ("layers.{}",),
        (
            *_parts(("q", "k", "v"), **dict.fromkeys("qkv", "self_attn.qkv_proj"), o="self_attn.o_proj"),
            *_parts(("gate", "up"), gate="mlp.gate_up_proj", up="mlp.gate_up_proj", down="mlp.down_proj"),
        ),
        prefix="model.",
    ),
    # attention only: their experts are stacked in one parameter, which is no module
    Recipe("experts", ("mixtral", "qwen2_moe", "qwen3_moe"), ("layers.{}",), _SEPARATE, prefix="model."),
    Recipe(
        "whisper-encoder",
        ("whisper",),
        ("encoder.layers.{}",),
        _parts(
            q="self_attn.q_proj",
            k="self_attn.k_proj",
            v="self_attn.v_proj",
            o="self_attn.out_proj",
            up="fc1",
            down="fc2",
        ),
    ),
    Recipe("vit", ("vit", "deit"), ("layers.{}", "encoder.layer.{}"), _VIT),
    Recipe("dinov2", ("dinov2",), ("encoder.layer.{}", "layers.{}"), _VIT, swiglu=_GATED),
)


def find(config: Any, recipe: str | Recipe | None = None) -> Recipe:
    """The recipe given, named, or of the config's ``model_type``."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is not None:
        if recipe not in _named():
            raise TensorAdaptError(f"unknown recipe {recipe!r}{did_you_mean(recipe, _named())}")
        return _named()[recipe]
    by_type: Mapping[str, Recipe] = {kind: row for row in RECIPES for kind in row.model_types}
    kind = getattr(config, "model_type", None) or ""
    if kind not in by_type:
        found = f"model type {kind!r}" if kind else f"a {type(config).__name__} without a model_type"
        raise TensorAdaptError(
            f"no recipe for {found}{did_you_mean(kind, by_type)}. Pass recipe= (one of {', '.join(_named())}) if its "
            'modules are named alike, or your own: Recipe("mine", (), ("layers.{}",), (Part("q", ("attn.q",)), ...)) '
            "from tensoradapt.recipes, with the layer's path, and the paths of q, k, v, o, gate, up, down below it"
        )
    return by_type[kind]


def _named() -> dict[str, Recipe]:
    return {row.name: row for row in RECIPES}


def dims(config: Any) -> Dims:
    """Sizes read from a config, whatever its family calls them."""
    width = _first(config, "hidden_size", "n_embd", "dim", "d_model")
    heads = _first(config, "num_attention_heads", "n_head", "n_heads", "encoder_attention_heads")
    ff = _first(config, "intermediate_size", "n_inner", "hidden_dim", "encoder_ffn_dim", default=0)
    ff = ff or int(width * getattr(config, "mlp_ratio", 4))
    if getattr(config, "use_swiglu_ffn", False):  # DINOv2 rounds two thirds of it up to a multiple of 8
        ff = (int(ff * 2 / 3) + 7) // 8 * 8
    return Dims(
        layers=_first(config, "num_hidden_layers", "n_layer", "n_layers", "encoder_layers"),
        width=width,
        heads=heads,
        kv_heads=_first(config, "num_key_value_heads", default=0) or heads,
        head_dim=_first(config, "head_dim", default=0) or width // heads,
        ff=ff,
    )


def _first(config: Any, *names: str, default: int | None = None) -> int:
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return int(value)
    if default is None:
        raise TensorAdaptError(
            f"the config ({type(config).__name__}) has none of {', '.join(names)}; expected a transformer's config"
        )
    return default

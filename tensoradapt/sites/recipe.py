"""Recipes say how a model family names its layers and projections, and where its config has their sizes. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from tensoradapt.checks import LARGEST, check_whole, number, numbers, whole
from tensoradapt.errors import TensorAdaptError

__all__ = ["Part", "Recipe", "Stack"]
LAYERS = 10_000  # more are refused, as their sites are listed one by one
Kind = Literal["attention", "mlp", "experts"]
ATTENTION = ("q", "k", "v", "o")
WRITES = ("o", "down")


@dataclass(frozen=True)
class Part:
    """One projection of a layer (docs/guides/recipes.md).

    Making one raises nothing; ``find_sites`` refuses what the model does not have.

    Attributes:
        proj: its name: "q", "k", "v" and "o" of the attention; "gate", "up" and "down" of the MLP.
        paths: of its module below the layer, tried in order, as libraries rename modules between releases.
        fused: all projections in the module's rows, in order, where there are several.
        attn: "self" or "cross", where layers have both.
        interleaved: the fused projections alternate head by head.
        parameter: the name of the module's parameter.
        stacked: the parameter holds one matrix for each expert.
        width: size of the MLP's inner side: "ff", "expert_ff" or "shared_ff".
        when: ``when(config, layer)`` says whether a layer has it; by default all have.

    >>> from tensoradapt.sites.recipe import Part
    >>> [Part(name, ("attn.qkv",), fused=("q", "k", "v")).kind for name in ("q", "k", "v")]
    ['attention', 'attention', 'attention']
    """

    proj: str
    paths: tuple[str, ...]
    fused: tuple[str, ...] = ()
    attn: str | None = None
    interleaved: bool = False
    parameter: str = "weight"
    stacked: bool = False
    width: str = "ff"
    when: Callable[[Any, int], bool] | None = None

    @property
    def kind(self) -> Kind:
        if self.proj in ATTENTION:
            return "attention"
        return "experts" if self.stacked else "mlp"

    @property
    def writes(self) -> bool:
        return self.proj.rpartition("_")[2] in WRITES


@dataclass(frozen=True)
class Dims:
    """The sizes of a model that fix the shape of every site."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int
    experts: int = 0
    expert_ff: int = 0
    shared_ff: int = 0


@dataclass(frozen=True)
class Stack:
    """A stack of layers of a model that has several, such as an encoder and a decoder (docs/guides/recipes.md).

    Making one raises nothing; ``find_sites`` refuses what the model does not have.

    Attributes:
        layers: paths of a layer, tried in order, with "{}" for its number.
        parts: the projections of a layer.
        name: its coordinate ``stack``.
        prefix: path to the layers in the usual task model, for sites from a config alone.
        config: the attribute of the config that holds its own config.
        sizes: pairs of a size ("width", "heads", "layers", "ff") and the config's name of it, where that is not a usual
            one.

    >>> from tensoradapt.sites.recipe import Part, Stack
    >>> Stack(("encoder.layers.{}",), (Part("q", ("attn.q",)),), name="encoder").prefix
    ''
    """

    layers: tuple[str, ...]
    parts: tuple[Part, ...]
    name: str | None = None
    prefix: str = ""
    config: str = ""
    sizes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A model family: where its layers and projections are, for ``find_sites(recipe=...)`` (docs/guides/recipes.md).

    Making one raises nothing; ``find_sites`` refuses what the model does not have.

    Attributes:
        name: shown in messages and plans.
        model_types: the values of ``model_type`` in a config that it is for; () where it is given by hand.
        layers: paths of a layer, tried in order, with "{}" for its number.
        parts: the projections of a layer.
        prefix: path to the layers in the usual task model, for sites from a config alone.
        stacks: of a model with several stacks of layers, in place of ``layers`` and ``parts``.

    >>> import tensoradapt as ta
    >>> from tensoradapt.sites.recipe import Part, Recipe
    >>> from transformers import BertConfig, BertModel
    >>> model = BertModel(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3))
    >>> mine = Recipe("mine", (), ("encoder.layer.{}",), (Part("q", ("attention.self.query",)),))
    >>> [site.module for site in ta.find_sites(model, recipe=mine)]
    ['encoder.layer.0.attention.self.query', 'encoder.layer.1.attention.self.query']
    """

    name: str
    model_types: tuple[str, ...]
    layers: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    prefix: str = ""
    stacks: tuple[Stack, ...] = ()

    @property
    def every(self) -> tuple[Stack, ...]:
        """All stacks of the model family."""
        return self.stacks or (Stack(self.layers, self.parts, prefix=self.prefix),)


def dims(config: Any, sizes: Mapping[str, str] | None = None) -> Dims:
    """Return the sizes in a config; ``sizes`` maps fields of Dims to names in the config that are not the usual."""
    read: dict[str, int] = {field: _first(config, name) for field, name in (sizes or {}).items()}
    width = read.get("width") or _first(config, "hidden_size", "n_embd", "dim", "d_model")
    heads = read.get("heads") or _first(
        config, "num_attention_heads", "n_head", "n_heads", "encoder_attention_heads", "num_heads"
    )
    layers = read.get("layers") or _first(
        config, "num_hidden_layers", "n_layer", "n_layers", "encoder_layers", "num_layers"
    )
    check_whole(f"the number of layers in the config ({type(config).__name__})", layers, 1, LAYERS)
    ff = read.get("ff") or _ff(config, width)
    return Dims(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=heads if "heads" in read else _first(config, "num_key_value_heads", default=0) or heads,
        head_dim=_first(config, "head_dim", "d_kv", default=0) or width // heads,
        ff=ff,
        experts=_first(config, "num_local_experts", "num_experts", default=0),
        expert_ff=_first(config, "moe_intermediate_size", default=0) or ff,
        shared_ff=_first(config, "shared_expert_intermediate_size", default=0),
    )


def _ff(config: Any, width: int) -> int:
    ff = _first(config, "intermediate_size", "n_inner", "hidden_dim", "encoder_ffn_dim", "d_ff", default=0)
    ff = ff or int(width * min(number(getattr(config, "mlp_ratio", 4), "mlp_ratio of the config"), LARGEST))
    if getattr(config, "use_swiglu_ffn", False):  # DINOv2 rounds two thirds of it up to a multiple of 8
        ff = (int(ff * 2 / 3) + 7) // 8 * 8
    return ff


def _first(config: Any, *names: str, default: int | None = None) -> int:
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return whole(value, f"{name} of the config ({type(config).__name__})", least=1 if default is None else 0)
    if default is None:
        raise TensorAdaptError(
            f"the config ({type(config).__name__}) has none of {', '.join(names)}; expected a transformer's config"
        )
    return default


def parts(fused: tuple[str, ...] = (), **paths: str | tuple[str, ...]) -> tuple[Part, ...]:
    """Make parts from paths by projection; those in ``fused`` share one module's rows."""
    texts = {proj: (path,) if isinstance(path, str) else path for proj, path in paths.items()}
    return tuple(Part(proj, path, fused if proj in fused else ()) for proj, path in texts.items())


def each(parts: Sequence[Part], **changes: Any) -> tuple[Part, ...]:
    """Return the parts, with some fields set alike."""
    return tuple(replace(part, **changes) for part in parts)


def _swiglu(config: Any, layer: int) -> bool:
    return bool(getattr(config, "use_swiglu_ffn", False))


def _gated(config: Any, layer: int) -> bool:
    return str(getattr(config, "feed_forward_proj", "")).startswith("gated-")


def _sparse(config: Any, layer: int) -> bool:
    """Say whether a layer has experts instead of an MLP."""
    every = _first(config, "decoder_sparse_step", default=0) or 1
    dense = numbers(getattr(config, "mlp_only_layers", None) or (), "mlp_only_layers of the config")
    return layer not in dense and (layer + 1) % every == 0


def _unless(when: Callable[[Any, int], bool], config: Any, layer: int) -> bool:
    return not when(config, layer)


def t5(attn: str, at: int) -> tuple[Part, ...]:
    """Make the parts of T5's "self" or "cross" attention, as the sub-layer of number ``at``."""
    name = "SelfAttention" if attn == "self" else "EncDecAttention"
    return tuple(Part(proj, (f"layer.{at}.{name}.{proj}",), attn=attn) for proj in ATTENTION)


def t5_mlp(at: int) -> tuple[Part, ...]:
    """Make the parts of T5's MLP, gated or not, as the sub-layer of number ``at``."""
    path = f"layer.{at}.DenseReluDense."
    return (
        Part("gate", (path + "wi_0",), when=_gated),
        Part("up", (path + "wi_1",), when=_gated),
        Part("up", (path + "wi",), when=partial(_unless, _gated)),
        Part("down", (path + "wo",)),
    )


GATED = parts(gate="mlp.gate_proj", up="mlp.up_proj", down="mlp.down_proj")
SEPARATE = parts(q="self_attn.q_proj", k="self_attn.k_proj", v="self_attn.v_proj", o="self_attn.o_proj")
OUT_PROJ = parts(q="self_attn.q_proj", k="self_attn.k_proj", v="self_attn.v_proj", o="self_attn.out_proj")
CROSS = parts(q="encoder_attn.q_proj", k="encoder_attn.k_proj", v="encoder_attn.v_proj", o="encoder_attn.out_proj")
VIT_ATTENTION = parts(
    q=("attention.q_proj", "attention.attention.query"),
    k=("attention.k_proj", "attention.attention.key"),
    v=("attention.v_proj", "attention.attention.value"),
    o=("attention.o_proj", "attention.output.dense"),
)
VIT_MLP = parts(up=("mlp.fc1", "intermediate.dense"), down=("mlp.fc2", "output.dense"))
DINO_MLP = (*each(VIT_MLP, when=partial(_unless, _swiglu)), *each(GATED, when=_swiglu))
EXPERTS = (
    *each(
        parts(("gate", "up"), gate="mlp.experts", up="mlp.experts"),
        parameter="gate_up_proj",
        stacked=True,
        width="expert_ff",
        when=_sparse,
    ),
    Part("down", ("mlp.experts",), parameter="down_proj", stacked=True, width="expert_ff", when=_sparse),
)
SHARED = each(
    parts(
        shared_gate="mlp.shared_expert.gate_proj",
        shared_up="mlp.shared_expert.up_proj",
        shared_down="mlp.shared_expert.down_proj",
    ),
    width="shared_ff",
    when=_sparse,
)
DENSE_LAYERS = each(GATED, when=partial(_unless, _sparse))
FC = parts(up="fc1", down="fc2")
TOWER = (*OUT_PROJ, *parts(up="mlp.fc1", down="mlp.fc2"))

"""Parts that recipes share: how modules are called below a layer, and in which layers of which configs they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tensoradapt.sites.recipe import ATTENTION, Part


def parts(fused: tuple[str, ...] = (), **paths: str | tuple[str, ...]) -> tuple[Part, ...]:
    """Parts by projection; those in ``fused`` share one module's rows."""
    texts = {proj: (path,) if isinstance(path, str) else path for proj, path in paths.items()}
    return tuple(Part(proj, path, fused if proj in fused else ()) for proj, path in texts.items())


def each(parts: Sequence[Part], **changes: Any) -> tuple[Part, ...]:
    """The parts with some fields in common."""
    return tuple(replace(part, **changes) for part in parts)


def _swiglu(config: Any, layer: int) -> bool:
    return bool(getattr(config, "use_swiglu_ffn", False))


def _not_swiglu(config: Any, layer: int) -> bool:
    return not _swiglu(config, layer)


def _gated(config: Any, layer: int) -> bool:
    return str(getattr(config, "feed_forward_proj", "")).startswith("gated-")


def _not_gated(config: Any, layer: int) -> bool:
    return not _gated(config, layer)


def _sparse(config: Any, layer: int) -> bool:
    """Whether a layer has experts in the place of an MLP."""
    every = getattr(config, "decoder_sparse_step", None) or 1
    return layer not in (getattr(config, "mlp_only_layers", None) or ()) and (layer + 1) % every == 0


def _not_sparse(config: Any, layer: int) -> bool:
    return not _sparse(config, layer)


def t5(attn: str, at: int) -> tuple[Part, ...]:
    """T5's attention: the number of its sub-layer, and its name there."""
    name = "SelfAttention" if attn == "self" else "EncDecAttention"
    return tuple(Part(proj, (f"layer.{at}.{name}.{proj}",), attn=attn) for proj in ATTENTION)


def t5_mlp(at: int) -> tuple[Part, ...]:
    """T5's MLP, gated or not, as a sub-layer of that number."""
    path = f"layer.{at}.DenseReluDense."
    return (
        Part("gate", (path + "wi_0",), when=_gated),
        Part("up", (path + "wi_1",), when=_gated),
        Part("up", (path + "wi",), when=_not_gated),
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
DINO_MLP = (*each(VIT_MLP, when=_not_swiglu), *each(GATED, when=_swiglu))
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
DENSE_LAYERS = each(GATED, when=_not_sparse)
FC = parts(up="fc1", down="fc2")
TOWER = (*OUT_PROJ, *parts(up="mlp.fc1", down="mlp.fc2"))

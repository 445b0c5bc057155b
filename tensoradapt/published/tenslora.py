"""The rows of TensLoRA: seven ways to tie the updates of q, k and v, each as Tucker and as CP."""

from __future__ import annotations

from collections.abc import Mapping

from tensoradapt.networks.network import Paper
from tensoradapt.published.row import Published

QKV = ("q", "k", "v")
_TENSLORA = {  # the modes tied or split, the formula's sum of mode sizes, how many tensors
    "att": (": head dim : in", "i + h + H", "M*L"),
    "qkv": ("proj : out : in", "o + i + M", "L"),
    "depth": ("layer : out : in", "o + i + L", "M"),
    "att_qkv": ("proj : head dim : in", "i + h + H + M", "L"),
    "att_depth": ("layer : head dim : in", "i + h + H + L", "M"),
    "qkv_depth": ("layer proj : out : in", "o + i + M + L", "1"),
    "att_qkv_depth": ("layer proj : head dim : in", "i + h + H + M + L", "1"),
}
_TENSLORA_SOURCE = (
    "Marmoret et al., arXiv 2509.19391; heads in the model's order, where the released code mixes them up"
)


def _tenslora(kind: str) -> tuple[Published, Published]:
    layout, sides, tensors = _TENSLORA[kind]
    order = len(layout.replace(":", " ").split())
    tucker = Published(
        f"tenslora-{kind}", ((layout, QKV),), "tucker", _TENSLORA_SOURCE, f"{tensors}*(r*({sides}) + r**{order})"
    )
    draws: Mapping[str, Paper] = dict.fromkeys(
        (name for name in layout.replace(":", " ").split() if name != "in"), ("orthogonal", 1.0)
    )
    return tucker, Published(
        f"tenslora-cp-{kind}",
        ((layout, QKV),),
        "cp",
        _TENSLORA_SOURCE,
        f"{tensors}*r*({sides})",
        power=0,
        zero="in",
        draws=draws,
    )


TENSLORA: tuple[Published, ...] = tuple(row for kind in _TENSLORA for row in _tenslora(kind))

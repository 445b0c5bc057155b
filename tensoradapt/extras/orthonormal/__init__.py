"""Orthonormal factors, by PoLAR's landing or StelLA's retraction: ``steps`` has the rules, ``gauge`` the factors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensoradapt.networks.network import Paper
from tensoradapt.published.row import Published

LAYOUT = ((": out : in", ("q", "v")),)
SIDES: Mapping[str, Paper] = dict.fromkeys(("out", "in"), ("orthogonal", 1.0))


def _stella(name: str, parameterization: str, core: str, formula: str, **changes: Any) -> Published:
    value: Paper = ("identity", 1.0) if core == "core" else ("constant", 1.0)
    return Published(
        name,
        LAYOUT,
        parameterization,
        "Li et al., arXiv 2510.01938",
        formula,
        16,
        start="paper",
        power=1,
        zero=core,
        draws={**SIDES, core: value},
        **changes,
    )


NAMES = {"orthonormal": "steps.orthonormal"}
STEPS = {"landing": "steps.landing", "retraction": "steps.retraction"}
ROWS = {
    "polar": Published(
        "PoLAR",
        LAYOUT,
        "tucker",
        "Lion et al., arXiv 2506.03133; released code",
        "M*L*(r*(o + i) + r**2)",
        32,
        power=1,
        zero="core",
        draws=SIDES,
        note="out and in stay orthonormal with ta.orthonormal, by landing; its runs adapt k, up and down besides",
    ),
    "stella": _stella(
        "StelLA",
        "tucker",
        "core",
        "M*L*(r*(o + i) + r**2)",
        note="does not start at zero: S is the identity; out and in stay orthonormal by ta.orthonormal's retraction; "
        "not expressible: steps scaled by the width, and along the geodesic, the code's exp_map; its runs adapt k, up, "
        "down besides, and alpha = 2 r, as at r=8",
    ),
    "stella-diagonal": _stella(
        "StelLA-diagonal",
        "cp",
        "weights",
        "M*L*r*(o + i + 1)",
        options={"weights": True},
        note="stella with a diagonal S, as in its runs",
    ),
}

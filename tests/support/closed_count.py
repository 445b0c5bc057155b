"""Parameter counts of published adapters by the closed formulas in their rows."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensoradapt import parameterizations
from tensoradapt.errors import TensorAdaptError
from tensoradapt.published.row import Published
from tensoradapt.sites import recipe

sys.path.append(str(Path(__file__).parents[2] / "docs" / "make"))
from gallery_counts import evaluated  # the formulas' functions are there


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

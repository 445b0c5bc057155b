"""Three candidates for a model, a budget and a purpose. No torch."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from tensoradapt import checks
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.methods import usual_arguments
from tensoradapt.planning.build_plan import plan
from tensoradapt.planning.plan import Plan
from tensoradapt.sites.find import config_of
from tensoradapt.text import bonds_text

if TYPE_CHECKING:
    from pandas import DataFrame

CANDIDATES = 3
COLUMNS = ["method", "layout", "rank", "n_params", "lora_rank", "why", "page"]
RECOMMENDED = tomllib.loads((files("tensoradapt.lab") / "recommended.toml").read_text())
PURPOSES = {purpose: table["meaning"] for purpose, table in RECOMMENDED.items()}


def choose(model: Any, budget: int | str, purpose: str = "smallest") -> DataFrame:
    """Return the three methods to begin with on a model, for a purpose and so many parameters.

    Why these: docs/start/which-method.md. ``print(table.to_string())`` shows all columns in a narrow terminal.

    Args:
        model: a model, its config, or its name or folder, as for ``plan``; its attention is adapted.
        budget: the most trainable parameters of the adapter, such as 18_000 or "18k".
        purpose: "smallest" (the smallest file), "served" (by what reads LoRA folders), "many" (adapters of one base),
            or "rank" (updates of the highest rank).

    Returns:
        A DataFrame with a row for each candidate, the first one first: ``method`` and ``layout`` for ``plan``, ``rank``
        and ``n_params`` within the budget, ``lora_rank`` (what an export as LoRA has, and the most that the rank of an
        update can be), ``why``, and ``page``.

    Raises:
        TensorAdaptError: for a model without sites, an unknown purpose, and a budget that no candidate fits.

    >>> import tensoradapt as ta
    >>> ta.choose("tiny-random-bert", 500)[["method", "layout", "n_params"]].to_numpy().tolist()[0]
    ['cp', 'layer : out : in', 408]
    """
    from pandas import DataFrame

    return DataFrame(candidates(model, budget, purpose), columns=COLUMNS)


def candidates(model: Any, budget: int | str, purpose: str) -> list[dict[str, Any]]:
    """Return the rows of ``choose``."""
    budget, purpose = checks.count(budget, "budget"), _purpose(purpose, "purpose")
    config = config_of(model)
    fitting = [*_fitting(config, {"budget": budget}, purpose)]
    if not fitting:
        least = min(row["n_params"] for row in _fitting(config, {"rank": 1}, purpose))
        raise TensorAdaptError(
            f"budget is {budget:,}, which no candidate for {purpose!r} fits on this model; the smallest needs {least:,}"
        )
    if purpose == "rank":
        fitting.sort(key=lambda row: -row["lora_rank"])
    return fitting[:CANDIDATES]


_purpose = partial(checks.one_of, tuple(PURPOSES))


def _fitting(config: Any, size: Mapping[str, Any], purpose: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each method recommended for a purpose that is defined on the model at this size."""
    page = RECOMMENDED[purpose].get("page", "docs/start/which-method.md")
    for recommended in RECOMMENDED[purpose]["methods"]:
        try:
            made = plan(config, **usual_arguments(recommended["method"], config, recommended.get("layout")), **size)
        except TensorAdaptError:
            continue
        yield _row(recommended, made, page)


def _row(recommended: Mapping[str, str], made: Plan, page: str) -> dict[str, Any]:
    return {
        "method": recommended["method"],
        "layout": "; ".join(dict.fromkeys(str(group.network.layout) for group in made.groups)),
        "rank": bonds_text(made.groups[0].rank),
        "n_params": made.n_params,
        "lora_rank": max(group.network.cut.rank for group in made.groups),
        "why": recommended["why"],
        "page": page,
    }

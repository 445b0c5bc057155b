"""Three candidates for a model, a budget and a purpose. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tensoradapt import checks
from tensoradapt.errors import TensorAdaptError
from tensoradapt.planning.build_plan import plan
from tensoradapt.planning.method_table import usual_arguments
from tensoradapt.planning.plan import Plan
from tensoradapt.sites.find import config_of
from tensoradapt.text import bonds_text

if TYPE_CHECKING:
    from pandas import DataFrame

CANDIDATES = 3
WHICH, SERVING, SEVERAL = "docs/start/which-method.md", "docs/guides/serving.md", "docs/guides/several-adapters.md"
COLUMNS = ["method", "layout", "rank", "n_params", "lora_rank", "why", "page"]


@dataclass(frozen=True)
class Proposal:
    """A method, its layout where it is not the usual one, why it is proposed, and the page that shows it."""

    method: str
    layout: str | None
    why: str
    page: str = WHICH


LORA = Proposal("lora", None, "easiest to train; no tensor is shown to beat it at its size")
CP_LAYER = Proposal("cp", "layer : out : in", "sizes between and below LoRA's ranks")
TUCKER = Proposal("tucker", "layer : out : in", "sizes between and below LoRA's ranks, as CP's")
TRAIN = Proposal("tensor_train", "layer proj : out : in", "far below LoRA r=1; try a head without an adapter first")
CP = Proposal("cp", "layer proj : out : in", "as tensor-train; with 1,640 parameters on MiniLM not told apart from it")
CP_HEADS = Proposal("cp", None, "LoRTA, the fewest of all; on MiniLM a fitted head without an adapter has more")
TENSORS = (CP_LAYER, TRAIN, CP, CP_HEADS)
PURPOSES = {
    "smallest": "the smallest file",
    "served": "served as a LoRA",
    "many": "many adapters of one base",
    "rank": "updates of the highest rank",
}
# in the order of preference; the first three that fit the budget are returned, of "rank" those of the highest rank
PROPOSALS: Mapping[str, Sequence[Proposal]] = {
    "smallest": (LORA, CP_LAYER, TUCKER, TRAIN, CP, CP_HEADS),
    "served": (
        Proposal("lora", None, "is stored and served as it is", SERVING),
        *(replace(one, why="exported exactly, as a LoRA of the rank shown", page=SERVING) for one in TENSORS),
    ),
    "many": (
        Proposal("vera", None, "two vectors a matrix; the frozen matrices are drawn from a seed and shared", SEVERAL),
        Proposal("lora_xs", None, "r x r numbers a matrix, whatever its width; bases from the weights", SEVERAL),
        Proposal("cp", "layer proj : out : in", "one small tensor for all matrices", SEVERAL),
        Proposal("tinylora", None, "a handful of numbers a matrix", SEVERAL),
    ),
    "rank": tuple(
        Proposal(name, None, f"{why}; not measured on a frontier")
        for name, why in (
            ("kronecker", "its rank is the product of its factors' ranks"),
            ("loha", "its rank is r x r"),
            ("randlora", "random bases of full rank with trained diagonals"),
            ("quanta", "a circuit of gates without a rank"),
            ("tt_matrix", "cores that each hold a row and a column mode"),
            ("lora", "the reference"),
        )
    ),
}


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
    fitting = [*_fitting(config, {"budget": budget}, PROPOSALS[purpose])]
    if not fitting:
        least = min(row["n_params"] for row in _fitting(config, {"rank": 1}, PROPOSALS[purpose]))
        raise TensorAdaptError(
            f"budget is {budget:,}, which no candidate for {purpose!r} fits on this model; the smallest needs {least:,}"
        )
    if purpose == "rank":
        fitting.sort(key=lambda row: -row["lora_rank"])
    return fitting[:CANDIDATES]


_purpose = partial(checks.one_of, tuple(PURPOSES))


def _fitting(config: Any, size: Mapping[str, Any], proposals: Sequence[Proposal]) -> Iterator[dict[str, Any]]:
    """Yield a row for each proposal that is defined on the model at this size."""
    for one in proposals:
        try:
            made = plan(config, **usual_arguments(one.method, config, one.layout), **size)
        except TensorAdaptError:
            continue
        yield _row(one, made)


def _row(one: Proposal, made: Plan) -> dict[str, Any]:
    return {
        "method": one.method,
        "layout": "; ".join(dict.fromkeys(str(group.network.layout) for group in made.groups)),
        "rank": bonds_text(made.groups[0].rank),
        "n_params": made.n_params,
        "lora_rank": max(group.network.cut.rank for group in made.groups),
        "why": one.why,
        "page": one.page,
    }

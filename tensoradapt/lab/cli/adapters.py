"""The commands about one adapter: ``plan``, ``compress`` and ``export``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.cli.options import (
    ADVANCED,
    DEFAULT_MODEL,
    MORE,
    Count,
    Json,
    Maybe,
    Method,
    Model,
    Place,
    Places,
    Words,
    one_of,
    table_of,
    takes,
)
from tensoradapt.lab.cli.output import show, show_json, show_table, show_text, width
from tensoradapt.planning.size import Size
from tensoradapt.planning.spec import TITLES, AdapterSpec
from tensoradapt.published import registry
from tensoradapt.records import of_words, read

FIRST = ("method", "layout", "rank", "budget", "projections", "paper")
SIZE = one_of()


def _rows() -> list[tuple[Any, list[str], Group]]:
    """Return the fields of an adapter that are options, the common ones apart."""
    advanced = [
        (AdapterSpec, [name for name in fields if name not in FIRST], Group(f"{ADVANCED}: {title}", sort_key=60 + i))
        for i, (title, fields) in enumerate(TITLES.items())
    ]
    return [(AdapterSpec, list(FIRST), Group("Method and size", sort_key=10)), *advanced]


@takes(*_rows(), several=False)
def plan(*, model: Model = DEFAULT_MODEL, json: Json = False, **typed: Any) -> None:
    """Print a plan.

    Args:
        model: a built-in model, a folder, or a hub name; only its config is read
    """
    from tensoradapt.lab.cli.documents import plan_document
    from tensoradapt.lab.data import models
    from tensoradapt.planning.build_plan import build_plan
    from tensoradapt.planning.plan import plan_text

    spec = read(AdapterSpec, table_of(AdapterSpec, typed))
    _check_size(spec)
    planned = build_plan(models.config(model), spec)
    if json:
        show_json({"model": model, **plan_document(planned)})
    else:
        show(plan_text(planned, room=width()))


def _check_size(spec: AdapterSpec) -> None:
    """Raise TensorAdaptError for a method that is missing, or takes a size and has none, in the words of options."""
    if spec.method is None:
        raise TensorAdaptError("a method is missing; give --method, as in --method cp; tensoradapt methods lists all")
    if not Size.of(spec) and registry.find(spec.method, spec.paper).ranked:
        raise TensorAdaptError(f"{spec.name} needs a size; give --rank or --budget, as in --rank 8")


def compress(
    folder: Annotated[list[Path], *Places.__metadata__],
    /,
    *,
    model: Model,
    method: Annotated[str, *Method.__metadata__],
    layout: Words = None,
    rank: Annotated[int | None, Parameter(group=SIZE, metavar="R")] = None,
    max_error: Annotated[float | None, Parameter(group=SIZE, metavar="E")] = None,
    budget: Annotated[Count, Parameter(group=SIZE)] = None,
    out: Maybe = None,
    split: Annotated[Words, Parameter(group=MORE, metavar="MODE=PARTS")] = None,
    order: Annotated[str, Parameter(group=MORE)] = "given",
    seed: Annotated[int, Parameter(group=MORE, metavar="S")] = 0,
    damaged: Annotated[str, Parameter(group=MORE)] = "error",
    json: Json = False,
) -> None:
    """Compress, print the report, save.

    Args:
        folder: a folder with adapter_config.json and adapter_model.safetensors; of several the layout has the mode task
        model: its base model; only the config is read
        method: such as cp, tucker or tensor_train
        layout: such as "layer proj : head dim : model"
        rank: not needed for parameterizations without one
        max_error: the smallest rank with at most this relative error
        budget: the largest rank within this number of parameters
        out: where to save the adapter
        split: sizes of the parts of a mode, such as out=[24,16]
        order: given, or search, which looks for the best order of modes of a tensor-train
        seed: of random starts
        damaged: error, or skip, which leaves out folders that cannot be read
    """
    from tensoradapt.compression.compress import compress as compressed
    from tensoradapt.lab.cli.documents import compressed_document
    from tensoradapt.lab.data import models

    if rank is max_error is budget is None and registry.find(method).ranked:
        raise TensorAdaptError(f"{method} needs a size; give --rank, --max-error or --budget, as in --rank 8")
    result = compressed(
        folder if len(folder) > 1 else folder[0],
        models.config(model),
        layout,
        method,
        rank,
        split=None if split is None else of_words(split),
        max_error=max_error,
        budget=budget,
        seed=seed,
        order=order,
        damaged=damaged,
    )
    if out:
        result.save(out)
    if json:
        show_json({**compressed_document(result), "saved": out})
        return
    show_text(*str(result).splitlines())
    if out:
        show(f"saved in {out}; tensoradapt.load(model, {str(out)!r}, strict=False) attaches it")


def export(
    folder: Place,
    /,
    *,
    out: Place,
    model: Annotated[str | None, *Model.__metadata__] = None,
    rank: Annotated[int | None, Parameter(metavar="R")] = None,
    round_up: bool = False,
    dtype: str = "float32",
    task: Annotated[str | None, Parameter(metavar="T")] = None,
    architecture: Annotated[str | None, Parameter(group=MORE, metavar="CLASS")] = None,
    task_type: Annotated[str | None, Parameter(group=MORE, metavar="T")] = None,
    prefix: Annotated[str, Parameter(group=MORE, metavar="PATH")] = "",
    target: Annotated[str, Parameter(group=MORE)] = "every",
    base_model: Annotated[str | None, Parameter(group=MORE, metavar="NAME")] = None,
    leave_heads: Annotated[bool, Parameter(group=MORE)] = False,
    json: Json = False,
) -> None:
    """Export and print the report: rank and errors of every module, and the --max-lora-rank that vLLM needs.

    Args:
        folder: the folder of an adapter as adapter.save wrote it, or of a run that kept its adapter
        out: a new folder, or an earlier export
        model: an adapter's base model; only the config is read
        rank: at most this rank, by truncation; exact without it
        round_up: zero-pad to the next rank that vLLM supports
        dtype: float32, float16, bfloat16 or float64
        task: which of an adapter's tasks
        architecture: the model's class, such as BertForSequenceClassification (default: the config's)
        task_type: as PEFT calls it; CAUSAL_LM is found from the class
        prefix: where the model is in the served one, as model for a LlamaModel
        target: every, peft or llama.cpp
        base_model: the base's name or path in the folder
        leave_heads: export without trained heads and shared biases
    """
    from tensoradapt.lab.cli.documents import export_document
    from tensoradapt.lora.export import export_lora

    attached, adapter = _exported(folder, model, architecture)
    how: dict[str, Any] = {"rank": rank, "round_up": round_up, "dtype": dtype, "task": task, "task_type": task_type}
    how |= {"prefix": prefix, "target": target, "base_model": base_model, "heads": "leave" if leave_heads else "refuse"}
    report = export_lora(attached, out, adapter=adapter, **how)
    if json:
        show_json(export_document(report))
    else:
        show_text(*report.lines(), "")
        titles, *rows = report.rows()
        show_table(titles, rows)


def _exported(folder: Path, model: str | None, architecture: str | None) -> tuple[Any, Any]:
    """Return the model and the adapter of a folder: a run's, or a saved adapter's with a model without weights."""
    from tensoradapt.lab.data import models
    from tensoradapt.lab.runs.trained import load_run
    from tensoradapt.storage.load import unattached

    if os.path.isfile(folder / "result.json"):  # noqa: PTH113  # Path's raises for a name that is too long
        trained = load_run(folder.parent, folder.name)
        return trained.model, trained.adapter
    if model is None:
        raise TensorAdaptError(
            f"{folder} is no folder of a run, and --model is missing; give --model NAME, the base model of the "
            "adapter in it"
        )
    return models.skeleton(model, architecture), unattached(folder)

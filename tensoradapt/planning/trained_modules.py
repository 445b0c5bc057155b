"""Base modules that are trained in place beside an adapter: heads, and what a published row trains. No torch."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tensoradapt import published as papers
from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError, did_you_mean
from tensoradapt.sites.modules import ROOT, named_modules
from tensoradapt.sites.site import Site

AUTO = "auto"
# transformers' classes whose head is drawn anew on a pretrained base
HEADED = re.compile(r"For\w*(Classification|MultipleChoice|QuestionAnswering)")
HEADS = ("projector", "classifier", "score", "qa_outputs")  # heads of models without a base model, such as SigLIP


def patterns(train: Any) -> tuple[str, ...]:
    """Return one or several names or patterns of base modules as a tuple; raise TensorAdaptError for anything else."""
    names = (train,) if isinstance(train, str) else train
    if not isinstance(names, Sequence) or not all(isinstance(name, str) and name for name in names):
        raise TensorAdaptError(
            f"train is {shown(train)}; expected names or patterns of base modules, as in ('classifier', '*norm*'), or "
            "'auto' for a classifier's head"
        )
    return tuple(names)


def with_heads(model: Any, train: Sequence[str], sites: Iterable[Site]) -> tuple[str, ...]:
    """Replace "auto" in ``train`` by the heads of a classifier of transformers: its parts beside the base model.

    A head that holds an adapted matrix, or weights that are not floating point, is left out. Without a model to look
    at, "auto" stays.
    """
    if AUTO not in train or not hasattr(model, "named_children"):
        return tuple(train)
    adapted = {ROOT, *(site.module.split(".")[0] for site in sites)}
    heads = [name for name, module in _heads(model) if name not in adapted and _trainable(module)]
    return (*heads, *(name for name in train if name not in {AUTO, *heads}))


def _heads(model: Any) -> list[tuple[str, Any]]:
    """Return the heads of a classifier of transformers, by name; none for another model."""
    if not has_head(model):
        return []
    parts = dict(model.named_children())
    base = getattr(model, "base_model_prefix", "")
    return [(name, module) for name, module in parts.items() if (name != base if base in parts else name in HEADS)]


def has_head(model: Any) -> bool:
    """Say whether a model is a classifier of transformers, by the names of its classes."""
    return any(HEADED.search(kind.__name__) for kind in type(model).__mro__)


def _trainable(module: Any) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and all(parameter.is_floating_point() for parameter in parameters)


def count_trained(model: Any, train: Sequence[str], published: str | None = None) -> int | None:
    """Count the parameters of the base modules in ``train``; None without a model to count in."""
    if not train:
        return 0
    if not hasattr(model, "named_modules") or AUTO in train:
        return None
    heads = trained_modules(model, train, published).values()
    seen = {id(p): p.numel() for module in heads for p in module.parameters()}
    return sum(seen.values())


def trained_modules(model: Any, train: Sequence[str], published: str | None = None) -> dict[str, Any]:
    """Return the base modules that ``train`` names, by name or by a pattern such as ``*norm*``; none inside another.

    Raises TensorAdaptError for a pattern that matches nothing. One of the published row may match nothing if others are
    given: models name their norm layers differently, and the others name those.
    """
    modules = {name: module for name, module in named_modules(model) if name} if train else {}
    of_row = {pattern for row in papers.every() if row.name == published for pattern in row.train}
    heads: dict[str, Any] = {}
    for pattern in train:
        matched = [name for name in modules if fnmatch.fnmatchcase(name, pattern)]
        if not matched and not (pattern in of_row and set(train) - of_row):
            raise TensorAdaptError(_absent(model, pattern, list(modules), published if pattern in of_row else None))
        heads |= {name: modules[name] for name in matched}
    return {name: m for name, m in heads.items() if not any(name.startswith(f"{other}.") for other in heads)}


def _absent(model: Any, pattern: str, names: Sequence[str], published: str | None) -> str:
    kind = type(model).__name__
    if published is None:
        heads = [name for name in names if "." not in name or name.endswith(f".{pattern}")]
        return f"train names {pattern!r}, which {kind} does not have{did_you_mean(pattern, heads)}"
    return (
        f"{published} with paper=True trains the modules {pattern!r} too, and {kind} has none of that name; say with "
        'train= which of its modules they are, by name or pattern, as in train=("*ln_*",)'
    )

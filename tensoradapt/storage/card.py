"""A model card says what an adapter is, how to load it, and what it was trained on, as a README for the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tensoradapt import published
from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.attachment import Origin
from tensoradapt.checks import check_arguments, optional, shown, text
from tensoradapt.errors import TensorAdaptError, of_extra
from tensoradapt.networks.modes import only
from tensoradapt.planning.plan import Plan
from tensoradapt.surgery.registry import attached, registered
from tensoradapt.text import bonds_text


def model_card(
    source: Any,
    repo_id: str = "my-adapter",
    *,
    base_model: str | None = None,
    license: str | None = None,
    tags: Sequence[str] = (),
) -> str:
    """Write the README.md of an adapter: front matter for the hub, code that loads it, the plan.

    Args:
        source: the adapter, or a model with one in use.
        repo_id: the repository that it will be loaded from.
        base_model: the base's name on the hub; by default the one that the model knows.
        license, tags: for the front matter.

    Returns:
        The text.

    Raises:
        TensorAdaptError: for what is not an adapter, for texts that are not one line, and where huggingface_hub, which
            writes the front matter, is not installed.

    >>> import tensoradapt as ta
    >>> from transformers import BertConfig, BertModel
    >>> model = BertModel(BertConfig(hidden_size=24, num_attention_heads=4, num_hidden_layers=2, intermediate_size=32))
    >>> adapter = ta.attach(model, ta.plan(model, "lorta", rank=2))
    >>> text = ta.model_card(model, "me/lorta", base_model="google-bert/bert-base-uncased", license="mit")
    >>> print(text.split("---")[1].strip())
    base_model: google-bert/bert-base-uncased
    library_name: tensoradapt
    license: mit
    tags:
    - tensoradapt
    - adapter
    - cp
    - lorta
    base_model_relation: adapter
    """
    one_line = optional(text)
    check_arguments(locals(), repo_id=text, base_model=one_line, license=one_line, tags=_tags)
    adapter = adapter_of(source)
    origin, plan = adapter.attachment.origin, adapter.plan
    base = base_model or origin.name
    usual = ("tensoradapt", "adapter", *dict.fromkeys((plan.parameterization, plan.spec.name)))
    relation = {"base_model_relation": "adapter"} if base else {}
    front = {"base_model": base or None, "license": license, "tags": list(dict.fromkeys((*usual, *tags))), **relation}
    return "\n".join(["---", _yaml(front), "---", "", *_text(adapter, repo_id, base, origin), ""])


def adapter_of(source: Any) -> Adapter:
    """Return the adapter that is given, or that of a model: its only one, or the only one of several in use."""
    if isinstance(source, Adapter):
        return source
    if registered(source) is None:
        raise TensorAdaptError(
            f"source is {shown(source)}, which is no adapter and has none attached; expected what attach or load "
            "returned, or the model"
        )
    return attached(source)


def _tags(value: Any, where: str) -> None:
    """Raise TensorAdaptError for anything but a list or tuple of texts."""
    if not isinstance(value, list | tuple):
        raise TensorAdaptError(f"{where} is {shown(value)}; expected a list of texts, as in tags=('sentiment',)")
    for i, tag in enumerate(value):
        text(tag, f"{where}[{i}]")


def _yaml(front: Mapping[str, Any]) -> str:
    hf = of_extra("huggingface_hub", "demo", "writing a model card")
    return str(hf.ModelCardData(library_name="tensoradapt", **front).to_yaml(line_break="\n"))


def _text(adapter: Adapter, repo_id: str, base: str, origin: Origin) -> Iterator[str]:
    plan = adapter.plan
    yield f"# {repo_id.rpartition('/')[2]}\n"
    of = f" of [{base}](https://huggingface.co/{base})" if base else f" of a {origin.kind}" if origin.kind else ""
    yield f"An adapter{of} for tensoradapt: the updates of its weight matrices"
    yield "are tensors with named modes, in factored form.\n"
    yield from ("| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in _facts(adapter)), "")
    yield from ("## Load it\n", "```python", *_loading(repo_id, base, origin), "```\n")
    yield "Only `adapter.json` and safetensors files are downloaded, and nothing is unpickled. The base must have the"
    yield "weights that the adapter was trained on: loading compares the hash in the table, over the first entries of"
    yield "every adapted matrix and the sum of all their bits, unless `strict=False` is given.\n"
    yield from _as_lora(plan)
    yield from ("## What is adapted\n", "```", str(plan), "```")
    if row := next((row for row in published.every() if row.name == plan.spec.name), None):
        yield from ("\n## Source of the method\n", f"`{row.name}`: {row.source}{f'; {row.note}' if row.note else ''}.")


def _facts(adapter: Adapter) -> Iterator[tuple[str, Any]]:
    plan, at = adapter.plan, adapter.attachment
    layouts = dict.fromkeys(str(group.network.layout) for group in plan.groups)
    yield "layout", ", ".join(f"`{layout}`" for layout in layouts)
    yield "method", f"`{plan.spec.name}`{', with the settings of its paper' if plan.spec.paper else ''}"
    yield "parameterization", f"`{plan.parameterization}`"
    yield "rank", ", ".join(dict.fromkeys(bonds_text(group.rank) for group in plan.groups if group.rank)) or "none"
    share = 100 * plan.n_params / plan.n_dense
    yield "parameters", f"{plan.n_params:,}, {share:.3g} % of the {plan.n_dense:,} of the {len(plan.sites)} matrices"
    yield "scale", f"{plan.scale}" + (f", alpha {plan.spec.alpha:g}" if plan.spec.alpha is not None else "")
    yield "start, rule, seed", f"{plan.start}, {plan.spec.rule}, {adapter.seed}"
    yield "dropout, of the input and of ranks", f"{plan.spec.dropout:g}, {plan.spec.rank_dropout:g}"
    for mode, names in plan.spec.runtime.items():
        yield f"{mode}s", f"{', '.join(names)}: `adapter.select({mode}={names[0]!r})` chooses"
    if plan.train:
        count = "" if plan.n_trained_base is None else f" ({plan.n_trained_base:,} parameters, saved with it)"
        yield "also trained", ", ".join(f"`{name}`" for name in plan.train) + count
    yield "hash of the base weights", f"`{at.base}`" if at.base else "not known: load it with `strict=False`"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|")


def _loading(repo_id: str, base: str, origin: Origin) -> Iterator[str]:
    options = "".join(f", {name}={value!r}" for name, value in origin.options)
    yield "import tensoradapt as ta"
    if origin.kind:
        yield f"from transformers import {origin.kind}\n"
        yield f"model = {origin.kind}.from_pretrained({base or 'path/to/the/base'!r}{options})"
    else:
        yield f"\nmodel = ...  # the base model{f', {base}' if base else ''}"
    yield f"adapter = ta.from_pretrained(model, {repo_id!r})"


def _as_lora(plan: Plan) -> Iterator[str]:
    if plan.spec.rule != "add":
        yield from ("## Without tensoradapt\n", "```python")
        yield from ('ta.save_model(ta.merge_and_unload(model).eval(), "merged")', "```\n")
        yield f"saves a plain model; a LoRA cannot hold rule {plan.spec.rule}.\n"
        return
    yield from ("## As a LoRA\n", "```python", f'ta.export_lora(model, "lora"{_export_options(plan)})', "```\n")
    yield "writes the same updates as a folder that PEFT, vLLM, TGI and llama.cpp read.\n"


def _export_options(plan: Plan) -> str:
    left = ', heads="leave"' if plan.train or plan.biases else ""
    first = {mode: names[0] for mode, names in plan.spec.runtime.items()}
    return left + (f", task={only(first)!r}" if first else "")

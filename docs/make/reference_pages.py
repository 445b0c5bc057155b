"""The pages of docs/reference with all public names, from docstrings; ``site_pages.py`` writes them.

A new name stands in ``PAGES`` once; ``tests/test_reference.py`` tests that all are there.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Iterable, Sequence
from functools import cache, reduce
from pathlib import Path
from textwrap import fill
from typing import Any, NamedTuple

import tensoradapt as ta
import tensoradapt.extras.axolotl
import tensoradapt.extras.llama_factory
import tensoradapt.extras.ms_swift
import tensoradapt.integrations.peft
import tensoradapt.integrations.trainer
import tensoradapt.lab.data.assets
import tensoradapt.sites.recipe
import tensoradapt.testing

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "reference"
MADE = "<!-- Made by docs/make/reference_pages.py from the docstrings; do not edit. -->\n"
TITLES = {f"docs/reference/{name.lower()}.md": name for name in ("Fields", "Columns", "Methods")}  # of made pages
INDEX = """Every public name, by the step that it belongs to. Shapes are (out, in) for matrices, sizes are numbers of
entries, bytes and seconds are named as such. Each refusal is one `TensorAdaptError` ([errors](errors.md)). The fields
of an adapter, a training and a sweep are in [fields](fields.md), the columns of tables of runs in
[columns](columns.md).
"""


class Page(NamedTuple):
    title: str
    about: str
    names: str  # as written after ``ta.``, modules too


PAGES = {
    "plan": Page(
        "Plan",
        "From a model or its config to sites, and from sites to a plan. No torch is needed, and no weights are read.",
        "find_sites sites.recipe sites.recipe.Recipe sites.recipe.Part sites.recipe.Stack plan Plan "
        "AdapterSpec methods choose parameterizations parameterizations.names "
        "parameterizations.get published published.names published.get published.named published.Published",
    ),
    "attach": Page(
        "Attach",
        "From a plan to a model that computes with it, and back.",
        "attach detach disabled use adapters print_trainable_parameters merge unmerge merge_and_unload Adapter "
        "FactoredTensor",
    ),
    "train": Page(
        "Train",
        "A loop, and the pieces of it for a loop of your own.",
        "fit parameter_groups equal_steps alignment preconditioned orthonormal reduce_rank",
    ),
    "save": Page(
        "Save, load, export",
        "Checkpoints, the hub, and LoRA folders for other readers.",
        "load restore from_pretrained push_to_hub model_card save_model export_lora",
    ),
    "compress": Page(
        "Compress", "Trained updates in another factored form, and what they have in common.", "compress sharing"
    ),
    "peft": Page(
        "The PEFT plug-in",
        'The same adapters as a method of PEFT; `pip install "tensoradapt[peft]"`.\n'
        "`parameter_groups` of this module is [that of the package](train.md).",
        "integrations.peft integrations.peft.TensorConfig integrations.peft.TensorModel",
    ),
    "trainers": Page(
        "Trainers",
        "The same adapters in the trainers of others: callbacks of transformers' Trainer, and plug-ins. How each is\n"
        "installed and run: [In a trainer](../guides/trainers.md).",
        "integrations.trainer integrations.trainer.EqualSteps integrations.trainer.SaveAdapter extras.ms_swift "
        "extras.ms_swift.register extras.llama_factory extras.llama_factory.launch "
        "extras.axolotl extras.axolotl.TensorPlugin",
    ),
    "sweep": Page(
        "Sweep",
        "Tasks and models by name, and many runs from one specification.",
        "sweep register_task load_task model_folder Task Metric load_runs load_run train",
    ),
    "analyse": Page(
        "Analyse",
        "From runs to one table, to means and comparisons, and to figures and spectra. What each column means is in\n"
        "[columns](columns.md); pictures of all figures are in the [gallery](../gallery/plots/index.md).",
        "results summarise verdict compare frontier paper_table report plots plots.frontier plots.differences "
        "plots.layouts plots.forgetting plots.curves plots.learning plots.aggregates plots.network "
        "plots.spectra plots.save plots.figure plots.allowed spectra spectra.Spectra spectra.Compression "
        "spectra.spectra spectra.similarity spectra.advice spectra.check_mode statistics statistics.Interval "
        "statistics.t_interval statistics.paired_difference statistics.holm statistics.seeds_needed "
        "statistics.on_frontier_probability",
    ),
    "extend": Page(
        "Extend",
        "What a parameterization, a task or a test of your own stands on ([CONTRIBUTING](../../CONTRIBUTING.md)).",
        "TensorAdaptError Network Factor testing testing.laws testing.check testing.patterns testing.layouts "
        "testing.positions testing.cases testing.Checked lab.data.assets lab.data.assets.Asset lab.data.assets.fetch",
    ),
}  # file: its page
HOME = {name: page for page, text in PAGES.items() for name in text.names.split()}
MEMBERS = {  # of others all with a docstring
    "Network": ("n_params", "equation", "cut"),
    "Metric": ("at_chance",),
    **dict.fromkeys(
        ("integrations.trainer.EqualSteps", "integrations.trainer.SaveAdapter", "extras.axolotl.TensorPlugin"), ()
    ),  # hooks
}
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises):\n((?:(?: {4}.*)?\n)+)", re.MULTILINE)
ITEM = re.compile(r"^ {4}([\w*, ]+): (.*(?:\n {5,}.*)*)", re.MULTILINE)
EXAMPLE = re.compile(r"^>>> (?:.+\n)+", re.MULTILINE)
LINK = re.compile(r"`*\b((?:docs/[\w/-]+|CONTRIBUTING)\.md|notebooks/\w+\.ipynb)`*")
WHOLE: Any = {"break_long_words": False, "break_on_hyphens": False}
STARS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def pages() -> dict[Path, str]:
    """Return the text of each page by its path."""
    texts = {name: f"{text.about}\n\n{''.join(map(section, text.names.split()))}" for name, text in PAGES.items()}
    rows = [(f"[{text.title}]({name}.md)", ", ".join(map(link, text.names.split()))) for name, text in PAGES.items()]
    tree = "\n".join(["```{toctree}", ":hidden:", "", *PAGES, "fields", "columns", "```"])
    texts["index"] = f"{INDEX}\n{table(('step', 'names'), rows)}\n{tree}\n"
    titles = {name: text.title for name, text in PAGES.items()} | {"index": "Reference"}
    return {FOLDER / f"{name}.md": f"# {titles[name]}\n\n{MADE}\n{text.rstrip()}\n" for name, text in texts.items()}


def section(name: str) -> str:
    """Return what a page says of a name: how it is called, its arguments, an example and links."""
    value = found(name)
    text = f"{inspect.getdoc(value)}\n"
    parts = dict(SECTION.findall(text))
    prose = SECTION.sub("", text)
    examples = "\n".join(EXAMPLE.findall(prose)).replace("  # doctest: +SKIP", "").strip()
    made = [f"## {heading(name)}"]
    made += [] if inspect.ismodule(value) else [f"```python\n{signature(f'ta.{name}', value)}\n```"]
    made += [linked(re.sub(r"\n{3,}", "\n\n", EXAMPLE.sub("", prose)).strip())]
    made += arguments(value, items(parts.get("Args", "") + parts.get("Attributes", "")))
    made += members(name, value)
    made += [f"**Returns** {linked(lower(flat(parts['Returns'])))}"] if "Returns" in parts else []
    made += [f"**Raises** `{kind}` {linked(why)}" for kind, why in items(parts.get("Raises", "")).items()]
    made += [f"```pycon\n{examples}\n```"] if examples else []
    source = os.path.relpath(inspect.getfile(inspect.getmodule(value) or ta), FOLDER)
    see = [link(one) for one in mentioned(name, text)]
    return filled("\n\n".join([*made, f"See also: {', '.join([*see, f'[source]({source})'])}"])) + "\n\n"


def found(name: str) -> Any:
    """Return what ``ta.NAME`` is."""
    return reduce(getattr, name.split("."), ta)


def heading(name: str) -> str:
    """Return the heading of a name; that of a class has another anchor than that of a function: Plan and plan."""
    return f"class ta.{name}" if inspect.isclass(found(name)) else f"ta.{name}"


def link(name: str) -> str:
    """Return a link from a page of the reference to a name."""
    anchor = re.sub(r"[^\w -]", "", heading(name).lower()).replace(" ", "-")  # as GitHub and MyST make it
    return f"[`ta.{name}`]({HOME[name]}.md#{anchor})"


def mentioned(name: str, text: str) -> list[str]:
    """Return the other public names in a docstring and its examples, each once, and the module of the name."""
    module = name.rpartition(".")[0]
    words = re.findall(r"``(?:ta\.|tensoradapt\.)?([\w.]+)``|\bta\.([\w.]+)", text)
    names = [f"{module}.{word}" if f"{module}.{word}" in HOME else word for word in map("".join, words)]
    return [one for one in dict.fromkeys([*names, module]) if one in HOME and one != name]


def signature(called: str, value: Any) -> str:
    """Return how it is called, on one line where that is short, else with a line for each argument."""
    parts: list[str] = []
    before: Any = None
    for name, one in parameters(value).items():
        parts += ["/"] if before is one.POSITIONAL_ONLY and one.kind is not before else []
        parts += ["*"] if one.kind is one.KEYWORD_ONLY and before not in (one.kind, one.VAR_POSITIONAL) else []
        parts += [STARS.get(one.kind, "") + name + (default(one) and f"={default(one)}")]
        before = one.kind
    line = f"{called}({', '.join(parts)})"
    return line if len(line) <= 80 else f"{called}(\n" + "".join(f"    {part},\n" for part in parts) + ")"


def parameters(value: Any) -> dict[str, inspect.Parameter]:
    """Return what it is called with."""
    return {name: one for name, one in inspect.signature(value).parameters.items() if name != "self"}


def default(one: inspect.Parameter) -> str:
    if one.default is one.empty:
        return ""
    given = repr(one.default).replace("<factory>", "{}").replace("'", '"')
    return str(one.default.__name__) if callable(one.default) else given


def arguments(value: Any, meanings: dict[str, str]) -> list[str]:
    """Return the table of arguments: those of the signature, or of attributes where it names none."""
    taken = {} if inspect.ismodule(value) else parameters(value)
    kinds = inspect.get_annotations(value) if inspect.isclass(value) else {}
    rows = []
    for name in [one for one in taken if one in meanings] or meanings:
        one = taken.get(name, inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kinds.get(name, "")))
        kind = "" if one.annotation is one.empty else inspect.formatannotation(one.annotation).strip("'\"")
        rows.append((f"`{name}`", kind and f"`{kind}`", default(one) and f"`{default(one)}`", linked(meanings[name])))
    return [table(("argument" if taken else "attribute", "type", "default", "meaning"), rows).strip()] if rows else []


def members(name: str, value: Any) -> list[str]:
    """Return the table of the methods and properties of a class that have a docstring."""
    rows = []
    for key, one in vars(value).items() if inspect.isclass(value) else ():
        function = getattr(one, "fget", None) or getattr(one, "__func__", one)
        listed = key in MEMBERS[name] if name in MEMBERS else not key.startswith("_")
        if listed and inspect.isfunction(function) and function.__doc__:
            called = key if isinstance(one, property) else " ".join(signature(key, function).split())
            text = flat(inspect.cleandoc(function.__doc__)).replace(
                "Raises: TensorAdaptError:", "Raises TensorAdaptError"
            )
            rows.append((f"`{called}`", linked(text)))
    return [table(("method or property", "meaning"), rows).strip()] if rows else []


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of Markdown."""
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]]) + "\n"


def items(body: str) -> dict[str, str]:
    """Return the text of each name of a section; of ``a, b: text`` both have it."""
    return {one.strip(" *"): flat(text) for names, text in ITEM.findall(body) for one in names.split(",")}


def flat(text: str) -> str:
    return " ".join(text.split())


def lower(text: str) -> str:
    return text if text.startswith("None") else text[:1].lower() + text[1:]


def filled(text: str) -> str:
    """Return paragraphs in lines of at most 120 characters; those that are lists, tables or code stay as they are."""
    parts = text.split("\n\n")
    long = [
        max(map(len, part.splitlines()), default=0) > 120 and not part.startswith(("- ", "| ", "```")) for part in parts
    ]
    return "\n\n".join(fill(part, 120, **WHOLE) if one else part for part, one in zip(parts, long, strict=True))


def linked(text: str) -> str:
    """Turn the paths of pages and notebooks in a text into links with their titles."""
    return LINK.sub(lambda path: f"[{title(path[1])}]({os.path.relpath(ROOT / page_of(path[1]), FOLDER)})", text)


def page_of(path: str) -> str:
    """Return the page of the site that is made of a notebook; another path as it is."""
    return f"docs/{path.removesuffix('.ipynb')}.md" if path.endswith(".ipynb") else path


@cache
def title(path: str) -> str:
    """Return the first heading of a page or a notebook."""
    if path in TITLES:
        return TITLES[path]
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".ipynb"):
        text = json.loads(text)["cells"][0]["source"][0]
    return text.partition("\n")[0].strip("# ")

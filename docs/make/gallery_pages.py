"""A page of the gallery: the sections about one parameterization or published adapter, made from its file or row."""

from __future__ import annotations

import csv
import inspect
import math
import re
from functools import lru_cache

from gallery_counts import FUNCTIONS, MLP, calculator, letters_of, names_of
from gallery_entries import DOCS, MODELS, TABLE, Entry, picture_name
from gallery_formulas import latex, legend, mathml

import tensoradapt as ta
from tensoradapt import parameterizations, published
from tensoradapt.networks.network import Factor, Network

RANKS = (1, 8, 64)
SOURCES = "https://arxiv.org/abs/"
TOLD = "`docs/make/gallery.toml`"


def page(entry: Entry) -> str:
    """One page."""
    sections = (
        ("", [*_head(entry), *_pictures(entry)]),
        ("Formula", _formula(entry)),
        ("Factors", _factors(entry)),
        ("Parameters", _parameters(entry)),
        ("As a LoRA", _exported(entry)),
        ("Start and scale", _start(entry)),
        ("When to choose it", _when(entry)),
        ("Source", _source(entry)),
        ("Measured", _measured(entry)),
    )
    parts = [[f"# {entry.title}"]] + [[*([f"## {head}"] if head else []), *lines] for head, lines in sections]
    return "\n\n".join("\n\n".join(part) for part in parts) + "\n"


def _head(entry: Entry) -> list[str]:
    if row := entry.row:
        layouts = "; ".join(f"`{layout}` on {', '.join(projections)}" for layout, projections in row.tensors)
        also = [f"Trained besides: {', '.join(f'`{pattern}`' for pattern in row.train)}."] * bool(row.train)
        also += [f"Shared biases of {', '.join(row.biases)}, counted in the parameters."] * bool(row.biases)
        of = f"[{getattr(entry.factoring, 'label', row.parameterization)}]({row.parameterization}.md)"
        called = f'    ta.plan(model, method="{row.name}", paper=True, rank=8)'
        return [f"A published adapter: {of} over {layouts}.", *also, called]
    text = " ".join(inspect.cleandoc(entry.factoring.__doc__ or f"{entry.title}.").split("\n\n")[0].split())
    rows = [row for row in published.every() if row.parameterization == entry.name]
    named = ", ".join(f"[{row.name}]({Entry(row.name, row).slug}.md)" for row in rows)
    lines = [text, f'    ta.plan(model, method="{entry.name}", rank=8)']
    layouts = " and ".join(f"`{layout}`" for layout in parameterizations.layouts_of(entry.factoring))
    return [*lines, f"Usual layouts: {layouts}.", *([f"Published adapters of this form: {named}."] if rows else [])]


def _pictures(entry: Entry) -> list[str]:
    lines = []
    for k, (_, network) in enumerate(entry.networks):
        text = f"Network of {entry.title} over {network.layout}"
        lines.append(f"![{text}](figures/{picture_name(entry, k)})")
    return [
        *lines,
        "At BERT-base's sizes and rank 8. Filled: trained; hollow: starts at zero; grey: frozen; dot: an index of three"
        " ends or more.",
    ]


def _formula(entry: Entry) -> list[str]:
    lines = []
    for _, network in entry.networks:
        lines += [
            f'<div style="overflow-x: auto">{mathml(network)}</div>',
            f"with {legend(network)}. In the code's names:",
        ]
        lines += [f"    {network.equation}", "In LaTeX:", f"    {latex(network)}"]
    return lines


def _factors(entry: Entry) -> list[str]:
    lines = []
    for _, network in entry.networks:
        rows = ["| factor | axes, in this order | numbers | at the start |", "|---|---|---|---|"]
        rows += [_factor(entry, network, factor) for factor in network.factors]
        lines.append("\n".join(rows))
    said = " ".join((inspect.getdoc(entry.factoring.build) or "").split("\n\n")[0].split())
    return [*lines, *([] if entry.row else [said])]


GAIN = "{0}, gain {1:.3g}"
DRAWS = {
    "uniform": "uniform within {1:.3g}",
    "normal": "normal, deviation {1:.3g}",
    "constant": "{1:.3g}",
    "shift": "shifts",
    "identity": "identity",
    "unit": "normal, of norm {1:.3g}",
}


def _factor(entry: Entry, network: Network, factor: Factor) -> str:
    axes = " x ".join(f"{label}={network.sizes[label]}" for label in factor.labels)
    begins = entry.plan().begins
    starts_at_zero = begins.update == "zero" and not begins.nearest and factor.init == "zero"
    source = "the base weights" if begins.reads in ("", "weights") else begins.origin
    sources = {"base": f"from {source}", "set": "set"}
    start = sources.get(factor.source, "zero" if starts_at_zero else "drawn")
    drawn = (
        f"; the paper: {DRAWS.get(factor.paper[0], GAIN).format(factor.paper[0].replace('_', ' '), factor.paper[1])}"
        if factor.paper
        else ""
    )
    numbers = f"{math.prod(network.shape(factor)):,}"
    at_start = start if start == "zero" else f"{start}{drawn}"
    return f"| `{factor.name}` | {axes} | {numbers} | {at_start}{'' if factor.trainable else '; frozen'} |"


def _parameters(entry: Entry) -> list[str]:
    rows = [f"| rank | {' | '.join(MODELS)} |", f"|---|{'---|' * len(MODELS)}"]
    refused: dict[tuple[str, str], list[str]] = {}
    for rank in RANKS:
        cells = [_counted(entry, model, rank, refused) for model in MODELS]
        rows.append(f"| {rank} | {' | '.join(cells)} |")
    notes = [f"{model} at rank {', '.join(at)}: {why}." for (model, why), at in refused.items()]
    if not entry.count:
        return ["\n".join(rows), *notes, f"For the formula and a calculator, give {entry.name} a line in {TOLD}."]
    over = "" if entry.row else "Over the usual layout, on square matrices of attention. "
    tasks = " Counted with two tasks." if "T" in letters_of(entry.count) else ""
    return [f"    {entry.count}", f"{over}{_letters(entry.count)}.{tasks}", "\n".join(rows), *notes, _calculator(entry)]


def _letters(formula: str) -> str:
    """What the letters of a formula mean."""
    has = {*letters_of(formula), *({"o"} if "i" in letters_of(formula) else ())}
    meanings = [text for text in published.LETTERS.split(", ") if text.split(" ")[0] in has]
    said = [f"`{letter}` {meaning}" for letter, meaning in (text.split(" ", 1) for text in meanings)]
    called = [name for name in FUNCTIONS if name in names_of(formula)]
    return ", ".join(said) + "".join(
        f". `{name}` is the {(FUNCTIONS[name].__doc__ or '').strip('.')}" for name in called
    )


def _counted(entry: Entry, model: str, rank: int, refused: dict[tuple[str, str], list[str]]) -> str:
    try:
        return f"{entry.plan(model, rank).n_params:,}"
    except ta.TensorAdaptError as error:
        refused.setdefault((model, str(error)), []).append(str(rank))
        return "-"


def _calculator(entry: Entry) -> str:
    has = set(letters_of(entry.count))
    projections = entry.projections if "M" in has else ()
    has |= {"f"} if {*MLP} & {*projections} else set()
    start = {"d": 768, "H": 12, "L": 12, "f": 3072, "T": 2, "r": 8}
    needs = {"d": {"d", "o", "i", "h"}, "H": {"H", "h"}}
    asked = {letter: value for letter, value in start.items() if has & needs.get(letter, {letter})}
    return calculator(entry.count, asked, entry.tables, projections)


def _exported(entry: Entry) -> list[str]:
    plans = {rank: entry.plan(rank=rank) for rank in RANKS if "-" != _counted(entry, "BERT-base", rank, {})}
    ranks = {rank: max(group.network.cut.rank for group in plan.groups) for rank, plan in plans.items()}
    text = ", ".join(f"{exported:,} at rank {rank}" for rank, exported in ranks.items())
    cuts = {" x ".join(f"`{label}`" for label in network.cut.crossing) for _, network in entry.networks}
    return [
        "`ta.export_lora` writes it exactly. The rank of the LoRA is the [minimum cut](../concepts/cuts.md) of the "
        f"network: {text} (BERT-base). Cut at rank 8: {'; '.join(sorted(cuts))}."
    ]


STARTS = {
    "zero": "The update is exactly 0 at the start: one factor is zero.",
    "subtract": "The initial update is subtracted, so the model starts where it was; a copy of the start is stored.",
    "paper": "The update is not 0 at the start, as in the source.",
}
NEAREST = "The update at the start is the nearest to a step of full fine-tuning."


def _start(entry: Entry) -> list[str]:
    plan = entry.plan(rank=4)
    network = plan.groups[0].network
    divisors = {4.0: " / r", 2.0: " / sqrt(r)", 1.0: ""}
    divisor = divisors.get(network.divisor, f" / {network.divisor:g}")
    alpha = plan.spec.alpha if plan.spec.alpha is not None else network.alpha
    rates = [
        f"`{f.name}` learns {f.rate:g} times as fast."
        for _, each in entry.networks
        for f in each.factors
        if f.rate != 1
    ]
    if entry.row:
        scale = f"With `paper=True` the scale is the paper's: alpha{divisor}, with alpha {alpha:g}."
    else:
        paper = f'`scale="paper"` multiplies by alpha{divisor}, with alpha {alpha:g} by default.'
        scale = f"The default scale is [matched](../concepts/scale.md); {paper}"
    at_start = NEAREST if plan.begins.nearest else STARTS[plan.begins.update]
    return [" ".join([at_start, scale, *rates])]


def _when(entry: Entry) -> list[str]:
    if entry.row is None:
        said = parameterizations.advice(entry.factoring) or entry.told("when")
        return [said or f"Its file does not say; a line of its docstring does, or of {TOLD}."]
    note = f"Note: {entry.row.note}."
    said = TABLE["published"].get(entry.name, f"Its row does not say; a line of {TOLD} does.")
    return [said, *([note] if entry.row.note else [])]


def _source(entry: Entry) -> list[str]:
    text = entry.row.source if entry.row else entry.told("source") or "As its file says"
    where = "tensoradapt/published/rows.py" if entry.row else f"tensoradapt/parameterizations/{entry.name}.py"
    return [f"{_linked(text)}. In the code: [{where}](../../{where})."]


def _linked(text: str) -> str:
    return re.sub(r"arXiv (\d{4}\.\d{5})", rf"[arXiv \1]({SOURCES}\1)", text)


@lru_cache(maxsize=1)
def frontier() -> tuple[dict[str, str], ...]:
    """The points of the frontier that is checked in."""
    with (DOCS / "results" / "figures" / "frontier.csv").open(newline="") as file:
        return tuple(csv.DictReader(file))


def _measured(entry: Entry) -> list[str]:
    if entry.row:
        points = [point for point in frontier() if point["method"] == entry.name]
    else:
        points = [point for point in frontier() if point["parameterization"] == entry.name]
    if not points:
        return ["Not measured on the frontier at one rate ([runs](../results/figures/frontier.csv))."]
    rows = ["| rank | parameters | accuracy | 95 % interval | on the frontier |", "|---|---|---|---|---|"]
    for point in points:
        mean, low, high = (float(point[key]) for key in ("mean", "low", "high"))
        on = "yes" if point["on_frontier"] == "True" else "no"
        rows.append(f"| {point['rank']} | {int(point['n_params']):,} | {mean:.3f} | {low:.3f} to {high:.3f} | {on} |")
    return [
        "The [frontier](../results/figures/frontier.csv) of all-MiniLM-L6-v2 on movie-review sentences, 300 equal "
        "steps at one rate, 1.5e-3, five seeds:",
        "\n".join(rows),
    ]

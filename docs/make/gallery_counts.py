"""Closed parameter counts as formulas in Python and in JavaScript, for the calculators of the gallery's pages."""

from __future__ import annotations

import ast
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

ATTENTION, MLP = ("q", "k", "v", "o"), ("gate", "up", "down")  # square matrices, and those of d and f
WIDTHS = (384, 512, 768, 1024, 1280, 2048, 2560, 3072, 4096, 5120, 8192)  # for a calculator whose matrices have parts


def train(sizes: Sequence[int], rank: int) -> int:
    """number of entries of a tensor-train of one rank."""
    return rank * (sizes[0] + sizes[-1]) + rank**2 * sum(sizes[1:-1])


def mpo(rows: Sequence[int], cols: Sequence[int], rank: int) -> int:
    """number of entries of a tensor-train of matrices."""
    return train([a * b for a, b in zip(rows, cols, strict=True)], rank)


def gates(sizes: Sequence[int]) -> int:
    """number of entries of gates, one for each pair of axes."""
    return sum((a * b) ** 2 for a, b in itertools.combinations(sizes, 2))


def chain(sizes: Sequence[int], rank: int) -> int:
    """number of entries of a tensor-train whose bonds are no larger than what either side can carry."""
    inner = [min(rank, math.prod(sizes[:k]), math.prod(sizes[k:])) for k in range(1, len(sizes))]
    return sum(a * n * b for n, (a, b) in zip(sizes, itertools.pairwise([1, *inner, 1]), strict=True))


def tucker(sizes: Sequence[int], rank: int) -> int:
    """number of entries of a Tucker tensor, no rank of which is above its mode or all other ranks together."""
    ranks = [min(rank, n) for n in sizes]
    core = math.prod(ranks)
    ranks = [min(n, core // n) for n in ranks]
    return sum(n * r for n, r in zip(sizes, ranks, strict=True)) + math.prod(ranks)


FUNCTIONS = {function.__name__: function for function in (train, mpo, gates, chain, tucker)}
WORDS: Mapping[str, Any] = {"ceil": math.ceil, "min": min, "max": max, **FUNCTIONS}
BASE = """
const {min, max, ceil, floor} = Math, sum = list => list.reduce((a, b) => a + b, 0);
const product = list => list.reduce((a, b) => a * b, 1);
""".strip()
SCRIPTS = {
    "train": "const train = (n, r) => r * (n[0] + n[n.length - 1]) + r * r * sum(n.slice(1, -1));",
    "mpo": "const mpo = (n, m, r) => train(n.map((a, k) => a * m[k]), r);",
    "gates": "const gates = n => sum(n.flatMap((a, k) => n.slice(k + 1).map(b => (a * b) ** 2)));",
    "chain": """
const chain = (n, r) => {
  const inner = n.slice(1).map((_, k) => min(r, product(n.slice(0, k + 1)), product(n.slice(k + 1))));
  const bonds = [1, ...inner, 1];
  return sum(n.map((a, k) => bonds[k] * a * bonds[k + 1]));
};
""".strip(),
    "tucker": """
const tucker = (n, r) => {
  const upper = n.map(m => min(r, m)), core = product(upper), ranks = upper.map(m => min(m, floor(core / m)));
  return sum(n.map((m, k) => m * ranks[k])) + product(ranks);
};
""".strip(),
}


def evaluated(formula: str, letters: Mapping[str, Any]) -> int:
    """A formula's value: ``letters`` are numbers, and tables of parts."""
    return int(eval(formula, {"__builtins__": {}}, {**WORDS, **letters}))  # our own text


def javascript(formula: str) -> str:
    """A formula of ``WORDS``, numbers, letters, lists and their parts, as JavaScript.

    >>> javascript("(4 + 2*f//d)*r**2"), javascript("train([*n[i], 8], r)")
    ('((4 + floor((2 * f) / d)) * (r ** 2))', 'train([...n[i], 8], r)')
    """
    return _text(ast.parse(formula, mode="eval").body)


def _text(node: ast.expr) -> str:
    match node:
        case ast.BinOp(left, ast.FloorDiv(), right):
            return f"floor({_text(left)} / {_text(right)})"
        case ast.BinOp(left, op, right):
            signs: dict[type, str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
            return f"({_text(left)} {signs[type(op)]} {_text(right)})"
        case ast.Call(ast.Name(name), given):
            return f"{name}({', '.join(map(_text, given))})"
        case ast.List(items):
            return f"[{', '.join(map(_text, items))}]"
        case ast.Starred(value):
            return f"...{_text(value)}"
        case ast.Subscript(value, ast.Slice()):  # from the last to the first
            return f"[...{_text(value)}].reverse()"
        case ast.Subscript(value, at):
            return f"{_text(value)}[{_text(at)}]"
        case ast.Name(name):
            return name
        case ast.Constant(value):
            return str(value)
    raise ValueError(f"a formula has {ast.unparse(node)!r}, for which {__file__} has no JavaScript; add it there")


def letters_of(formula: str) -> list[str]:
    """The letters that a formula has, besides the functions.

    >>> letters_of("M*L*r*(o + i)")
    ['L', 'M', 'i', 'o', 'r']
    """
    return sorted(names_of(formula) - set(WORDS))


def names_of(formula: str) -> set[str]:
    """All names in a formula."""
    return {node.id for node in ast.walk(ast.parse(formula)) if isinstance(node, ast.Name)}


def calculator(
    formula: str,
    start: Mapping[str, int],
    tables: Mapping[str, Mapping[int, Sequence[int]]],
    projections: Sequence[str] = (),
) -> str:
    """A form and its script: numbers of a config in, the count out.

    Args:
        start: the letters that are asked for, with their first values.
        tables: parts by width; the widths are then chosen from a list.
        projections: the matrices that are chosen at first; none where the formula does not count them.
    """
    fields = [_field(letter, value, tables) for letter, value in start.items()]
    asked = "\n".join([*fields, *([_boxes(projections)] if projections else [])])
    letters = ", ".join(name for name in letters_of(formula) if name not in tables)
    code = [
        "(() => {",
        BASE,
        *(text for name, text in SCRIPTS.items() if name in formula or (name == "train" and "mpo" in formula)),
        *(f"const {name} = {json.dumps(table)};" for name, table in tables.items()),
        f"const part = (x, y) => {{ const {{{letters}}} = {{...x, h: x.d / x.H, ...y}};",
        f"  return {javascript(formula)}; }};",
        "const count = x => part(x, {o: x.d, i: x.d, M: x.projections ?? 1})",
        "  + (x.mlp ? part(x, {o: x.f, i: x.d, M: x.mlp}) : 0);",
        READ,
        "})();",
    ]
    form = f'<form class="calculator" style="{LOOK}">\n{asked}\n<output style="{RESULT}"></output>\n</form>'
    return "\n".join([form, "<script>", *code, "</script>"])


READ = """
if (typeof document !== "undefined") {
  const form = document.currentScript.previousElementSibling, fields = [...form.elements].filter(e => e.name);
  const show = () => {
    const x = Object.fromEntries(fields.filter(e => e.type !== "checkbox").map(e => [e.name, Number(e.value)]));
    const whole = Object.values(x).every(n => Number.isInteger(n) && n > 0) && (!x.H || x.d % x.H === 0);
    for (const name of ["projections", "mlp"])
      if (fields.some(e => e.name === name)) x[name] = fields.filter(e => e.name === name && e.checked).length;
    const text = whole ? count(x).toLocaleString("en") + " parameters" : "expected whole numbers, H a divisor of d";
    form.querySelector("output").value = text;
  };
  form.addEventListener("input", show);
  show();
}
""".strip()
LOOK = "display: flex; flex-wrap: wrap; gap: 0.4rem 1.4rem; align-items: baseline; margin: 1rem 0"
RESULT = "flex-basis: 100%; font-weight: bold"
NAMES = {"d": "width d", "H": "heads H", "L": "layers L", "f": "MLP width f", "T": "tasks T", "r": "rank r"}


def _boxes(chosen: Sequence[str]) -> str:
    kinds = {"projections": ATTENTION, "mlp": MLP if {*MLP} & {*chosen} else ()}
    boxes = [
        f'<label><input name="{kind}" type="checkbox"{" checked" * (name in chosen)}> {name}</label>'
        for kind, names in kinds.items()
        for name in names
    ]
    return f"<span>matrices {' '.join(boxes)}</span>"


def _field(letter: str, value: int, tables: Mapping[str, Any]) -> str:
    if letter == "d" and tables:
        widths = sorted(set.intersection(*(set(table) for table in tables.values())))
        options = "".join(f"<option{' selected' * (width == value)}>{width}</option>" for width in widths)
        return f'<label>{NAMES[letter]} <select name="{letter}">{options}</select></label>'
    field = f'<input name="{letter}" type="number" min="1" value="{value}" style="width: 6em">'
    return f"<label>{NAMES[letter]} {field}</label>"

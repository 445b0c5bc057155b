"""A network as a formula: the update's entries as a sum over bonds of products of factors' entries.

As MathML, which browsers draw without a script or a network, and as LaTeX, to be copied.
"""

from __future__ import annotations

import re

from tensoradapt.networks.network import Network

LETTERS = {
    **{"stack": "s", "layer": "l", "attn": "a", "proj": "p", "expert": "e", "block": "k", "task": "t"},
    **{"head": "h", "dim": "d", "ff": "f", "token": "v", "channel": "c", "kh": "y", "kw": "x"},
    **{"out": "o", "in": "i", "model": "m"},
}


def latex(network: Network) -> str:
    r"""The formula of a network, without its sizes.

    >>> from tensoradapt.networks.layout import Layout
    >>> from tensoradapt.parameterizations.lora import build
    >>> print(latex(build(Layout.parse(": out : in", {"out": 8, "in": 8}), 2)))
    \Delta_{o\,i} = \sum_{r} A_{r\,i}\; B_{o\,r}
    """
    left = r"\Delta_{" + r"\,".join(map(symbol, network.layout.names)) + "}"
    bonds = r",\,".join(map(symbol, network.bonds))
    total = rf"\sum_{{{bonds}}} " if bonds else ""
    factors = [f"{factor_symbol(f.name)}_{{{_joined(f.labels)}}}" for f in network.factors]
    return f"{left} = {total}" + r"\; ".join(factors)


def mathml(network: Network) -> str:
    """The formula of a network for a page, on one line.

    >>> from tensoradapt.networks.layout import Layout
    >>> from tensoradapt.parameterizations.dense import build
    >>> print(mathml(build(Layout.parse(": out : in", {"out": 8, "in": 8})))[:60])
    <math display="block"><mrow><msub><mi>Δ</mi><mrow><mi>o</mi>
    """
    bonds = _list(tuple(network.bonds), "<mo>,</mo>")
    total = f"<munder><mo>∑</mo>{bonds}</munder>" if network.bonds else ""
    left = f"<msub><mi>Δ</mi>{_list(network.layout.names)}</msub><mo>=</mo>"
    factors = (f"<msub>{_drawn(factor_symbol(f.name))}{_list(f.labels)}</msub>" for f in network.factors)
    return f'<math display="block"><mrow>{left}{total}{SPACE.join(factors)}</mrow></math>'


SPACE = '<mspace width="0.3em"/>'


def _list(labels: tuple[str, ...], between: str = '<mspace width="0.15em"/>') -> str:
    return f"<mrow>{between.join(_drawn(symbol(label)) for label in labels)}</mrow>"


def _drawn(text: str) -> str:
    """A symbol in LaTeX, of letters, numbers, words and at most two things below or above each, as MathML."""
    if word := re.fullmatch(r"\\mathrm\{(.*)\}", text):
        return f'<mi mathvariant="normal">{word[1].replace(chr(92), "")}</mi>'
    base, *rest = re.split(r"(?=[_^]\{)", text, maxsplit=1)
    if not rest:
        return f"<mi>{base}</mi>"
    if (below := rest[0]).startswith("_") and below.endswith("}") and "}^{" in below:
        low, high = below[2:-1].split("}^{")
        return f"<msubsup><mi>{base}</mi>{_drawn(low)}{_drawn(high)}</msubsup>"
    tag = "msub" if below[0] == "_" else "msup"
    return f"<{tag}><mi>{base}</mi>{_drawn(below[2:-1])}</{tag}>"


def _joined(labels: tuple[str, ...]) -> str:
    return r"\,".join(map(symbol, labels))


def symbol(label: str) -> str:
    """An index as a letter: of a mode its own, of the bond after a mode an r with the mode's.

    >>> symbol("layer"), symbol("in2"), symbol("layer_proj"), symbol("r_out1"), symbol("in2_0"), symbol("b1")
    ('l', 'i_{2}', '(lp)', 'r_{o_{1}}', 'i_{2}^{0}', 'b_{1}')
    """
    if rest := re.fullmatch(r"r_(\w+)", label):
        return f"r_{{{symbol(rest[1])}}}"
    if wire := re.fullmatch(r"(in|out)(\d+)_(\d+)", label):
        return f"{LETTERS[wire[1]]}_{{{wire[2]}}}^{{{wire[3]}}}"
    if merged := [LETTERS.get(part, part) for part in label.split("_")] if "_" in label else []:
        return f"({''.join(merged)})"
    stem = label.rstrip("0123456789")
    number = label[len(stem) :]
    return LETTERS.get(stem, stem) + (f"_{{{number}}}" if number else "")


def factor_symbol(name: str) -> str:
    r"""A factor's name: upright if it is a word, with its number above if it has one.

    >>> factor_symbol("B"), factor_symbol("G1"), factor_symbol("layer_proj")
    ('B', 'G^{(1)}', '\\mathrm{layer\\_proj}')
    """
    if found := re.fullmatch(r"([A-Za-z])(\d*)", name):
        return found[1] + (f"^{{({found[2]})}}" if found[2] else "")
    return rf"\mathrm{{{name}}}".replace("_", r"\_")


def legend(network: Network) -> str:
    """What the letters of a network's modes stand for.

    >>> from tensoradapt.networks.layout import Layout
    >>> from tensoradapt.parameterizations.lora import build
    >>> legend(build(Layout.parse(": out : in", {"out": 8, "in": 8}), 2))
    '<math><mi>o</mi></math> out, <math><mi>i</mi></math> in'
    """
    return ", ".join(f"<math>{_drawn(symbol(mode.name))}</math> {mode}" for mode in network.layout.modes)

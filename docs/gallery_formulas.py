"""A network as a formula in LaTeX: the update's entries as a sum over bonds of products of factors' entries."""

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
    '$o$ out, $i$ in'
    """
    return ", ".join(f"${symbol(mode.name)}$ {mode}" for mode in network.layout.modes)

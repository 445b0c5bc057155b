"""A figure of matplotlib as SVG inside a page: short, with ids of its own, text as text, and the page's colours."""

from __future__ import annotations

import colorsys
import io
import re
from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_hex, to_rgb

LIGHT, DARK = ("#1b1f24", "#ffffff"), ("#e7e9ec", "#191c20")  # ink and paper, as report.css has them
LEGIBLE = 4.5  # least contrast of a colour with dark paper (WCAG 2.2, 1.4.3)
DRAWN: dict[Any, Any] = {
    "text.color": "black",
    "axes.facecolor": "white",
    "figure.facecolor": "white",
    "svg.fonttype": "none",
    "figure.max_open_warning": 0,  # it is closed at once, whatever is open besides
}
DRAWN |= {"path.simplify_threshold": 0.5}  # half a pixel, which nobody sees, halves the points


def inline(drawn: Any, prefix: str) -> str:
    """Return a figure's SVG from the attributes of its first tag on, with colours that ``css`` gives.

    A mark that says what it is (its gid begins with "mean: ") has that as its title, which answers to the pointer.

    Args:
        drawn: a matplotlib figure, drawn with the rcParams ``DRAWN``.
        prefix: begins all ids, which are to be unique in the page.
    """
    for text in drawn.findobj(mpl.text.Text):
        text.set_path_effects([])  # the page outlines all text; with effects text would become paths
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": prefix}):
        drawn.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = re.sub(
        r"<metadata>.*?</metadata>|<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL
    )
    text = re.sub(r'<g id="mean: ([^"]*)">', r'<g class="at"><title>\1</title>', text[text.index("<svg") + 4 :])
    text = re.sub(r' (?:xmlns(?::xlink)?|version)="[^"]*"| transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(
        r'^([^>]*?) height="[^"]*"([^>]*?) width="[^"]*"|^([^>]*?) width="[^"]*" height="[^"]*"', r"\1\2\3", text
    )
    text = _ids(text.replace("xlink:href", "href").replace("<g/>", ""), prefix)
    text = re.sub(r' (d|x|y|transform)="([^"]*)"', _rounded, text)
    text = re.sub(r' style="([^"]*)"', _style, text)
    return re.sub(r">\s+<", "><", text).strip()


def _ids(text: str, prefix: str) -> str:
    """Give what is referred to a short id with the prefix, and take all others away."""
    reference = r'(url\(|href=")#([\w-]+)'
    ids = {name: f"{prefix}{i}" for i, name in enumerate(sorted({name for _, name in re.findall(reference, text)}))}
    text = re.sub(r' id="([^"]*)"', lambda found: f' id="{ids[found[1]]}"' if found[1] in ids else "", text)
    return re.sub(reference, lambda found: f"{found[1]}#{ids[found[2]]}", text)


def _rounded(found: re.Match[str]) -> str:
    """Round to tenths of a point; a path of lines has no letters between its points."""
    text = re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), found[2])
    text = " ".join(text.split())
    text = text if "C" in text or "Q" in text else text.replace(" L ", " ")
    return f' {found[1]}="{text}"'


def _style(found: re.Match[str]) -> str:
    """Shorten a style: text has the page's font; colours are variables."""
    font = re.search(r"font: ([^;]*?)([\d.]+px)", found[1])
    own = f"font-size:{font[2]}{';font-weight:bold' if re.search('bold|[67]00', font[1]) else ''}" if font else ""
    text = re.sub(r"font: [^;]*", own, found[1])
    text = re.sub(r"font-family: [^;]*;?", "", text)
    text = re.sub(r"#([0-9a-f]{6})", r"var(--c\1)", text)
    text = re.sub(r"\s*([:;])\s*", r"\1", text).strip("; ")
    return f' style="{text}"'


def css(page: str) -> str:
    """Return the values of the colours of a page's figures, in its light and dark schemes."""
    used = sorted(set(re.findall(r"var\(--c([0-9a-f]{6})\)", page)))
    light, dark = ("".join(f"--c{one}:{on(f'#{one}', *scheme)};" for one in used) for scheme in (LIGHT, DARK))
    return f":root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"


def on(colour: str, ink: str, paper: str) -> str:
    """Return a colour that was drawn in black on white, for an ink and a paper.

    Greys are as far between both; on dark paper other colours are lighter, until they are legible.

    >>> on("#000000", "#eeeeee", "#111111"), on("#ffffff", "#eeeeee", "#111111"), on("#0072b2", "#1b1f24", "#ffffff")
    ('#eeeeee', '#111111', '#0072b2')
    """
    red, green, blue = to_rgb(colour)
    if max(red, green, blue) - min(red, green, blue) < 0.02:
        mixed = [(1 - red) * a + red * b for a, b in zip(to_rgb(ink), to_rgb(paper), strict=True)]
        return to_hex((mixed[0], mixed[1], mixed[2]))
    if _luminance(paper) > 0.5:
        return colour
    hue, light, full = colorsys.rgb_to_hls(red, green, blue)
    if light > 0.85:  # a tint of paper
        return to_hex(colorsys.hls_to_rgb(hue, 1 - light, full / 2))
    while light < 0.95 and contrast(colour, paper) < LEGIBLE:
        light += 0.02
        colour = to_hex(colorsys.hls_to_rgb(hue, min(light, 1), full))
    return colour


def contrast(colour: str, paper: str) -> float:
    """Return the contrast of two colours (WCAG 2.2, 1.4.3), from 1 to 21."""
    low, high = sorted((_luminance(colour), _luminance(paper)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

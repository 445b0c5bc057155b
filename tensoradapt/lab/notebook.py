"""What notebooks show of a plan: ink and paper are those of the page that it is on."""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any

from tensoradapt.lab.analysis import plots
from tensoradapt.planning.plan import KINDS, Plan, plan_head, tensor_rows
from tensoradapt.text import html_table, plain

# the paper of JupyterLab, VS Code and Colab, else of the browser
PAPER = "var(--jp-layout-color0,var(--vscode-editor-background,var(--colab-primary-surface-color,Canvas)))"
SETTINGS: dict[Any, Any] = {
    **{"text.color": "black", "axes.facecolor": "white", "figure.facecolor": "white"},
    **{"svg.fonttype": "none", "svg.hashsalt": "tensoradapt"},  # text is text, and the same plan gives the same SVG
}
COLOUR = re.compile(r"(?<=: )#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})\b")
COLOURED = 80  # percent of a colour that is no grey; ink takes the rest, which sets it off from any paper
# the file's head, its date, a style that would hold for the whole page, and fonts that a reader may not have
REMOVED = re.compile(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<style.*?</style>|font-family:[^;]*;\s*", re.DOTALL)
STYLE = f"--paper:{PAPER};stroke-linejoin:round;stroke-linecap:butt;max-width:100%;height:auto"


def plan_html(plan: Plan) -> str:
    """Return the plan in HTML: what it says, the drawing of its first tensor, and the table of its groups."""
    rows, left = tensor_rows(plan.groups, KINDS)
    n = len(plan.groups)
    below = f"<figcaption>the first of {n:,} tensors</figcaption>" if n > 1 else ""
    said = "".join(f"<div>{escape(plain(line))}</div>" for line in plan_head(plan))
    drawn = f'<figure style="margin:0.5em 0">{drawing(plan)}{below}</figure>'
    return f"<div>{said}{drawn}{html_table(rows)}<div>{left}</div></div>"


def drawing(of: Any) -> str:
    """Return what ``tensoradapt.plots.network`` draws as an SVG element, for light and dark pages.

    Text is text, in the font of the page.
    """
    from matplotlib import pyplot, rc_context

    written = io.StringIO()
    with rc_context(SETTINGS), pyplot.ioff():
        figure = plots.network(of, caption=False).figure
        figure.savefig(written, format="svg", transparent=True)
        pyplot.close(figure)
    svg = COLOUR.sub(_inked, REMOVED.sub("", written.getvalue()))
    return svg.replace("<svg ", f'<svg role="img" fill="currentColor" style="{STYLE}" ', 1)


def _inked(colour: re.Match[str]) -> str:
    """Return a colour of a drawing on white as a mixture with the ink of the page, a grey as one of ink and paper."""
    red, green, blue = colour.groups()
    if red != green or green != blue:
        return f"color-mix(in srgb, {colour[0]} {COLOURED}%, currentColor)"
    return f"color-mix(in srgb, currentColor {round(100 * (1 - int(red, 16) / 255))}%, var(--paper))"

"""How far the first Adam steps move the adapted matrices, by method, rank, depth and width: a check of the scale rule.

    python benchmarks/step_size.py            # about 14 minutes on one thread, writes records/step_size.csv
    python benchmarks/step_size.py --figure   # draws the figure of the existing table: steps along four axes

Every published row and every other parameterization, each as it starts itself, with scale="matched" and scale="paper".
The figure of merit is the RMS of the change of all adapted matrices, over that of LoRA (r=8, alpha=16, as PEFT draws
it) of the same width, after as many steps along the same gradients. "matched" promises 1 after the first step.

The model of the gradients. The loss is linear, the sum over sites of <G, delta>, so that its gradients are those of a
network whose loss has G as its gradient in each matrix. G has rank 4: G(t) = sum_k c_k(t) u_k v_k^T. The directions u_k
and v_k are normal, half of their variance shared by all sites and half a site's own. The coefficients c_k(t) are 1 plus
a normal number, drawn for each site and step anew: as much noise as signal. Adam is torch's, betas 0.9 and 0.999, its
eps so small that the size of the gradients does not matter. Nothing limits the loss from below, so over many steps this
shows the largest drift that Adam can make, not what a network would do.

Choices that keep it short. Only q and v are adapted, whatever a row's own targets. Axes are varied one at a time around
width 768, 12 layers, r=8, lr 1e-4, with heads of 64. Rows that tie no layers have the same tensor again and again, so
they have one layer at any depth, and LoRA as their reference too. Rows are built as published, without clipping, while
a tensor has at most MAX_PARAMS numbers, and above that with every bond clipped to what it can carry (column
``clipped``); they are left out where that has over five times as many. Factors from base weights come from random
weights: orthonormal singular vectors with values k^-1/2, or a normal matrix for DoTA. Widths that a row has no split
for get three nearly equal parts. Rows whose updates are of full rank stop at width 2048. First steps under "matched"
have five seeds, all else one; the steps after the tenth are measured at some of the values, and under "matched" alone.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from measure import RECORDS, append, options, place, read

ASKED = options(__name__, __doc__, figure=False)

import figure_style
import opt_einsum
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter
from step_size_rows import PROJECTIONS, RANKLESS, Point, adapter, layers_of, plan, rows
from torch import Tensor

from tensoradapt.adapter.adapter import Adapter
from tensoradapt.adapter.factored import FactoredTensor
from tensoradapt.lab.analysis.names import COLOURS, looks, tone
from tensoradapt.lab.analysis.plots import _parts
from tensoradapt.planning.plan import Member

CSV = place(ASKED, "step_size.csv")
COLUMNS = ("axis", "value", "row", "scale", "seed", "step", "lr", "clipped", "rms_ratio_to_lora", "worst_site_ratio")
SEEDS, STEPS, GRADIENT_RANK = 5, (1, 10, 100), 4
AXES: dict[str, tuple[str, Sequence[float]]] = {
    "rank": ("rank", (1, 4, 8, 16, 64, 96, 256)),
    "depth": ("layers", (2, 12, 48)),
    "width": ("width", (128, 256, 768, 2048, 4096)),
    "lr": ("lr", (1e-5, 1e-4, 1e-3, 1e-2)),
}
LONG = {"rank": (1, 8, 64), "depth": (2, 12, 48), "width": (128, 768, 2048), "lr": AXES["lr"][1]}  # all steps, one seed

PNG = figure_style.DOCS / "results" / "figures" / "step_size.png"
Row = Mapping[str, str]
NAMED = (
    *("lora", "lorta", "lotr", "metatt-5d", "vera", "loha", "tenslora-qkv", "tenslora-att_qkv_depth", "tt-lora"),
    *("loretta-rep", "tinylora", "block_term"),
)
OTHERS, BAND = "#9a9a9a", COLOURS[2]
LABELS = {"rank": "rank", "depth": "layers", "width": "width", "lr": "learning rate"}
# each row of panels: scale, steps, column, y range, band, label
PANELS: tuple[tuple[str, int, str, tuple[float, float], tuple[float, float], str], ...] = (
    ("matched", 1, "rms_ratio_to_lora", (0.5, 9), (0.9, 1.1), "matched,\nfirst step"),
    ("matched", 100, "rms_ratio_to_lora", (0.25, 9), (0.5, 2), "matched,\nafter 100 steps"),
    ("paper", 1, "rms_ratio_to_lora", (2e-5, 5e4), (0.9, 1.1), "papers' scales,\nfirst step"),
    ("matched", 1, "worst_site_ratio", (0.9, 300), (1, 2), "matched, first step:\nworst site"),
)
Write = Callable[[Sequence[Mapping[str, Any]]], None]


class Drive:
    """The gradients of all sites, as low-rank directions and coefficients that change at every step."""

    def __init__(self, width: int, layers: int, seed: int, tasks: int = 1) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        shared = self._normal(2, GRADIENT_RANK, width)
        own = self._normal(tasks, layers, len(PROJECTIONS), 2, GRADIENT_RANK, width)
        self.directions = (shared + own) / math.sqrt(2)  # (task, layer, proj, out and in, k, width)

    def coefficients(self) -> Tensor:  # (task, layer, proj, k)
        """The coefficients of the next step."""
        return 1 + self._normal(*self.directions.shape[:3], GRADIENT_RANK)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator, dtype=torch.float64)


class Pull:
    """The loss of one tensor: the sum over its sites of <G, delta>, contracted without forming either."""

    def __init__(self, tensor: FactoredTensor, members: Sequence[Member], drive: Drive) -> None:
        layout, self.tensor = tensor.network.layout, tensor
        sizes = {**tensor.network.sizes, "k": GRADIENT_RANK}
        index, rows, cols = (tuple(m.name for m in modes) for modes in (layout.index, layout.rows, layout.cols))
        self._places = list(_places(members, sizes.get("task", 1)))
        self._shape = tuple(sizes[name] for name in index)
        directions = self._spread(drive.directions)
        sides = [directions.select(len(index), i) for i in ((1, 0) if members[0].transposed else (0, 1))]
        self._sides = [
            side.reshape(*self._shape, GRADIENT_RANK, *(sizes[name] for name in names))
            for side, names in zip(sides, (rows, cols), strict=True)
        ]
        inputs = [*(f.labels for f in tensor.network.factors), *((*index, "k", *names) for names in (rows, cols, ()))]
        symbol = {x: opt_einsum.get_symbol(i) for i, x in enumerate(sizes)}
        text, shapes = (
            ",".join("".join(symbol[label] for label in x) for x in inputs),
            [[sizes[x] for x in y] for y in inputs],
        )
        # not "optimal": the path that opt_einsum 3.4 finds for LoHa at r=64 costs 600 times as much as this one
        self._contract = opt_einsum.contract_expression(f"{text}->", *shapes, optimize="dp")

    def _spread(self, own: Tensor) -> Tensor:  # (task, layer, proj, ...) to (index modes, ...)
        whole = own.new_zeros(*self._shape, *own.shape[3:])
        for source, at in self._places:
            whole[at] = own[source]
        return whole

    def loss(self, coefficients: Tensor) -> Tensor:  # ()
        """The tensor's part of the loss, along this step's gradients."""
        own = self._spread(coefficients)
        return self.tensor.scale * self._contract(*self.tensor.factors.values(), *self._sides, own)


def _places(members: Sequence[Member], tasks: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(task, layer, proj) of every site, and its place in the tensor's index modes: the task is the last of them."""
    for member in members:
        layer, proj = int(member.site.coord["layer"]), PROJECTIONS.index(str(member.site.coord["proj"]))
        at = tuple(v for v in member.at.values() if isinstance(v, int))
        for task in range(tasks):
            yield (task, layer, proj), (*at, task) if tasks > 1 else at


def change(before: Sequence[tuple[Tensor, Tensor]], now: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The RMS of ``now`` minus ``before``, both sums of products B A, from Gram matrices."""
    a = torch.cat([*(a for a, _ in now), *(a for a, _ in before)])
    b = torch.cat([*(b for _, b in now), *(-b for _, b in before)], dim=1)
    small = 2 * len(a) < min(a.shape[1], len(b))
    square = ((b.T @ b) * (a @ a.T)).sum() if small else (b @ a).square().sum()
    return math.sqrt(max(square.item(), 0) / (a.shape[1] * len(b)))


def drift(adapter: Adapter, drive: Drive, lr: float, steps: Sequence[int]) -> dict[int, list[float]]:
    """The RMS of every site's change per unit learning rate, after each of ``steps``."""
    pulls = [Pull(t, g.members, drive) for t, g in zip(adapter.factored, adapter.plan.groups, strict=True)]
    rates = adapter.rates()
    optimizer = torch.optim.Adam([{"params": [p], "lr": lr * rate} for p, rate in rates.items()], eps=1e-30)
    moved = adapter.plan.start == "paper"
    before = [[(a.clone(), b.clone()) for a, b in own] if moved else [] for own in pairs(adapter)]
    found = {}
    for step in range(1, max(steps) + 1):
        coefficients = drive.coefficients()
        optimizer.zero_grad()
        sum((pull.loss(coefficients) for pull in pulls), torch.zeros(())).backward()
        optimizer.step()
        if step in steps:
            found[step] = [change(old, new) / lr for old, new in zip(before, pairs(adapter), strict=True)]
    return found


def pairs(adapter: Adapter) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """The pairs of every site, for each task."""
    for task in adapter.plan.spec.tasks or (None,):
        if task:
            adapter.select(task=task)
        for site in adapter.plan.sites:
            with torch.no_grad():
                own = adapter.pair(site)
            yield [own]


@cache
def reference(width: int, layers: int, lr: float, seed: int, steps: tuple[int, ...], used: int) -> dict[int, float]:
    """The drift of LoRA (r=8, alpha=16, as PEFT draws it) in the first ``used`` of the layers."""
    made = plan("lora", Point(width=width, layers=used), "paper")
    assert made
    found = drift(adapter(made[0], seed), Drive(width, layers, seed), lr, steps)
    return {step: rms(sites) for step, sites in found.items()}


def rms(sites: Sequence[float]) -> float:
    """The RMS over matrices of equal size."""
    return math.sqrt(statistics.fmean(site**2 for site in sites))


def compared(name: str, point: Point, scale: str, seed: int, steps: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """A row's drift over LoRA's, and its worst site: the largest ratio of a site to the RMS of all, or its inverse."""
    if (made := plan(name, point, scale)) is None:
        return
    base = reference(point.width, point.layers, point.lr, seed, steps, layers_of(made[0]))
    drive = Drive(point.width, point.layers, seed, len(made[0].spec.tasks) or 1)
    for step, sites in drift(adapter(made[0], seed), drive, point.lr, steps).items():
        whole = rms(sites)
        worst = max(max(sites) / whole, whole / min(sites)) if min(sites) else math.inf
        yield {"step": step, "clipped": made[1], "rms_ratio_to_lora": whole / base[step], "worst_site_ratio": worst}


def jobs(
    axes: Mapping[str, tuple[str, Sequence[float]]], seeds: int
) -> Iterator[tuple[str, float, str, int, tuple[int, ...]]]:
    """(axis, value, scale, seed, steps): all seeds where the first step is claimed, the later steps with one."""
    for axis, (_, numbers) in axes.items():
        for value, scale in itertools.product(numbers, ("matched", "paper")):
            steps = STEPS if scale == "matched" else STEPS[:2]
            for seed in range(seeds if scale == "matched" and axis != "lr" else 1):
                yield axis, value, scale, seed, steps if value in LONG[axis] and seed == 0 else STEPS[:1]


def run(axes: Mapping[str, tuple[str, Sequence[float]]], seeds: int, write: Write, done: Collection[Any] = ()) -> None:
    """Measure what is not ``done``."""
    known: dict[Any, list[dict[str, Any]]] = {}  # the point in the middle lies on every axis
    for axis, value, scale, seed, steps in jobs(axes, seeds):
        if (axis, float(value), scale, seed) in done:
            continue
        changed: dict[str, Any] = {axes[axis][0]: value}
        point, found = replace(Point(), **changed), []
        for name in rows():
            key = (name, replace(point, rank=Point.rank) if name in RANKLESS else point, scale, seed, steps)
            if key not in known:
                known[key] = list(compared(*key))
            own = {"axis": axis, "value": value, "row": name, "scale": scale, "seed": seed, "lr": point.lr}
            found += [{**own, **measured} for measured in known[key]]
        write(found)


def draw(rows: Sequence[Row]) -> None:
    """Write the PNG."""
    with figure_style.drawn(PNG, (11, 9.6)) as figure:
        grid = figure.subplots(len(PANELS), len(LABELS), sharex="col")
        for of_row, (scale, step, column, limits, band, label) in zip(grid, PANELS, strict=True):
            of_row[0].set_ylabel(label)
            for ax, axis in zip(of_row, LABELS, strict=True):
                own = [r for r in rows if (r["axis"], r["scale"], int(r["step"])) == (axis, scale, step)]
                if axis == "lr" and step == 1:  # the first step is the same at every rate
                    ax.set_axis_off()
                    continue
                panel(ax, own, column, band)
                wide = axis == "lr"  # rates that run away: a range of its own
                if limits[1] < 10 and not wide:
                    ax.set_yticks([0.25, 0.5, 1, 2, 4, 8])
                ax.set_ylim((0.012, 400) if wide else limits)
                ax.tick_params(labelleft=axis in ("rank", "lr"))
                if axis == "rank" and column == "rms_ratio_to_lora":
                    ax.axvline(96, color=tone(_parts.GREY), linewidth=0.9, linestyle=":")
        for ax, text in zip((*grid[-1, :3], grid[1, 3]), LABELS.values(), strict=True):
            ax.set_xlabel(text)
            ax.tick_params(labelbottom=True)
        _legends(grid[0, 3], grid[2, 3])
        figure.suptitle("RMS of the change of all adapted matrices, over LoRA's (r=8, alpha=16)", x=0.01, ha="left")


def panel(ax: Axes, rows: Sequence[Row], column: str, band: tuple[float, float]) -> None:
    """A line for each row of the comparison, the mean over seeds; hollow where ranks are clipped."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.axhspan(*band, color=BAND, alpha=0.15, linewidth=0)
    ax.axhline(1, color=tone(0.25), linewidth=0.7)
    for name in dict.fromkeys(row["row"] for row in rows):
        own = [row for row in rows if row["row"] == name]
        values = list(dict.fromkeys(float(row["value"]) for row in own))
        means = [statistics.fmean(float(r[column]) for r in own if float(r["value"]) == v) for v in values]
        clipped = [any(r["clipped"] == "True" for r in own if float(r["value"]) == v) for v in values]
        _line(ax, name, values, means, clipped)
    ticks = sorted({float(row["value"]) for row in rows} - {96.0})  # too near 64 for its label
    ax.set_xticks(ticks)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(FuncFormatter(_ratio))
    ax.tick_params(labelsize="small")
    ax.grid(axis="y")


def _line(ax: Axes, name: str, values: Sequence[float], means: Sequence[float], clipped: Sequence[bool]) -> None:
    if name not in NAMED:
        ax.plot(values, means, color=OTHERS, linewidth=0.6, alpha=0.6, zorder=2)
        return
    look = looks(NAMED)[name]
    ax.plot(values, means, look.line, color=look.colour, linewidth=1.1, zorder=3)
    for x, y, hollow in zip(values, means, clipped, strict=True):
        face = tone(1) if hollow else look.colour
        ax.plot(x, y, look.marker, color=look.colour, mfc=face, ms=4.2, mew=0.9, zorder=3.5)


def _ratio(value: float, _: int) -> str:
    return f"{value:g}" if 1e-3 <= value < 1e4 else f"{value:.0e}"


def _legends(above: Axes, below: Axes) -> None:
    """Draw the legends into axes that have no panel."""
    found = looks(NAMED)
    rest = [
        Line2D([], [], color=OTHERS, linewidth=0.7, label="all other rows"),
        Line2D([], [], color=tone(0.25), marker="o", mfc=tone(1), linewidth=0, ms=4.5, label="ranks clipped"),
        Patch(color=BAND, alpha=0.15, label="within 10 % (first step),\na factor of 2 (others)"),
        Line2D([], [], color=tone(_parts.GREY), linewidth=0.9, linestyle=":", label="rank = width / 8"),
    ]
    for ax, handles in ((above, _parts.handles(found[name] for name in NAMED)), (below, rest)):
        ax.legend(handles=handles, loc="upper left", fontsize="small", borderaxespad=0)


def main() -> None:
    """Measure what is missing, and draw the record."""
    torch.set_num_threads(1)
    if ASKED.quick:
        run({"width": ("width", (128,))}, 1, record)
        return
    if not ASKED.figure:
        done = {(r["axis"], float(r["value"]), r["scale"], int(r["seed"])) for r in read(CSV)}
        run(AXES, SEEDS, record, done)
    draw(read(RECORDS / "step_size.csv"))


def record(found: Sequence[Mapping[str, Any]]) -> None:
    """Write one block of the table at once, so that a stopped run continues after its last whole block."""
    for row in found:
        append(CSV, {c: float(f"{row[c]:.5g}") if isinstance(row[c], float) else row[c] for c in COLUMNS})


if __name__ == "__main__":
    main()

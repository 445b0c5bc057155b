"""The commands ``tensoradapt plot`` and ``tensoradapt report``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

KINDS = "frontier (default), ranks, rates, contrasts, grid, aggregates, differences, progress, or all"


def add_parsers(commands: Any, default: Path) -> None:
    """Adds both commands to those of a parser (``add_subparsers``)."""
    plot = commands.add_parser(
        "plot",
        help="draw the figures of a folder of runs",
        description="Writes each figure as PNG and PDF, with the CSV behind it and its caption; one for each task.",
    )
    plot.add_argument("runs", type=Path, nargs="?", default=default, help="folder of runs (default: %(default)s)")
    plot.add_argument("figures", nargs="*", metavar="FIGURE", default=["frontier"], help=KINDS)
    plot.add_argument(
        "--x",
        default="n_params",
        metavar="COST",
        help="of frontiers: n_params, adapter_bytes, peak_memory_bytes, peak_device_bytes, step_seconds_median or "
        "seconds",
    )
    plot.add_argument("--out", type=Path, metavar="DIR", help="folder for the files (default: that of the runs)")
    report = commands.add_parser(
        "report",
        help="write a folder of runs as one HTML page",
        description="One file that needs nothing else: tables that sort, figures, what failed, specification and "
        "provenance; every number leads back to its runs.",
    )
    report.add_argument("runs", type=Path, help="folder of runs")
    report.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in the folder of runs")
    report.set_defaults(command=_report)
    for command in (plot, report):
        command.add_argument(
            "--where", nargs="+", default=(), metavar="CONDITION", help='such as task=sst2 "n_params<=5000"'
        )
        command.add_argument("--spec", type=Path, metavar="FILE", help="only the runs of this sweep")
        command.add_argument("--reference", metavar="METHOD", help="what others are compared with (default: LoRA)")
    plot.set_defaults(command=_plot)


def _plot(args: argparse.Namespace) -> int:
    from tensoradapt.analysis.figures.catalogue import KINDS as every
    from tensoradapt.analysis.figures.catalogue import figures
    from tensoradapt.errors import TensorAdaptError
    from tensoradapt.sweeps import record
    from tensoradapt.sweeps.reports.results import select, sweeps

    runs, failed = select(args.runs, args.where, args.spec)
    kinds = every if "all" in args.figures else args.figures
    plans = [] if args.where else [one.due(args.runs) for one in sweeps(args.runs, args.spec)]
    lost = {args.runs / name: error["config"]["task"] for name, error in failed.items()}
    totals = record.totals(plans)
    found = figures(runs, kinds=kinds, cost=args.x, reference=args.reference, totals=totals, failed=lost)
    if not found:
        raise TensorAdaptError(
            f"the runs in {args.runs} allow no figure of {' '.join(kinds)}; expected finished runs of that kind: "
            "`plot RUNS all` draws what there is"
        )
    for one in found:
        print("\n".join(map(str, one.save(args.out or args.runs))))
    return 0


def _report(args: argparse.Namespace) -> int:
    from tensoradapt.sweeps.reports.html_report import write_report

    out = args.out or args.runs / "report.html"
    print(write_report(args.runs, out, where=args.where, spec=args.spec, reference=args.reference))
    return 0

"""The commands ``tensoradapt sweep``, ``tensoradapt watch`` and ``tensoradapt results``."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from tensoradapt.sweeps.executors.cluster_options import KEYS


def add_parsers(commands: Any) -> None:
    """Adds the commands to those of a parser (``add_subparsers``)."""
    _sweep_options(
        commands.add_parser(
            "sweep",
            help="run the sweep of a TOML file; stop it at any time, the same command goes on",
            description="Prints the whole plan, then runs what is missing; leaves a folder for each run. Exit code 0: "
            "every run has a result; 1: stopped, or some failed; 2: bad input.",
        )
    )
    p = commands.add_parser("watch", help="show how far the sweeps of a folder are, live; reads only")
    p.set_defaults(command=watch)
    p.add_argument("runs", type=Path, help="folder of runs")
    p.add_argument("--once", action="store_true", help="print what there is now and stop")
    p.add_argument("--every", type=float, default=2.0, metavar="SECONDS", help="default: %(default)s")
    p = commands.add_parser("results", help="show the runs of a folder as a table, or write it to a file")
    p.set_defaults(command=show)
    p.add_argument("runs", type=Path, help="folder of runs")
    p.add_argument(
        "--where", nargs="+", default=(), metavar="CONDITION", help='such as task=sst2 "n_params<=5000" tuning=false'
    )
    p.add_argument("--spec", type=Path, metavar="FILE", help="only the runs of this sweep")
    p.add_argument(
        "--means", action="store_true", help="a row for each configuration: its mean and interval over seeds"
    )
    for kind in ("csv", "parquet", "latex"):
        p.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"write the table as {kind} and do not show it")


def _sweep_options(p: argparse.ArgumentParser) -> None:
    p.set_defaults(command=run)
    p.add_argument("spec", type=Path, help="what to run, in TOML")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of runs, new or to go on with")
    p.add_argument("--workers", type=int, metavar="N", help="runs at once (default: one for each GPU, or one)")
    p.add_argument(
        "--executor",
        default="local",
        help="local (a process for each worker), inline, slurm or ray (default: %(default)s)",
    )
    p.add_argument("--slurm", nargs="+", metavar="KEY=VALUE", help=f"of each job: {', '.join(KEYS['slurm'])}")
    p.add_argument("--ray", nargs="+", metavar="KEY=VALUE", help=f"of each task: {', '.join(KEYS['ray'])}")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    p.add_argument("--dry-run", action="store_true", help="print the plan, its time and disk, and stop")
    p.add_argument(
        "--stale",
        default="keep",
        help="what to do about results of other versions or commits: keep, rerun or error (default: %(default)s)",
    )
    p.add_argument("--retry-failed", action="store_true", help="run again what has failed")
    p.add_argument("--checkpoint-every", type=int, default=25, metavar="STEPS", help="0: never (default: %(default)s)")
    p.add_argument(
        "--track", nargs="+", default=(), metavar="TRACKER", help="send losses to tensorboard, trackio or wandb besides"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the sweep; returns the exit code."""
    from tensoradapt.sweeps.run_sweep import sweep

    try:
        done = sweep(
            args.spec,
            args.out,
            executor=args.executor,
            workers=args.workers,
            device=args.device,
            stale=args.stale,
            retry_failed=args.retry_failed,
            checkpoint_every=args.checkpoint_every,
            track=args.track,
            dry_run=args.dry_run,
            slurm=args.slurm,
            ray=args.ray,
            say=lambda text: print(text, flush=True),
        )
    except KeyboardInterrupt:
        print(f"\nstopped; the same command goes on from what is in {args.out}", file=sys.stderr)
        return 1
    for reason in done.blocked:
        print(f"not run: {reason}")
    for name in done.failed:
        print(f"failed: {args.out / name / 'error.json'} (run it again with --retry-failed)")
    print(f"{done.finished} of {done.total} runs are finished in {args.out}")
    return 0 if done.complete or args.dry_run else 1


def watch(args: argparse.Namespace) -> int:
    """Shows the folder until nothing is left to run or it is interrupted; returns the exit code."""
    from tensoradapt.sweeps.reports.watch_view import show

    with contextlib.suppress(KeyboardInterrupt):
        show(args.runs, args.once, args.every)
    return 0


def show(args: argparse.Namespace) -> int:
    """Shows or writes the table; returns the exit code."""
    from tensoradapt.sweeps.reports import results

    rows = (results.means if args.means else results.results)(args.runs, args.where, args.spec)
    files = {
        results.write_csv: args.csv,
        results.write_parquet: args.parquet,
        results.write_latex: args.latex,
    }
    written = [str(write(rows, path)) for write, path in files.items() if path is not None]
    print("\n".join(written) or results.shown(rows))
    return 0

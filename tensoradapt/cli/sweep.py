"""The commands that make runs: ``tensoradapt frontier`` and ``tensoradapt sweep``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensoradapt.cli.options import DEFAULT_MODEL, DEFAULT_OUT, path, picked
from tensoradapt.cli.output import complain, show
from tensoradapt.cli.tables import method_text, print_table
from tensoradapt.errors import TensorAdaptError, missing_extra
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.records import add_options, given_options
from tensoradapt.sweeps.executors.catalogue import CLUSTERS, EXECUTORS
from tensoradapt.sweeps.spec import SweepSpec
from tensoradapt.tasks import registry
from tensoradapt.tasks.own_settings import OwnData
from tensoradapt.tasks.splits import DataSpec
from tensoradapt.text import plain
from tensoradapt.training.options import Training

# the records whose fields are options of ``frontier``, and those that are none or have options of their own
KEYS: dict[Any, tuple[str, ...]] = {
    SweepSpec: ("model", "task", "method", "tuning", "search", "own", "head_rates"),
    AdapterSpec: ("tasks", "train", "split"),
    Training: (),
    DataSpec: (),
}
# fields of own data that --task gives, and those whose options are of other records
NO_OPTIONS = ("name", "train", "dataset", "split", "seed", "max_length")
LOST_RUNS = ("n_at_chance", "n_diverged")
TITLES = ("method", "rank", "parameters", "test", "95 % interval", "over frozen base", "at chance", "P(frontier)", "lr")
ORDER = ("method", "test", "95 % interval", "rank", "parameters", *TITLES[5:])  # most important first


def add_parsers(commands: Any) -> None:
    """Add both commands to those of a parser (``add_subparsers``)."""
    p = commands.add_parser(
        "frontier",
        help="fine-tune a model with several parameterizations and plot the trade-off",
        description="Fine-tunes a pretrained model with each parameterization at several ranks and seeds; leaves one "
        "folder per run, frontier.csv, frontier.png and frontier.pdf. Stop it at any time: the same command continues "
        "where it was. `tensoradapt watch` shows its progress.",
    )
    _frontier_options(p)
    p = commands.add_parser(
        "sweep",
        help="run the sweep of a TOML file; stop it at any time, the same command continues",
        description="Prints the whole plan, then runs what is missing; leaves a folder for each run. Exit code 0: "
        "every run has a result; 1: stopped, or some failed; 2: bad input.",
    )
    _sweep_options(p)


def _frontier_options(p: argparse.ArgumentParser) -> None:
    p.set_defaults(command=frontier, size="default")
    size = p.add_mutually_exclusive_group()
    for name, text in (
        ("quick", "few sizes, 60 steps, one seed: about 3 minutes"),
        ("full", "more methods and sizes, 300 steps, five seeds: 1 to 4 hours"),
    ):
        size.add_argument(f"--{name}", dest="size", action="store_const", const=name, help=text)
    p.add_argument("--out", type=path, default=DEFAULT_OUT, help="folder for runs and figure (default: %(default)s)")
    p.add_argument(
        "--model", default=DEFAULT_MODEL, help="a built-in model, a folder, or a name on the hub (default: %(default)s)"
    )
    known = ", ".join(registry.names())
    p.add_argument(
        "--task",
        default="snippets",
        help=f"{known}, or your own data: a .csv, .tsv, .jsonl, .json or .parquet file, a folder with a folder of "
        "pictures for each class, a folder of the datasets library, or a name on the hub (default: %(default)s)",
    )
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: %(default)s)")
    p.add_argument(
        "--workers", type=int, metavar="N", help="runs at once (default: one for each GPU, or each core up to four)"
    )
    add_options(p.add_argument_group("own data", "what docs/your-data.md says"), OwnData, leave_out=NO_OPTIONS)
    of_all = p.add_argument_group(
        "keys of a specification",
        "replace those of the size (docs/sweeps/specification.md); several values of --method, --rank, --budget, "
        "--seed and other single settings are each run",
    )
    for record, left_out in KEYS.items():
        add_options(of_all, record, leave_out=left_out)


def _sweep_options(p: argparse.ArgumentParser) -> None:
    p.set_defaults(command=sweep)
    p.add_argument("spec", type=path, help="what to run, in TOML")
    p.add_argument("--out", type=path, required=True, metavar="DIR", help="folder of runs, new or to continue in")
    p.add_argument("--workers", type=int, metavar="N", help="runs at once (default: one for each GPU, or one)")
    p.add_argument(
        "--executor", default="local", help=f"{', '.join(EXECUTORS)} (default: %(default)s, a process for each worker)"
    )
    for name in CLUSTERS:
        options = ", ".join(EXECUTORS[name].OPTIONS)
        p.add_argument(f"--{name}", nargs="+", metavar="KEY=VALUE", help=f"what each run asks for: {options}")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: %(default)s)")
    p.add_argument("--dry-run", action="store_true", help="print the plan, its time and disk, and stop")
    p.add_argument(
        "--no-probe", dest="probe", action="store_false", help="leave out the short runs that tell time and disk"
    )
    p.add_argument(
        "--stale",
        default="keep",
        help="what to do about results of other versions or commits: keep, rerun or error (default: %(default)s)",
    )
    p.add_argument("--retry-failed", action="store_true", help="run again what has failed")
    p.add_argument("--checkpoint-every", type=int, default=25, metavar="STEPS", help="0: never (default: %(default)s)")
    p.add_argument(
        "--track", nargs="+", default=(), metavar="TRACKER", help="also send losses to tensorboard, trackio or wandb"
    )


def frontier(args: argparse.Namespace) -> int:
    """Run a frontier, print its table and return the exit code."""
    try:
        import rich  # noqa: F401  # before the runs, as the table needs it after them
    except ImportError:
        raise missing_extra("rich", "demo", "tensoradapt frontier") from None
    from tensoradapt.analysis.old_tables.frontier import table
    from tensoradapt.sweeps.frontier import frontier_spec, run_frontier

    given = {key: item for record in KEYS for key, item in given_options(args, record).items()}
    spec = frontier_spec(args.size, **{**given, "model": args.model, "task": _task(args)})
    try:
        ended, runs = run_frontier(spec, args.out, say=show, **picked(args, "device", "workers"))
    except KeyboardInterrupt:
        return _stopped(args.out)
    rows = table(runs) if runs else []
    if runs:
        print_tables(rows, runs)
    _print_failures(ended, args.out, "the same command runs it again")
    show(f"{ended.finished} of {ended.total} runs; figure, table and runs are in {args.out}")
    if ended.complete:
        show(*lost_text(rows), next_text(args.out))
    return 0 if ended.complete else 1


def _task(args: argparse.Namespace) -> str | dict[str, Any]:
    """Return the task as it was named, or a table with the settings of own data that were given."""
    said = {key: item for key, item in given_options(args, OwnData).items() if key not in NO_OPTIONS}
    if said and args.task in registry.names():
        raise TensorAdaptError(f"{min(said)} was given with task {args.task!r}; expected it with own data")
    return {**registry.settings_of(args.task), **said} if said else args.task


def frontier_rows(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return the printed table of a frontier: one row for each configuration and reference."""
    return [TITLES, *map(_frontier_row, rows)]


def _frontier_row(row: dict[str, Any]) -> tuple[str, ...]:
    def interval(low: str, high: str) -> str:
        return "" if row[low] is None or row[high] is None else f"{row[low]:.3f} to {row[high]:.3f}"

    gain = row["diff_head"]
    over_head = interval("diff_head_low", "diff_head_high") or "no interval"
    at_chance = (row["n_at_chance"] or 0) + (row["n_diverged"] or 0)
    return (
        method_text(row),
        str(row["rank"] or ""),
        f"{row['n_params']:,}",
        f"{row['mean']:.3f}",
        interval("low", "high"),
        "" if gain is None else f"{gain:+.3f} ({over_head})",
        f"{at_chance} of {row['n_seeds']}" if at_chance else "",
        "" if row["p_frontier"] is None else f"{row['p_frontier']:.2f}",
        "" if row["lr"] is None else f"{row['lr']:g}",
    )


def print_tables(rows: Sequence[dict[str, Any]], runs: Sequence[Any]) -> None:
    """Print the table of a frontier, and the fewest parameters with which methods are within a margin of LoRA."""
    on = [i for i, row in enumerate(rows) if row["on_frontier"]]
    print_table(frontier_rows(rows), ORDER, frontier=on, elsewhere="see frontier.csv")
    _print_savings(runs)


def _print_savings(runs: Sequence[Any]) -> None:
    from tensoradapt.analysis.old_tables.savings import savings

    rows = [row for row in savings(runs) if row["within"]]
    if rows:
        show(f"Within a margin of {rows[0]['reference']} (lower limit of the paired 95 % interval):")
        titles = ("method", "margin", "size", "parameters", "times fewer", "difference")
        order = ("method", "times fewer", "margin", "parameters", "difference", "size")
        print_table([titles, *map(_savings_row, rows)], order, elsewhere="use a wider terminal or a file")


def _savings_row(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        method_text(row),
        f"{row['margin']:g}",
        row["size"],
        f"{row['n_params']:,}",
        f"{row['times_fewer']:.3g}",
        f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})",
    )


def sweep(args: argparse.Namespace) -> int:
    """Run a sweep and return the exit code."""
    from tensoradapt.sweeps.run_sweep import sweep as run

    names = ("executor", "workers", "device", "stale", "retry_failed", "checkpoint_every", "track", "dry_run", "probe")
    try:
        ended = run(args.spec, args.out, say=show, **picked(args, *names, *CLUSTERS))
    except KeyboardInterrupt:
        return _stopped(args.out)
    for reason in ended.blocked:
        show(f"not run: {reason}")
    _print_failures(ended, args.out, "run it again with --retry-failed")
    show(f"{ended.finished} of {ended.total} runs are finished in {args.out}")
    if ended.complete and not args.dry_run:
        _print_means(args.spec, args.out)
    return 0 if ended.complete or (args.dry_run and not ended.blocked) else 1


def _print_means(spec: Path, out: Path) -> None:
    """Print the means of a finished sweep, findings, a warning where most runs are at chance, and what comes next."""
    from tensoradapt.sweeps.reports import results
    from tensoradapt.sweeps.reports.findings import findings

    runs, _ = results.select(out, spec=spec)
    rows = results.means_of(runs)
    show("", results.shown(rows), "", *findings(runs), *lost_text(rows))
    show(next_text(out))


def next_text(out: Path) -> str:
    """Say which commands can be run on a folder of finished runs."""
    return f"next: `tensoradapt report {out}` writes a page with comparisons, `tensoradapt plot {out} all` every figure"


def lost_text(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a warning where half of the reported runs or more ended at chance or diverged, else nothing."""
    lost, n = (sum(sum(row[key] or 0 for key in keys) for row in rows) for keys in (LOST_RUNS, ("n_seeds",)))
    if 2 * lost < max(n, 1):
        return []
    return [
        f"warning: {lost} of {n} reported runs ended at chance or diverged, so their means compare little; try lower "
        "learning rates where the training loss rose, larger ones where it hardly fell, or more steps or examples"
    ]


def _print_failures(ended: Any, out: Path, remedy: str) -> None:
    for name in ended.failed:
        show(f"failed: {out / name / 'error.json'} ({remedy})")


def _stopped(out: Path) -> int:
    complain(f"\nstopped; the same command goes on from what is in {plain(str(out))}")
    return 1

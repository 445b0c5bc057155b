"""The commands that make runs: ``tensoradapt frontier`` and ``tensoradapt sweep``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensoradapt import doors
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.cli.options import DEFAULT_MODEL, DEFAULT_OUT, RUNS, path, picked
from tensoradapt.lab.cli.output import complain, show, show_json
from tensoradapt.lab.cli.parser import add_command
from tensoradapt.lab.sweeps.executors.catalogue import BUILT_IN, CLUSTERS
from tensoradapt.lab.sweeps.spec import SweepSpec
from tensoradapt.lab.tasks import registry
from tensoradapt.lab.tasks.own_settings import OwnData
from tensoradapt.lab.tasks.splits import DataSpec
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.records import add_options, given_options
from tensoradapt.text import plain
from tensoradapt.training.options import Training

# the records whose fields are options of ``frontier``, and those that are none or have options of their own
KEYS: dict[Any, tuple[str, ...]] = {
    SweepSpec: ("model", "task", "method", "tuning", "search", "own", "head_rates"),
    AdapterSpec: ("tasks", "train"),
    Training: (),
    DataSpec: (),
}
KEYS_TEXT = (
    "keys of a specification, here and below (docs/guides/sweeps/specification.md): they replace those of the size; "
    "several values of one setting are each run"
)
TITLES = {
    SweepSpec: ("sweep", KEYS_TEXT),
    AdapterSpec: ("adapters",),
    Training: ("training",),
    DataSpec: ("examples",),
}
# fields of own data that --task gives, and those whose options are of other records
NO_OPTIONS = ("name", "train", "dataset", "split", "seed", "max_length")


def add_parsers(commands: Any) -> None:
    """Add both commands to those of a parser (``add_subparsers``)."""
    p = add_command(
        commands,
        "frontier",
        frontier,
        "fine-tune a model with several parameterizations and plot the trade-off",
        "[options]",
        "Fine-tunes a pretrained model with each parameterization at several ranks and seeds; leaves one "
        "folder per run, frontier.csv, .txt, .png and .pdf. Stop it at any time: the same command continues where it "
        "was.",
    )
    _frontier_options(p)
    p = add_command(
        commands,
        "sweep",
        sweep,
        "run the sweep of a TOML file; stop it at any time, the same command continues",
        "SPEC [options]",
        "Prints the whole plan, then runs what is missing; leaves a folder for each run. Exit code 0: "
        "every run has a result; 1: stopped, or some failed; 2: bad input.",
    )
    _sweep_options(p)


def _frontier_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(size="default")
    p = parser.add_argument_group("what is run, and where")
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
        "--workers",
        type=int,
        metavar="N",
        help="runs at once (default: as many as a GPU has room for, or each core up to four)",
    )
    p.add_argument("--dry-run", action="store_true", help="print the plan, its time and disk, and stop")
    add_options(
        parser.add_argument_group("own data", "what docs/start/your-data.md says"), OwnData, leave_out=NO_OPTIONS
    )
    for record, left_out in KEYS.items():
        add_options(parser.add_argument_group(*TITLES[record]), record, leave_out=left_out)


def _sweep_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", type=path, metavar="SPEC", help="what to run, in TOML")
    p = parser.add_argument_group("where it is run")
    p.add_argument(
        "--out",
        type=path,
        metavar="DIR",
        help="folder of runs, new or to go on in (default: runs/NAME for NAME.toml)",
    )
    p.add_argument(
        "--workers", type=int, metavar="N", help="runs at once (default: as many as a GPU has room for, or one)"
    )
    executors = ", ".join((*BUILT_IN, *CLUSTERS))
    p.add_argument("--executor", default="local", help=f"{executors} (default: %(default)s, a process for each worker)")
    found = doors.table("executors")
    for name in CLUSTERS:
        options = ", ".join(found[name].OPTIONS) if name in found else doors.missing("executors", name)[2:]
        p.add_argument(f"--{name}", nargs="+", metavar="KEY=VALUE", help=f"what each run asks for: {options}")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ... (default: %(default)s)")
    p = parser.add_argument_group("what is run")
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
    p.add_argument(
        "--checkpoint-every", type=int, metavar="STEPS", help="0: never (default: 25, or what a run began with)"
    )
    p.add_argument(
        "--track", nargs="+", default=(), metavar="TRACKER", help="also send losses to tensorboard, trackio or wandb"
    )


def frontier(args: argparse.Namespace) -> int:
    """Run a frontier, print its table and return the exit code."""
    from tensoradapt.lab.sweeps.frontier import frontier_spec, run_frontier, with_precision

    given = {key: item for record in KEYS for key, item in given_options(args, record).items()}
    spec = frontier_spec(args.size, **{**given, "model": args.model, "task": _task(args)})
    if "precision" not in given:
        spec = with_precision(spec, args.out)
    try:
        ended, runs = run_frontier(spec, args.out, say=_progress(args), **picked(args, "device", "workers", "dry_run"))
    except KeyboardInterrupt:
        return _stopped(args.out)
    code = 0 if ended.complete or (args.dry_run and not ended.blocked) else 1
    if args.json:
        show_json(_document(ended, args.out, runs))
        return code
    if runs:
        _print_results(runs)
    _print_failures(ended, args.out, "the same command runs it again")
    if args.dry_run:
        show(f"{ended.finished} of {ended.total} runs are finished in {args.out}")
        return code
    show(f"{ended.finished} of {ended.total} runs; figure, table and runs are in {args.out}")
    if ended.complete:
        _print_next(args.out)
    return code


def _print_results(source: Any, spec: Path | None = None) -> None:
    """Print what runs say, and their means."""
    from tensoradapt.lab.analysis.tables import summarise
    from tensoradapt.lab.cli import views
    from tensoradapt.lab.sweeps.results import results

    runs = results(source, spec=spec)
    show("")
    views.print_verdict(runs)
    views.of_means(summarise(runs)).print()
    show("")


def _task(args: argparse.Namespace) -> str | dict[str, Any]:
    """Return the task as it was named, or a table with the settings of own data that were given."""
    said = {key: item for key, item in given_options(args, OwnData).items() if key not in NO_OPTIONS}
    if said and args.task in registry.names():
        raise TensorAdaptError(f"{min(said)} was given with task {args.task!r}; expected it with own data")
    return {**registry.settings_of(args.task), **said} if said else args.task


def sweep(args: argparse.Namespace) -> int:
    """Run a sweep and return the exit code."""
    from tensoradapt.lab.sweeps.run_sweep import sweep as run

    names = ("executor", "workers", "device", "stale", "retry_failed", "checkpoint_every", "track", "dry_run", "probe")
    args.out = args.out or RUNS / args.spec.stem
    try:
        ended = run(args.spec, args.out, say=_progress(args), **picked(args, *names, *CLUSTERS))
    except KeyboardInterrupt:
        return _stopped(args.out)
    code = 0 if ended.complete or (args.dry_run and not ended.blocked) else 1
    if args.json:
        done = ended.complete and not args.dry_run
        show_json(_document(ended, args.out, args.out if done else None, args.spec))
        return code
    for reason in ended.blocked:
        show(f"not run: {reason}")
    _print_failures(ended, args.out, "run it again with --retry-failed")
    show(f"{ended.finished} of {ended.total} runs are finished in {args.out}")
    if ended.complete and not args.dry_run:
        _print_results(args.out, args.spec)
        _print_next(args.out)
    return code


def _progress(args: argparse.Namespace) -> Callable[..., None]:
    """Return what prints how a sweep goes on: on stdout, or on stderr where a document is to be there."""
    return (lambda *texts: complain("\n".join(map(str, texts)))) if args.json else show


def _document(ended: Any, out: Path, source: Any, spec: Path | None = None) -> dict[str, Any]:
    """Return what ``--json`` prints at the end: how many runs ended, and their means where there are any."""
    from tensoradapt.lab.analysis.tables import summarise
    from tensoradapt.lab.sweeps.results import results

    means = summarise(results(source, spec=spec)).to_dict("records") if source else []
    counts = {"finished": ended.finished, "total": ended.total, "complete": ended.complete}
    return {
        "folder": out,
        **counts,
        "failed": ended.failed,
        "blocked": ended.blocked,
        "at_edge": ended.at_edge,
        "means": means,
    }


def _print_next(out: Path) -> None:
    """Say which commands can be run on a folder of finished runs."""
    show(f"next: `tensoradapt report {out}` writes a page with comparisons,")
    show(f"      `tensoradapt plot {out} all` every figure")


def _print_failures(ended: Any, out: Path, remedy: str) -> None:
    for name in ended.failed:
        show(f"failed: {out / name / 'error.json'} ({remedy})")


def _stopped(out: Path) -> int:
    complain(f"\nstopped; the same command goes on from what is in {plain(str(out))}")
    return 1

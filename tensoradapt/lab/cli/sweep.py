"""The commands that make runs: ``tensoradapt frontier`` and ``tensoradapt sweep``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from tensoradapt import doors
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.cli.options import (
    ADVANCED,
    DEFAULT_MODEL,
    MORE,
    RUNS,
    Json,
    Maybe,
    Model,
    Place,
    Words,
    names_of,
    one_of,
    table_of,
    takes,
    with_options,
)
from tensoradapt.lab.cli.output import complain, show, show_json
from tensoradapt.lab.sweeps.executors.catalogue import BUILT_IN, CLUSTERS
from tensoradapt.lab.sweeps.spec import SweepSpec
from tensoradapt.lab.tasks import registry
from tensoradapt.lab.tasks.own_settings import OwnData
from tensoradapt.lab.tasks.splits import DataSpec
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.records import names
from tensoradapt.text import plain
from tensoradapt.training.options import Training

FIRST = Group("What is compared", sort_key=10)
FIRST_FIELDS = {AdapterSpec: ("method", "rank", "budget", "layout"), SweepSpec: ("seed",), Training: ("lr", "steps")}
FIRST_FIELDS |= {OwnData: ("text", "label"), DataSpec: ()}
# fields of records that are no option of ``frontier``, or one of their own
LEFT_OUT = {
    SweepSpec: ("model", "task", "method", "tuning", "search", "own"),
    AdapterSpec: ("tasks", "train"),
    OwnData: ("name", "train", "dataset", "split", "seed", "max_length"),
}
TITLES = {SweepSpec: "sweep", AdapterSpec: "adapters", Training: "training", DataSpec: "examples", OwnData: "own data"}
SIZE = one_of()
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1 ...")]
Workers = Annotated[int | None, Parameter(metavar="N", help="runs at once (default: what the GPU or the cores hold)")]
DryRun = Annotated[bool, Parameter(help="print the plan, its time and disk, and stop")]
EXECUTORS = f"{', '.join((*BUILT_IN, *CLUSTERS))}; local is a process for each worker"
TASK = "see tensoradapt tasks, or own data: a table, a folder of pictures, a datasets folder, or a name on the hub"


def _rows() -> list[tuple[Any, list[str], Group]]:
    """Return the records of a frontier with the fields that are options, the common ones apart."""
    rows = []
    for i, (record, title) in enumerate(TITLES.items()):
        left = [name for name in names(record) if name not in LEFT_OUT.get(record, ())]
        common = [name for name in left if name in FIRST_FIELDS[record]]
        advanced = Group(f"{ADVANCED}: {title}", sort_key=60 + i)
        rows += [(record, common, FIRST), (record, [name for name in left if name not in common], advanced)]
    return rows


@takes(*_rows())
def frontier(
    *,
    quick: Annotated[bool, Parameter(group=SIZE)] = False,
    full: Annotated[bool, Parameter(group=SIZE)] = False,
    model: Model = DEFAULT_MODEL,
    task: Annotated[str, Parameter(help=TASK, completer=names_of("lab.tasks.registry:names"))] = "snippets",
    out: Place = RUNS / "frontier",
    device: Device = "auto",
    workers: Workers = None,
    dry_run: DryRun = False,
    json: Json = False,
    **typed: Any,
) -> int:
    """Run a frontier, print its table and return the exit code.

    Args:
        quick: few sizes, 60 steps, one seed: about 3 minutes
        full: more methods and sizes, 300 steps, five seeds: 1 to 4 hours
        model: a built-in model, a folder, or a name on the hub
        out: folder for runs and figure
    """
    from tensoradapt.lab.sweeps.frontier import frontier_spec, run_frontier, with_precision

    asked = {key: item for record in TITLES if record is not OwnData for key, item in table_of(record, typed).items()}
    size = "quick" if quick else "full" if full else "default"
    own = {key: item for key, item in table_of(OwnData, typed).items() if key not in LEFT_OUT[OwnData]}
    spec = frontier_spec(size, **{**asked, "model": model, "task": _task(task, own)})
    if "precision" not in asked:
        spec = with_precision(spec, out)
    try:
        ended, runs = run_frontier(spec, out, device=device, workers=workers, dry_run=dry_run, say=_say(json))
    except KeyboardInterrupt:
        return _stopped(out)
    return _told(ended, out, runs, dry_run=dry_run, json=json, remedy="the same command runs it again")


def _task(task: str, own: dict[str, Any]) -> str | dict[str, Any]:
    """Return the task as it was named, or a table with the settings of own data that were given."""
    if own and task in registry.names():
        raise TensorAdaptError(f"{min(own)} was given with task {task!r}; expected it with own data")
    return {**registry.settings_of(task), **own} if own else task


def _clusters() -> Callable[..., Any]:
    """Return a decorator that adds an option for each executor of ``tensoradapt/extras``, such as ``--slurm``."""
    found = doors.table("executors")
    lists = {n: ", ".join(found[n].OPTIONS) if n in found else doors.missing("executors", n)[2:] for n in CLUSTERS}
    return with_options(
        {
            name: Annotated[Words, Parameter(group=MORE, metavar="KEY=VALUE", help=f"what each run asks for: {text}")]
            for name, text in lists.items()
        }
    )


@_clusters()
def sweep(
    spec: Place,
    /,
    *,
    out: Maybe = None,
    dry_run: DryRun = False,
    workers: Workers = None,
    device: Device = "auto",
    executor: Annotated[str, Parameter(help=EXECUTORS)] = "local",
    retry_failed: bool = False,
    no_probe: Annotated[bool, Parameter(group=MORE)] = False,
    stale: Annotated[str, Parameter(group=MORE)] = "keep",
    checkpoint_every: Annotated[int | None, Parameter(group=MORE, metavar="STEPS")] = None,
    track: Annotated[Words, Parameter(group=MORE, metavar="TRACKER")] = None,
    json: Json = False,
    **clusters: Any,
) -> int:
    """Run a sweep and return the exit code.

    Args:
        spec: a TOML file that says what to run
        out: folder of runs, new or to go on in (default: runs/NAME for NAME.toml)
        retry_failed: run again what has failed
        no_probe: leave out the short runs that tell time and disk
        stale: what to do about results of other versions or commits, keep, rerun or error
        checkpoint_every: 0 is never (default: 25, or what a run began with)
        track: also send losses to tensorboard, trackio or wandb
    """
    from tensoradapt.lab.sweeps.run_sweep import sweep as run

    out = out or RUNS / spec.stem
    how: dict[str, Any] = {"executor": executor, "workers": workers, "device": device, "stale": stale}
    how |= {"track": track or (), "retry_failed": retry_failed, "checkpoint_every": checkpoint_every}
    try:
        ended = run(spec, out, dry_run=dry_run, probe=not no_probe, say=_say(json), **how, **clusters)
    except KeyboardInterrupt:
        return _stopped(out)
    source = out if ended.complete and not dry_run else None
    return _told(ended, out, source, spec, dry_run=dry_run, json=json, remedy="run it again with --retry-failed")


def _say(json: bool) -> Callable[..., None]:
    """Return what prints how a sweep goes on: on stdout, or on stderr where a document is to be there."""
    return (lambda *texts: complain("\n".join(map(str, texts)))) if json else show


def _told(
    ended: Any, out: Path, source: Any, spec: Path | None = None, *, dry_run: bool, json: bool, remedy: str
) -> int:
    """Print how many runs ended, what failed, and what the runs of ``source`` say; return the exit code."""
    if json:
        show_json(_document(ended, out, source, spec))
    else:
        show(*(f"not run: {why}" for why in ended.blocked if spec))
        show(*(f"failed: {out / name / 'error.json'} ({remedy})" for name in ended.failed))
        show(f"{ended.finished} of {ended.total} runs are finished in {out}")
        if source:
            _print_results(source, spec)
        if source and ended.complete:
            show(f"\nnext: `tensoradapt report {out}` writes a page with comparisons,")
            show(f"      `tensoradapt plot {out} all` every figure")
    return 0 if ended.complete or (dry_run and not ended.blocked) else 1


def _print_results(source: Any, spec: Path | None) -> None:
    from tensoradapt.lab.cli import views
    from tensoradapt.lab.sweeps.results import results

    show("")
    views.print_verdicts(results(source, spec=spec))


def _document(ended: Any, out: Path, source: Any, spec: Path | None) -> dict[str, Any]:
    """Return what ``--json`` prints at the end: how many runs ended, and their means where there are any."""
    from tensoradapt.lab.analysis.tables import summarise
    from tensoradapt.lab.sweeps.results import results

    counts = {name: getattr(ended, name) for name in ("finished", "total", "complete", "failed", "blocked", "at_edge")}
    means = summarise(results(source, spec=spec)).to_dict("records") if source else []
    return {"folder": out, **counts, "means": means}


def _stopped(out: Path) -> int:
    complain(f"\nstopped; the same command goes on from what is in {plain(str(out))}")
    return 1

"""Run a sweep: hand the runs that are due to an executor until none is left. All state is in the folder of runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from tensoradapt.checks import Check, as_path, check_arguments, flag, of_kind, one_entering, optional, text, whole
from tensoradapt.errors import TensorAdaptError
from tensoradapt.habits import answers_keywords
from tensoradapt.lab.analysis.rates import edge_text
from tensoradapt.lab.data.model_objects import with_saved_model
from tensoradapt.lab.runs import store, trackers
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.perform import CROWDED
from tensoradapt.lab.runs.work_folder import WORK, Work, claim, tidy, versions
from tensoradapt.lab.sweeps import record as recorded
from tensoradapt.lab.sweeps.cost import cost_text, measure
from tensoradapt.lab.sweeps.data_check import check_validation, cut_lines
from tensoradapt.lab.sweeps.due import Due, SweepPart, due, joined, on_disk, part, parts
from tensoradapt.lab.sweeps.executors.catalogue import BUILT_IN, CLUSTERS, named, slots_for
from tensoradapt.lab.sweeps.executors.executor import ELSEWHERE, Executor
from tensoradapt.lab.sweeps.messages import (
    Progress,
    ended_text,
    extended_text,
    plan_text,
    run_text,
    setting_lines,
)
from tensoradapt.lab.sweeps.packing import packed
from tensoradapt.lab.sweeps.plan_sweep import Sweep, plan_sweep
from tensoradapt.lab.sweeps.spec import KEYS, SweepSpec, read_spec

AGAIN = 1.0  # seconds until a run that another process computes is submitted again
DEATHS = 10  # after so many of the process of one run, the run is taken to be the cause
Say = Callable[[str], None]
Options = Mapping[str, Any] | Sequence[str] | None  # a cluster's options: a mapping, or texts such as "time=60"


@dataclass(frozen=True)
class SweepResult:
    """The numbers of runs and of finished runs, the ids of failed ones, and what could not be begun.

    After a dry run, ``blocked`` also says why its probe failed.

    ``total`` grows where a grid of rates is extended. ``at_edge``: the cells whose best learning rate is at an end of
    those that were tried.
    """

    total: int
    finished: int
    failed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    at_edge: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every run has a result."""
        return self.finished == self.total


CHECKS: Mapping[str, Check] = {
    "out": as_path,
    "executor": partial(one_entering, "executors", tuple(BUILT_IN)),
    "device": text,
    "stale": text,
    "retry_failed": flag,
    "checkpoint_every": optional(partial(whole, least=0)),
    "dry_run": flag,
    "probe": flag,
    "say": of_kind(Callable),  # type: ignore[arg-type]
}
IN_SPEC = 'it is a key of the specification, as in ta.sweep({"model": ..., "task": ..., "method": ...}, folder)'


@answers_keywords(*CLUSTERS, **dict.fromkeys(KEYS, IN_SPEC))
def sweep(
    spec: Sweep | SweepSpec | Mapping[str, Any] | Path | str,
    out: Path | str,
    *,
    executor: str = "local",
    workers: int | None = None,
    device: str = "auto",
    stale: str = "keep",
    retry_failed: bool = False,
    checkpoint_every: int | None = None,
    track: Sequence[str] | str = (),
    dry_run: bool = False,
    probe: bool = True,
    say: Say = print,
    **cluster: Options,
) -> SweepResult:
    """Print the plan of a specification, then compute every run of it that ``out`` has no finished folder for.

    Stop it at any time: the same call continues where it was, within runs too (docs/guides/sweeps/README.md).

    Args:
        spec: a TOML file, a mapping with its keys, or what ``read_spec`` or ``plan_sweep`` returns. In a mapping
            ``model`` may be a model of transformers, with its ``tokenizer`` (or image processor) beside it; both are
            saved into ``out``/models, by a dry run too.
        out: folder of runs, new or to continue in.
        executor: "local" (a process for each worker), "inline" (this process), "slurm" or "ray".
        workers: how many processes compute at once; default as many as a GPU has memory and the machine cores for, or
            one without a GPU (docs/guides/sweeps/executors.md). More than there is memory for are not started.
        device: "auto", "cpu", "cuda", or one GPU, such as "cuda:1".
        stale: what to do about results of other versions: "keep", "rerun" or "error".
        retry_failed: whether runs that failed are computed again.
        checkpoint_every: steps after which the state of a training is written; 0 for never. None: 25, or what an
            unfinished run began with.
        track: trackers that losses and scores are sent to: "tensorboard", "trackio", "wandb".
        dry_run: whether to print the plan and stop.
        probe: whether a short run of each task tells time and disk in advance, where no run is finished.
        say: called with each line of output.
        cluster: what each run requests, by executor, such as ``slurm={"partition": "gpu", "time": 60, "gpus": 1}`` or
            ``ray={"cpus": 2, "gpus": 0.5}``.

    Returns:
        How many runs there are and are finished, and which failed.

    Raises:
        TensorAdaptError: before the first run, for a specification, machine or folder that cannot be used; later, where
            a result cannot be written.

    >>> import tempfile
    >>> import tensoradapt as ta
    >>> spec = {"model": "tiny-random-bert", "task": "planted", "method": "cp", "rank": 2}
    >>> spec |= {"lr": 1e-3, "seed": 0, "steps": 3}
    >>> folder = tempfile.mkdtemp()
    >>> done = ta.sweep(spec, folder, executor="inline", probe=False, say=lambda line: None)
    >>> ta.results(folder)[["method", "rank", "n_params", "steps"]].to_numpy().tolist()
    [['cp', 2, 82, 3]]
    """
    check_arguments(locals(), **CHECKS)
    root = Path(out)
    planned = spec if isinstance(spec, Sweep) else sweep_of(spec, root)
    track = trackers.check(track)
    state = _Run(planned, checkpoint_every, track, say)
    now = state.set_aside(stale, retry_failed, dry_run)
    left, todo = state.left(now), state.todo(now)
    if left or dry_run:
        slots = slots_for(executor, workers, device, cluster)
        check_validation(planned)
        if not dry_run:
            chosen = named(executor)(root, slots)
            store.check_writable(root)
        # one after the other, as texts may take minutes to be encoded
        for line in chain([plan_text(planned, now, todo)], setting_lines(planned, slots), cut_lines(planned)):
            say(line)
        cost = measure(root, now.configs, left, slots, probe, say)
        slots, shared = packed(slots, todo, 1 if executor == "inline" else workers, cost)
        for line in filter(None, (shared, cost_text(cost, todo if left else 0, slots))):
            say(line)
    if dry_run:
        ended = state.outcome()
        return replace(ended, blocked=(*ended.blocked, cost.fault)) if cost.fault else ended
    if left or not planned.versions:
        recorded.write(planned, versions())
    if left:
        state.run(chosen if slots is chosen.slots else named(executor)(root, slots))
    tidy(root)
    ended = state.outcome()
    if ended.at_edge:
        say(edge_text(ended.at_edge))
    return ended


def sweep_of(spec: SweepSpec | Mapping[str, Any] | Path | str, root: Path) -> Sweep:
    """Return the sweep of a specification into a folder: as it was begun there, or planned anew."""
    if not isinstance(spec, SweepSpec):
        spec = read_spec(with_saved_model(spec, root) if isinstance(spec, Mapping) else spec)
    return _begun(spec, root) or plan_sweep(spec, root)


def _begun(spec: SweepSpec, root: Path) -> Sweep | None:
    """Return the same sweep as it was begun, if its versions are these or every run of it is finished."""
    try:
        past = recorded.read(recorded.path_of(root, spec))
        same = all(past.versions[key] == versions()[key] for key in ("packages", "commit"))
    except (TensorAdaptError, KeyError):  # none yet, or damaged: the sweep is planned again
        return None
    now = due(past)
    finished = sum(store.is_finished(root, config.id) for config in now.configs)
    # the given one says whose adapters are kept and where own data lies, which are no part of its id
    return replace(past, spec=spec) if same or finished == now.total else None


@dataclass
class _Run:
    """A sweep while it runs: what has ended, is computed, or waits."""

    sweep: Sweep
    checkpoint_every: int | None
    track: Sequence[str]
    say: Say
    _ended: set[str] = field(default_factory=set)
    _parts: dict[tuple[str, str], SweepPart] = field(default_factory=dict)  # by task and method
    _known: dict[str, RunConfig] = field(default_factory=dict)  # submitted by this sweep
    _waiting: dict[str, float] = field(default_factory=dict)  # computed elsewhere, and when to submit them again
    _deaths: Counter[str] = field(default_factory=Counter)
    _extended: set[str] = field(default_factory=set)  # what was said of grids that were extended
    _gone: frozenset[str] = frozenset()  # runs that a dry run takes to be removed
    _progress: Progress = field(default_factory=Progress)

    @property
    def root(self) -> Path:
        """The folder of runs."""
        return self.sweep.folder

    def set_aside(self, stale: str, retry_failed: bool, dry_run: bool) -> Due:
        """Remove what is to be run again, or plan as if it were removed in a dry run; returns what is due then."""
        failed = self._retry(dry_run) if retry_failed else ()
        now = self.due()
        old = recorded.settle(self.root, now.configs, versions(), stale, self.say, dry_run)
        if not failed and not old:
            return now
        self._gone = frozenset((*failed, *old) if dry_run else ())
        self._ended.clear()  # as some of them are there no more
        return self.due()

    def _retry(self, dry_run: bool) -> Sequence[str]:
        # repeated, as a removal can make other runs due that failed before
        while failed := self.outcome().failed:
            if dry_run:
                return failed
            for name in failed:
                store.remove_failure(self.root, name)
        return ()

    def due(self) -> Due:
        """Return the runs that can be named now, from the folder and from what this sweep has seen."""
        found = parts(self.sweep, self.ended)
        self._parts = {(one.task, one.method.name): one for one in found}
        return joined(self.sweep.spec, found)

    def ended(self, name: str) -> bool:
        """Return whether a run has a result or a failure; the disk is read until it has."""
        if name in self._gone:
            return False
        if name not in self._ended and on_disk(self.root, name):
            self._ended.add(name)
        return name in self._ended

    def left(self, now: Due | SweepPart) -> list[RunConfig]:
        """Return the runs that can be begun now."""
        return [config for config in now.configs if not self.ended(config.id)]

    def todo(self, now: Due) -> int:
        """Return how many runs have not ended, including those that cannot be named yet."""
        return now.total - sum(self.ended(config.id) for config in now.configs)

    def run(self, executor: Executor) -> None:
        """Compute until every run has ended; the executor holds none when this returns."""
        try:
            now = self.due()
            self._extended.update(now.extended)  # the plan says them
            self._progress.begin(now.total - self.todo(now))
            self._progress.total = now.total
            self._submit(executor, self.left(now))
            while open_ := [name for name in self._known if name not in self._ended]:
                for name, how in executor.poll().items():
                    self._returned(executor, name, how)
                self._ask_again(executor)
                if len(self._waiting) == len(open_):
                    time.sleep(AGAIN / 4)
        finally:
            executor.cancel()

    def _submit(self, executor: Executor, configs: list[RunConfig]) -> None:
        new = [config for config in configs if config.id not in self._known]
        for config in new:
            store.check_free(self.root, config.id)
            self._known[config.id] = config
            self._prepare(config.id)
        executor.submit([config.id for config in new])

    def _returned(self, executor: Executor, name: str, how: str) -> None:
        if self.ended(name):
            self._tell(name)
            if self._known[name].tuning:  # after the last of them, the method's other runs are due
                self._submit(executor, self._left_after(self._known[name]))
        elif how == ELSEWHERE:
            self._waiting[name] = time.monotonic() + AGAIN
        elif how == CROWDED:
            self.say(
                f"{run_text(self._known[name])}: no memory beside the runs on its GPU; tried with the GPU to itself"
            )
            self._prepare(name)
            executor.submit_alone(name)
        else:
            self._deaths[name] += 1
            if self._deaths[name] < DEATHS or not self._give_up(name):
                self._again(executor, name)

    def _left_after(self, ended: RunConfig) -> list[RunConfig]:
        """Return the runs of its method on its task that can be begun now; says which grids were extended since.

        The other parts of the sweep are as they were, so a run that ends costs no look at all of them.
        """
        before = self._parts[ended.task, str(ended.method)]
        now = part(self.sweep, ended.task, before.method, self.ended)
        assert now is not None
        self._parts[ended.task, str(ended.method)] = now
        self._progress.total += now.total - before.total
        for grid in now.extended:
            if grid not in self._extended:
                self._extended.add(grid)
                self.say(extended_text(grid))
        return self.left(now)

    def _ask_again(self, executor: Executor) -> None:
        now = time.monotonic()
        for name in [name for name, at in self._waiting.items() if at <= now or self.ended(name)]:
            del self._waiting[name]
            if self.ended(name):
                self._returned(executor, name, ELSEWHERE)
            else:
                self._again(executor, name)

    def _again(self, executor: Executor, name: str) -> None:
        self._prepare(name)
        executor.submit([name])

    def _prepare(self, name: str) -> None:
        """Write the work folder of a run; the process that computed it may have removed it."""
        Work(self.root, name).prepare(self._known[name], self.checkpoint_every, self.track, self.sweep.spec.keep)

    def _give_up(self, name: str) -> bool:
        """Write the failure of a run whose process keeps dying; False if another process computes it."""
        text = f"its process died {DEATHS} times without a result; the machine may have too little memory for it"
        record = {"kind": "killed", "error": text, "traceback": "", "config": self._known[name].as_dict()}
        work = Work(self.root, name)
        with claim(self.root / WORK, name) as ours:
            if ours and not self.ended(name):
                store.write_failure(self.root, name, record, {"attempts.jsonl": work.attempts()})
                work.clear()
        if self.ended(name):
            self._tell(name)
        return self.ended(name)

    def _tell(self, name: str) -> None:
        done = sum(1 for known in self._known if known in self._ended)
        failed = None if store.is_finished(self.root, name) else store.read_failure(self.root / name).error
        result = None if failed is not None else store.read_run(self.root / name).result
        self.say(f"[{self._progress.after(done)}] {ended_text(self._known[name], result, failed)}")

    def outcome(self) -> SweepResult:
        """Return the result of the sweep from the runs that are in the folder now."""
        now = due(self.sweep)
        names = [config.id for config in now.configs]
        failed = tuple(name for name in names if store.is_failed(self.root, name))
        return SweepResult(
            now.total, sum(store.is_finished(self.root, name) for name in names), failed, now.blocked, now.edges
        )

"""The SLURM executor: an array of jobs by submitit, one for each run. Needs the extra ``slurm``.

The store says how a run ended, and ``squeue`` whether a job is still there; accounting is not needed. Jobs outlive the
sweep that submitted them: the next one finds them by their tickets and takes them over.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tensoradapt.errors import TensorAdaptError, of_extra
from tensoradapt.lab.runs.perform import perform
from tensoradapt.lab.runs.store import is_finished
from tensoradapt.lab.runs.work_folder import WORK, Ticket, close_ticket, latest_ticket, take_ticket
from tensoradapt.lab.sweeps.executors.executor import ELSEWHERE, ENDED, WAIT, Executor, Slots
from tensoradapt.lab.sweeps.executors.options import Option

LOGS = ".slurm"  # in the folder of runs
PREFIX = "tensoradapt-"  # the names of jobs begin with it
PAUSE, SLOWER, LONGEST = 1.0, 1.3, 15.0  # seconds between two questions to SLURM, more and more while nothing changes
GRACE = 60.0  # seconds that a submission may take, until the sweep that began it counts as dead
IDLE = 10  # requeues without a new state in between, until the run fails: it needs more time than it has
PATIENCE = 600.0  # seconds without an answer, or until a cancelled job is gone
ARRAY = 1000  # jobs of one array: what SLURM takes unless it is configured otherwise
NAMES = {"time": "time", "cpus": "cpus_per_task", "gpus": "gpus_per_node", "mem": "mem"}  # submitit's words for ours


class Slurm(Executor):
    """An executor whose jobs are a run each.

    At most ``slots.workers`` jobs of an array compute at once; None for as many as there is room for.
    """

    OPTIONS: ClassVar[Mapping[str, Option]] = {
        **dict.fromkeys(("partition", "account", "qos", "constraint", "exclude"), Option()),
        # submitit asks for its signal 90 s before the end and SLURM may send it 60 s early: less than 4 minutes leave
        # no time to compute in, and the job would be requeued for ever
        "time": Option("minutes", 4, default=60),
        "cpus": Option("cores", 1, default=1),
        "gpus": Option("GPUs", 0, default=0),
        "mem": Option("GB", 1),
    }

    def __init__(self, root: Path, slots: Slots) -> None:
        self._submitit = of_extra("submitit", "slurm", "executor slurm")
        if missing := [name for name in ("sbatch", "squeue", "scancel", "srun") if not shutil.which(name)]:
            raise TensorAdaptError(
                f"{', '.join(missing)} not found; expected SLURM's commands: run the sweep where jobs are submitted"
            )
        super().__init__(root, slots)
        self._parameters = _parameters(slots.options, slots.workers)
        self._held: dict[str, str] = {}  # the key of each run's job: the job's name and its index in the array
        self._elsewhere: set[str] = set()
        self._open: dict[str, float] = {}  # tickets seen with their submission under way, and when first
        self._troubled: set[str] = set()  # job names with a run that ended without a result: their output is kept
        self._answered = self._asked = time.monotonic()
        self._pause = PAUSE

    def poll(self) -> Mapping[str, str]:
        """Submit the new runs, all in one array, then return those whose jobs have left the queue."""
        new = list(self.queue)
        self.queue.clear()
        if new:
            self._take(new)
        let_go, self._elsewhere = dict.fromkeys(self._elsewhere, ELSEWHERE), set()
        if not self._held:
            return let_go
        time.sleep(WAIT)
        if time.monotonic() < self._asked + self._pause:
            return let_go
        queue = self._queue(self._held.values())
        gone = [] if queue is None else [name for name, key in self._held.items() if key not in queue]
        self._pause = PAUSE if gone else min(LONGEST, SLOWER * self._pause)
        self._let_go(gone, queue or {})
        self.check_begun(gone)
        return let_go | dict.fromkeys(gone, ENDED)

    def cancel(self) -> None:
        """Cancel every job, those that were taken over too, and wait until they are gone."""
        self.queue.clear()
        end = time.monotonic() + PATIENCE
        told: set[str] = set()
        while (queue := self._queue(self._held.values())) is None or queue.keys() & set(self._held.values()):
            jobs = {id_ for key, id_ in (queue or {}).items() if key in self._held.values()}
            if jobs - told and _run("scancel", *sorted(jobs - told)).returncode == 0:
                told |= jobs
            if time.monotonic() > end:
                raise TensorAdaptError(f"jobs {' '.join(sorted(jobs))} are still there after scancel; look at squeue")
            time.sleep(WAIT)
        for name in self._held:
            ticket = latest_ticket(self._work(name))
            if ticket is not None and ticket.key == self._held[name] and not ticket.over:
                close_ticket(self._work(name), ticket.number, "cancelled")
        self._let_go(list(self._held), queue)

    def _take(self, names: Sequence[str]) -> None:
        """Submit the runs that no job computes, and take over the jobs that do."""
        tickets = {name: latest_ticket(self._work(name)) for name in names}
        queue = self._queue(ticket.key for ticket in tickets.values() if ticket)
        due: dict[str, int] = {}
        for name, ticket in tickets.items():
            if ticket is None:
                due[name] = 0
            elif queue is None or (ticket.key not in queue and not self._gone(name, ticket)):
                self._elsewhere.add(name)
            elif ticket.key in queue:
                self._held[name] = ticket.key
            else:
                due[name] = ticket.number + 1
        left = list(due.items())
        for at in range(0, len(left), ARRAY):
            self._hand_in(left[at : at + ARRAY])
        self._pause = PAUSE

    def _work(self, name: str) -> Path:
        return self.root / WORK / name

    def _gone(self, name: str, ticket: Ticket) -> bool:
        """Return whether an absent job has left the queue: its submission is over, or its sweep died submitting it."""
        first = self._open.setdefault(f"{name} {ticket.number}", time.monotonic())
        return ticket.over or time.monotonic() > first + GRACE

    def _hand_in(self, runs: Sequence[tuple[str, int]]) -> None:
        """Submit a job for each run, which is given with the number of its ticket."""
        job = f"{PREFIX}{uuid.uuid4().hex[:12]}"
        mine: list[tuple[str, int]] = []
        for name, number in runs:
            key = f"{job}_{len(mine)}"
            if not take_ticket(self._work(name), number, key):
                self._elsewhere.add(name)
                continue
            self._held[name] = key
            mine.append((name, number))
        if not mine:
            return
        try:
            ids = self._sbatch(job, [name for name, _ in mine])
        except Exception as error:
            for name, number in mine:
                del self._held[name]
                close_ticket(self._work(name), number, "refused")
            shutil.rmtree(self.root / LOGS / job, ignore_errors=True)
            raise TensorAdaptError(f"sbatch has refused the jobs: {' '.join(str(error).split())[-600:]}") from error
        for (name, number), id_ in zip(mine, ids, strict=True):
            close_ticket(self._work(name), number, id_)

    def _sbatch(self, job: str, names: Sequence[str]) -> list[str]:
        """Submit an array; returns the ids. A job may time out often: ``ArrayTask`` ends a run without progress."""
        executor = self._submitit.SlurmExecutor(self.root / LOGS / job, max_num_timeout=10**6)
        executor.update_parameters(job_name=job, **self._parameters)
        cpus = self.slots.options["cpus"]
        with executor.batch():
            tasks = [ArrayTask(self.root, name, self.slots.device, cpus, f"{job}_{i}") for i, name in enumerate(names)]
            jobs = [executor.submit(task) for task in tasks]
        return [job.job_id for job in jobs]

    def _queue(self, keys: Iterable[str]) -> dict[str, str] | None:
        """Return the ids, by key, of jobs that are waiting, running or ending; None if SLURM gave no answer."""
        names = sorted({key.rpartition("_")[0] for key in keys} - {""})
        if not names:
            return {}
        self._asked = time.monotonic()
        done = _run("squeue", "--noheader", "--array", "--format=%j %F %K", f"--name={','.join(names)}")
        if done.returncode != 0:
            if time.monotonic() > self._answered + PATIENCE:
                raise TensorAdaptError(f"squeue has failed for {PATIENCE:.0f} s: {done.stderr.strip()[-300:]}")
            return None
        self._answered = time.monotonic()
        ids = {}
        ours = [line for line in done.stdout.splitlines() if line.startswith(PREFIX)]  # not the names of clusters
        for name, id_, index in map(str.split, ours):
            alone = index == "N/A"  # not an array
            ids[f"{name}_{0 if alone else index}"] = id_ if alone else f"{id_}_{index}"
        return ids

    def _let_go(self, names: Sequence[str], queue: Mapping[str, str]) -> None:
        """Forget runs, and remove the output of arrays that are gone and gave nothing but results."""
        jobs = set()
        for name in names:
            job = self._held.pop(name).rpartition("_")[0]
            jobs.add(job)
            if not is_finished(self.root, name):
                self._troubled.add(job)
        for job in jobs - self._troubled - {key.rpartition("_")[0] for key in queue}:
            shutil.rmtree(self.root / LOGS / job, ignore_errors=True)

    def why_none(self) -> str:
        """Say what is expected where jobs end before they begin a run, and what the last one said."""
        return (
            f"the jobs end before they begin a run; expected tensoradapt and {self.root} on the nodes. "
            f"{_last_words(self.root / LOGS)}"
        )


class ArrayTask:
    """A run for submitit: called in the job, and asked what to requeue when the job must stop."""

    def __init__(self, root: Path, name: str, device: str, threads: int, key: str) -> None:
        self.root, self.name, self.device, self.threads, self.key = root, name, device, threads, key
        self._seen, self._idle = 0, 0

    def __call__(self) -> str:
        """Compute the run, unless its ticket has passed to another job."""
        ticket = latest_ticket(self.root / WORK / self.name)
        if ticket is None or ticket.key != self.key:
            return ELSEWHERE
        os.environ["OMP_NUM_THREADS"] = str(self.threads)  # before torch is loaded
        return perform(self.root, self.name, self.device)

    def checkpoint(self) -> Any:
        """Requeue this task: it goes on from the states in the runs' work folders.

        Raises TensorAdaptError, which becomes the run's failure, after many requeues without a new state.
        """
        import submitit

        state = self.root / WORK / self.name / "state.safetensors"
        now = state.stat().st_mtime_ns if state.exists() else 0
        self._idle = self._idle + 1 if now == self._seen else 0
        self._seen = now
        if self._idle >= IDLE:
            raise TensorAdaptError(
                f"the job was stopped {IDLE} times with no state kept in between; expected one: ask for more time "
                "(--slurm time=MINUTES) or keep the state more often (--checkpoint-every), then use --retry-failed"
            )
        # scontrol, which submitit starts next, inherits it: SLURM ends all processes of a job that is requeued
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return submitit.helpers.DelayedSubmission(self)


def _parameters(options: Mapping[str, Any], workers: int | None) -> dict[str, Any]:
    """Return the parameters of submitit; a run computes on its cores only if ``srun`` is told them too."""
    asked = {NAMES.get(key, key): value for key, value in options.items() if key != "gpus" or value}
    if "mem" in asked:
        asked["mem"] = f"{asked['mem']}GB"
    if workers is not None:
        asked["array_parallelism"] = workers
    more = {"requeue": True}  # where jobs are not requeued unless they ask to be
    return {**asked, "srun_args": [f"--cpus-per-task={options['cpus']}"], "additional_parameters": more}


def _last_words(logs: Path) -> str:
    """Return the end of the newest output of a job."""
    files = sorted(logs.glob("*/*_log.*"), key=lambda path: path.stat().st_mtime)
    texts = [text for path in files if (text := path.read_text(errors="replace").strip())]
    return f"The last one says: {texts[-1][-400:]}" if texts else f"They left no output in {logs}"


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("SQUEUE_")}  # they change the output
    return subprocess.run(command, capture_output=True, text=True, env=env)


EXECUTORS = {"slurm": Slurm}

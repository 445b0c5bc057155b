"""What the executors for clusters refuse and decide, without a cluster: SLURM's answers are given by the test."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
from support.sweeping import TINY, write_spec

import tensoradapt as ta
from tensoradapt.extras import slurm
from tensoradapt.extras.slurm import Slurm
from tensoradapt.lab.cli.main import main
from tensoradapt.lab.runs import work_folder
from tensoradapt.lab.runs.work_folder import WORK
from tensoradapt.lab.sweeps.executors.catalogue import CLUSTERS
from tensoradapt.lab.sweeps.executors.executor import BARREN, Slots

RAY = "ray" in CLUSTERS  # another room, which may be deleted


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            {"executor": "slrum"},
            f"executor is 'slrum'; did you mean \"slurm\"? Valid: {', '.join(('inline', 'local', *CLUSTERS))}",
        ),
        (
            {"executor": "slurm", "slurm": {"partiton": "gpu"}},
            "slurm has the option 'partiton'; did you mean \"partition\"",
        ),
        (
            {"executor": "slurm", "slurm": ["time=3"]},
            "slurm time is '3'; expected a whole number of minutes, 4 or more",
        ),
        ({"executor": "slurm", "slurm": ["gpu"]}, "--slurm has 'gpu'; expected KEY=VALUE"),
        ({"executor": "slurm", "device": "cuda"}, "no GPU is asked for; expected --slurm gpus=1"),
        *[({"executor": "ray", "ray": {"cpus": 0}}, "ray cpus is 0; expected a whole number of cores, 1 or more")]
        * RAY,
        ({"slurm": {"time": 60}}, "options of slurm are given and the executor is 'local'; use slurm"),
    ],
)
def test_options_that_will_not_do_are_refused_before_anything_is_written(more, says, tmp_path):
    with pytest.raises(ta.TensorAdaptError) as found:
        ta.sweep(TINY, tmp_path / "runs", **{"device": "cpu", "say": [].append, **more})
    assert says in str(found.value) and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("executor", "package"), [("slurm", "submitit"), *[("ray", "ray")] * RAY])
def test_a_missing_extra_is_named_before_anything_is_written(executor, package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    command = ["sweep", str(write_spec(tmp_path)), "--out", str(tmp_path / "runs"), "--executor", executor]
    assert main(command) == 2 and f'pip install "tensoradapt[{executor}]"' in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_of_many_that_take_a_ticket_one_gets_it_and_the_last_ticket_counts(tmp_path):
    for number in range(3):
        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda i, n=number: work_folder.take_ticket(tmp_path, n, f"job_{n}_{i}"), range(8)))
        assert sum(got) == 1
        assert work_folder.latest_ticket(tmp_path) == work_folder.Ticket(
            number, f"job_{number}_{got.index(True)}", False
        )
        work_folder.close_ticket(tmp_path, number, "17_3")
        assert work_folder.latest_ticket(tmp_path).over
    assert (
        not work_folder.take_ticket(tmp_path / "gone", 0, "job_0")
        and work_folder.latest_ticket(tmp_path / "gone") is None
    )


class Cluster:
    """SLURM's answers: the jobs that are there, ``alive``, as ``squeue`` prints them; None: it does not answer."""

    def __init__(self, root, monkeypatch):
        self.alive, self.submitted, self.cancelled, self.clock, self.refuses = [], [], [], 0.0, None
        monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(SlurmExecutor=partial(Batch, self)))
        monkeypatch.setattr(slurm.shutil, "which", lambda name: name)
        monkeypatch.setattr(slurm.subprocess, "run", lambda command, **_: self.run(*command))
        monkeypatch.setattr(slurm.time, "monotonic", lambda: self.clock)
        monkeypatch.setattr(slurm.time, "sleep", self.sleep)
        self.works = {name: root / WORK / name for name in "abcde"}
        for work in self.works.values():
            work.mkdir(parents=True)

    def run(self, command, *more):
        if command == "scancel":
            self.cancelled += more
            self.alive = [line for line in self.alive if line.split()[1] not in {id_.split("_")[0] for id_ in more}]
        lines = None if self.alive is None else "\n".join(self.alive)
        return SimpleNamespace(returncode=lines is None, stdout=lines, stderr="no answer")

    def sbatch(self, job, names):
        if self.refuses:
            raise RuntimeError(self.refuses)
        self.submitted.append(list(names))
        id_ = 10 * len(self.submitted)
        self.alive += [f"{job} {id_} {i if len(names) > 1 else 'N/A'}" for i in range(len(names))]
        return [f"{id_}_{i}" for i in range(len(names))]

    def sleep(self, seconds):
        self.clock += seconds


class Batch:
    """An executor of submitit whose jobs go to a ``Cluster`` in one array."""

    def __init__(self, cluster, folder, max_num_timeout):
        self.cluster, self.jobs = cluster, []

    def update_parameters(self, **parameters):
        self.name = parameters["job_name"]

    @contextmanager
    def batch(self):
        yield
        ids = self.cluster.sbatch(self.name, [job.task.name for job in self.jobs])
        for job, id_ in zip(self.jobs, ids, strict=True):
            job.job_id = id_

    def submit(self, task):
        self.jobs.append(SimpleNamespace(task=task))
        return self.jobs[-1]


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    return Cluster(tmp_path, monkeypatch)


def executor(root):
    return Slurm(root, Slots(None, 1, "cpu", options={"cpus": 1, "gpus": 0, "time": 60}))


def submit(one, names):
    """What the poll says that hands them in."""
    one.submit(names)
    return one.poll()


def polled(one, seconds=100):
    found = {}
    for _ in range(2 * seconds):
        found |= one.poll()
    return found


def test_jobs_of_a_sweep_that_died_are_taken_over_and_cancelled_with_the_rest(cluster, tmp_path):
    submit(executor(tmp_path), "ab")
    two = executor(tmp_path)
    submit(two, "abc")
    assert cluster.submitted == [["a", "b"], ["c"]] and polled(two) == {}
    cluster.alive = [line for line in cluster.alive if not line.endswith(" 10 0")]
    assert polled(two) == {"a": "ended"}
    submit(two, "a")
    assert cluster.submitted == [["a", "b"], ["c"], ["a"]] and work_folder.latest_ticket(cluster.works["a"]).number == 1
    two.cancel()
    assert sorted(cluster.cancelled) == ["10_1", "20", "30"] and not cluster.alive and polled(two) == {}


def test_a_submission_under_way_is_waited_for_and_in_the_end_taken_for_dead(cluster, tmp_path):
    work_folder.take_ticket(cluster.works["a"], 0, "tensoradapt-other_0")
    one = executor(tmp_path)
    assert submit(one, "a") == {"a": "elsewhere"} and not cluster.submitted
    cluster.clock += slurm.GRACE + 1
    submit(one, "a")
    assert cluster.submitted == [["a"]]


def test_while_slurm_does_not_answer_nothing_is_submitted_or_given_up(cluster, tmp_path):
    submit(executor(tmp_path), "a")
    two, alive = executor(tmp_path), cluster.alive
    cluster.alive = None
    assert submit(two, "a") == {"a": "elsewhere"} and len(cluster.submitted) == 1
    cluster.alive = alive
    submit(two, "a")
    cluster.alive = None
    assert polled(two) == {}
    with pytest.raises(ta.TensorAdaptError, match="squeue has failed for 600 s: no answer"):
        polled(two, 700)


def test_jobs_that_end_before_they_begin_a_run_stop_the_sweep_with_what_they_said(cluster, tmp_path):
    one = executor(tmp_path)
    (tmp_path / ".slurm" / "job").mkdir(parents=True)
    (tmp_path / ".slurm" / "job" / "1_0_log.err").write_text("No module named tensoradapt")
    with pytest.raises(ta.TensorAdaptError, match=r"end before they begin a run.*No module named tensoradapt"):
        for _ in range(BARREN):
            submit(one, "a")
            cluster.alive = []
            assert polled(one) == {"a": "ended"}
    assert len(cluster.submitted) == BARREN


def test_a_job_whose_ticket_has_passed_on_computes_nothing(cluster, tmp_path):
    task = slurm.ArrayTask(tmp_path, "a", "cpu", 1, "job_0")
    assert task() == "elsewhere"
    work_folder.take_ticket(cluster.works["a"], 0, "job_0")
    work_folder.take_ticket(cluster.works["a"], 1, "other_0")
    assert task() == "elsewhere"

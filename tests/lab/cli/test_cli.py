"""The command line: exit codes, one readable block per error, and the same figures as the library."""

import argparse
import errno
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError, of_extra
from tensoradapt.lab.cli.main import error_text, main
from tensoradapt.lab.cli.parser import Top
from tensoradapt.lab.data import models
from tensoradapt.lab.runs import perform
from tensoradapt.lab.runs.store import load_runs
from tensoradapt.lab.sweeps.spec import RANKLESS
from tensoradapt.published import methods

TINY = ["frontier", "--quick", "--model", "tiny-random-bert", "--task", "planted", "--rank", "2", "--steps", "4"]


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"tensoradapt {ta.__version__}\n"


@pytest.mark.thorough
def test_frontier_prints_the_table_and_returns_zero(tmp_path, capsys):
    assert main([*TINY, "--workers", "1", "--method", "cp", "--lr", "0.01", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "CP" in shown and "planted: " in shown and "3 of 3 runs" in shown
    assert main(["plot", str(tmp_path)]) == 0
    assert "frontier.png" in capsys.readouterr().out


def test_the_plan_of_a_frontier_is_printed_and_nothing_is_left(tmp_path, capsys):
    assert main([*TINY, "--out", str(tmp_path / "runs"), "--workers", "1", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "runs are finished in" in printed and "of them to do" in printed and not any(tmp_path.iterdir())


def test_a_stop_says_how_to_go_on_and_returns_one(tmp_path, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(perform, "execute", stop)
    assert main([*TINY, "--workers", "1", "--out", str(tmp_path)]) == 1
    assert f"stopped; the same command goes on from what is in {tmp_path}" in capsys.readouterr().err


def test_methods_lists_every_method_and_counts_it_at_a_models_sizes(capsys):
    assert main(["methods"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n{name} " in shown for name in methods.names())
    assert re.search(r"^fact-tk +tucker +\(layer proj block\) : out : in +2\*d\*r \+ ", shown, re.MULTILINE)
    assert main(["methods", "--model", "all-minilm-l6-v2", "--rank", "4", "--kind", "published"]) == 0
    assert re.search(r"^lorta +1,752 +(r=)?4 +4 +Hounie", capsys.readouterr().out, re.MULTILINE)


MIXED = "plan --model tiny-random-bert --method lotr --paper --projections q up --rank 1".split()


def test_plan_prints_the_plan_without_building_it(capsys):
    assert main(["plan", "--model", "tiny-random-bert", "--method", "lorta", "--paper", "--rank", "2"]) == 0
    assert "lorta as in its paper over 12 matrices" in capsys.readouterr().out
    assert main([*MIXED, "--on-mismatch", "split"]) == 0
    assert "split by shape: 2 tensors where lotr has 1" in capsys.readouterr().out
    assert main(["plan", "--model", "tiny-random-bert", "--method", "dense"]) == 0
    assert "dense over 12 matrices" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["kronecker", "block_low_rank", "shared_block", "tt_matrix", "khatri_rao"])
def test_the_split_that_an_error_advises_makes_the_plan_of_the_method(method, capsys):
    command = ["plan", "--method", method, *(["--rank", "2"] if method not in RANKLESS else [])]
    assert main(command) == 2
    advised = " ".join(capsys.readouterr().err.split()).split("on the command line ")[1].rpartition(")")[0]
    assert main([*command, "--json", *shlex.split(advised)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["n_params"] < 0.11 * 24 * 384 * 384
    if method == "block_low_rank":
        assert advised == "--split 'out=[2,192]' 'in=[2,192]'"


def test_plan_has_an_option_for_each_field_and_prints_what_python_does(capsys):
    words = "--method lotr --rank 2 --projections q v --scale 2.5 --start subtract --rates core=2 --train --dropout 0.1"
    assert main(["plan", "--model", "tiny-random-bert", *words.split()]) == 0
    given = {"projections": ("q", "v"), "scale": 2.5, "start": "subtract", "rates": {"core": 2}, "train": ()}
    made = ta.plan(models.config("tiny-random-bert"), "lotr", rank=2, dropout=0.1, **given)
    assert capsys.readouterr().out.rstrip() == str(made)
    with pytest.raises(SystemExit):
        main(["plan", "--help"])
    shown = capsys.readouterr().out
    options = {"--" + field.name.replace("_", "-") for field in fields(ta.AdapterSpec)}
    assert [option for option in sorted(options) if option not in shown] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([*TINY, "--method", "tuker"], 'did you mean "tucker"?'),
        (
            ["plan", "--model", "tiny-random-bert", "--method", "cp", "--rank", "0"],
            "rank is 0; expected a whole",
        ),
        (
            MIXED,
            "lotr with paper=True is not defined on these matrices: ",
        ),
        (["plan", "--model", "tiny-random-bert", "--method", "cp"], "error: cp needs a size; give --rank or --budget"),
        (["plan", "--model", "tiny-random-bert"], "error: a method is missing; give --method, as in --method cp"),
        (["plan", "--model", "no/such", "--method", "cp", "--rank", "1"], "unknown model 'no/such'"),
        ([*TINY[:-2], "--rank", "1.5"], "rank[1] is 1.5; expected a whole number"),
        ([*TINY, "--warmup", "2"], "warmup is 2; expected a share of the steps"),
        ([*TINY, "--lr", "1e-3", "1e-2"], "has 2 values; expected one, as a frontier tunes nothing"),
        (["plot", "no-such-folder"], "no-such-folder does not exist; expected a folder of runs"),
    ],
)
def test_bad_input_is_one_block_without_a_traceback_and_returns_two(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert says in " ".join(shown.split()) and shown.startswith("error: ") and "Traceback" not in shown


def test_an_error_of_a_connection_says_what_its_library_says():
    assert error_text(ConnectionError("no cluster answers at 192.0.2.2")) == "no cluster answers at 192.0.2.2"
    assert error_text(OSError(errno.ENOSPC, "no space", "runs/a")) == "'runs/a': no space"


def test_debug_shows_the_traceback():
    with pytest.raises(ta.TensorAdaptError):
        main(["plan", "--model", "tiny-random-bert", "--method", "cp", "--rank", "0", "--debug"])


def test_a_wrong_option_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["frontier", "--workers", "1.5"])
    assert stop.value.code == 2 and "invalid int value: '1.5'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_frontier_goes_on_where_it_was(tmp_path):
    """Stopped twice, by a kill and by Ctrl-C, it has the results of one that was not stopped."""
    command = [sys.executable, "-m", "tensoradapt.lab.cli.main", *TINY[:-2], "--steps", "40", "--seed", "0", "--out"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    written = {}
    for end, n in ((signal.SIGKILL, 2), (signal.SIGINT, 4)):
        with subprocess.Popen([*command, str(tmp_path / "killed")], **quiet) as process:
            while len(done := list((tmp_path / "killed").glob("[!.]*/result.json"))) < n:  # a hidden one is not done
                assert process.poll() is None, "it ended before it could be killed"
                time.sleep(0.05)
            process.send_signal(end)
            process.wait(60)
        written |= {path: path.stat().st_mtime_ns for path in done if path not in written}
    for folder in ("killed", "whole"):
        assert main([*command[3:], str(tmp_path / folder), "--workers", "1"]) == 0
    assert {path: path.stat().st_mtime_ns for path in written} == written, "a finished run was run again"
    results = [
        {r.name: Path(r.path, "result.json").read_bytes() for r in load_runs(tmp_path / f)} for f in ("killed", "whole")
    ]
    assert len(results[0]) == 7 and results[0] == results[1]


def test_a_missing_extra_is_named_with_the_command_that_installs_it(capsys, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert main([*TINY, "--out", str(tmp_path)]) == 2
    says = 'loading a model needs `transformers`, which is not installed: run pip install "tensoradapt[demo]"'
    assert says in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_an_extra_that_lacks_a_package_of_its_own_is_not_said_to_be_missing(monkeypatch, tmp_path):
    (tmp_path / "halved").mkdir()
    (tmp_path / "halved" / "__init__.py").write_text("import no_such_package.inside\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        TensorAdaptError, match="needs `halved`, which lacks `no_such_package`: run pip install no_such_p"
    ):
        of_extra("halved.linear", "demo", "fitting a head", "halved")


@pytest.mark.parametrize("command", [["methods"], ["plan", "--model", "tiny-random-bert"], ["results", "runs"]])
def test_ctrl_c_in_any_command_is_one_word_and_code_one(command, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    parsed = argparse.Namespace(command=stop, debug=False, verbose=False)
    monkeypatch.setattr(Top, "parse_args", lambda *_: parsed)
    assert main(command) == 1 and capsys.readouterr().err == "stopped\n"


def loop(folder):
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


@pytest.mark.parametrize(
    "path", [loop, lambda folder: folder / ("x" * 300), lambda folder: Path("/dev/zero"), lambda folder: folder]
)
def test_paths_that_are_no_folder_of_runs_are_one_error(path, tmp_path, capsys):
    assert main(["results", str(path(tmp_path))]) in (0, 2)
    shown = capsys.readouterr()
    assert "Traceback" not in shown.out + shown.err


@pytest.mark.parametrize("text", ["a = " + "[" * 5000, "steps = " + "9" * 400, 'model = "a\\u0000b"', "\x00"])
def test_specifications_that_are_none_are_one_error(text, tmp_path, capsys):
    (tmp_path / "spec.toml").write_text(text)
    assert main(["sweep", str(tmp_path / "spec.toml"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_model_folder_with_a_broken_config_is_one_error(tmp_path, capsys):
    for content in ("{}", "[]", '{"model_type": 3}', '{"model_type": "bert", "hidden_size": "x"}'):
        (tmp_path / "config.json").write_text(content)
        assert main(["plan", "--model", str(tmp_path), "--method", "lora", "--paper", "--rank", "2"]) == 2
        assert capsys.readouterr().err.startswith("error: ")

"""What one types at a shell by intuition: it works, or one line says what to type."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from harness import fuzz_cli

from tensoradapt import habits
from tensoradapt.lab.cli.main import main

BERT = "tiny-random-bert"
PLAN = f"plan --model {BERT}"
METHOD = f"{PLAN} --method cp --rank 2"


def said(words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that is bad input prints, on one line."""
    try:
        code = main(words.split())
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else -1
    shown = capsys.readouterr()
    assert code == 2 and not shown.out and "Traceback" not in shown.err
    return " ".join(shown.err.split())


def test_the_bare_command_prints_help_and_returns_zero(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([])
    shown = capsys.readouterr()
    assert stop.value.code == 0 and shown.out.startswith("usage: tensoradapt COMMAND") and not shown.err
    assert all(f"\n  {name} " in shown.out for name in fuzz_cli.names())


@pytest.mark.parametrize("name", ["", *fuzz_cli.names()])
def test_help_is_a_command_too(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for words in (["help", *name.split()], [*name.split(), "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]


@pytest.mark.parametrize("words", [f"choose --model {BERT}", f"{PLAN} --method cp", f"methods --model {BERT}"])
def test_a_budget_of_thousands_is_written_as_figures_write_it(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for budget in ("1.8k", "1800"):
        assert main([*words.split(), "--budget", budget]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] and "1,800" in shown[0]
    assert "budget is '1.8x'; expected a whole number, such as 18600 or" in said(f"{words} --budget 1.8x", capsys)


def test_every_command_of_habit_names_one_that_is_there() -> None:
    named = {meant.split()[1] for meant in habits.COMMANDS.values()}
    assert named <= set(fuzz_cli.names()) and not habits.COMMANDS.keys() & set(fuzz_cli.names())


def test_the_package_runs_as_a_module() -> None:
    ended = subprocess.run([sys.executable, "-m", "tensoradapt"], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0 and ended.stdout.startswith("usage: tensoradapt COMMAND")


@pytest.mark.parametrize("name", fuzz_cli.names())
def test_a_command_with_one_letter_wrong_is_recognised(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for typed in (name[0] + name[2] + name[1] + name[3:], name[:-1], name + "x"):
        assert f"error: unknown command '{typed}'; did you mean \"{name}\"?" in said(typed, capsys)


def test_an_option_of_several_values_keeps_those_of_each_place(capsys: pytest.CaptureFixture[str]) -> None:
    words = "frontier --quick --model tiny-random-bert --task planted --dry-run --steps 1 --out runs/none".split()
    shown = []
    for more in (
        "--method lora cp --rank 1 2 3",
        "--method lora --rank 1 --method cp --rank 2 3",
        "--method lora cp --rank 1,2,3",
    ):
        assert main([*words, *more.split()]) == 0
        shown.append([line for line in capsys.readouterr().out.splitlines() if not line.startswith("about ")])
    assert shown[0] == shown[1] == shown[2] and sum(line.startswith("CP ") for line in shown[0]) == 3


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("polt", 'did you mean "plot"?'),
        ("compare runs/x", "unknown command 'compare'; type tensoradapt results FOLDER --compare"),
        ("list", "unknown command 'list'; type tensoradapt methods"),
        ("help polt", 'did you mean "plot"?'),
        (f"{PLAN} --method cp", "cp needs a size; give --rank or --budget"),
        (f"{PLAN} --rank 2", "a method is missing; give --method"),
        (f"{PLAN} --method loar --rank 2", "unknown method 'loar'; did you mean \"lora\"?"),
        ("plan --model my-modle --method cp --rank 2", 'no such folder, and not built in; did you mean "my-model"?'),
        ("plan --model my-model --method cp --rank 2", "folder my-model holds no config.json"),
        (f"{METHOD} --modle x", "unknown option --modle; did you mean --model?"),
        (f"{PLAN} --parameterisation cp --rank 2", "unknown option --parameterisation; did you mean --method?"),
        (f"{PLAN} --parameterization cp --rank 2", "unknown option --parameterization; did you mean --method?"),
        (f"{METHOD} --xyz=3", "unknown option --xyz: tensoradapt plan --help lists all"),
        ("plan tiny-random-bert --method cp --rank 2", "'tiny-random-bert'; write --model tiny-random-bert"),
        ("plan cp --model tiny-random-bert --rank 2", "unexpected argument 'cp'; write --method cp"),
        ("plan more --model tiny-random-bert --method cp --rank 2", "error: unexpected argument 'more'"),
        (f"{METHOD} --rank 4", "rank is [2, 4]; expected one whole number"),
        ("methods --budget 0", "argument --budget: budget is 0; expected a whole number from 1"),
        (f"{PLAN} --method cp --budget 18,432", "budget is '18,432'; expected a whole number"),
        (f"{PLAN} --method cp --rank 2,4", "rank is [2, 4]; expected one whole number"),
        (f"{PLAN} --method lora,cp --rank 2", "unknown method 'lora,cp'; write lora cp in a terminal"),
        (f"{METHOD} -a 0", "unknown option -a; did you mean --alpha?"),
        (f"{METHOD} -m x", "unknown option -m; did you mean --map or --method or --model?"),
        ("results -o x.csv", "unknown option -o; did you mean --out?"),
        ("results --csv x.csv", "unknown option --csv; did you mean --out?"),
        (f"{METHOD} --method lora", "--method takes one value in plan; found 'cp' and 'lora'"),
        ("frontier --batch-size 8", "did you mean --batch?"),
        ("frontier --learning-rate 1e-3", "did you mean --lr?"),
        ("sweep x.toml --n-jobs 4", "unknown option --n-jobs; it is called workers"),
        ("sweep x.toml --resume", "unknown option --resume; a sweep goes on by itself"),
        ("frontier --train-size 8", "unknown option --train-size; it is called n_train"),
        (f"{PLAN} --method cp --budget 0.01", "expected a number of parameters, such as 18600"),
        ("results --menas", "did you mean --means?"),
        ("results", "no folder of runs was named, and there is none in ./runs"),
        ("plot frontir", "'frontir' is no folder of runs and no figure; did you mean frontier?"),
        ("results nothing", "nothing does not exist; expected a folder of runs"),
        ("--hlep", "unknown option --hlep; did you mean --help?"),
        ("--", "unknown option --"),
    ],
)
def test_other_guesses_are_told_what_to_type(
    words: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my-model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert says in said(words, capsys)


@pytest.mark.thorough
@pytest.mark.parametrize("words", [["--help"], ["plan", "--help"], ["methods"], ["methods", "--json"]])
def test_a_pipe_that_closes_early_is_no_error(words: list[str]) -> None:
    command = [sys.executable, "-m", "tensoradapt", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(120) in (0, 1)


def test_projections_are_taken_with_commas(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ("q,v", "q, v", "q v"):
        assert main([*PLAN.split(), *"--method cp --rank 2 --projections".split(), *words.split()]) == 0
        assert capsys.readouterr().out.startswith("cp over 6 matrices")

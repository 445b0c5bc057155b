"""PEFT's comparison on MetaMathQA and GSM8K with tensors: a result file in its format for each method and rate.

    python benchmarks/paper/metamath.py metamath-gpu --dry-run           # the parameters of each method; no weights
    python benchmarks/paper/metamath.py metamath-gpu --data FOLDER       # goes on where it was stopped
    python benchmarks/paper/metamath.py --stand-in runs/paper/metamath/data
    python benchmarks/paper/metamath.py metamath-here --data runs/paper/metamath/data

A specification is metamath-gpu or metamath-here beside this file, or the path of a TOML file; the files that its table
``data`` names are below ``--data``. Results are in ``--out``/results, named as PEFT's; answers, steps and adapters in
``--out``/details. An experiment whose result is there is not run again. Needs pip install -e benchmarks/paper.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from metamath_suite import dry, record, stand_in
from metamath_suite.perform import RESULTS, perform
from metamath_suite.rows import read_rows
from metamath_suite.setting import Experiment, Specification, specification
from tensoradapt.errors import TensorAdaptError
from tensoradapt.text import align

HERE = Path(__file__).parent


def main() -> int:
    """Do what the command line asks for; returns 0 where all of it is done."""
    args = _arguments()
    try:
        if args.stand_in:
            for name, n in stand_in.write(args.stand_in).items():
                print(f"{args.stand_in / name}: {n} rows")
            return 0
        if not args.specification:
            raise SystemExit("no specification is given; expected metamath-gpu, metamath-here or a TOML file")
        found = specification(_file(args.specification), args.model)
        if args.dry_run:
            _print(["experiment", "trained", "all"], dry.counts(found, args.model))
            return 0
        return _run(found, args)
    except TensorAdaptError as error:
        raise SystemExit(str(error)) from None


def _run(found: Specification, args: argparse.Namespace) -> int:
    """Run what has no result yet, one after the other, and print the table; returns 1 where one did not end."""
    rows, failed = read_rows(found.files, args.data), []
    chosen = [one for one in found.experiments if args.only in one.name]
    for experiment in chosen:
        if (args.out / RESULTS / record.file_name(experiment)).exists():
            continue
        try:
            perform(experiment, rows, args.out, args.device, _say)
        except (TensorAdaptError, torch.OutOfMemoryError) as error:
            failed.append(f"{experiment.name}: {error}")
    _print(["experiment", "trained", "train loss", "test accuracy", "forgetting"], _found(chosen, args.out))
    for text in failed:
        _say(f"not finished: {text}")
    return 1 if failed else 0


def _found(experiments: Iterable[Experiment], out: Path) -> Iterator[tuple[Any, ...]]:
    for file in (out / RESULTS / record.file_name(one) for one in experiments):
        if file.exists():
            info = json.loads(file.read_text())
            last, train = info["train_info"]["metrics"][-1], info["train_info"]
            scores = (f"{last[key]:.4f}" for key in ("train loss", "test accuracy", "forgetting"))
            yield info["run_info"]["experiment_name"], train["num_trainable_params"], *scores


def _print(head: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    texts = [tuple(f"{cell:,}" if isinstance(cell, int) else cell for cell in row) for row in rows]
    _say("\n".join(align([tuple(head), *texts])))


def _say(text: str) -> None:
    print(text, flush=True)


def _file(name: str) -> Path:
    own = HERE / f"{name}.toml"
    file = own if own.exists() else Path(name)
    if not file.is_file():
        raise TensorAdaptError(f"{name} is no specification; expected metamath-gpu, metamath-here or a TOML file")
    return file


def _arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("specification", nargs="?", help="metamath-gpu, metamath-here or a TOML file")
    p.add_argument("--data", type=Path, default=Path(), help="folder of the data's files (default: here)")
    p.add_argument("--out", type=Path, default=Path("runs") / "paper" / "metamath")
    p.add_argument("--only", default="", help="run the experiments whose name has this in it")
    p.add_argument("--model", help="another model than the specification's, such as a folder")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--dry-run", action="store_true", help="count parameters on a model without weights, and stop")
    p.add_argument(
        "--stand-in", type=Path, metavar="FOLDER", help="write rows of Alpaca in the data's fields, and stop"
    )
    return p.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())

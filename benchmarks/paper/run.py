"""The experiments of docs/results, one command for each.

    python benchmarks/paper/run.py --family glue --scale here             # goes on where it was stopped
    python benchmarks/paper/run.py --family glue --scale here --report    # writes docs/results/glue from its runs
    python benchmarks/paper/run.py --family instruct --scale ranks --report    # writes docs/results/instruct/ranks

Scales: ``here`` runs on two cores with pinned models and the data of TENSORADAPT_DATA, and so do ``fresh``, test
sentences that were never scored, ``ranks``, the loss against the rank of LoRTA, ``steps``, fewer steps of three sizes,
``mpnet``, six sizes on a model five times larger, ``mpnet-more`` and ``mpnet-sentences``, three more there on each
task, ``small``, factorings below LoRA's first rank, ``others``, LoRA's other ranks and further factorings, ``papers``,
LoRTA's layout and smallest size, and ``linear``, all linear layers. Each is one or more specifications: sweeps as any
other, so ``tensoradapt results``, ``plot`` and ``report`` read their folders. Specifications lie in this folder. A file
with tables ``[[sweep]]`` is a sweep for each, whose keys replace the file's.
All but those of GLUE need the plug-in in this folder: pip install -e benchmarks/paper.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any

import report

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError

HERE = Path(__file__).parent
FAMILIES: dict[str, dict[str, tuple[str, ...]]] = {
    **{name: {"here": (f"{name}-here",)} for name in ("cola", "floors", "glue", "preference", "protein", "vision")},
    "instruct": {"here": ("instruct-here",), "ranks": ("instruct-ranks",)},
    "headline": {"here": ("headline-here", "headline-more")},
}
BESIDE_LORA = ("fresh", "mpnet", "mpnet-more", "mpnet-sentences", "small", "others", "papers", "linear")
SIDES = ("ranks", "steps", *BESIDE_LORA)  # each has a folder of its own
FAMILIES["headline"] |= {scale: (f"headline-{scale}",) for scale in SIDES if scale != "ranks"}
SCALES = ("here", *SIDES)
COMPARED = ("here", *BESIDE_LORA)  # sizes beside LoRA r=8, by margin


def files_of(family: str, scale: str) -> list[Path]:
    """The specifications of a family's scale; ends the process with the scales that there are for another one."""
    scales = FAMILIES[family]
    if scale not in scales:
        raise SystemExit(f"{family} has no scale {scale!r}; choose one of {', '.join(scales)}")
    return [HERE / f"{name}.toml" for name in scales[scale]]


def specifications(file: Path) -> list[dict[str, Any]]:
    """The sweeps of a file: one, or one for each table ``[[sweep]]``."""
    common = tomllib.loads(file.read_text())
    return [{**common, **own} for own in common.pop("sweep", [{}])]


def main() -> int:
    """Run or report what the command line asks for; returns 0 where all of it is done."""
    args = _arguments()
    files = files_of(args.family, args.scale)
    out = args.out or Path("runs") / "paper" / f"{args.family}-{args.scale}"
    if args.report:
        folder = report.RESULTS / args.family / (args.scale if args.scale in SIDES else "")
        if args.family == "floors":  # two readouts of one head have no mean in common
            report.write_records(out, folder)
            return 0
        report.write(out, folder, figure=args.scale if args.scale in report.FIGURES else "frontier")
        if args.scale in COMPARED:
            report.write_within(out, folder)
            report.write_pairs(out, folder)
        return 0
    try:
        done = [_swept(spec, out, args) for file in files for spec in specifications(file)]
    except TensorAdaptError as error:
        raise SystemExit(str(error)) from None
    return 0 if all(done) else 1


def _swept(spec: dict[str, Any], out: Path, args: argparse.Namespace) -> bool:
    options = {"executor": args.executor, "workers": args.workers, "device": args.device, "dry_run": args.dry_run}
    ended = ta.sweep(spec, out, say=_print, **options)
    for reason in (*ended.blocked, *(f"{out / name} failed" for name in ended.failed)):
        _print(f"not run: {reason}")
    _print(f"{ended.finished} of {ended.total} runs are finished in {out}")
    return ended.complete or (args.dry_run and not ended.blocked)


def _print(text: str) -> None:
    print(text, flush=True)


def _arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--family", choices=tuple(FAMILIES), required=True)
    p.add_argument("--scale", choices=SCALES, default="here")
    p.add_argument("--out", type=Path, help="folder of runs (default: runs/paper/FAMILY-SCALE)")
    p.add_argument("--report", action="store_true", help="write docs/results/FAMILY from the finished runs")
    p.add_argument("--dry-run", action="store_true", help="print the plans and stop")
    p.add_argument("--executor", choices=("local", "inline", "slurm", "ray"), default="local")
    p.add_argument("--workers", type=int)
    p.add_argument("--device", default="auto")
    return p.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())

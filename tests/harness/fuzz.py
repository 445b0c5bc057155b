"""Fuzz all surfaces, print what came of the inputs, and keep those that escape: ``python tests/harness/fuzz.py``.

An input ends well if it is accepted, or refused by one TensorAdaptError. All else is an escape: another exception, a
warning, more than five seconds, a file left behind. Exit code 1 if there was one; tests/harness/corpus.jsonl has it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[1])]

from harness import fuzz_runs, fuzz_surfaces  # noqa: E402
from harness.fuzz_calls import ACCEPTED, REFUSED  # noqa: E402

from tensoradapt.text import align  # noqa: E402

PACKAGES = ("tensoradapt", "torch", "numpy", "transformers", "safetensors")


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--surface", nargs="+", choices=list(fuzz_surfaces.SURFACES), default=list(fuzz_surfaces.SURFACES))
    p.add_argument("--examples", type=int, default=210_000, metavar="N", help="inputs of all surfaces together")
    p.add_argument("--minutes", type=float, default=float("inf"), metavar="M", help="at most, in all")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--record", type=Path, metavar="FILE", help="add the counts to this JSON file")
    return p.parse_args()


def main() -> int:
    args = options()
    total = sum(fuzz_surfaces.SURFACES[name].share for name in args.surface)
    counts: dict[str, fuzz_runs.Count] = {}
    for name in args.surface:
        share = fuzz_surfaces.SURFACES[name].share / total
        counts[name] = fuzz_runs.run(name, round(args.examples * share), args.seed, args.minutes * share, print)
        print(f"{name}: {counts[name].ended.total():,} inputs in {counts[name].seconds:.0f} s", flush=True)
    fuzz_surfaces.clear()
    rows = [row(name, count) for name, count in counts.items()]
    rows.append(("together", *(f"{sum(int(r[i].replace(',', '')) for r in rows):,}" for i in range(1, 5))))
    print("\n".join(align([("surface", "inputs", "accepted", "refused", "escapes"), *rows])))
    if args.record:
        write(args.record, counts, args.seed)
    return int(any(count.n_escapes for count in counts.values()))


def row(name: str, count: fuzz_runs.Count) -> tuple[str, ...]:
    numbers = count.ended.total(), count.ended[ACCEPTED], count.ended[REFUSED], count.n_escapes
    return name, *(f"{n:,}" for n in numbers)


def write(path: Path, counts: dict[str, fuzz_runs.Count], seed: int) -> None:
    """Write the counts of these surfaces, and the versions; other surfaces in the file stay."""
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"surfaces": {}}
    for name, count in counts.items():
        ended = {"accepted": count.ended[ACCEPTED], "refused": count.ended[REFUSED], "escapes": count.n_escapes}
        record["surfaces"][name] = {"inputs": count.ended.total(), **ended, "seed": seed}
    record["versions"] = {"python": platform.python_version(), **{p: metadata.version(p) for p in PACKAGES}}
    path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())

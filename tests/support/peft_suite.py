"""PEFT's own suite for custom models, run on the plug-in: ``python tests/support/peft_suite.py [archive or folder]``.

The tests are those in the source archive of the installed PEFT, which pip downloads; none of them is kept here. Exits
with 1 if a check fails or is skipped that ``EXPECTED`` does not name, or if a case has fewer checks than it should.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

MARK = "TA-"  # before each case's name
CHECKS = 53  # for each case in PEFT 0.21: 42 functions, one of them with twelve arguments
OTHERS = 16  # that take no case: 6 functions with the class of the config, and 5 with each pair of adapters
EXPECTED = {"test_disable_adapter_with_bias_warns": "PEFT skips it for every method"}

SPLIT = {"out": [5, 4], "in": [5, 2]}
SAID: dict[str, dict[str, Any]] = {  # what a parameterization needs to be told besides its name, for 20 x 10
    "kronecker": {"split": SPLIT},
    "loretta": {"split": SPLIT, "options": {"bottleneck": 4}},
    "quanta": {"split": {"out": [5, 2], "in": [5, 2]}},  # a 10 x 10 matrix
    "tensor_ring": {"layout": "layer proj : out : in"},
    "tt_matrix": {"split": SPLIT},
    "block_low_rank": {"split": SPLIT},
    "khatri_rao": {"split": SPLIT},
    "block_circulant": {"split": SPLIT},
    "compacter": {"split": SPLIT, "layout": "layer proj : out* : in*"},
    "shared_block": {"split": SPLIT},
}
# lin0 is 20 x 10 and lin1 2 x 20. The suite trains on inputs up to 89 at a rate of 0.5, which it lowers for its own
# methods where numbers overflow; ours it does not know, so the multiplier is lowered
TIED = {"layout": "layer proj : out : in", "on_mismatch": "crop", "target_modules": ["lin0", "lin1"], "scale": 0.03}
PAIR = {"method": "cp", "rank": 2, "init_weights": False}
PAIRS = {  # adapters that are active together
    "same": ({"target_modules": ["lin0"], **PAIR}, {"target_modules": ["lin0"], **PAIR}),
    "different": ({"target_modules": ["lin0"], **PAIR}, {"target_modules": ["lin1"], **PAIR, "rank": 1}),
}
PYTEST = """\
import peft_suite
TestPeftCustomModel, TestMultipleActiveAdapters = peft_suite.suite()
"""


def cases() -> list[tuple[str, str, Any, dict[str, Any]]]:
    """A case for each parameterization, for tensors that tie layers of different shapes, and for Conv1D."""
    from tensoradapt import parameterizations
    from tensoradapt.integrations.peft import TensorConfig

    one = {"target_modules": ["lin0"], "rank": 2}
    found = [
        (name, "Square" if name == "quanta" else "MLP", {"method": name, **one, **SAID.get(name, {})})
        for name in parameterizations.names()
    ]
    for name in ("cp", "tucker", "tensor_train"):
        found.append((f"{name} tied", "MLP", {"method": name, "rank": 2, **TIED}))
        found.append((f"{name} Conv1D", "Conv1D", {"method": name, **one}))
    return [(f"{MARK}{name}", model, TensorConfig, kwargs) for name, model, kwargs in found]


def suite() -> Any:
    """PEFT's test classes, with our cases in the place of its own and two models more."""
    import torch
    from transformers.pytorch_utils import Conv1D

    from tensoradapt.integrations.peft import TensorConfig
    from tests import test_custom_models as theirs

    made = theirs.MockTransformerWrapper.from_pretrained
    first = {"Square": (lambda: torch.nn.Linear(10, 10), 10), "Conv1D": (lambda: Conv1D(20, 10), 20)}

    def from_pretrained(model_id: str, dtype: Any = None) -> Any:
        model = made("MLP" if model_id in first else model_id, dtype)
        if model_id in first:
            layer, width = first[model_id]
            model.lin0, model.lin1 = layer(), torch.nn.Linear(width, 2)
        return model.to(dtype or torch.float32)

    theirs.MockTransformerWrapper.from_pretrained = staticmethod(from_pretrained)
    theirs.TEST_CASES[:] = cases()
    theirs.ALL_PEFT_CONFIG_CLASSES[:] = [TensorConfig]
    pairs = [(name, "tensoradapt", TensorConfig, *configs) for name, configs in PAIRS.items()]
    theirs.MULTIPLE_ACTIVE_ADAPTERS_TEST_CASES[:] = pairs
    return theirs.TestPeftCustomModel, theirs.TestMultipleActiveAdapters


def main() -> int:
    """Runs the suite and says how many checks of each case passed; 0 if all did that should."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        source = Path(sys.argv[1]) if len(sys.argv) > 1 else _downloaded(work)
        report = _run(source if source.is_dir() else _unpacked(source, work), work)
    wrong = False
    for case, checks in sorted(report.items()):
        missing = [name for name, outcome in checks if outcome != "passed" and name.split("[")[0] not in EXPECTED]
        short = len(checks) < (CHECKS if case != "others" else OTHERS)
        wrong = wrong or short or bool(missing)
        passed = sum(outcome == "passed" for _, outcome in checks)
        print(f"{case:24} {passed:3} of {len(checks):3} checks passed", *missing, sep="\n  " if missing else "")
    wrong = wrong or len(report) != len(cases()) + 1
    print(f"{sum(map(len, report.values()))} checks of {len(report) - 1} cases. Expected not to pass: {EXPECTED}")
    return int(wrong)


def _downloaded(work: Path) -> Path:
    wanted = ["--no-deps", "--no-binary", ":all:", "--no-build-isolation", f"peft=={version('peft')}"]
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(work), *wanted], check=True)
    return next(work.glob("peft-*.tar.gz"))


def _unpacked(archive: Path, work: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="data")
    return next(path for path in work.glob("peft-*") if path.is_dir())


def _run(source: Path, work: Path) -> dict[str, list[tuple[str, str]]]:
    """The outcome of each check, by case."""
    (work / "test_cases.py").write_text(PYTEST)
    here = Path(__file__).parent
    paths = [str(source), str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(work), "-p", "no:cacheprovider"]
    command += ["-W", "ignore", "--tb", "short", "-k", "TensorConfig", "--junitxml", "report.xml", "test_cases.py"]
    subprocess.run(command, cwd=work, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, check=False)
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for check in ElementTree.parse(work / "report.xml").iter("testcase"):
        name = check.attrib["name"]
        case = re.search(rf"{MARK}([^-]+)-", name)
        found[case[1] if case else "others"].append((name, check[0].tag if len(check) else "passed"))
    return found


if __name__ == "__main__":
    sys.exit(main())

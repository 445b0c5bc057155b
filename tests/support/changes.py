"""Small real changes of each kind, as a contributor would make them, and the check that each works.

They are made in a scratch copy of the package. ``python tests/support/changes.py`` prints the table of CONTRIBUTING.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
Edits = dict[str, list[tuple[str, str]]]  # by file: what is replaced, and by what
HEAD = """
from types import SimpleNamespace
import torch
import tensoradapt as ta
from tensoradapt.lab.sweeps.spec import read_spec
SIZES = {"hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 96}
BERT = SimpleNamespace(model_type="bert", **SIZES)
SWEEP = {"model": "tiny-random-bert", "task": "planted", "method": "cp", "rank": 2, "lr": 1e-3, "seed": [0, 1]}
SWEEP |= {"steps": 2}
def encoder():
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    return torch.nn.TransformerEncoder(layer, 2)
"""


@dataclass(frozen=True)
class Change:
    """One kind of change: the files below ``tensoradapt/`` that it edits or adds, and code that uses it."""

    what: str
    check: str
    edits: Edits = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)
    tests: str = ""  # what its tests need besides

    @property
    def files(self) -> list[str]:
        """The files that it touches."""
        return [*self.edits, *self.new]


CHANGES = (
    Change(
        "a parameterization",
        """
from tensoradapt.lab.analysis.names import Look, looks
assert ta.plan(BERT, "cp twin", rank=2).n_params == ta.plan(BERT, "cp", rank=2).n_params
assert looks(["cp", "cp_twin"])["cp_twin"] == Look("CP twin", "#D55E00", "X")
assert [method.adapters[0].rank for method in read_spec({**SWEEP, "method": "twin"}).method] == [None]
""",
        new={
            "parameterizations/cp_twin.py": '"""CP under another name."""\n\n'
            "from tensoradapt.parameterizations.cp import build, count, oracle\n\n"
            '__all__ = ["build", "count", "oracle"]\nlabel = "CP twin"\n'
            'look = ("#D55E00", "X")\naliases = ("twin",)\nranked = False\n'
        },
        tests="the laws find it; its equation in loops: `tests/support/oracles.py`",
    ),
    Change(
        "a published adapter",
        """
assert ta.plan(BERT, "mine-cp", paper=True, rank=2).n_params == 2 * (48 + 48 + 2 * 2)
assert ta.plan(BERT, "Mine CP", rank=2).spec.scale == "matched"
from tensoradapt.lab.analysis.names import display
assert display("mine-cp") == "Mine-CP"
""",
        edits={
            "published/rows.py": [
                (
                    '    Published("LoHa",',
                    '    Published("Mine-CP", (("layer proj : out : in", QV),), "cp", "mine", "r*(o + i + L + M)"),\n'
                    '    Published("LoHa",',
                )
            ]
        },
        tests="its equation: `tests/support/equations.py`",
    ),
    Change(
        "an argument of adapters",
        """
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp
import pytest
from tensoradapt.lab.cli.main import main
from tensoradapt.lab.sweeps.due import due
from tensoradapt.lab.sweeps.plan_sweep import plan_sweep
from tensoradapt.lora.read_folder import read_lora
from tensoradapt.planning.spec import AdapterSpec
from tensoradapt.records import markdown
near = partial(torch.testing.assert_close, rtol=1e-3, atol=1e-5)
x, y = torch.randn(2, 3, 32), torch.randn(2, 3, 64)
def loss(model, x):  # its gradient in the weights is the same, whatever they are
    return sum((layer.linear1(x) * y).sum() for layer in model.layers)
def attached(gain, method="cp", **batches):
    model = encoder().eval()
    adapter = ta.attach(model, ta.plan(model, method, ": out : in", 2, projections=["up"], gain=gain), **batches)
    torch.manual_seed(1)
    for tensor in () if batches else adapter.parameters():
        torch.nn.init.normal_(tensor)
    return model, adapter
def deltas(adapter):
    return torch.stack([adapter.delta(site).detach() for site in adapter.plan.sites])
def stepped(gain):
    model, adapter = attached(gain)
    optimizer, before = ta.equal_steps(torch.optim.AdamW(adapter.parameters(), lr=1e-2), model), deltas(adapter)
    loss(model, x).backward()
    optimizer.step()
    return (deltas(adapter) - before).norm()
def share(gain):
    return ta.alignment(attached(gain)[0], x, loss=loss)["share"].tolist()
def compressed(gain, *asked):
    return ta.compress(attached(gain)[1], None, ": out : in", *asked)
model, adapter = attached(3.0)
plain, tripled = encoder().eval(), 3 * deltas(attached(1.0)[1])
near(deltas(adapter), tripled)
for layer, delta in zip(plain.layers, tripled):
    layer.linear1.weight.data += delta
near(model(x), plain(x))
folder = Path(mkdtemp())
adapter.save(folder / "saved")
loaded = ta.load(encoder(), folder / "saved")
near(deltas(loaded), tripled)
assert loaded.plan.spec.gain == 3
with pytest.raises(ta.TensorAdaptError, match="of another plan"):
    ta.restore(attached(1.0)[0], folder / "saved")
ta.export_lora(model, folder / "lora")
for site, delta in zip(adapter.plan.sites, tripled):
    pair = read_lora(folder / "lora")[site.name]
    near(torch.from_numpy(pair.b @ pair.a).float(), delta)
ta.merge(model)
near(model(x), plain(x))
near(stepped(3.0), stepped(1.0))
near(share(3.0), share(1.0))
near(share(0.01), share(1.0))
exact, once, thrice = compressed(3.0, "tucker", 2), compressed(1.0, "cp", 1), compressed(3.0, "cp", 1)
near(deltas(exact.attach(encoder())), tripled)
assert exact.exact and exact.error < 1e-6 and once.error > 0.1
near(thrice.error, once.error)
near(deltas(thrice.attach(encoder())), 3 * deltas(once.attach(encoder())))
near(*(1e5 * deltas(attached(gain, "lora-sb", batches=[x], loss=loss)[1]) for gain in (1.0, 3.0)))  # at rate 1e-5
with redirect_stdout(StringIO()) as printed:
    assert main("plan --model tiny-random-bert --method cp --rank 2 --gain 2 --json".split()) == 0
assert '"gain": 2' in printed.getvalue()
spec = read_spec({**SWEEP, "gain": [1.0, 2.0]})
assert [m.adapters[0].gain for m in spec.method] == [1, 2]
assert len({config.id for config in due(plan_sweep(spec, Path("none"))).configs}) == 4  # of two seeds each
assert "| `gain` |" in markdown(AdapterSpec)
""",
        edits={
            "planning/spec.py": [
                (
                    "    def __post_init__(self) -> None:\n        if _is_layout",
                    '    gain: float = value(checks.number, "a factor of all updates", 1.0)\n\n'
                    "    def __post_init__(self) -> None:\n        if _is_layout",
                )
            ],
            "planning/plan.py": [
                (
                    "return math.sqrt(network.layout.in_ / site.in_) if is_matched(self.scale) else 1.0",
                    "own = math.sqrt(network.layout.in_ / site.in_) if is_matched(self.scale) else 1.0\n"
                    "        return self.spec.gain * own",
                )
            ],
        },
        tests="the second file is where it acts",
    ),
    Change(
        "an option of training",
        """
import inspect
from dataclasses import fields
from tensoradapt.training.options import Training
assert {f.name for f in fields(Training)} <= set(inspect.signature(ta.fit).parameters)
model = encoder()
ta.attach(model, ta.plan(model, "cp", ": out : in", 2, projections=["up"]))
batches = [torch.randn(2, 3, 32)] * 3
fitted = ta.fit(model, batches, lr=1e-3, steps=3, floor=0.5, loss=lambda m, x: m(x).square().mean())
assert fitted.status == "finished"
assert read_spec({**SWEEP, "floor": 0.1}).method[0].training["floor"] == 0.1
""",
        edits={
            "training/options.py": [
                (
                    '    clip: float = value(_held, "largest norm',
                    '    floor: float = value(_from_zero, "least share of the rates", 0.0)\n'
                    '    clip: float = value(_held, "largest norm',
                )
            ],
            "training/fit.py": [
                ("    warmup: float = 0.1,\n", "    warmup: float = 0.1,\n    floor: float = 0.0,\n"),
                ("optimizer, warmup, clip,", "optimizer, warmup, floor, clip,"),
                (
                    "return (options.steps - step) / max(1, options.steps - rising)",
                    "return max(options.floor, (options.steps - step) / max(1, options.steps - rising))",
                ),
            ],
        },
    ),
    Change(
        "a metric",
        """
import numpy as np
from tensoradapt.lab.metrics.library import range_of
from tensoradapt.lab.metrics.table import TABLE
stored, labels = np.array([[0.1, 0.9], [0.8, 0.2]]), SimpleNamespace(labels=np.array([1, 1]))
assert TABLE["misses"].score(stored, labels) == 0.5 and range_of("misses") == (0, 1)
assert list(TABLE["misses"].examples(stored, labels)) == [0, 1]
""",
        edits={
            "lab/metrics/table.py": [
                (
                    '        averaged("accuracy", _right, noise=of_share),\n',
                    '        averaged("accuracy", _right, noise=of_share),\n'
                    '        averaged("misses", lambda stored, split: 1.0 - _right(stored, split), noise=of_share),\n',
                )
            ]
        },
    ),
    Change(
        "a layer kind",
        """
class Listener(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.ears, self.layers = torch.nn.Conv1d(3, 32, 5, padding=2), encoder().layers
    def forward(self, x):
        x = self.ears(x).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return x
model = Listener()
sites = ta.find_sites(model, (), modules=["ears"])
assert [(site.out, site.in_, dict(site.inner)) for site in sites] == [(32, 15, {"channel": 3, "kw": 5})]
adapter = ta.attach(model, ta.plan(sites, "tucker", ": out : in", 3, start="paper"))
for tensor in adapter.parameters():
    torch.nn.init.normal_(tensor)
x = torch.randn(2, 3, 7)
factored = model.eval()(x)
ta.merge(model)
assert torch.allclose(model(x), factored, atol=1e-4)
""",
        edits={
            "layers/kinds.py": [
                (
                    "LINEAR = LayerKind(",
                    "def _conv1d(module, x, pair):\n"
                    "    a, b = pair\n"
                    "    size = (module.in_channels, *module.kernel_size)\n"
                    "    inner = module._conv_forward(x, a.to(x).view(len(a), *size), None)\n"
                    "    return F.conv1d(inner, b.to(x)[:, :, None])\n\n\n"
                    'SOUND = LayerKind("Conv1d", _conv1d, axis=1)\nLINEAR = LayerKind(',
                ),
                (
                    "    if is_conv1d(module):\n",
                    "    if isinstance(module, nn.Conv1d):\n        return SOUND\n    if is_conv1d(module):\n",
                ),
            ],
            "sites/modules.py": [('INPUTS = {"Embedding"', 'INPUTS = {"Conv1d": ("channel", "kw"), "Embedding"')],
        },
        tests="its order and modes are in the second file",
    ),
    Change(
        "a figure",
        """
import pandas
runs = pandas.DataFrame({"method": ["lora", "cp", "cp"], "score": [0.9, 0.8, 0.8], "n_params": [9, 3, 3]})
ax = ta.plots.seeds(runs, figsize=3.3, headline=True)
assert [bar.get_width() for bar in ax.patches] == [2, 1] and ax.get_title() == "" and "Args:" in ta.plots.seeds.__doc__
assert ta.plots.allowed(runs)["seeds"] is None
""",
        new={
            "lab/analysis/plots/seeds.py": '"""Number of runs of each method."""\n\n'
            "from tensoradapt.lab.analysis.names import display\n\n\n"
            "def rows(runs):\n"
            '    """Return a row for each method."""\n'
            '    return runs.groupby("method", as_index=False).agg(n=("seed", "size"))\n\n\n'
            "def draw(rows, ax):\n"
            '    """Draw bars."""\n'
            '    ax.barh(rows["method"].map(display), rows["n"])\n'
            "    return ax\n\n\n"
            "def headline(rows):\n"
            "    return f\"{rows['n'].sum()} runs\"\n\n\n"
            "def caption(runs, rows):\n"
            '    return "Every run that is reported."\n\n\n'
            "def size(rows, *, width=3.3):\n"
            "    return width, 1 + 0.3 * len(rows)\n"
        },
        tests="its example, which the gallery asks for: a function of `docs/examples/plots.py`",
    ),
    Change(
        "a column of tables",
        """
from pathlib import Path
from tensoradapt.lab.analysis.results import RUN, frame
from tensoradapt.lab.analysis.tables import summarise
from tensoradapt.lab.runs.row import COLUMNS
from tensoradapt.lab.runs.store import Run
row = dict.fromkeys(COLUMNS) | {"task": "t", "method": "cp", "kind": "adapter", "status": "finished", "metric": "f1"}
row |= {"seed": 0, "n_params": 3, "score": 0.5, "seconds": 7200.0, "tuning": False}
table = frame([Run("a", Path("a"), row)])
assert table["hours"].tolist() == [2.0] and "hours" in RUN and summarise(table, "hours")["cost"].tolist() == [2.0]
""",
        edits={
            "lab/analysis/columns.toml": [
                (
                    'seconds = "time of the run (s)"\n',
                    'seconds = "time of the run (s)"\nhours = "time of the run (h)"\n',
                )
            ],
            "lab/analysis/results.py": [
                (
                    '    table["lost"] = table["status"].isin(LOST)\n',
                    '    table["lost"] = table["status"].isin(LOST)\n    table["hours"] = table["seconds"] / 3600\n',
                ),
            ],
        },
        tests="the page of columns is made of it",
    ),
    Change(
        "a task",
        """
from tensoradapt.lab import tasks
data = tasks.get("parity").load()
assert len(data.train) == 60 and "parity" in tasks.names()
""",
        new={
            "lab/tasks/parity.py": '"""Sentences of an even or odd number of words."""\n\n'
            "import numpy as np\n\n"
            "from tensoradapt.lab.tasks.classification import Classification\n"
            "from tensoradapt.lab.tasks.splits import Split, carve\n\n\n"
            "def _splits(n_train=None, n_test=None):\n"
            '    texts = tuple((" ".join(["word"] * n),) for n in range(1, 101))\n'
            "    every = Split(texts, np.arange(1, 101) % 2, tuple(map(str, range(100))))\n"
            "    test, validation, train = carve(every, 20, 20)\n"
            "    return train, validation, test, ()\n\n\n"
            'TASKS = {"parity": Classification("parity", 2, "accuracy", load_splits=_splits)}\n'
        },
        tests="or, outside this repository, the entry point group `tensoradapt.tasks`",
    ),
    Change(
        "a kind of own data",
        """
import json
from pathlib import Path
from tensoradapt.lab.tasks.registry import resolve
rows = [{"source": f"word {i}", "target": f"Wort {i}"} for i in range(40)]
Path("pairs.jsonl").write_text("\\n".join(map(json.dumps, rows)))
task, record = resolve({"train": "pairs.jsonl", "columns": {"source": "source"}, "kind": "translation"})
assert record["kind"] == "translation" and len(task.load().train) == 28
""",
        new={
            "extras/translation.py": """\"\"\"Translations: a sentence, and the same in another language.\"\"\"

from tensoradapt.extras.answers.instruct import Instruct
from tensoradapt.lab.tasks.kinds import Kind
from tensoradapt.lab.tasks.splits import Split
from tensoradapt.lab.tasks.tables import text_column


def examples(table, part, columns):
    names = [(columns or {}).get(name, name) for name in ("source", "target")]
    texts = tuple(zip(*(text_column(table, name) for name in names), strict=True))
    ids = tuple(f"{part}-{row}" for row in range(len(texts)))
    import numpy as np

    return Split(texts, np.zeros(len(texts), np.int64), ids, by_prompt=True), ()


TASKS = {"translation": Kind(("source", "target"), Instruct, examples)}
"""
        },
        edits={
            "extras/__init__.py": [
                ('    "trackers": ', '    "translation": {"tasks": ("translation",)},\n    "trackers": ')
            ]
        },
        tests="a task of its own besides, where its loss is another",
    ),
    Change(
        "a mode of layouts",
        """
from tensoradapt.adapter.adapter import Adapter
ranks = {"U": 1, "L": 2, "out": 3, "in": 3}
adapter = Adapter(ta.plan(BERT, "tucker", "layer user : out : in", ranks, tasks={"user": ("ada", "bob")}))
adapter.select(user="bob")
assert adapter.task() == "bob" and adapter.plan.groups[0].rank["user"] == 1
""",
        edits={
            "networks/modes.py": [
                ('    ModeKind("env"', '    ModeKind("user", ("index",), "names", ("U",)),\n    ModeKind("env"')
            ]
        },
    ),
    Change(
        "a model family",
        'assert len(ta.find_sites(SimpleNamespace(model_type="novel", **SIZES), ("q", "v"))) == 4',
        edits={"sites/recipe_table.py": [('        ("bert", "roberta",', '        ("bert", "novel", "roberta",')]},
        tests="its model: `tests/support/models.py`, of pairwise different sizes above 1; its line: "
        "`docs/guides/recipes.md`",
    ),
    Change(
        "a scale",
        """
from tensoradapt.adapter.adapter import Adapter
plan = ta.plan(BERT, "cp", rank=4, scale="by_rank")
assert Adapter(plan).tensors[0].scale == 0.25
""",
        edits={
            "planning/scale.py": [
                (
                    '    "matched": ScaleRule(matched_scale, matched=True),\n',
                    '    "matched": ScaleRule(matched_scale, matched=True),\n'
                    '    "by_rank": ScaleRule(lambda network, _, alpha: 1.0 / max(network.bonds.values())),\n',
                )
            ]
        },
    ),
    Change(
        "a setting of sweeps",
        """
from pathlib import Path
from tensoradapt.lab.sweeps.due import due
from tensoradapt.lab.sweeps.plan_sweep import plan_sweep
spec = read_spec({**SWEEP, "method": ["cp", "lora"], "order": "method"})
found = due(plan_sweep(spec, Path("none"))).configs
assert [config.seed for config in found] == [0, 1, 0, 1]
""",
        edits={
            "lab/sweeps/spec.py": [
                (
                    "    keep: str = value(\n",
                    '    order: str = value(partial(checks.one_of, ("seed", "method")), "the order of runs", "seed")\n'
                    "    keep: str = value(\n",
                ),
                ('PLAIN = ("model",', 'PLAIN = ("order", "model",'),
            ],
            "lab/sweeps/due.py": [
                (
                    "key=lambda config: places[config.seed])",
                    'key=lambda config: spec.order == "seed" and places[config.seed])',
                )
            ],
        },
        tests="the second file is where it acts",
    ),
    Change(
        "an executor",
        """
from tensoradapt.lab.sweeps.executors.catalogue import named, slots_for
assert named("here").__name__ == "Here"
slots_for("here", 1, "cpu", {})
""",
        edits={"extras/__init__.py": [('    "trackers": ', '    "here": {"executors": ("here",)},\n    "trackers": ')]},
        new={
            "extras/here.py": '"""This process, under another name."""\n\n'
            "from tensoradapt.lab.sweeps.executors.executor import Inline\n\n\nclass Here(Inline):\n"
            '    """As inline."""\n\n\nEXECUTORS = {"here": Here}\n'
        },
    ),
)


def scratch(folder: Path) -> Path:
    """Copy the package into a folder and make every change there; return the folder to import it from.

    Raises AssertionError where a place that a change edits is not there exactly once.
    """
    shutil.copytree(ROOT / "tensoradapt", folder / "tensoradapt", ignore=shutil.ignore_patterns("__pycache__"))
    for change in CHANGES:
        for name, text in change.new.items():
            (folder / "tensoradapt" / name).write_text(text)
        for name, edits in change.edits.items():
            path = folder / "tensoradapt" / name
            text = path.read_text()
            for found, made in edits:
                assert text.count(found) == 1, f"{change.what}: {name} has {text.count(found)} of {found!r}"
                text = text.replace(found, made)
            path.write_text(text)
    return folder


def run(folder: Path) -> str:
    """Run the checks of all changes in the scratch copy, in one process; return what failed, with its traceback."""
    script = folder / "checks.py"
    parts = [f"{HEAD}\nimport traceback\n"]
    for change in CHANGES:
        body = "\n".join(f"    {line}" for line in change.check.strip().splitlines())
        parts.append(f"try:\n{body}\nexcept Exception:\n    print({change.what!r})\n    traceback.print_exc()\n")
    script.write_text("\n".join(parts))
    done = subprocess.run([sys.executable, str(script)], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + ("" if not done.stdout and not done.returncode else done.stderr)


def table() -> str:
    """Return the table of CONTRIBUTING: of each kind of change the files that it touches."""
    rows = ["| to add | touch (below `tensoradapt/`) | besides |", "|---|---|---|"]
    rows += [f"| {c.what} | {', '.join(f'`{f}`' for f in c.files)} | {c.tests} |" for c in CHANGES]
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())

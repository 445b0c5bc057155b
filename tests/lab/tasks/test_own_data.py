"""Own data: one content is one task whatever file it is in, and each fault is a message that names row or column."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tomllib
import types
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau
from sklearn import metrics as skm
from support.configs import config_of
from support.data_files import write
from support.tasks import answers
from support.written_records import to_toml, to_words

import tensoradapt as ta
from tensoradapt.lab.metrics.library import resolve
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.execute import execute
from tensoradapt.lab.tasks import given_rows, registry
from tensoradapt.lab.tasks.classification import Classification, Regression
from tensoradapt.lab.tasks.language.rows import ROLES
from tensoradapt.lab.tasks.own_settings import KINDS, OwnData
from tensoradapt.lab.tasks.splits import Split, divide, divide_classes
from tensoradapt.records import add_options, as_json, given_options, read

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", {})
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, EntryPoint]]:
    """Entry points to fill, in place of the installed ones."""
    found: dict[str, EntryPoint] = {}
    monkeypatch.setattr(registry, "_entries", lambda: found)
    yield found
    registry._restored.cache_clear()


def rows(n: int = 60, word: str = "row") -> list[Row]:
    return [{"text": f"{word} number {i}, or so", "label": ("bad", "good")[i % 2]} for i in range(n)]


def record(value: Any) -> Any:
    return registry.resolve(value)[1]


@pytest.mark.parametrize("suffix", ["tsv", "jsonl", "json", "parquet"])
def test_one_content_is_one_task_whatever_file_it_is_in(suffix: str) -> None:
    first, other = record(write("a.csv", rows())), record(write(f"b.{suffix}", rows()))
    assert first["hash"] == other["hash"] and first["labels"] == ["bad", "good"]
    other_label = [{**rows()[0], "label": "good"}, *rows()[1:]]
    assert record(write("c.csv", other_label))["hash"] != first["hash"]


def test_a_csv_file_whose_header_has_semicolons_is_separated_by_them() -> None:
    data = [{"text": f"one, {i}; {word}", "label": word} for i in range(30) for word in ("good", "bad")]
    lines = [";".join(f'"{cell}"' for cell in row.values()) for row in data]
    Path("semicolons.csv").write_text("\n".join(["text;label", *lines]))
    found, expected = registry.resolve("semicolons.csv")[1], registry.resolve(write("commas.csv", data))[1]
    assert found["hash"] == expected["hash"]


def test_a_folder_of_the_datasets_library_is_the_same_task() -> None:
    data = rows()
    classes = datasets.ClassLabel(names=["bad", "good"])
    features = datasets.Features({"text": datasets.Value("string"), "label": classes})
    datasets.Dataset.from_list(data, features=features).save_to_disk("saved")
    assert record("saved")["hash"] == record(write("a.csv", data))["hash"]
    both = {"fit": datasets.Dataset.from_list(data), "held": datasets.Dataset.from_list(rows(10, "held"))}
    datasets.DatasetDict(both).save_to_disk("parts")
    task, _ = registry.resolve({"dataset": "parts", "train": "fit", "test": "held"})
    assert len(task.load().test) == 10
    with pytest.raises(ta.TensorAdaptError, match="has no split 'hold' for test; did you mean \"held\""):
        registry.resolve({"dataset": "parts", "train": "fit", "test": "hold"})


def test_splits_are_disjoint_by_text_and_counted_and_a_seed_draws_others() -> None:
    data = rows(100) + [{"text": "ROW  number 3, or so", "label": "bad"}] * 3
    seen = set()
    for seed in (0, 1):
        task, _ = registry.resolve(
            {"train": write("a.csv", data), "split": {"validation": 0.2, "test": 0.3}, "seed": seed}
        )
        whole = task.load()
        parts = [
            {" ".join(text.casefold().split()) for (text,) in split.texts or ()}
            for split in (whole.train, whole.validation, whole.test)
        ]
        assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
        assert len(whole.train) + len(whole.validation) + len(whole.test) == 103
        assert abs(len(whole.test) - 31) <= 4 and abs(len(whole.validation) - 21) <= 4
        seen.add(frozenset(parts[2]))
    assert len(seen) == 2


def test_equal_texts_stay_together_wherever_a_part_ends() -> None:
    texts = tuple((f"text {i % 20}",) for i in range(140))
    split = Split(texts, np.zeros(140), tuple(map(str, range(140))))
    for parts, sizes in ((divide(split, [31, 24], 0), [35, 28]), (divide_classes(split, [0.22, 0.17], 0), [28, 21])):
        keys = [set(part.texts or ()) for part in parts]
        assert sum(map(len, parts)) == 140 and sum(map(len, keys)) == 20
        assert [len(part) for part in parts[:2]] == sizes


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=25), st.tuples(st.floats(0.05, 0.4), st.floats(0.05, 0.4)),
    st.integers(0, 9),
)  # fmt: skip
def test_each_part_has_its_share_of_each_class_and_train_has_every_class(
    sizes: list[int], shares: tuple[float, float], seed: int
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    texts = tuple((f"text {i}",) for i in range(len(labels)))
    *drawn, train = divide_classes(Split(texts, labels, tuple(map(str, range(len(labels))))), shares, seed)
    assert set(train.labels) == set(labels)
    assert sorted(text for part in (*drawn, train) for text in part.contents) == sorted(texts)
    for part, share in zip(drawn, shares, strict=True):
        off = np.bincount(part.labels, minlength=len(sizes)) - share * np.array(sizes)
        assert np.abs(off).max() <= 3 and abs(off.sum()) <= 2, off


def test_rows_in_memory_are_written_again_where_their_file_was_changed() -> None:
    path = Path(given_rows.written(rows(20), "train"))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"good", b"bad"))
    assert Path(given_rows.written(rows(20), "train")).read_bytes() == whole
    path.write_bytes(whole[:-9])
    assert Path(given_rows.written(rows(20), "train")).read_bytes() == whole


def test_leaks_between_given_files_are_removed_and_counted() -> None:
    train, test = write("a.csv", rows(40) + rows(4, "held")), write("b.csv", rows(10, "held"))
    task, _ = registry.resolve({"train": train, "test": test})
    notes = "; ".join(task.load().notes)
    assert "4 train examples removed: their text is also in validation or test" in notes


def test_labels_are_words_or_numbers_and_pairs_have_two_texts() -> None:
    stars = [{"text": f"t {i}", "label": 1.0 + i % 3} for i in range(60)]
    assert record(write("stars.csv", stars))["labels"] == ["1", "2", "3"]
    scores = [{"sentence1": f"a {i}", "sentence2": f"b {i}", "score": i / 7} for i in range(60)]
    task, said = registry.resolve(write("pairs.jsonl", scores))
    assert isinstance(task, Classification) and (task.kind, task.pair, said["metric"]) == (
        "regression",
        True,
        "spearman",
    )
    assert sorted(np.concatenate([s.labels for s in (task.load().train, task.load().test)]))[0] == 0
    table = {"train": "stars.csv", "kind": "regression", "metric": "kendall"}
    task, _ = registry.resolve(table)
    assert isinstance(task, Classification) and task.n_labels == 1
    ordered, said = registry.resolve({"train": "stars.csv", "labels": [3, 2, 1], "name": "other"})
    train = ordered.load().train
    assert said["labels"] == ["3", "2", "1"]
    assert [2 - int(text.split()[1]) % 3 for (text,) in train.texts or ()] == train.labels.tolist()


def labelled(labels: np.ndarray) -> Split:
    return Split(None, labels, tuple(map(str, range(len(labels)))))


def test_kendall_and_a_function_of_ones_own_are_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.normal(size=30), rng.normal(size=30)
    task = Regression("made", metrics="kendall")
    assert task.evaluate(scores[:, None], labelled(labels))["kendall"] == pytest.approx(
        kendalltau(scores, labels).statistic
    )
    module = types.ModuleType("my_metrics")
    exec("def hits(labels, predicted):\n    return (labels == predicted).sum()", module.__dict__)
    monkeypatch.setitem(sys.modules, "my_metrics", module)
    made = ta.register_task("mine", train=write("a.csv", rows()), metric=module.hits)
    assert made.metric.name == "my_metrics:hits" and made.metrics == ("my_metrics:hits", "accuracy")
    logits = np.array([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    value = made.metric.score(logits, labelled(np.array([0, 1, 1, 1])))
    assert value == 3
    with pytest.raises(ta.TensorAdaptError, match="cannot be imported by the processes"):
        ta.register_task("other", train="a.csv", metric=lambda labels, predicted: 1.0)


LOGITS = np.random.default_rng(1).normal(size=(60, 3))
CLASSES = np.random.default_rng(2).integers(0, 3, 60)
SHARES = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
SCORERS: dict[str, Callable[[], float]] = {
    "f1_macro": lambda: skm.f1_score(CLASSES, LOGITS.argmax(1), average="macro"),
    "balanced_accuracy": lambda: skm.balanced_accuracy_score(CLASSES, LOGITS.argmax(1)),
    "roc_auc_ovr": lambda: skm.roc_auc_score(CLASSES, SHARES, multi_class="ovr"),
    "neg_log_loss": lambda: -skm.log_loss(CLASSES, SHARES),
    "matthews_corrcoef": lambda: skm.matthews_corrcoef(CLASSES, LOGITS.argmax(1)),
}


@pytest.mark.parametrize("name", SCORERS)
def test_scorers_of_scikit_learn_see_the_predictions(name: str) -> None:
    assert resolve(name).score(LOGITS, labelled(CLASSES)) == pytest.approx(SCORERS[name](), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "oracle"), [("r2", skm.r2_score), ("neg_mean_absolute_error", lambda *of: -skm.mean_absolute_error(*of))]
)
def test_scorers_of_regressions_see_the_predictions(name: str, oracle: Callable[..., float]) -> None:
    truth = LOGITS[:, 1]
    assert resolve(name).score(LOGITS[:, :1], labelled(truth)) == pytest.approx(oracle(truth, LOGITS[:, 0]), abs=1e-12)


def config(task: str) -> RunConfig:
    found, said = registry.resolve(task)
    return config_of("tiny-random-bert", found.name, kind="head", lr=1e-2, batch=8, own=said)


def test_a_run_is_identified_by_the_content_and_not_by_the_place_of_its_data() -> None:
    here = config(write("a.csv", rows()))
    Path("elsewhere").mkdir()
    there = config(write("elsewhere/a.csv", rows()))
    assert here.id == there.id and here.own["source"] != there.own["source"]
    assert config(write("a.csv", rows(62))).id != here.id
    assert RunConfig.from_dict(json.loads(json.dumps(here.as_dict()))).id == here.id


def test_a_run_is_computed_from_its_config_alone_and_refuses_data_that_has_changed() -> None:
    run = RunConfig.from_dict(json.loads(json.dumps(config(write("a.csv", rows())).as_dict())))
    parts = execute(run, "cpu")
    accuracy = (parts["arrays"]["predictions"].argmax(1) == parts["arrays"]["labels"]).mean()
    assert parts["result"]["test"]["accuracy"] == accuracy and parts["result"]["metric"]["name"] == "accuracy"
    write("a.csv", rows(50))
    registry._restored.cache_clear()
    with pytest.raises(ta.TensorAdaptError, match="data of task 'a' has changed since the run was planned"):
        execute(run, "cpu")


def test_a_task_is_loaded_by_its_name_or_file() -> None:
    file = write("texts.csv", rows())
    task = ta.register_task("mine", train=file)
    named, filed = ta.load_task("mine", n_train=3, n_test=2), ta.load_task(file, n_train=3, n_test=2)
    assert named.task is task and len(named.train) == 3 and len(named.test) == 2
    assert named.train.texts == filed.train.texts and named.train.ids == filed.train.ids
    with pytest.raises(ta.TensorAdaptError, match=r'unknown task "mime"; did you mean "mine"'):
        ta.load_task("mime")


def test_a_task_of_a_module_is_registered_under_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "TASK", answers.TASKS["answers"], raising=False)
    made = ta.register_task(answers.TASKS["answers"])
    assert record("answers")["source"] == {"object": "support.tasks.answers:TASK"}
    assert registry.restore("answers", record("answers")) is made
    assert record("support.tasks.answers:TASK") == record("answers")
    with pytest.raises(ta.TensorAdaptError, match="is no value of module"):
        ta.register_task(answers.Answers())


def test_a_task_that_says_what_its_data_is_is_planned_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Remote(answers.Answers):
        content = "answers, version 1"

        def splits(self, n_train: int | None = None, n_test: int | None = None) -> Any:
            raise AssertionError("loaded")

    monkeypatch.setattr(answers, "REMOTE", Remote(), raising=False)
    task, first = registry.resolve("support.tasks.answers:REMOTE")
    assert registry.restore("answers", first) is task
    monkeypatch.setattr(Remote, "content", "answers, version 2")
    registry._restored.cache_clear()
    with pytest.raises(ta.TensorAdaptError, match="data of task 'answers' has changed since the run was planned"):
        registry.restore("answers", first)
    monkeypatch.setattr(Remote, "content", 3)
    with pytest.raises(ta.TensorAdaptError, match=r"expected a tensoradapt\.Task with metrics, whose name and"):
        registry.resolve("support.tasks.answers:REMOTE")


def entry(value: str, name: str = "plugged") -> EntryPoint:
    return EntryPoint(name, value, registry.GROUP)


def test_an_entry_point_is_a_task(entries: dict[str, EntryPoint], monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("plug_in")
    module.plugged = {"train": write("a.csv", rows())}  # type: ignore[attr-defined]

    def broken() -> None:
        raise ZeroDivisionError("no data")

    module.broken = broken  # type: ignore[attr-defined]
    module.number = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "plug_in", module)
    entries |= {name: entry(f"plug_in:{name}", name) for name in ("plugged", "broken", "number", "missing")}
    entries["sst2"] = entry("plug_in:plugged", "sst2")
    assert "plugged" in registry.names()
    assert registry.restore("plugged", record("plugged")).name == "plugged"
    for name, says in {
        "broken": "entry point 'broken' raised ZeroDivisionError: no data",
        "number": "entry point 'number' is 3; expected a tensoradapt.Task",
        "missing": "entry point 'missing' raised AttributeError",
        "sst2": "task 'sst2' is both built in and the entry point 'sst2'",
    }.items():
        with pytest.raises(ta.TensorAdaptError, match=says):
            registry.resolve(name)


def test_a_name_is_taken_once() -> None:
    path = write("a.csv", rows())
    ta.register_task("mine", train=path)
    ta.register_task("mine", train=path)  # the same
    with pytest.raises(ta.TensorAdaptError, match="'mine' is registered already; give another, or replace=True"):
        ta.register_task("mine", train=write("b.csv", rows(40)))
    ta.register_task("mine", train="b.csv", replace=True)
    for taken in ("sst2", "planted"):
        with pytest.raises(ta.TensorAdaptError, match=f"task name '{taken}' is taken by a task that is built in"):
            ta.register_task(taken, train=path)
    write("sst2.csv", rows())
    with pytest.raises(ta.TensorAdaptError, match="task name 'sst2' is taken by another task"):
        registry.resolve("sst2.csv")


def changed(at: int, **values: Any) -> list[Row]:
    data = rows()
    data[at] = {**data[at], **values}
    return data


def raw(text: str) -> Callable[[], str]:
    def make() -> str:
        Path("raw.csv").write_bytes(text.encode("latin-1"))
        return "raw.csv"

    return make


def table(data: list[Row], name: str = "a.csv", **settings: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"train": write(name, data), **settings}


def numbered(label: Callable[[int], Any], **settings: Any) -> Callable[[], dict[str, Any]]:
    return table([{"text": f"a {i}", "label": label(i)} for i in range(60)], **settings)


ODD = [{"text": "new", "label": "odd"}]
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "missing": (lambda: "none.csv", r"none\.csv cannot be read \(No such file"),
    "empty": (raw(""), r"raw\.csv has no rows"),
    "header alone": (raw("text,label\n"), r"raw\.csv has no rows; expected a row for each example"),
    "not text": (raw("text,label\n\xff\xfe,1\n"), r"raw\.csv, line 2 has the byte 0xff, which is no UTF-8.*latin-1"),
    "ragged": (raw("text,label\na,1\nb,c,0\n"), r"raw\.csv, line 3: 3 cells; expected 2"),
    "open quote": (raw('text,label\n"a,1\n'), r"raw\.csv cannot be read"),
    "two columns": (raw("text,text\na,1\n"), r"two columns 'text'"),
    "suffix": (lambda: {"train": write("a.xlsx", rows())}, r"a\.xlsx is no data .*pandas\.read_excel\('a\.xlsx'"),
    "no json": (lambda: (Path("a.jsonl").write_text('{"text": "a"}\n{'), "a.jsonl")[1], r"a\.jsonl, line 2 is no JSON"),
    "no object": (lambda: (Path("a.jsonl").write_text("[1]\n"), "a.jsonl")[1], r"a\.jsonl, line 1 is a list"),
    "no parquet": (lambda: (Path("a.parquet").write_text("x"), "a.parquet")[1], r"a\.parquet cannot be read"),
    "column": (table(rows(), text="txt"), r"a\.csv has no column 'txt'; did you mean \"text\""),
    "label column": (table(rows(), label="lable"), r"a\.csv has no column 'lable'; did you mean \"label\""),
    "no label": (table([{"a": "x", "b": "y"}] * 30), r'no column is called label, .*say label = "..."'),
    "no text": (table([{"a": "x", "b": "y", "label": "z"}] * 30), r"which column holds the texts is not clear"),
    "one class": (table([{**row, "label": "good"} for row in rows()]), r"every label in 'label' is 'good'"),
    "class not in train": (
        lambda: {"train": write("a.csv", rows()), "test": write("b.csv", [*rows(5, "b"), *ODD])},
        r"class 'odd' is in test \(1 rows\) and not in train",
    ),
    "missing label": (table(changed(3, label="")), r"a\.csv, line 5: the label in column 'label' is missing"),
    "nan": (
        numbered(lambda i: "nan" if i == 7 else i / 9),
        r"a\.csv, line 9: the label in column 'label' is 'nan'; expected one for each row",
    ),
    "nan in json": (table(changed(4, label=float("nan")), "a.jsonl"), r"a\.jsonl, line 5: the label .* is nan"),
    "null in parquet": (table(changed(4, label=None), "a.parquet"), r"a\.parquet, row 5: the label .* is missing"),
    "word in numbers": (
        table(changed(4, label="good"), kind="regression"),
        r"a\.csv, line 2: the label in column 'label' is 'bad'; expected a number",
    ),
    "not a class": (table(rows(), labels=["bad", "fine"]), r"a\.csv, line 3: the label is 'good'"),
    "text as label": (numbered(lambda i: f"w{i}"), r"has 60 different words in 60 rows"),
    "many numbers": (numbered(int), r"60 different whole numbers.*say kind"),
    "blank text": (table(changed(3, text=" ")), r"a\.csv, line 5: the text is blank"),
    "list as text": (table(changed(3, text=["a"]), "a.jsonl"), r"line 4: column 'text' holds a list"),
    "same column": (table(rows(), text="label"), r"column 'label' is both text and label"),
    "too few": (table(rows(3)), r"validation has no rows left|every label of test is the same"),
    "one class drawn": (
        table([{**row, "label": "good" if i in (1, 2) else "bad"} for i, row in enumerate(rows())]),
        r"every label of test is the same, of 12 \(test and validation drawn from train with seed 0\)",
    ),
    "shares": (table(rows(), split={"validation": 0.5, "test": 0.5}), r"split takes 1 of the rows"),
    "share": (table(rows(), split={"test": 2}), r"split.test is 2; expected a share"),
    "share and file": (table(rows(), test="a.csv", split={"test": 0.2}), r"test is given and has a share in split"),
    "same file": (table(rows(), test="a.csv"), r"train has no rows left; expected some: .*60 train examples removed"),
    "key": (table(rows(), lable="x"), r"task: unknown key lable; did you mean \"label\""),
    "no train": (lambda: {"name": "x", "test": "a.csv"}, r"task: train is missing"),
    "former name": (table(rows(), text_pair=["a", "b"]), r"task: unknown key text_pair; it is called text"),
    "three texts": (table(rows(), text=["a", "b", "c"]), r"text is .*; expected a column, or two of pairs"),
    "metric of numbers": (table(rows(), metric="spearman"), r"'spearman' does not fit labels of 2 classes"),
    "metric of classes": (
        numbered(lambda i: i / 7, metric="accuracy"),
        r"metric 'accuracy' does not fit labels that are numbers",
    ),
    "binary metric": (
        numbered(lambda i: "xyz"[i % 3], metric="f1"),
        r"metric 'f1' does not fit labels of 3 classes: it is for 2 classes",
    ),
    "unknown function": (table(rows(), metric="no_module:x"), r"metric 'no_module:x' cannot be imported"),
    "less is better": (
        numbered(lambda i: i / 7, metric="scipy.spatial.distance:euclidean"),
        r"is 0 for a perfect answer and [\d.]+ for a constant one; expected more than that",
    ),
    "folder": (lambda: (Path("empty").mkdir(), "empty")[1], r"empty has no folders; expected .* written by save_to"),
    "device": (lambda: (Path("x.csv").symlink_to("/dev/zero"), "x.csv")[1], r"x\.csv is no file"),
    "hub": (lambda: "nobody/nothing", r"data set nobody/nothing cannot be loaded"),
    "unknown": (lambda: "plantet", r'unknown task "plantet"; did you mean "planted"'),
    "module": (lambda: "no_module:TASK", r"task 'no_module:TASK' cannot be imported"),
    "no task": (lambda: "math:pi", r"'math:pi' is 3.14\d+; expected a tensoradapt.Task"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_refused_by_one_message_that_names_what_is_wrong(name: str) -> None:
    make, says = BAD[name]
    with pytest.raises(ta.TensorAdaptError, match=says):
        registry.resolve(make())


def test_what_needs_an_extra_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(ta.TensorAdaptError, match=r"metric 'f1_macro' needs `scikit-learn`.*tensoradapt\[data\]"):
        registry.resolve({"train": write("a.csv", rows()), "metric": "f1_macro"})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    Path("a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ta.TensorAdaptError, match=r"reading .*a\.parquet needs `pyarrow`.*tensoradapt\[data\]"):
        registry.resolve("a.parquet")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ta.TensorAdaptError, match=r"needs `datasets`.*tensoradapt\[hub\]"):
        registry.resolve("some/set")


# the law: a record that was written is read as it was

TEXTS = st.text(min_size=1, max_size=6).filter(lambda text: text.isprintable() and text.strip())
WORDS = TEXTS | st.sampled_from(("8", "true", "null", "-x", "--text", "a=b", '"q"', "[1]", "a b"))
PLACES = WORDS.filter(lambda text: "\0" not in text).map(lambda text: str(Path(text)))
SHARE = st.floats(0.01, 0.99)
FIELDS: dict[str, Any] = {
    "name": WORDS,
    "train": PLACES,
    "validation": PLACES,
    "test": PLACES,
    "dataset": PLACES,
    "subset": WORDS,
    "split": st.dictionaries(st.sampled_from(("validation", "test")), SHARE, min_size=1),
    "seed": st.integers(0, 2**63 - 1),
    "text": st.lists(WORDS, min_size=1, max_size=2, unique=True),
    "label": WORDS,
    "labels": st.lists(WORDS | st.integers(0, 9), min_size=1, max_size=3, unique_by=str),
    "kind": st.sampled_from(KINDS),
    "columns": st.dictionaries(st.sampled_from(ROLES), WORDS, min_size=1),
    "beta": st.floats(1e-3, 1e3),
    "metric": WORDS,
    "max_length": st.integers(1, 2**31 - 1),
}


def through_json(own: OwnData) -> OwnData:
    return read(OwnData, json.loads(json.dumps(as_json(own))))


def through_toml(own: OwnData) -> OwnData:
    return read(OwnData, tomllib.loads(to_toml(own)))


def through_words(own: OwnData) -> OwnData:
    parser = argparse.ArgumentParser()
    add_options(parser, OwnData)
    return read(OwnData, given_options(parser.parse_args(to_words(own)), OwnData))


@pytest.mark.parametrize("through", [through_json, through_toml, through_words])
@given(
    drawn=st.fixed_dictionaries({"train": PLACES}, optional={name: FIELDS[name] for name in FIELDS if name != "train"})
)
def test_a_record_of_own_data_that_was_written_is_read_as_it_was(through: Any, drawn: dict[str, Any]) -> None:
    assert through(OwnData(**drawn)) == OwnData(**drawn)


def test_every_field_of_own_data_is_drawn_and_has_a_help_in_one_line() -> None:
    assert [f.name for f in dataclasses.fields(OwnData)] == [*FIELDS]
    for f in dataclasses.fields(OwnData):
        assert f.metadata["help"] and "\n" not in f.metadata["help"] and not f.metadata["help"].endswith(".")

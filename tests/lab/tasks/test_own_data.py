"""Own data: one content is one task whatever file it is in, and each fault is a message that names row or column."""

from __future__ import annotations

import json
import sys
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
from support.configs import config_of
from support.data_files import write

import tensoradapt as ta
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.execute import execute
from tensoradapt.lab.tasks import registry
from tensoradapt.lab.tasks.classification import Classification
from tensoradapt.lab.tasks.splits import Split, divide_classes

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
    "not text": (raw("text,label\n\xff\xfe,1\n"), r"raw\.csv, line 2 has the byte 0xff, which is no UTF-8.*latin-1"),
    "ragged": (raw("text,label\na,1\nb,c,0\n"), r"raw\.csv, line 3: 3 cells; expected 2"),
    "suffix": (lambda: {"train": write("a.xlsx", rows())}, r"a\.xlsx is no data .*pandas\.read_excel\('a\.xlsx'"),
    "no json": (lambda: (Path("a.jsonl").write_text('{"text": "a"}\n{'), "a.jsonl")[1], r"a\.jsonl, line 2 is no JSON"),
    "no parquet": (lambda: (Path("a.parquet").write_text("x"), "a.parquet")[1], r"a\.parquet cannot be read"),
    "column": (table(rows(), text="txt"), r"a\.csv has no column 'txt'; did you mean \"text\""),
    "no label": (table([{"a": "x", "b": "y"}] * 30), r'no column is called label, .*say label = "..."'),
    "one class": (table([{**row, "label": "good"} for row in rows()]), r"every label in 'label' is 'good'"),
    "class not in train": (
        lambda: {"train": write("a.csv", rows()), "test": write("b.csv", [*rows(5, "b"), *ODD])},
        r"class 'odd' is in test \(1 rows\) and not in train",
    ),
    "missing label": (table(changed(3, label="")), r"a\.csv, line 5: the label in column 'label' is missing"),
    "word in numbers": (
        table(changed(4, label="good"), kind="regression"),
        r"a\.csv, line 2: the label in column 'label' is 'bad'; expected a number",
    ),
    "text as label": (numbered(lambda i: f"w{i}"), r"has 60 different words in 60 rows"),
    "many numbers": (numbered(int), r"60 different whole numbers.*say kind"),
    "blank text": (table(changed(3, text=" ")), r"a\.csv, line 5: the text is blank"),
    "same column": (table(rows(), text="label"), r"column 'label' is both text and label"),
    "too few": (table(rows(3)), r"validation has no rows left|every label of test is the same"),
    "shares": (table(rows(), split={"validation": 0.5, "test": 0.5}), r"split takes 1 of the rows"),
    "share and file": (table(rows(), test="a.csv", split={"test": 0.2}), r"test is given and has a share in split"),
    "same file": (table(rows(), test="a.csv"), r"train has no rows left; expected some: .*60 train examples removed"),
    "three texts": (table(rows(), text=["a", "b", "c"]), r"text is .*; expected a column, or two of pairs"),
    "metric of numbers": (table(rows(), metric="spearman"), r"'spearman' does not fit labels of 2 classes"),
    "less is better": (
        numbered(lambda i: i / 7, metric="scipy.spatial.distance:euclidean"),
        r"is 0 for a perfect answer and [\d.]+ for a constant one; expected more than that",
    ),
    "hub": (lambda: "nobody/nothing", r"data set nobody/nothing cannot be loaded"),
    "no task": (lambda: "math:pi", r"'math:pi' is 3.14\d+; expected a tensoradapt.Task"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_refused_by_one_message_that_names_what_is_wrong(name: str) -> None:
    make, says = BAD[name]
    with pytest.raises(ta.TensorAdaptError, match=says):
        registry.resolve(make())

"""Tasks: splits share nothing and never move, metrics agree with their definitions, bad files are named by line."""

import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab import tasks
from tensoradapt.lab.data import assets
from tensoradapt.lab.tasks import glue, planted, snippets
from tensoradapt.lab.tasks.splits import Split

ALL_GLUE = ["sst2", "cola", "rte", "mrpc", "stsb"]


def rows_of(name: str, count: int, word: str) -> list[str]:
    """Valid lines of a task's local file, with texts that name `word` and the row."""
    answers = {"rte": ("entailment", "not_entailment"), "stsb": ("0.5", "4.25")}.get(name, ("0", "1"))
    lines = []
    for row in range(count):
        label, one, two = answers[row % 2], f'{word} "{row}', f"{word} second {row}"
        lines.append(
            {
                "sst2": f"{one} \t{label}",
                "cola": f"src\t{label}\t\t{one}",
                "rte": f"{row}\t{one}\t{two}\t{label}",
                "mrpc": f"{label}\t1\t2\t{one}\t{two}",
                "stsb": f"genre\tfile\t2012\t{row}\t{label}\t{one}\t{two}" + ("\tsrc\tsrc" if row % 3 == 0 else ""),
            }[name]
        )
    return lines


def write(root: Path, name: str, **parts: list[str]) -> Path:
    """The task's local files under `root`; lines by part: train, validation, test."""
    layout = glue.LOCAL_FILES[name]
    folder = root / "glue" / layout.folder
    folder.mkdir(parents=True, exist_ok=True)
    files = {"train": layout.train, "validation": layout.validation, "test": layout.test}
    for part, lines in parts.items():
        if file := files[part]:
            head = ["\t".join(layout.columns)] if layout.header else []
            encoding = "utf-8-sig" if name == "mrpc" else "utf-8"
            (folder / file).write_text("\n".join([*head, *lines]) + "\n", encoding=encoding)
    return folder


def write_all(root: Path, name: str) -> Path:
    return write(
        root, name, train=rows_of(name, 40, "train"), validation=rows_of(name, 6, "val"), test=rows_of(name, 8, "test")
    )


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TENSORADAPT_DATA", str(tmp_path))
    monkeypatch.setitem(sys.modules, "datasets", None)
    return tmp_path


@pytest.fixture
def rated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small stand-in for the rated sentences, cut 10 to test, 10 to validation and the rest to train."""
    lines = [f"{row}\t{(row % 9 - 4) / 2}\tsentence number {row}\r" for row in range(90)]
    path = tmp_path / "movieReviewSnippets_GroundTruth.txt"
    path.write_bytes("\n".join([*lines, ""]).encode())
    monkeypatch.setattr(assets, "fetch", lambda name: tmp_path)
    monkeypatch.setattr(snippets, "N_TEST", 10)
    monkeypatch.setattr(snippets, "N_VALIDATION", 10)
    return path


def texts_of(split: tasks.Split) -> set[tuple[str, ...]]:
    assert split.texts is not None
    return set(split.texts)


def assert_apart(data: tasks.Data) -> None:
    train, validation, test = map(texts_of, (data.train, data.validation, data.test))
    assert not train & validation and not train & test and not validation & test


def test_a_file_in_the_folder_is_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parity.py").write_text(
        """
import numpy as np
from tensoradapt.lab.tasks.classification import Classification
from tensoradapt.lab.tasks.splits import Split


def load_splits(n_train, n_test):
    rows = [range(start, start + 10) for start in (0, 10, 20)]
    splits = [Split(tuple((f"{i}",) for i in r), np.array(r) % 2, tuple(map(str, r))) for r in rows]
    return (*splits, ("drawn",))


TASKS = {"parity": Classification("parity", 2, "accuracy", load_splits=load_splits)}
"""
    )
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
    assert "parity" in tasks.names() and tasks.get("parity").n_labels == 2
    data = ta.load_task("parity", n_train=4)
    assert (len(data.train), len(data.test), data.chance, data.notes) == (4, 10, 0.5, ("drawn",))


def test_an_unknown_task_names_the_closest() -> None:
    with pytest.raises(TensorAdaptError, match=r'unknown task "sts-b"; did you mean "stsb"\? Valid: sst2'):
        tasks.get("sts-b")


def test_snippets_drop_unclear_ratings_and_label_by_sign(rated: Path) -> None:
    data = ta.load_task("snippets")
    ratings = {str(row): (row % 9 - 4) / 2 for row in range(90)}
    for split in (data.train, data.validation, data.test):
        assert [bool(label) for label in split.labels] == [ratings[name] > 0 for name in split.ids]
        assert split.texts == tuple((f"sentence number {name}",) for name in split.ids)
    kept = sum(abs(rating) >= 0.5 for rating in ratings.values())
    assert [len(data.test), len(data.validation), len(data.train)] == [10, 10, kept - 20]
    assert_apart(data)


def test_snippets_splits_do_not_depend_on_the_order_of_the_file(rated: Path) -> None:
    before = ta.load_task("snippets")
    rated.write_bytes(b"\n".join(rated.read_bytes().strip().split(b"\n")[::-1]) + b"\n")
    after = ta.load_task("snippets")
    assert set(before.test.ids) == set(after.test.ids)
    assert set(before.validation.ids) == set(after.validation.ids)


def test_a_sample_is_drawn_by_seed_and_moves_nothing_across(rated: Path) -> None:
    whole = ta.load_task("snippets")
    samples = {seed: ta.load_task("snippets", n_train=20, n_test=5, seed=seed) for seed in (0, 1)}
    again = ta.load_task("snippets", n_train=30, n_test=5, seed=1)
    assert samples[0].train.ids != samples[1].train.ids
    assert samples[1].train.ids == again.train.ids[:20]
    assert samples[0].test.ids == samples[1].test.ids
    for sample in samples.values():
        assert set(sample.train.ids) < set(whole.train.ids)
        assert set(sample.test.ids) < set(whole.test.ids)
        assert sample.validation.ids == whole.validation.ids
        label_of = dict(zip(whole.train.ids, whole.train.labels, strict=True))
        assert [label_of[name] for name in sample.train.ids] == list(sample.train.labels)


def test_there_are_at_most_all_examples_and_none_is_refused(rated: Path) -> None:
    assert len(ta.load_task("snippets", n_train=10**6).train) == len(ta.load_task("snippets").train)
    with pytest.raises(TensorAdaptError, match="n_test is 0; expected a whole number from 1 up"):
        ta.load_task("snippets", n_test=0)


def test_a_damaged_rating_line_is_named(rated: Path) -> None:
    rated.write_text("1\t2.0\tfine\n2\tnot a number\ttext\n")
    with pytest.raises(TensorAdaptError, match=r"GroundTruth\.txt, line 2: found '2\\tnot a number"):
        ta.load_task("snippets")


@pytest.mark.parametrize("name", ALL_GLUE)
def test_a_local_glue_task_has_the_files_rows_in_disjoint_splits(local: Path, name: str) -> None:
    write_all(local, name)
    data = ta.load_task(name)
    carved = glue.LOCAL_FILES[name].validation is None
    assert (len(data.train), len(data.validation), len(data.test)) == ((36, 4, 8) if carved else (40, 6, 8))
    assert_apart(data)
    first = ('test "0', "test second 0") if data.task.pair else ('test "0',)
    assert data.test.texts is not None and data.test.texts[0] == first
    assert list(data.test.labels[:2]) == {"rte": [0, 1], "stsb": [0.5, 4.25]}.get(name, [0, 1])
    assert data.test.labels.dtype == (np.float64 if name == "stsb" else np.int64)


def test_texts_of_later_splits_are_removed_from_earlier_ones_and_counted(local: Path) -> None:
    train = [*rows_of("sst2", 10, "train"), "In  Test\t1", "in validation\t0", "IN TEST\t0"]
    write(local, "sst2", train=train, validation=["in validation\t1", "in test\t1"], test=["in test\t0", "other\t1"])
    data = ta.load_task("sst2")
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 1, 2)
    assert "3 train examples removed: their text is also in validation or test" in data.notes
    assert "1 validation examples removed: their text is also in test" in data.notes


def test_a_swapped_pair_is_the_same_text(local: Path) -> None:
    write(local, "rte", train=["0\tb\ta\tentailment", *rows_of("rte", 20, "train")], test=["0\ta\tb\tentailment"])
    data = ta.load_task("rte")
    assert ("b", "a") not in texts_of(data.train) | texts_of(data.validation)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("sst2", "no label", r"train\.tsv, line 42: found 1 columns 'no label', expected 2 .*sentence, label"),
        ("cola", "src\t1\t*\ttext\tmore", r"train\.tsv, line 41: found 5 columns .*expected 4"),
        ("stsb", "a\tb\tc\td\t1.0\tone", r"sts-train\.tsv, line 41: found 6 columns .*expected 7"),
        ("rte", "0\tone\ttwo\tmaybe", r"train\.tsv, line 42: found label 'maybe'"),
        ("mrpc", "2\t1\t2\tone\ttwo", r"msr_paraphrase_train\.txt, line 42: found label '2'"),
    ],
)
def test_a_wrong_line_is_named_with_what_was_expected(local: Path, name: str, line: str, message: str) -> None:
    write_all(local, name)
    write(local, name, train=[*rows_of(name, 40, "train"), line])
    with pytest.raises(TensorAdaptError, match=message):
        ta.load_task(name)


def test_an_unlabelled_test_file_is_refused_by_its_header(local: Path) -> None:
    folder = write_all(local, "sst2")
    (folder / "test.tsv").write_text("index\tsentence\n0\ttext\n")
    with pytest.raises(TensorAdaptError, match=r"test\.tsv, line 1: found 2 columns 'index', 'sentence', expected"):
        ta.load_task("sst2")


@pytest.mark.parametrize("where", ["unset", "elsewhere"])
def test_data_that_is_nowhere_says_both_ways(local: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    if where == "unset":
        monkeypatch.delenv("TENSORADAPT_DATA")
    with pytest.raises(TensorAdaptError) as caught:
        ta.load_task("cola")
    message = str(caught.value)
    assert ("TENSORADAPT_DATA is not set" if where == "unset" else "lacks train.tsv, val.tsv, dev.tsv") in message
    assert "glue/CoLA/" in message
    assert 'pip install "tensoradapt[hub]"' in message


def test_a_hub_that_cannot_be_reached_is_reported_with_the_local_way(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_dataset(*arguments: str) -> dict:
        raise ConnectionError("no route\nmore")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(TensorAdaptError, match=r"online \(no route\): set TENSORADAPT_DATA"):
        ta.load_task("rte")


@pytest.mark.parametrize("name", ALL_GLUE)
def test_online_glue_tests_on_its_validation_and_carves_ours_from_train(
    local: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def part(word: str, count: int) -> dict:
        columns = ("sentence1", "sentence2") if glue.TASKS[name].pair else ("sentence",)
        texts = {column: [f"{word} {column} {row} " for row in range(count)] for column in columns}
        return {**texts, "label": [row % 2 for row in range(count)]}

    def load_dataset(repository: str, config: str) -> dict:
        assert (repository, config) == ("nyu-mll/glue", name)
        return {"train": part("train", 30), "validation": part("dev", 7), "test": part("hidden", 5)}

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    data = ta.load_task(name)
    assert (len(data.train), len(data.validation), len(data.test)) == (27, 3, 7)
    assert all(text.startswith("dev ") and text == text.strip() for texts in texts_of(data.test) for text in texts)
    assert_apart(data)


def test_a_carved_validation_set_is_the_same_wherever_the_data_comes_from(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(local, "mrpc")
    here = ta.load_task("mrpc")
    everything = sorted(texts_of(here.train) | texts_of(here.validation), reverse=True)
    columns = {"sentence1": [one for one, _ in everything], "sentence2": [two for _, two in everything]}
    train = {**columns, "label": [0] * len(everything)}
    parts = {"train": train, "validation": {"sentence1": ["x"], "sentence2": ["y"], "label": [1]}}
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=lambda *_: parts))
    monkeypatch.delenv("TENSORADAPT_DATA")
    assert texts_of(ta.load_task("mrpc").validation) == texts_of(here.validation)


def test_chance_is_the_best_constant_answer_on_test(local: Path) -> None:
    for name in ALL_GLUE:
        write_all(local, name)
    write(local, "sst2", test=[*rows_of("sst2", 4, "test"), "more\t0"])
    write(local, "mrpc", test=[*rows_of("mrpc", 4, "test"), "1\t1\t2\tmore\tmore"])
    values = {name: ta.load_task(name).chance for name in ALL_GLUE}
    assert values == pytest.approx({"sst2": 3 / 5, "cola": 0, "rte": 1 / 2, "mrpc": 2 * 0.6 / 1.6, "stsb": 0})


def labelled(labels: np.ndarray) -> Split:
    return Split(None, labels, tuple(map(str, range(len(labels)))))


binary = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)


@given(binary)
def test_matthews_is_the_correlation_of_the_two_indicators(pairs: list[tuple[int, int]]) -> None:
    predicted, labels = np.array(pairs).T
    value = tasks.get("cola").evaluate(np.eye(2)[predicted], labelled(labels))["matthews"]
    degenerate = np.ptp(predicted) == 0 or np.ptp(labels) == 0
    assert value == pytest.approx(0.0 if degenerate else np.corrcoef(predicted, labels)[0, 1])


@given(binary)
def test_f1_is_the_harmonic_mean_of_precision_and_recall(pairs: list[tuple[int, int]]) -> None:
    predicted, labels = np.array(pairs).T
    value = tasks.get("mrpc").evaluate(np.eye(2)[predicted], labelled(labels))
    hits = labels[predicted == 1].sum()
    expected = 2 / (predicted.sum() / hits + labels.sum() / hits) if hits else 0.0
    assert value == pytest.approx({"f1": expected, "accuracy": np.mean(predicted == labels)})


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=40))
def test_spearman_is_pearson_of_ranks(pairs: list[tuple[int, int]]) -> None:
    scores, labels = np.array(pairs, dtype=np.float64).T
    value = tasks.get("stsb").evaluate(scores[:, None], labelled(labels))
    if np.ptp(scores) == 0 or np.ptp(labels) == 0:
        assert value == {"spearman": 0.0, "pearson": 0.0}
    else:
        ranks = np.corrcoef(rankdata(scores), rankdata(labels))[0, 1]
        expected = {"spearman": ranks, "pearson": np.corrcoef(scores, labels)[0, 1]}
        assert value == pytest.approx(expected, abs=1e-12)


def test_nearly_constant_predictions_neither_warn_nor_give_nan() -> None:
    scores = 1e8 + np.array([0.0, 1e-8, 2e-8, 3e-8])
    assert all(np.isfinite(list(tasks.get("stsb").evaluate(scores, labelled(np.arange(4.0))).values())))


def test_a_tasks_own_metric_comes_first() -> None:
    scores, labels = np.eye(2)[[0, 1, 1]], np.array([0, 1, 0])
    for name in ("snippets", *ALL_GLUE):
        own = scores[:, 0] if name == "stsb" else scores
        assert next(iter(tasks.get(name).evaluate(own, labelled(labels)))) == tasks.get(name).metric.name


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros((4, 2)), r"scores of shape \(4, 2\) for labels of shape \(3,\); expected \(n, n_labels\)"),
        (np.zeros(3), r"it is of classes, and scores have shape \(3,\)"),
    ],
)
def test_scores_that_cannot_be_judged_are_refused(scores: np.ndarray, message: str) -> None:
    with pytest.raises(TensorAdaptError, match=message):
        tasks.get("snippets").evaluate(scores, labelled(np.array([0, 1, 0])))


def linear_teacher(tokens: np.ndarray) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(64, 2))[tokens].sum(axis=1) + 3.0


def test_planted_tokens_are_in_range_and_never_move() -> None:
    data, more = ta.load_task("planted"), ta.load_task("planted", n_train=700)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [512, 256, 256]
    rows = np.concatenate([split.tokens for split in (data.train, data.validation, data.test)])  # type: ignore[misc]
    assert rows.dtype == np.int64 and rows.shape == (1024, 12)
    assert (rows[:, 0] == planted.CLS).all()
    assert set(np.unique(rows[:, 1:])) == set(range(3, 64))
    assert len(np.unique(rows, axis=0)) == 1024, "splits share a row"
    tokens = {name: row.tolist() for name, row in zip(more.train.ids, more.train.tokens, strict=True)}  # type: ignore[arg-type]
    assert all(tokens[name] == row.tolist() for name, row in zip(data.train.ids, data.train.tokens, strict=True))  # type: ignore[arg-type]
    small = ta.load_task("planted", n_train=32, n_test=16, seed=3)
    assert (len(small.train), len(small.test)) == (32, 16)
    assert set(small.train.ids) < set(data.train.ids)


def test_a_task_that_is_printed_says_how_many_examples_it_has_and_not_each() -> None:
    shown = repr(ta.load_task("planted", n_train=300))
    assert "train=Split(300 examples of tokens, labels int64)" in shown and len(shown) < 1000


def test_planted_labels_are_balanced_on_train_and_follow_the_margin() -> None:
    data = planted.label(ta.load_task("planted"), linear_teacher)
    assert data.train.labels.mean() == 0.5
    assert np.isfinite(data.chance) and not data.notes
    for split in (data.train, data.validation, data.test):
        margin = np.diff(linear_teacher(split.tokens), axis=1)[:, 0]  # type: ignore[arg-type]
        assert margin[split.labels == 1].min() > margin[split.labels == 0].max()
    constant = np.tile([0.0, 1.0], (256, 1))
    accuracy = data.task.evaluate(constant, data.test)["accuracy"]
    assert data.chance == max(accuracy, 1 - accuracy)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (lambda tokens: np.full((len(tokens), 2), np.nan), "same margin nan.*larger delta"),
        (lambda tokens: np.zeros((len(tokens), 2)), "same margin 0.*larger delta"),
    ],
)
def test_a_teacher_that_cannot_label_is_refused(teacher: object, message: str) -> None:
    with pytest.raises(TensorAdaptError, match=message):
        planted.label(ta.load_task("planted"), teacher)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_real_snippets_are_10072_balanced_rows() -> None:
    data = ta.load_task("snippets")
    labels = np.concatenate([split.labels for split in (data.train, data.validation, data.test)])
    assert len(labels) == 10_072
    assert labels.mean() == pytest.approx(0.5, abs=0.01)
    assert (len(data.test), len(data.validation)) == (1500, 1000)
    assert_apart(data)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TENSORADAPT_DATA"), reason="TENSORADAPT_DATA names no folder with GLUE files")
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("sst2", (60614, 6735, 872)),
        ("cola", (7250, 1301, 1043)),
        ("rte", (2241, 249, 277)),
        ("mrpc", (3669, 407, 1725)),
        ("stsb", (5749, 1500, 1379)),
    ],
)
def test_the_real_glue_files_hold_their_published_counts(name: str, counts: tuple[int, int, int]) -> None:
    found = glue.load_splits(name)[:3]
    assert tuple(map(len, found)) == counts
    data = ta.load_task(name)
    assert_apart(data)
    assert len(data.test) == counts[2]

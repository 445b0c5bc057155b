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


def linear_teacher(tokens: np.ndarray) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(64, 2))[tokens].sum(axis=1) + 3.0


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

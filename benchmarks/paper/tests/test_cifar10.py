"""CIFAR-10 from an archive or online: disjoint splits without repeats, and each fault names its file."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

import tensoradapt as ta
from tensoradapt.lab.tasks.splits import DataSpec
from tensoradapt.lab.tasks.vision import pictures
from tensoradapt_paper import cifar10
from tensoradapt_paper.cifar10 import CIFAR10, CIFAR10_FULL, CLASSES

PER_CLASS = {"train": 4, "test": 2}


def png(seed: int, side: int = 8) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def members() -> dict[str, bytes]:
    """Four pictures of each class in train and two in test; no two are equal."""
    names = [
        f"{part}/{kind}/{i:04}.png" for part, n in PER_CLASS.items() for kind in reversed(CLASSES) for i in range(n)
    ]
    return {name: png(seed) for seed, name in enumerate(names)}


@pytest.fixture(autouse=True)
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the archive is looked for; there is none yet."""
    monkeypatch.setenv("TENSORADAPT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "data" / "vision" / "cifar10_subset.zip"
    path.parent.mkdir(parents=True)
    cifar10._from_archive.cache_clear()
    return path


def write(path: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def test_the_archive_becomes_disjoint_splits_with_the_classes_of_its_folders(local: Path) -> None:
    files = members()
    write(local, files)
    data = CIFAR10.load()
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    assert {part: len(split) for part, split in parts.items()} == {"train": 36, "validation": 4, "test": 20}
    assert data.chance == 0.1 and data.notes == ("from cifar10_subset.zip; validation is a tenth of its train",)
    contents = [digest for split in parts.values() for digest in split.contents]
    assert len({*contents}) == 60
    for split in parts.values():
        for name, label, picture in zip(split.ids, split.labels, split.pictures or (), strict=True):
            assert CLASSES[label] == name.split("/")[1] and picture == pictures.read(local / name, files[name])
    assert list(data.test.ids) == sorted(name for name in files if name.startswith("test/"))


def test_pictures_are_decoded_once_in_a_process_until_the_archive_changes(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    opened = pictures.opened
    monkeypatch.setattr(pictures, "opened", lambda path, data: read.append(path) or opened(path, data))
    write(local, members())
    for seed in (0, 1):
        CIFAR10.load(data=DataSpec(n_train=10, n_test=5), seed=seed)
    assert len(read) == 60
    write(local, {**members(), "train/cat/more.png": png(-1 % 1000)})
    assert len(CIFAR10.load().train) == 37 and len(read) == 60 + 61


def test_repeated_and_shared_pictures_are_removed_and_counted(local: Path) -> None:
    files = members()
    again = Image.open(io.BytesIO(files["train/cat/0000.png"]))
    file = io.BytesIO()
    again.save(file, "BMP")  # the same pixels in another file
    files |= {"train/cat/again.bmp": file.getvalue(), "train/dog/again.png": files["train/cat/0001.png"]}
    files |= {"train/cat/leaked.png": files["test/cat/0000.png"], "test/cat/twice.png": files["test/cat/0001.png"]}
    write(local, files)
    data = CIFAR10.load()
    assert data.notes[1:3] == (
        "2 train examples removed: their picture is there before",
        "1 test examples removed: their picture is there before",
    )
    assert "examples removed: their picture is also in" in data.notes[3]
    assert len(data.train) + len(data.validation) == 40 and len(data.test) == 20
    kept = {*data.train.ids, *data.validation.ids}
    assert not kept & {"train/cat/again.bmp", "train/dog/again.png", "train/cat/leaked.png"}


def test_other_files_are_counted_and_those_of_systems_passed_over(local: Path) -> None:
    extra = {"README.txt": b"x", "train/labels.csv": b"x", "train/cat/": b""}
    write(local, {**members(), **extra, "__MACOSX/train/cat/._0.png": b"x", "train/.DS_Store": b"x"})
    data = CIFAR10.load()
    assert data.notes[1:] == ("left out, as they are no pictures: 2 files (README.txt, train/labels.csv)",)
    assert len(data.train) == 36


def changed(**files: bytes) -> Callable[[Path], None]:
    return lambda path: write(path, {**members(), **{name.replace("__", "/"): data for name, data in files.items()}})


def holding(name: str, data: bytes = b"x") -> Callable[[Path], None]:
    return lambda path: write(path, {**members(), name: data})


def cut(path: Path) -> None:
    write(path, members())
    path.write_bytes(path.read_bytes()[:-400])


def flipped(path: Path) -> None:
    """A byte of the first picture's content is another."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members().items():
            archive.writestr(name, data)
    data = bytearray(path.read_bytes())
    at = data.index(members()["test/airplane/0000.png"]) + 60
    data[at] ^= 1
    path.write_bytes(data)


def locked(path: Path) -> None:
    """Every member is said to be encrypted."""
    write(path, members())
    data = path.read_bytes()
    for sign, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        parts = data.split(sign)
        data = sign.join([parts[0], *(part[: at - 4] + b"\x01" + part[at - 3 :] for part in parts[1:])])
    path.write_bytes(data)


def without(start: str) -> Callable[[Path], None]:
    return lambda path: write(path, {name: data for name, data in members().items() if not name.startswith(start)})


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut off": (cut, r"cifar10_subset\.zip cannot be read \(File is not a zip file\); expected an archive with train/"),
    "text": (lambda path: path.write_bytes(b"<html>"), r"cifar10_subset\.zip cannot be read \(File is not a zip file"),
    "empty": (lambda path: path.write_bytes(b""), r"cifar10_subset\.zip cannot be read \(File is not a zip file"),
    "damaged": (flipped, r"zip/test/airplane/0000\.png cannot be read \(Bad CRC-32"),
    "locked": (locked, r"zip/test/airplane/0000\.png cannot be read \(File .* is encrypted"),
    "no picture": (holding("train/cat/0003.png"), r"zip/train/cat/0003\.png cannot be read \(damaged or of another"),
    "cut picture": (holding("test/cat/1.png", png(7)[:-40]), r"zip/test/cat/1\.png cannot be read \(.*truncated"),
    "class": (holding("train/plane/1.png", png(7)), r"zip/train/plane/1\.png is of class 'plane'; did you mean"),
    "part": (holding("val/cat/1.png", png(7)), r"zip holds 'val/cat/1\.png'; expected train/CLASS/NAME or test/CLASS"),
    "nested": (holding("train/cat/a/1.png", png(7)), r"zip holds 'train/cat/a/1\.png'; expected train/CLASS/NAME"),
    "parent": (holding("train/cat/../../../x.png", png(7)), r"zip holds 'train/cat/.*x\.png', which leads out of it"),
    "text out": (holding("../x.txt"), r"zip holds '\.\./x\.txt', which leads out of it; expected .*: do not use"),
    "absolute": (holding("/tmp/x.png", png(7)), r"zip holds '/tmp/x\.png', which leads out of it"),
    "backslash": (holding("train\\..\\..\\x.png", png(7)), r"zip holds 'train.*x\.png', which leads out of it"),
    "drive": (holding("C:x.png", png(7)), r"zip holds 'C:x\.png', which leads out of it"),
    "control": (holding("train/cat/\x1b[31m\n.png", png(7)), r"zip holds 'train/cat/\\x1b\[31m\\n\.png', whose name"),
    "large": (holding("train/cat/x.png", bytes(2**20 + 1)), r"zip/train/cat/x\.png has 1,048,577 bytes; expected a"),
    "no class": (without("train/dog"), r"cifar10_subset\.zip has no pictures in train/dog; expected some"),
    "no test": (without("test"), r"cifar10_subset\.zip has no pictures in test/airplane; expected some: replace"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_archive_is_refused_by_one_message_that_names_the_file(local: Path, name: str) -> None:
    make, says = BAD[name]
    make(local)
    before = sorted(local.parents[1].rglob("*"))
    with pytest.raises(ta.TensorAdaptError, match=says) as raised:
        CIFAR10.load()
    assert len(str(raised.value).splitlines()) == 1
    assert sorted(local.parents[1].rglob("*")) == before  # nothing was unpacked


def test_an_archive_of_too_many_files_is_refused(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(local, members())
    monkeypatch.setattr(cifar10, "MOST_FILES", 59)
    with pytest.raises(ta.TensorAdaptError, match=r"cifar10_subset\.zip holds 60 files; expected at most 59"):
        CIFAR10.load()


@pytest.mark.parametrize("where", ["unset", "elsewhere"])
def test_pictures_that_are_nowhere_say_both_ways(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    if where == "unset":
        monkeypatch.delenv("TENSORADAPT_DATA")

    def load_dataset(name: str) -> Any:
        raise ConnectionError("no route\nmore")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ta.TensorAdaptError) as caught:
        CIFAR10.load()
    assert ("TENSORADAPT_DATA is not set" if where == "unset" else "there is no ") in str(caught.value)
    assert "online (no route): set TENSORADAPT_DATA to a folder with vision/cifar10_subset.zip" in str(caught.value)
    assert 'pip install "tensoradapt[hub]"' in str(caught.value)
    with pytest.raises(ta.TensorAdaptError, match="it is never read from TENSORADAPT_DATA") as caught:
        CIFAR10_FULL.load()
    assert "cifar10_subset" not in str(caught.value)


def online(monkeypatch: pytest.MonkeyPatch, classes: tuple[str, ...] = CLASSES) -> None:
    """The hub's data set, with three more pictures of each class than the archive has."""
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=list(classes))})

    def part(n: int, start: int) -> datasets.Dataset:
        labels = [i % 10 for i in range(10 * n)]
        shown = [{"bytes": png(start + i), "path": None} for i in range(10 * n)]
        return datasets.Dataset.from_dict({"img": shown, "label": labels}, features=features)

    def load_dataset(name: str) -> Mapping[str, datasets.Dataset]:
        assert name == "uoft-cs/cifar10"
        return {"train": part(7, 0), "test": part(5, 1000)}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(cifar10, "FIRST", PER_CLASS)


def test_online_the_first_of_each_class_or_all_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    online(monkeypatch)
    data = CIFAR10.load()
    assert [len(split) for split in (data.train, data.validation, data.test)] == [36, 4, 20]
    assert np.bincount(data.test.labels).tolist() == [2] * 10
    assert set(data.test.ids) == {f"test-{i}" for i in range(20)}
    assert data.notes == ("from uoft-cs/cifar10 online, the first of each class; validation is a tenth of train",)
    whole = CIFAR10_FULL.load()
    assert [len(split) for split in (whole.train, whole.validation, whole.test)] == [63, 7, 50]
    assert whole.test.pictures and whole.test.pictures[3] == pictures.read(Path("test-3"), png(1003))


def test_another_order_of_classes_online_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    online(monkeypatch, CLASSES[::-1])
    with pytest.raises(ta.TensorAdaptError, match=r"uoft-cs/cifar10 has the classes truck, ship.*; expected airplane"):
        CIFAR10_FULL.load()


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TENSORADAPT_DATA"), reason="TENSORADAPT_DATA names no folder with CIFAR-10")
def test_the_real_archive_holds_300_and_100_pictures_of_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORADAPT_DATA", REAL)
    data = CIFAR10.load()
    assert [len(split) for split in (data.train, data.validation, data.test)] == [2700, 300, 1000]
    counts = np.bincount(np.concatenate([data.train.labels, data.validation.labels]))
    assert counts.tolist() == [300] * 10 and np.bincount(data.test.labels).tolist() == [100] * 10
    assert len({*data.train.contents, *data.validation.contents, *data.test.contents}) == 4000


REAL = os.environ.get("TENSORADAPT_DATA", "")

"""Folders of pictures: parts share no picture, the content counts and not its place, and each fault names its file."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from support.configs import config_of
from support.pictures import SIZE, save_model, vit, write

import tensoradapt as ta
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.tasks import registry
from tensoradapt.lab.tasks.task import Task
from tensoradapt.lab.tasks.vision import pictures
from tensoradapt.lab.tasks.vision.task import Pictures


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_REGISTERED", {})
    pictures._kept.cache_clear()


def record(value: Any) -> Any:
    return registry.resolve(value)[1]


def digests(task: Task) -> list[list[str]]:
    data = task.load()
    return [[picture.digest for picture in split.pictures or ()] for split in (data.train, data.validation, data.test)]


def test_parts_share_no_picture_and_equal_ones_stay_together() -> None:
    folder = write("pets", 40)
    for i in range(12):  # the same pixels in other files, and in another format
        Image.open(folder / "red" / "000.png").save(folder / "red" / f"copy{i}.bmp")
    seen = set()
    for seed in (0, 1):
        task, _ = registry.resolve({"train": "pets", "split": {"validation": 0.2, "test": 0.3}, "seed": seed})
        train, validation, test = digests(task)
        assert not set(train) & set(validation) and not set(train) & set(test) and not set(validation) & set(test)
        assert sum(map(len, (train, validation, test))) == 92 and len({*train, *validation, *test}) == 80
        assert 28 <= len(test) <= 28 + 12 and 18 <= len(validation) <= 18 + 12
        seen.add(frozenset(test))
    assert len(seen) == 2


def test_what_a_given_part_shares_with_a_later_one_is_removed_and_counted() -> None:
    write("all/train", 20), write("all/val", 5, seed=1), write("all/test", 5, seed=2)
    shutil.copy("all/test/red/001.png", "all/train/red/again.png")
    shutil.copy("all/test/red/002.png", "all/val/red/again.png")
    task, _ = registry.resolve("all")
    data = task.load()
    assert [len(split) for split in (data.train, data.validation, data.test)] == [40, 10, 10]
    notes = "; ".join(data.notes)
    assert "1 train examples removed: their picture is also in validation or test" in notes
    assert "1 validation examples removed: their picture is also in test" in notes
    assert data.test.ids[0] == "test/blue/000.png" and data.validation.ids[0] == "val/blue/000.png"


def test_the_content_is_hashed_and_not_its_place_nor_its_format() -> None:
    folder = write("here")
    first = record("here")
    assert first["labels"] == ["blue", "red"] and first["source"] == {"train": str(folder.absolute()), "name": "here"}
    shutil.copytree("here", "there/moved")
    assert record("there/moved")["hash"] == first["hash"]
    Image.open("there/moved/red/003.png").save("there/moved/red/003.bmp")
    Path("there/moved/red/003.png").unlink()
    assert record("there/moved")["hash"] == first["hash"]
    changed = np.asarray(Image.open("here/red/003.png")).copy()
    changed[0, 0, 0] ^= 1
    Image.fromarray(changed).save("there/moved/red/003.bmp")
    assert record("there/moved")["hash"] != first["hash"]
    Path("here/red").rename("here/green")  # a label's name counts too, and its number
    assert record("here")["labels"] == ["blue", "green"] and config("here").id != config("there/moved").id


def config(task: Any, model: str = "my-vit") -> RunConfig:
    found, said = registry.resolve(task)
    return config_of(model, found.name, kind="head", lr=1e-2, batch=8, own=said)


def test_folders_of_parts_are_found_or_named() -> None:
    write("all/train", 20), write("all/val", 5, seed=1), write("all/test", 5, seed=2)
    named = {"train": "all/train", "validation": "all/val", "test": "all/test"}
    assert record("all")["hash"] == record(named)["hash"] == record({"train": "all"})["hash"]
    shutil.rmtree("all/val")
    task, _ = registry.resolve("all")
    assert [len(split) for split in (task.load().train, task.load().validation, task.load().test)] == [36, 4, 10]
    made = ta.register_task("mine", train="all/train", test="all/test", labels=["red", "blue"])
    assert isinstance(made, Pictures) and made.load().test.labels.tolist() == [1] * 5 + [0] * 5
    write("trips", classes=("bus", "train"))  # a class of that name holds pictures and no folders
    assert record("trips")["labels"] == ["bus", "train"]


def test_a_batch_is_what_the_models_own_processor_makes() -> None:
    write("pets")
    name = save_model("my-vit", vit())
    processor = transformers.AutoImageProcessor.from_pretrained(name, backend="pil")
    task, _ = registry.resolve("pets")
    split = task.load().train
    model = task.model(name)
    batch = task.collate(task.encode(split, name, 64)[:5], model, "cpu")
    raw = [Image.open(picture.path).convert("RGB") for picture in (split.pictures or ())[:5]]
    expected = processor(images=raw, return_tensors="pt")["pixel_values"]
    assert batch["pixel_values"].shape == (5, 3, SIZE, SIZE) and torch.equal(batch["pixel_values"], expected)
    assert batch["labels"].tolist() == split.labels[:5].tolist() and task.heads(model) == ("classifier",)
    half = task.collate(task.encode(split, name, 64)[:2], model.half(), "cpu")
    assert half["pixel_values"].dtype == torch.float16
    assert task.described(name).startswith(f"a picture becomes pixel_values 3 x {SIZE} x {SIZE} by the image processor")


def test_a_head_of_another_number_of_classes_is_drawn_from_the_seed_and_nothing_else_is() -> None:
    write("pets")
    base = vit()
    whole = transformers.ViTForImageClassification(base.config)  # it has two classes by default
    saved = save_model("saved", transformers.ViTForImageClassification(vit(num_labels=7).config))
    task, _ = registry.resolve("pets")
    heads = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        heads.append(task.model(saved).classifier.weight)
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2]) and heads[0].shape == (2, 24)
    kept = save_model("kept", whole)
    assert torch.equal(task.model(kept).classifier.weight, whole.classifier.weight)
    path = Path(saved) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "image_size": 32}))
    with pytest.raises(ta.TensorAdaptError, match=r"saved: weight vit.embeddings.position_embeddings has shape \(1, 5"):
        task.model(saved)


def without(*names: str) -> Callable[[], Any]:
    def make() -> str:
        folder = write("pets")
        for name in names:
            shutil.rmtree(folder / name)
        return "pets"

    return make


def holding(data: bytes, name: str = "red/003.png") -> Callable[[], Any]:
    def make() -> str:
        (write("pets") / name).write_bytes(data)
        return "pets"

    return make


def saved(picture: Image.Image, name: str = "red/003.png") -> Callable[[], Any]:
    def make() -> str:
        picture.save(write("pets") / name)
        return "pets"

    return make


def given(**settings: Any) -> Callable[[], Any]:
    return lambda: {"train": str(write("pets")), **settings}


def cut() -> str:
    path = write("pets") / "red" / "003.png"
    path.write_bytes(path.read_bytes()[:-300])
    return "pets"


def bomb() -> str:
    """A header that claims 60,000 x 60,000 pixels."""
    header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    data = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    return holding(data + (0).to_bytes(4, "big") + b"IDAT" + zlib.crc32(b"IDAT").to_bytes(4, "big"))()


def empty_class() -> str:
    (write("pets") / "green").mkdir()
    (Path("pets") / "green" / "a.txt").write_text("x")
    return "pets"


def parts(*names: str) -> Callable[[], Any]:
    def make() -> str:
        for seed, name in enumerate(names):
            write(f"all/{name}", seed=seed)
        return "all"

    return make


def unknown_class() -> Any:
    return {"train": write("a").as_posix(), "test": write("b", 4, ("blue", "red", "odd"), 1).as_posix()}


def linked(target: str) -> Callable[[], Any]:
    def make() -> str:
        (write("pets") / "red" / "link.png").symlink_to(target)
        return "pets"

    return make


def file_and_folder() -> Any:
    Path("a.csv").write_text("text,label\na,b\n")
    return {"train": write("pets").as_posix(), "test": "a.csv"}


GREY16 = Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 200)
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "cut off": (cut, r"pets/red/003\.png cannot be read \(.*truncated.*\); expected a picture \(\.png \.jpg .*replace"),
    "empty file": (holding(b""), r"pets/red/003\.png cannot be read \(damaged or of another format\)"),
    "bomb": (bomb, r"pets/red/003\.png has more than 89,478,485 pixels; expected fewer: make it smaller"),
    "deep grey": (saved(GREY16), r"pets/red/003\.png has greys of more than 8 bits \(mode I;16\); expected 8"),
    "no classes": (without("red", "blue"), r"pets has no folders; expected a folder of pictures for each class, as in"),
    "one class": (without("red"), r"pets: every label in 'class' is 'blue'; expected two classes or more"),
    "no pictures": (empty_class, r"pets/green has no pictures; expected some \(\.png .*\): add them, or remove"),
    "unknown class": (unknown_class, r"class 'odd' is in test \(4 rows\) and not in train"),
    "broken link": (linked("nowhere.png"), r"link\.png cannot be read \(No such file"),
    "no train": (parts("val", "test"), r"all has test and no train; expected folders train, validation \(or val\) and"),
    "part twice": (parts("train", "val", "validation"), r"all/val is beside .*all/validation; expected folders"),
    "file and folder": (file_and_folder, r"a\.csv is no folder; expected one with a folder of pictures"),
    "column": (
        given(text="caption"),
        r"text is \('caption',\); expected none with pictures, as in .*pets: leave it out",
    ),
    "labels": (given(labels=["red", "green"]), r"pets/blue/000\.png: the label is 'blue'; expected one of labels"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_folders_are_refused_by_one_message_that_names_what_is_wrong(name: str) -> None:
    make, says = BAD[name]
    with pytest.raises(ta.TensorAdaptError, match=says) as raised:
        registry.resolve(make())
    assert len(str(raised.value).splitlines()) == 1


def test_a_model_without_an_image_processor_is_refused_with_what_to_save() -> None:
    write("pets")
    save_model("bare", vit(), processor=False)
    task, _ = registry.resolve("pets")
    with pytest.raises(
        ta.TensorAdaptError, match=r"the image processor of bare cannot be loaded .*preprocessor_config"
    ):
        task.described("bare")

"""Folders of pictures: parts share no picture, the content counts and not its place, and each fault names its file."""

from __future__ import annotations

import json
import os
import shutil
import sys
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
from support.pictures import SIZE, dinov2, save_model, vit, write

import tensoradapt as ta
from tensoradapt.lab.data import models
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.execute import execute
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


def test_a_place_is_no_part_of_a_runs_id() -> None:
    write("one/pets"), shutil.copytree("one/pets", "two/pets")
    assert config("one/pets").id == config("two/pets").id
    names = [record(task)["source"]["name"] for task in ("one/pets", {"train": "one/pets/"}, {"dataset": "one/pets"})]
    assert names == ["pets"] * 3
    write("three/train")
    assert record("three/train")["source"]["name"] == record("three")["source"]["name"] == "three"


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


def test_other_files_are_counted_and_those_of_systems_ignored() -> None:
    folder = write("pets")
    for name in ("red/.DS_Store", "red/Thumbs.db", ".hidden", "red/.x.png"):
        (folder / name).write_text("x")
    (folder / ".ipynb_checkpoints").mkdir()
    clean = registry.resolve("pets")[0].load()
    assert clean.notes == ("test and validation drawn from train with seed 0",)
    (folder / "labels.csv").write_text("x")
    (folder / "red" / "notes.txt").write_text("x")
    shutil.copy(folder / "red" / "000.png", folder / "loose.png")
    (folder / "red" / "inner").mkdir()
    (folder / "red" / "000.png").rename(folder / "red" / "inner" / "000.png")
    data = registry.resolve("pets")[0].load()
    said = "left out, as they are no pictures of a class: 3 files (labels.csv, loose.png, red/notes.txt)"
    assert data.notes[-1] == said and len(data.train) == len(clean.train)
    assert "pets/red/inner/000.png" in {*data.train.ids, *data.validation.ids, *data.test.ids}


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1", "CMYK"])
def test_pictures_of_any_mode_are_read_in_rgb(mode: str) -> None:
    plain = Image.open(write("a", 1) / "red" / "000.png").convert(mode)
    plain.save("x.tif" if mode == "CMYK" else "x.png")
    found = pictures.opened(Path("x.tif" if mode == "CMYK" else "x.png"))
    assert found.mode == "RGB" and np.array_equal(np.asarray(found), np.asarray(plain.convert("RGB")))


def test_pictures_are_turned_as_their_exif_says() -> None:
    upright = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    upright.rotate(90, expand=True).save("x.png", exif=exif)
    assert np.array_equal(np.asarray(pictures.opened(Path("x.png"))), np.asarray(upright))


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


def test_pixel_values_are_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    write("pets")
    name = save_model("my-vit", vit())
    task, _ = registry.resolve("pets")
    read: list[Path] = []
    opened = pictures.opened
    monkeypatch.setattr(pictures, "opened", lambda path, data: read.append(path) or opened(path, data))
    monkeypatch.setattr(pictures, "KEPT_BYTES", 10 * 3 * SIZE * SIZE * 4)
    examples = task.encode(task.load().train, name, 64)[:12]
    first, second = (task.collate(examples, task.model(name), "cpu")["pixel_values"] for _ in range(2))
    assert torch.equal(first, second) and len(read) == 12 + 2


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


def test_a_picture_that_changes_after_the_plan_is_refused() -> None:
    write("pets")
    save_model("my-vit", vit())
    run = RunConfig.from_dict(json.loads(json.dumps(config("pets").as_dict())))
    task = registry.restore("pets", run.own)
    split = task.load().train
    assert split.pictures is not None
    Image.new("RGB", (SIZE, SIZE)).save(split.pictures[0].path)
    with pytest.raises(ta.TensorAdaptError, match=r"pets/blue/\d+\.png has changed since task 'pets' was read; put it"):
        task.collate(task.encode(split, "my-vit", 64), task.model("my-vit"), "cpu")
    registry._restored.cache_clear()
    with pytest.raises(ta.TensorAdaptError, match=r"data of task 'pets' has changed since the run was planned"):
        execute(run, "cpu")


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


def given_twice() -> Any:
    return {"train": parts("train", "test")(), "test": write("more").as_posix()}


def file_and_folder() -> Any:
    Path("a.csv").write_text("text,label\na,b\n")
    return {"train": write("pets").as_posix(), "test": "a.csv"}


GREY16 = Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 200)
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "cut off": (cut, r"pets/red/003\.png cannot be read \(.*truncated.*\); expected a picture \(\.png \.jpg .*replace"),
    "empty file": (holding(b""), r"pets/red/003\.png cannot be read \(damaged or of another format\)"),
    "text": (holding(b"text", "red/003.jpg"), r"pets/red/003\.jpg cannot be read \(damaged or of another format\)"),
    "postscript": (
        holding(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        r"003\.png cannot be read \(damaged or",
    ),
    "bomb": (bomb, r"pets/red/003\.png has more than 89,478,485 pixels; expected fewer: make it smaller"),
    "warned": (saved(Image.new("1", (9500, 9500))), r"pets/red/003\.png has more than 89,478,485 pixels"),
    "deep grey": (saved(GREY16), r"pets/red/003\.png has greys of more than 8 bits \(mode I;16\); expected 8"),
    "no classes": (without("red", "blue"), r"pets has no folders; expected a folder of pictures for each class, as in"),
    "one class": (without("red"), r"pets: every label in 'class' is 'blue'; expected two classes or more"),
    "no pictures": (empty_class, r"pets/green has no pictures; expected some \(\.png .*\): add them, or remove"),
    "unknown class": (unknown_class, r"class 'odd' is in test \(4 rows\) and not in train"),
    "broken link": (linked("nowhere.png"), r"link\.png cannot be read \(No such file"),
    "device": (linked("/dev/zero"), r"link\.png is no file; expected a picture"),
    "no train": (parts("val", "test"), r"all has test and no train; expected folders train, validation \(or val\) and"),
    "beside parts": (parts("train", "rest"), r"all/rest is beside .*all/train; expected folders train, validation"),
    "part twice": (parts("train", "val", "validation"), r"all/val is beside .*all/validation; expected folders"),
    "given twice": (given_twice, r"test is both .*more and .*all/test; expected one: name .*all/train as train"),
    "file and folder": (file_and_folder, r"a\.csv is no folder; expected one with a folder of pictures"),
    "column": (
        given(text="caption"),
        r"text is \('caption',\); expected none with pictures, as in .*pets: leave it out",
    ),
    "pair": (given(text=["a", "b"]), r"text is \(.*none with pictures"),
    "label": (given(label="kind"), r"label is 'kind'; expected none with pictures"),
    "length": (given(max_length=64), r"max_length is 64; expected none with pictures"),
    "regression": (given(kind="regression"), r"kind is 'regression'; expected 'classification', as pictures"),
    "labels": (given(labels=["red", "green"]), r"pets/blue/000\.png: the label is 'blue'; expected one of labels"),
    "few": (lambda: write("pets", 1).as_posix(), r"validation has no rows left|every label of test is the same"),
    "control": (
        lambda: write("pets", 3, ("a", "b\n")).as_posix(),
        r"the name of a class in .*pets is 'b\\n'; expected",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_folders_are_refused_by_one_message_that_names_what_is_wrong(name: str) -> None:
    make, says = BAD[name]
    with pytest.raises(ta.TensorAdaptError, match=says) as raised:
        registry.resolve(make())
    assert len(str(raised.value).splitlines()) == 1


def test_a_folder_that_may_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    write("pets")

    def scandir(path: Any) -> Any:  # as root may read every folder
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ta.TensorAdaptError, match=r"pets/blue cannot be read \(Permission denied\)"):
        registry.resolve("pets")


def refused(model: str) -> str:
    task, _ = registry.resolve("pets")
    with pytest.raises(ta.TensorAdaptError) as first:
        task.base(model)
    with pytest.raises(ta.TensorAdaptError) as second:
        task.model(model)
    assert str(first.value) == str(second.value)
    return str(first.value)


def test_models_of_texts_and_of_pictures_are_told_apart() -> None:
    write("pets")
    bert = transformers.BertConfig(**models.TINY_SIZES)
    transformers.BertModel(bert).save_pretrained("my-bert")
    for model in ("my-bert", models.TINY):
        assert f"model {model} is of type 'bert', of which transformers has no classifier of pictures" in refused(model)
    assert "expected a model such as ViT or DINOv2, as the task has pictures" in refused("my-bert")
    save_model("my-dino", dinov2())
    Path("a.csv").write_text("\n".join(["text,label", *(f"word {i},{('no', 'yes')[i % 2]}" for i in range(40))]))
    task, _ = registry.resolve("a.csv")
    for call in (task.base, task.model):
        with pytest.raises(
            ta.TensorAdaptError, match=r"my-dino is of type 'dinov2', .* no classifier of texts \(it has"
        ):
            call("my-dino")


def test_a_model_without_an_image_processor_is_refused_with_what_to_save() -> None:
    write("pets")
    save_model("bare", vit(), processor=False)
    task, _ = registry.resolve("pets")
    with pytest.raises(
        ta.TensorAdaptError, match=r"the image processor of bare cannot be loaded .*preprocessor_config"
    ):
        task.described("bare")


def test_an_image_processor_that_makes_several_sizes_is_refused() -> None:
    write("pets")
    save_model("loose", vit())
    path = Path("loose/preprocessor_config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_resize": False}))
    task, _ = registry.resolve("pets")
    with pytest.raises(
        ta.TensorAdaptError, match=r"image processor of loose makes pixel_values 3 x \d+ x 16 of .*blue"
    ):
        task.collate(task.encode(task.load().train, "loose", 64), task.model("loose"), "cpu")


def test_pillow_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    write("pets")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ta.TensorAdaptError, match=r"reading .*pets.*png needs `pillow`.*tensoradapt\[vision\]"):
        registry.resolve("pets")

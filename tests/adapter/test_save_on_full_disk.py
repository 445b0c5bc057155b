"""Saving over an older checkpoint on a disk that fills up: the old one stays, whole, until the new one is."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.disks import fill, small_disk
from harness.two_saves import TwoSaves, adapters, contents, exports

import tensoradapt as ta
from tensoradapt import files


def with_room(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Make the disk full once so many bytes are written."""
    left, write = [room], files.write_synced

    def limited(path: Path, data: bytes) -> None:
        write(path, data[: left[0]])
        if len(data) > left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= len(data)

    monkeypatch.setattr(files, "write_synced", limited)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [adapters, exports])
def test_the_old_files_stay_until_the_new_ones_are_whole(
    kind: Callable[[Path], TwoSaves], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = kind(tmp_path / "made")
    saves.first()
    saves.change()
    old = contents(tmp_path / "made")
    size = sum(map(len, old.values()))
    rooms = range(0, size, max(1, size // 200))
    for room in rooms:
        with monkeypatch.context() as patch:
            with_room(patch, room)
            with pytest.raises(ta.TensorAdaptError, match="No space left on device"):
                saves.second()
        assert contents(tmp_path / "made") == old
    assert len(rooms) >= 200
    saves.second()
    new = contents(tmp_path / "made")
    assert new.keys() == old.keys() and new != old


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
@pytest.mark.parametrize("kind", [adapters, exports])
def test_a_rename_that_fails_puts_the_old_files_back(
    kind: Callable[[Path], TwoSaves], error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves, replace, n = kind(tmp_path / "made"), Path.replace, 0
    saves.first()
    saves.change()
    old = contents(tmp_path / "made")

    def second_fails(path: Path, target: Path) -> Path:
        nonlocal n
        n += 1
        if n == 2:
            raise error
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", second_fails)
        with pytest.raises((ta.TensorAdaptError, KeyboardInterrupt)):
            saves.second()
    assert n > 2 and contents(tmp_path / "made") == old


@pytest.mark.slow
@pytest.mark.parametrize("kind", [adapters, exports])
def test_a_disk_that_is_really_full_leaves_the_old_files(kind: Callable[[Path], TwoSaves], tmp_path: Path) -> None:
    """A file system of its own, with room for 0, 1, 2 ... more pages, until the second save fits."""
    refused = 0
    with small_disk(tmp_path / "disk", "1m") as disk:
        while True:
            saves = kind(disk / "made")
            saves.first()
            saves.change()
            old, filler = contents(disk / "made"), fill(disk, 4096 * refused)
            try:
                saves.second()
                break
            except ta.TensorAdaptError as error:
                assert "No space left on device" in str(error)
                assert contents(disk / "made") == old
            filler.unlink()
            refused += 1
        assert contents(disk / "made").keys() == old.keys() and contents(disk / "made") != old
    print(f"{refused} saves were refused")
    assert refused >= 3

"""A disk that fills up in the middle of a sweep: it stops and says so, and nothing of it is lost or wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.disks import fill, small_disk
from support.sweeping import attempts, done, results, start, started, undisturbed, write_spec


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "runs", "8m") as where:
        yield where


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results of the same sweep where there is room."""
    folder = tmp_path_factory.mktemp("whole")
    return undisturbed(write_spec(folder, seed=[0, 1]), folder / "runs")


@pytest.mark.slow
@pytest.mark.parametrize("left", [0, 60 * 1024])
def test_a_sweep_on_a_full_disk_says_so_and_goes_on_when_there_is_room(
    whole: dict[str, bytes], disk: Path, tmp_path: Path, left: int
) -> None:
    spec = write_spec(tmp_path, seed=[0, 1])
    out, filler = disk, fill(disk, left)
    process = start(spec, out, "--workers", "2", "--checkpoint-every", "1")
    assert process.wait(240) == 2, out.with_suffix(".log").read_text()
    before = results(out)
    assert len(before) < 8
    assert all((path.parent / name).stat().st_size for path in done(out) for name in ("config.json", "provenance.json"))
    filler.unlink()
    assert undisturbed(spec, out) == whole
    assert before.items() <= results(out).items()
    assert len(started(out)) == 8
    # a result that found no room was computed and not written: its attempt says finished, and so does the next
    assert all(attempts(out / name)[-1]["event"] == "finished" for name in started(out))
    assert not list(out.glob(".*.tmp")) and not list(out.glob("*/*.tmp"))

"""Files that others open: cells of a CSV that no spreadsheet runs, and several files that are replaced together."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from tensoradapt import files
from tensoradapt.checks import text
from tensoradapt.errors import LONGEST, TensorAdaptError, did_you_mean


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("-1", "'-1"),
        ("\tx", r"\tx"),
        ("a\x1b[31m", r"a\x1b[31m"),
        ("é = 1", "é = 1"),
    ],
)
def test_a_text_that_a_spreadsheet_would_run_is_a_text(cell: str, written: str) -> None:
    (row,) = csv.DictReader(io.StringIO(files.csv_bytes(["a", "b"], [{"a": cell, "b": -1.5}]).decode(), newline=""))
    assert row == {"a": written, "b": "-1.5"}


def test_files_are_replaced_together_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "b").mkdir()
    with pytest.raises(TensorAdaptError, match="cannot be written"):
        files.replace_files({tmp_path / "a": b"new", tmp_path / "a" / "c": b"new"})
    assert (tmp_path / "a").read_bytes() == b"old" and sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]
    files.replace_files({tmp_path / "a": b"new", tmp_path / "b" / "c": b"more"})
    assert (tmp_path / "a").read_bytes() == b"new" and (tmp_path / "b" / "c").read_bytes() == b"more"


@pytest.mark.parametrize("value", ["a\nb", "a\x00", "\x1b[31m", "a\u202eb"])
def test_names_have_no_control_characters(value: str) -> None:
    with pytest.raises(TensorAdaptError, match="without line breaks and control characters"):
        text(value, "name")


def test_a_long_message_loses_its_middle_and_long_lists_end_with_a_count() -> None:
    assert len(str(TensorAdaptError("x" * 10_000))) <= LONGEST
    assert "(10,000 characters)" in str(TensorAdaptError("x" * 10_000))
    assert did_you_mean("x", map(str, range(100))).endswith("0, 1, 2, 3, 4 and 95 more")

"""Each kind of change that CONTRIBUTING lists is made in a scratch copy, in the files named there, and works."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import changes


@pytest.mark.thorough
def test_every_kind_of_change_works_in_the_files_that_it_touches(tmp_path: Path) -> None:
    assert not changes.run(changes.scratch(tmp_path))


def test_contributing_lists_the_files_of_each_change() -> None:
    assert changes.table() in (changes.ROOT / "CONTRIBUTING.md").read_text()

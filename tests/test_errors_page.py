"""docs/reference/errors.md shows the messages as they are raised."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.likely_errors import LIKELY

import tensoradapt as ta

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "errors.md").read_text()
SECTION = r"^## ([^\n]+)\n\n```text\n(.*?)\n```\n\n\*\*Cause\.\*\* .*?\n\n\*\*Mend\.\*\* "
SHOWN = dict(re.findall(SECTION, PAGE, re.MULTILINE | re.DOTALL))


def bare(message: str) -> str:
    """Without line breaks, without hashes, which are of random weights, and without the folders of the machine."""
    without_hashes = re.sub(r"\b[0-9a-f]{12}\b", "HASH", " ".join(message.split()))
    return re.sub(r"/\S+/(?=\w+\.csv)", "", without_hashes)


def test_the_page_has_ten_errors_with_cause_and_mend() -> None:
    assert list(SHOWN) == list(LIKELY) and len(LIKELY) == 10


@pytest.mark.parametrize("heading", LIKELY)
def test_the_message_is_the_one_that_is_raised(heading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ta.TensorAdaptError) as refused:
        LIKELY[heading]()
    assert bare(str(refused.value)) == bare(SHOWN[heading])

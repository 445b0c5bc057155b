"""What is refused is refused by one error, which says in one line what was found and what was expected, for tests."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tensoradapt.errors import TensorAdaptError


def refused(call: Callable[[], object], says: str) -> None:
    """Check that a call raises TensorAdaptError with a message of one line that matches."""
    with pytest.raises(TensorAdaptError) as caught:
        call()
    assert re.search(says, str(caught.value)) and "\n" not in str(caught.value), str(caught.value)

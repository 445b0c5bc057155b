"""The real language model of the plug-in in benchmarks/paper, and the mark of tests that need it."""

from __future__ import annotations

import pytest

from tensoradapt.lab.data import models

SMOLLM2 = "smollm2-135m-instruct"
needs_smollm2 = pytest.mark.skipif(
    SMOLLM2 not in models.names(), reason=f"{SMOLLM2} is of a plug-in: pip install -e benchmarks/paper"
)

"""Every law holds for every parameterization that can be named, whatever the layout, sizes, ranks and seed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensoradapt import parameterizations
from tensoradapt.modes import Layout
from tensoradapt.testing import LAWS, cases


def orders(layout: Layout) -> st.SearchStrategy[dict[str, Any]]:
    """The usual chain of a tensor-train, or any other."""
    return st.permutations(layout.names).map(lambda order: {"order": order}) | st.just({})


OPTIONS = {"tensor_train": orders}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("parameterization", parameterizations.names())
@given(data=st.data())
def test_the_law_holds(law: str, parameterization: str, data: st.DataObject) -> None:
    LAWS[law](data.draw(cases(parameterization, OPTIONS.get(parameterization))))

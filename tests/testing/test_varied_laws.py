"""Every law holds for every parameterization whose factors are frozen and shared at random.

The oracle is the parameterization's own, of factors that are repeated over the modes that they leave out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_laws import OPTIONS

from tensoradapt import parameterizations
from tensoradapt.errors import TensorAdaptError
from tensoradapt.networks.layout import Layout
from tensoradapt.networks.network import Factor, Network
from tensoradapt.networks.varied import varied
from tensoradapt.testing import LAWS, cases
from tensoradapt.testing.laws import Case


def repeated(value: np.ndarray, plain: Factor, shared: Factor, sizes: Mapping[str, int]) -> np.ndarray:
    """A shared factor's values over all axes that the parameterization's own has."""
    shape = [sizes[x] for x in plain.labels]
    over = [i for i, label in enumerate(plain.labels) if label not in shared.labels]
    return np.broadcast_to(np.expand_dims(value, over), shape).copy()


def family(name: str, plain: Network, network: Network) -> Any:
    """The parameterization as an object whose count and oracle are those of the varied network."""
    original = parameterizations.get(name)
    factors = list(zip(plain.factors, network.factors, strict=True))

    def count(layout: Layout, rank: Any, **options: Any) -> int:
        """The closed formula, less all but one copy of what is shared, and less what is frozen."""
        left = original.count(layout, rank, **options)
        for own, now in factors:
            n = math.prod(plain.shape(own))
            copies = math.prod(plain.sizes[x] for x in own.labels if x not in now.labels)
            kept = n // copies if now.trainable else 0
            left -= (n - kept) if own.trainable else 0
        return left

    def oracle(layout: Layout, values: Mapping[str, np.ndarray]) -> np.ndarray:
        whole = {own.name: repeated(values[own.name], own, now, plain.sizes) for own, now in factors}
        return original.oracle(layout, whole)

    below = getattr(original, "below_cut", "") or any(own.trainable and not now.trainable for own, now in factors)
    decompose = getattr(original, "decompose", None)
    return SimpleNamespace(
        count=count, oracle=oracle, build=original.build, decompose=decompose, below_cut=below, __name__=name
    )


@st.composite
def varied_cases(draw: st.DrawFn, name: str) -> Case:
    """Cases of which some factors are frozen or shared."""
    case = draw(cases(name, OPTIONS.get(name)))
    plain = case.network
    index = {mode.name for mode in plain.layout.index}
    shared: dict[str, list[str]] = {}
    for factor in plain.factors:
        for label in factor.labels:
            kept = sum(label in f.labels and label not in shared.get(f.name, ()) for f in plain.factors)
            if label in index and factor.source == "draw" and kept > 1 and draw(st.booleans()):
                shared.setdefault(factor.name, []).append(label)
    frozen: dict[str, str] = {}
    for factor in plain.factors:
        if factor.trainable and factor.init != "zero" and draw(st.booleans()):
            n = len(factor.labels) - len(shared.get(factor.name, ()))
            frozen[factor.name] = draw(st.sampled_from(("drawn", "ones", "identity")[: 3 if n > 1 else 2]))
    network = varied(plain, frozen, shared)
    return replace(case, parameterization=family(name, plain, network), network=network)


@pytest.mark.parametrize("name", parameterizations.names())
@settings(max_examples=max(4, settings.default.max_examples // 4))  # of all laws together
@given(data=st.data())
def test_a_law_holds_for_frozen_and_shared_factors(name: str, data: st.DataObject) -> None:
    LAWS[data.draw(st.sampled_from([*LAWS]))](data.draw(varied_cases(name)))


@pytest.mark.parametrize("name", parameterizations.names())
@settings(max_examples=2)
@given(data=st.data())
def test_the_factor_that_starts_at_zero_is_not_frozen(name: str, data: st.DataObject) -> None:
    network = data.draw(cases(name, OPTIONS.get(name))).network
    others = [f.name for f in network.factors if f.trainable and f is not network.zero]
    says = f"freeze {' or '.join(map(repr, others))} instead" if others else "nothing would be trained"
    with pytest.raises(TensorAdaptError, match=re.escape(says)):
        varied(network, [network.zero.name])
    with pytest.raises(TensorAdaptError, match="names every trained factor"):
        varied(network, [factor.name for factor in network.factors])

"""Hypothesis strategies for layouts and networks, and a check of every law on a parameterization.

It needs hypothesis, as `pip install "tensoradapt[dev]"` installs, and raises TensorAdaptError without it.

>>> from tensoradapt.testing import laws
>>> laws("cp", examples=2)
12 laws held on 24 cases

For a parameterization of your own, ``laws(mine)`` raises an AssertionError with the first broken law and the case.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tensoradapt import parameterizations
from tensoradapt.errors import NetworkError, TensorAdaptError, missing_extra
from tensoradapt.networks.layout import At, Layout, Pattern
from tensoradapt.networks.modes import INDEX, RUNTIME
from tensoradapt.networks.network import Network
from tensoradapt.planning.builder import Builder
from tensoradapt.planning.scale import SCALES
from tensoradapt.testing.laws import LAWS, Case

try:
    from hypothesis import HealthCheck, Phase, given, reject, settings
    from hypothesis import strategies as st
    from hypothesis.errors import FailedHealthCheck, Unsatisfiable
except ImportError:
    raise missing_extra("hypothesis", "dev", "tensoradapt.testing") from None

ROWS = ("out", "ff", "head dim", "(head dim)", "out1 out2", "out1 out2 out3")
COLS = ("model", "in", "in1 in2", "model1 model2")
PARTS = {  # row and column modes by their number, which is the same on both sides
    1: (("out", "ff", "(head dim)"), ("model", "in")),
    2: (("head dim", "out1 out2"), ("in1 in2", "model1 model2")),
    3: (("out1 out2 out3",), ("in1 in2 in3", "model1 model2 model3")),
}
SCALED: tuple[str | float, ...] = (*SCALES, 0.37)
MAX_ENTRIES = 600  # the most in one dense tensor: Jacobians are checked entry by entry

Options = Callable[[Layout], st.SearchStrategy[dict[str, Any]]]


@st.composite
def patterns(draw: st.DrawFn, parts: int | None = None) -> Pattern:
    """Draw layouts without sizes: 0 to 3 index modes, some merged, over whole, split and merged rows and columns.

    A hypothesis strategy, for tests with ``@given`` (CONTRIBUTING.md). Nothing is raised.

    Args:
        parts: the number of row modes, and of column modes; any by default.

    >>> from hypothesis import given
    >>> from tensoradapt import testing
    >>> @given(testing.patterns(parts=1))
    ... def test_it_has_rows_and_columns(pattern):
    ...     assert str(pattern).count(":") == 2
    >>> test_it_has_rows_and_columns()
    """
    names = draw(st.lists(st.sampled_from(INDEX), max_size=3, unique=True))
    merged = [draw(st.booleans()) and not {*pair} & {*RUNTIME} for pair in itertools.pairwise(names)]
    axes: list[list[str]] = []
    for name, joins in zip(names, [False, *merged], strict=False):
        axes[-1:] = [[*axes[-1], name]] if joins else [*axes[-1:], [name]]
    index = " ".join(f"({' '.join(axis)})" if len(axis) > 1 else axis[0] for axis in axes)
    rows, cols = PARTS[parts] if parts else (ROWS, COLS)
    return Pattern.parse(f"{index} : {draw(st.sampled_from(rows))} : {draw(st.sampled_from(cols))}")


@st.composite
def layouts(draw: st.DrawFn, parts: int | None = None, square: bool = False) -> Layout:
    """Draw layouts with mode sizes from 1 to 5 and at most MAX_ENTRIES entries.

    A hypothesis strategy, for tests with ``@given`` (CONTRIBUTING.md). Nothing is raised.

    Args:
        parts: the number of row modes, and of column modes; any by default.
        square: whether rows are as large as columns; it needs ``parts``.

    >>> from hypothesis import given
    >>> from tensoradapt import testing
    >>> @given(testing.layouts(parts=2, square=True))
    ... def test_rows_are_as_large_as_columns(layout):
    ...     assert layout.out == layout.in_
    >>> test_rows_are_as_large_as_columns()
    """
    pattern, left = draw(patterns(parts)), MAX_ENTRIES
    sizes: dict[str, int] = {}
    twins = dict(zip(pattern.cols, pattern.rows, strict=True)) if square else {}
    for axis in (*pattern.cols, *pattern.rows, *pattern.index):
        if " ".join(axis) not in sizes:
            together = [axis, *([twins[axis]] if axis in twins else [])]
            n = draw(st.integers(1, min(5, math.floor(left ** (1 / len(together))))))
            sizes |= {" ".join(twin): n for twin in together}
            left //= n ** len(together)
    return Layout.parse(pattern, sizes)


@st.composite
def positions(draw: st.DrawFn, layout: Layout) -> At:
    """Draw positions in a layout: a number for every index mode, a range for some of the others.

    A hypothesis strategy, for tests with ``@given`` (CONTRIBUTING.md). Nothing is raised.

    Args:
        layout: the layout, with sizes.

    >>> from hypothesis import given, strategies as st
    >>> from tensoradapt import testing
    >>> @given(st.data())
    ... def test_a_position_is_in_the_layout(data):
    ...     layout = data.draw(testing.layouts())
    ...     assert len(data.draw(testing.positions(layout))) >= len(layout.index)
    >>> test_a_position_is_in_the_layout()
    """
    at: dict[str, int | range] = {mode.name: draw(st.integers(0, mode.size - 1)) for mode in layout.index}
    for mode in (*layout.rows, *layout.cols):
        if draw(st.booleans()):
            first = draw(st.integers(0, mode.size - 1))
            at[mode.name] = range(first, draw(st.integers(first + 1, mode.size)))
    return at


@st.composite
def cases(
    draw: st.DrawFn,
    parameterization: str | Any = None,
    options: Options | None = None,
    refused: list[str] | None = None,
) -> Case:
    """Draw cases of one parameterization, or of all that have a name, at ranks from 1 to 4, clipped as in a plan.

    A hypothesis strategy, for tests with ``@given`` (CONTRIBUTING.md). AssertionError is raised for a network that no
    plan can use.

    Args:
        parameterization: a name or object; any that has a name by default.
        options: makes a strategy for build's options from a layout.
        refused: gets the reasons of layouts that the parameterization refuses, which are left out.

    >>> from hypothesis import given
    >>> from tensoradapt import testing
    >>> @given(testing.cases("cp"))
    ... def test_it_has_numbers(case):
    ...     assert case.network.n_params > 0
    >>> test_it_has_numbers()
    """
    chosen = draw(st.sampled_from(parameterizations.names())) if parameterization is None else parameterization
    module = parameterizations.get(chosen)
    parts = getattr(module, "parts", None)
    layout = draw(layouts(draw(st.sampled_from(parts)) if parts else None, getattr(module, "square", False)))
    extra = draw(options(layout)) if options else {}
    ranks = st.integers(1, 4)
    with _building(chosen, layout, refused):
        first = module.build(layout, 1, **extra)
        if not isinstance(first, Network):
            raise TypeError(f"build returned {first!r}; expected a Network")
        rank = first.rank
    rank = {name: draw(ranks) for name in rank} if isinstance(rank, Mapping) and rank else draw(ranks)
    with _building(chosen, layout, refused):
        network = Builder(module, extra).clipped(layout, rank)
    if any(size > max(layout.out, layout.in_) for size in network.bonds.values()):
        reject()  # on modes shorter than a bond signs are drawn, and where all are, the terms of their sum may cancel
    scale: str | float = draw(st.sampled_from(SCALED))
    return Case(chosen, network, draw(positions(layout)), draw(st.integers(0, 2**32)), scale, extra)


@contextmanager
def _building(parameterization: str | Any, layout: Layout, refused: list[str] | None) -> Iterator[None]:
    """Leave the layout out if the parameterization refuses it; report any other error within as its failure."""
    try:
        yield
    except NetworkError as error:
        raise AssertionError(
            f"{parameterizations.name_of(parameterization)!r} builds a network over {str(layout)!r} {layout.shape} "
            f"that no plan can use: {error}"
        ) from error
    except TensorAdaptError as error:
        if refused is not None:
            refused.append(str(error))
        reject()
    except Exception as error:
        raise AssertionError(
            f"{parameterizations.name_of(parameterization)!r} builds no network over {str(layout)!r} {layout.shape}: "
            f"{type(error).__name__}: {error}"
        ) from error


@dataclass(frozen=True)
class Checked:
    """The number of cases on which laws held, as ``laws`` and ``check`` return it (CONTRIBUTING.md).

    Nothing is raised.

    Attributes:
        cases: the number of cases.
        refused: why layouts were left out: the parameterization's own reasons.

    >>> from tensoradapt import testing
    >>> testing.check("count", "cp", examples=2).refused
    ()
    """

    cases: int
    refused: tuple[str, ...] = ()

    def __add__(self, other: Checked) -> Checked:
        return Checked(self.cases + other.cases, self.refused + other.refused)

    def __repr__(self) -> str:
        reason, n = Counter(self.refused).most_common(1)[0] if self.refused else ("", 0)
        why = f"; {len(self.refused)} layouts refused, {n} of them because {reason}" if self.refused else ""
        return f"{len(LAWS)} laws held on {self.cases} cases{why}"


def laws(parameterization: str | Any, *, examples: int = 25, options: Options | None = None) -> Checked:
    """Check every law on a parameterization.

    Args:
        parameterization: a name, or an object with build, count and oracle.
        examples: cases of each law.
        options: makes a strategy for build's options from a layout.

    Returns:
        How many cases there were, and which layouts the parameterization refused.

    Raises:
        AssertionError: with the first law that fails and the smallest case found, or a network that no plan can use.
        TensorAdaptError: if the parameterization refuses nearly all layouts.

    >>> laws("lora", examples=1)
    12 laws held on 12 cases
    """
    every = (check(name, parameterization, examples=examples, options=options) for name in LAWS)
    return sum(every, Checked(0))


def check(
    law: str, parameterization: str | Any, *, examples: int = 25, options: Options | None = None, shrink: bool = True
) -> Checked:
    """Check one law, with the same examples at every call.

    Args:
        law: its name in ``LAWS``.
        parameterization, examples, options: as in ``laws``, which raises the same.
        shrink: whether the smallest case is looked for.

    Returns:
        How many cases there were, and which layouts were refused.

    >>> check("count", "cp", examples=2).cases
    2
    """
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    calm = [HealthCheck.too_slow, HealthCheck.nested_given]
    alone: dict[str, Any] = {"deadline": None, "database": None, "report_multiple_bugs": False}
    refused: list[str] = []
    tried: list[Case] = []

    @settings(max_examples=examples, derandomize=True, phases=phases, suppress_health_check=calm, **alone)
    @given(cases(parameterization, options, refused))
    def holds(case: Case) -> None:
        tried.append(case)
        try:
            LAWS[law](case)
        except Exception as error:
            raise AssertionError(f"law {law!r} does not hold for {case!r}: {error}") from error

    try:
        holds()
    except (FailedHealthCheck, Unsatisfiable):
        if not refused:
            raise
        raise TensorAdaptError(
            f"{parameterizations.name_of(parameterization)!r} refuses nearly every layout it is tried with, at last: "
            f"{refused[-1]}. Name the numbers of row modes, and of as many column modes, that it takes as `parts`, and "
            "whether these have equal sizes as `square`"
        ) from None
    return Checked(len(tried), tuple(refused))

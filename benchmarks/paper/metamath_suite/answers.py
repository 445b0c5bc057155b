"""The answer that a text ends with, and whether it is right, by the rules of PEFT's comparison.

What follows the last mark such as "The answer is: " counts, to the end of its line. Two answers are equal as numbers
where both are some, fractions included, and else as texts: "1,000" is a text.
"""

from __future__ import annotations

from decimal import Decimal

from tensoradapt.checks import shown
from tensoradapt.errors import TensorAdaptError

# the first that a text has at all is the one whose last place counts
MARKS = ("The answer is: ", "The answer is ", "The final answer is: ", "The final answer is ", "#### ")
AROUND = " .!?$%"


def said(text: str) -> str | None:
    """Return what a text gives as its answer; None where it has no mark of one."""
    text = text.strip().rstrip(".!?")
    mark = next((mark for mark in MARKS if mark in text), None)
    return None if mark is None else text.rpartition(mark)[2].strip().split("\n", 1)[0].strip(AROUND)


def number(text: str) -> float | None:
    """Return the number that a text is, such as "13", "65.33" or "20/14"; None where it is none."""
    try:
        parts = [Decimal(part.strip()) for part in text.split("/")]
        top, bottom = parts if len(parts) > 1 else (parts[0], Decimal(1))
        return float(top / bottom)
    except (ArithmeticError, ValueError):
        return None


def is_right(text: str, response: str) -> bool:
    """Say whether a text's answer is that of a response; raises TensorAdaptError where the response has none."""
    found, truth = said(text), said(response)
    if truth is None:
        raise TensorAdaptError(
            f"the response {shown(response)} says no answer; expected one behind {MARKS[0]!r} or '#### '"
        )
    return found is not None and _valued(found) == _valued(truth)


def _valued(text: str) -> float | str:
    value = number(text)
    return text if value is None else value

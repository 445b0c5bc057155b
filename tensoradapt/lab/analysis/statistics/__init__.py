"""Statistics on arrays: intervals for few seeds, paired differences, corrections for many pairs, needed seeds.

What each is for, and why: docs/guides/statistics.md. No runs and no torch are needed.
"""

from tensoradapt.lab.analysis.statistics.intervals import (
    Interval,
    on_frontier_probability,
    paired_difference,
    t_interval,
)
from tensoradapt.lab.analysis.statistics.significance import holm, seeds_needed

__all__ = ["Interval", "holm", "on_frontier_probability", "paired_difference", "seeds_needed", "t_interval"]

"""Was the learning rate chosen well?

Validation scores at all rates that were tried; the one that was kept has a ring.
"""

import pandas as pd

import tensoradapt as ta

runs = pd.read_csv("docs/results/glue/records.csv")
ta.plots.curves(runs[runs["task"] == "cola"], x="lr", figsize=7)

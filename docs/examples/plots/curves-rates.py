"""Was the learning rate chosen well?

Validation scores at all rates that were tried; the one that was kept has a ring.
"""

import pandas as pd

import tensoradapt as ta

runs = pd.read_csv("docs/results/headline/records.csv")
ta.plots.curves(runs[runs["method"].isin(["CP", "Tucker", "lora"])], x="lr", figsize=7)

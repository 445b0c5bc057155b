"""Does the answer hold on other tasks?

One panel for each task, and one legend for all.
"""

import pandas as pd

import tensoradapt as ta

runs = pd.read_csv("docs/results/glue/records.csv")
ta.plots.frontier(runs[runs["task"] != "rte"], col="task", figsize=7)

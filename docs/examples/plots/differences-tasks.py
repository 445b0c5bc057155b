"""And at equal budgets, on several tasks?

One panel for each task; Holm's correction is over the rows of a panel.
"""

import pandas as pd

import tensoradapt as ta

means = pd.read_csv("docs/examples/minilm-sweep/means.csv")
runs = means.assign(score=means["scores"].str.split()).explode("score").astype({"score": float})
runs["seed"] = runs.groupby(level=0).cumcount()  # the scores of a row are in the order of their seeds
ta.plots.differences(runs, at="budget", col="task", figsize=7)

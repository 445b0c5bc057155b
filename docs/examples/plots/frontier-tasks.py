"""Does the answer hold on other tasks?

One panel for each task, and one legend for all.
"""

import pandas as pd

import tensoradapt as ta

means = pd.read_csv("docs/examples/plots/tasks.csv").query("task != 'rte'")
scores = means["scores"].str.replace("*", "").str.split()  # a star is at a run that ended at chance
runs = means.assign(score=scores).explode("score").astype({"score": float})
runs["seed"] = runs.groupby(level=0).cumcount()  # the scores of a row are in the order of their seeds
ta.plots.frontier(runs, col="task", figsize=7)

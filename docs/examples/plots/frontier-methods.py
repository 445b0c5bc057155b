"""Where does each method stand among the others?

One panel for each method in its colour, the others in grey, on the same axes.
"""

import pandas as pd

import tensoradapt as ta

means = pd.read_csv("docs/results/figures/frontier-all.csv")
runs = means.assign(score=means["scores"].str.split()).explode("score").astype({"score": float})
runs["seed"] = runs.groupby(level=0).cumcount()  # the scores of a row are in the order of their seeds
ta.plots.frontier(runs, col="method", figsize=7)

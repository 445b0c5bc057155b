"""In the column of a paper.

The bars and marks say what the numbers beside the wide figure do.
"""

import pandas as pd

import tensoradapt as ta

means = pd.read_csv("docs/results/figures/frontier.csv")
runs = means.assign(score=means["scores"].str.split()).explode("score").astype({"score": float})
runs["seed"] = runs.groupby(level=0).cumcount()  # the scores of a row are in the order of their seeds
ta.plots.differences(runs, figsize=3.3)

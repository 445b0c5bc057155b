"""How does the score change with rank?

A line for each method; `x` may also be `budget`, `steps` or `lr`.
"""

import pandas as pd

import tensoradapt as ta

means = pd.read_csv("docs/results/figures/frontier.csv")
runs = means.assign(score=means["scores"].str.split()).explode("score").astype({"score": float})
runs["seed"] = runs.groupby(level=0).cumcount()  # the scores of a row are in the order of their seeds
ta.plots.curves(runs, x="rank", figsize=7, headline=True)

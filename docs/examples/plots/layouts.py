"""Which layout suits which parameterization?

Each cell has a mean and its difference to the framed one of the same budget, which is also its colour; bold is what is
decided after Holm's correction over the map.
"""

import pandas as pd

import tensoradapt as ta

means = pd.read_csv("docs/examples/layouts/means.csv")
runs = means.assign(score=means["scores"].str.split()).explode("score").astype({"score": float})
runs["seed"] = runs.groupby(level=0).cumcount()  # the scores of a row are in the order of their seeds
ta.plots.layouts(runs, figsize=7, headline=True)

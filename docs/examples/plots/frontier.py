"""Which method is worth its parameters?

Means at their true number of parameters, with 95 % intervals over seeds, which are the ticks. Filled, and joined by the
pale staircase: no other mean is as high with as few parameters. The axis above counts how many times fewer they are
than those of LoRA r=8. The headline is written from the data.
"""

import pandas as pd

import tensoradapt as ta

means = pd.read_csv("docs/results/figures/frontier.csv")  # a column has the scores of all seeds
runs = means.assign(score=means["scores"].str.split()).explode("score").astype({"score": float})
runs["seed"] = runs.groupby(level=0).cumcount()  # the scores of a row are in the order of their seeds
ta.plots.frontier(runs, headline=True)

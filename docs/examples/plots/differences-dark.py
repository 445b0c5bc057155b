"""In a dark style sheet.

The same call within the sheet.
"""

import pandas as pd
from matplotlib import pyplot as plt

import tensoradapt as ta

means = pd.read_csv("docs/results/figures/frontier.csv")
runs = means.assign(score=means["scores"].str.split()).explode("score").astype({"score": float})
runs["seed"] = runs.groupby(level=0).cumcount()  # the scores of a row are in the order of their seeds
with plt.style.context("dark_background"):
    ta.plots.differences(runs)

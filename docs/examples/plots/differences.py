"""What is decided, and what is not?

Each size of each method minus LoRA r=8. Thick bars are 95 % intervals, thin ones hold for all rows at once; filled
marks are decided after Holm's correction over all rows. The grey band is a margin of 0.01 on both sides of no
difference, and ≈ stands where a loss of less than that is decided.
"""

import pandas as pd

import tensoradapt as ta

means = pd.read_csv("docs/results/figures/frontier.csv")
runs = means.assign(score=means["scores"].str.split()).explode("score").astype({"score": float})
runs["seed"] = runs.groupby(level=0).cumcount()  # the scores of a row are in the order of their seeds
ta.plots.differences(runs, reference="lora", at=8, margin=0.01, headline=True)

"""Which method is best over several tasks?

Interquartile means of gains over chance, and the probability that a run beats one of LoRA of the same budget; bold is
what is decided with Bonferroni's correction over the figure.
"""

import pandas as pd

import tensoradapt as ta

means = pd.read_csv("docs/examples/minilm-sweep/means.csv")
runs = means.assign(score=means["scores"].str.split()).explode("score").astype({"score": float})
runs["seed"] = runs.groupby(level=0).cumcount()  # the scores of a row are in the order of their seeds
runs["chance"] = runs["task"].map({"sst2": 0.509, "stsb": 0.0})  # the score of a constant answer
ta.plots.aggregates(runs, figsize=7, headline=True)

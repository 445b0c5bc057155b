"""What does learning cost elsewhere?

The score of causal models against the loss of general text: points are means with intervals of both.
"""

import pandas as pd

import tensoradapt as ta

runs = pd.read_csv("docs/examples/forgetting/runs.csv")
ta.plots.forgetting(runs, figsize=7, headline=True)

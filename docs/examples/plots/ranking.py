"""Are the methods told apart over many tasks?

Mean ranks over seven tasks of three models; a bar joins those that are not told apart.
"""

import pandas as pd

import tensoradapt as ta

runs = pd.read_csv("docs/examples/plots/ranking.csv")
ta.plots.ranking(runs, figsize=7, headline=True)

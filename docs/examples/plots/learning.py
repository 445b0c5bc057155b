"""Who learns faster?

The training loss, smoothed, as the mean over seeds; thin lines are seeds, pale ones the mean as it was. With a folder
of runs in place of a table the losses are read from it, and `x="seconds"` is the other axis.
"""

import pandas as pd

import tensoradapt as ta

runs = pd.read_csv("docs/examples/learning/runs.csv")  # a column has the losses of all steps
ta.plots.learning(runs, figsize=7, headline=True)

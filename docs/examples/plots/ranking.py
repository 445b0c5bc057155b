"""Are the methods told apart over many tasks?

Mean ranks over seven tasks of three models; a bar joins those that are not told apart.
"""

import pandas as pd

import tensoradapt as ta

folders = [f"docs/results/{name}/records.csv" for name in ("glue", "protein", "preference")]
runs = pd.concat(map(pd.read_csv, folders)).query("task != 'rte'").assign(model="one for each task")
ta.plots.ranking(runs, figsize=7, headline=True)

"""How many directions of each mode does an update use?

Singular values of each mode of one tensor; those above the noise are counted. An adapter goes in as it is:
`ta.plots.spectra(adapter)`.
"""

import numpy as np
import pandas as pd

import tensoradapt as ta

modes = pd.read_csv("docs/examples/plots/spectra.csv").groupby("mode", sort=False)
values = modes["singular_value"].apply(np.array).to_dict()
shape, noise_rank = (modes[name].first().to_dict() for name in ("size", "noise_rank"))
ta.plots.spectra(ta.spectra.Spectra(shape, values, noise=float("nan"), noise_rank=noise_rank), figsize=7)

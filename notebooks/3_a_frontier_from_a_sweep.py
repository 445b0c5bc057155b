# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A frontier from a sweep
#
# Which adapter gives the best score for its number of parameters? One run of each does not answer that: seeds differ
# by as much as methods do. A sweep runs every method at several budgets and seeds, and the analysis tells which
# differences the runs show.
#
# This is a small sweep, of a size that fits into three minutes. Its intervals are wide, and a good part of this page is
# about reading them.

# %%
import tempfile

import matplotlib.pyplot as plt

import tensoradapt as ta

plt.rcParams.update({"font.size": 9, "figure.dpi": 110})

# %% [markdown]
# ## The sweep
#
# A sweep is a mapping, or a TOML file with the same keys. Every method takes its largest configuration within each
# budget, on the query and value matrices. `head` is the reference: the frozen base with a trained head. Learning rates
# are those that `benchmarks/tune_rates.py` chose on validation. With several rates in a list, the sweep would tune each
# method itself.

# %%
spec = {
    "model": "all-minilm-l6-v2",
    "task": "snippets",
    "method": [
        {"name": "LoRA", "method": "lora", "lr": 0.003},
        {"name": "CP (LoRTA)", "method": "cp", "lr": 0.009},
        {"name": "Tucker", "method": "tucker", "lr": 0.009},
    ],
    "reference": "head",
    "lr": 0.06,  # of the reference
    "optimizer": "adamw",
    "head_lr": 0.06,
    "projections": ["q", "v"],
    "budget": [2_500, 10_000],
    "seed": [0, 1, 2],
    "steps": 40,
    "batch": 16,
    "n_train": 2000,
    "n_validation": 50,
    "n_test": 400,
    "max_length": 32,
}

# %% [markdown]
# `workers=2` starts two processes, each with a share of the cores; `executor="inline"` would run all in this process.
# `say` receives what the sweep reports, the plan first. At 2,500 parameters LoRA has no configuration: rank 1
# needs 9,216. That cell stays empty, and the sweep says why.

# %%
holder = tempfile.TemporaryDirectory()  # for this page; give a folder that stays, and the sweep can be gone on with
folder = holder.name
lines = []
swept = ta.sweep(spec, folder, workers=2, say=lines.append)
print(lines[0].replace(". ", ".\n"))
assert swept.complete and not swept.failed

# %% [markdown]
# Each run is a folder of its own. Called again, the sweep finds all of them and has nothing to do. A sweep that was
# stopped goes on in the same way. `ta.results` reads the folder as a DataFrame with a row for each run, which all
# tables and figures below take.

# %%
print(ta.sweep(spec, folder, workers=2, say=lines.append))
runs = ta.results(folder)
print(runs[["method", "budget", "n_params", "seed", "validation", "score"]].tail(6).to_string(index=False))

# %% [markdown]
# ## The frontier

# %%
ta.plots.frontier(runs, figsize=6.5)
plt.show()

# %% [markdown]
# Points are means over seeds, bars are 95 % t intervals, ticks are seeds. Filled points, which the pale staircase
# joins, are those that no other point beats in both parameters and score. A bar that reaches the edge goes on outside
# the axes: with three seeds an interval is 4.3 standard errors wide to either side.
#
# The table has the numbers. `p_frontier` is the probability that a point is on the frontier, given the noise of all
# means. A method that is on it with a probability far from 1 is not known to belong there. (The smallest adapter is
# always on it: no other has as few parameters.)

# %%
means = ta.summarise(runs)
columns = ["method", "n_params", "mean", "low", "high", "on_frontier", "p_frontier"]
print(means[columns].round(3).to_string(index=False))

# %% [markdown]
# `ta.compare` subtracts a reference, here the frozen base with its trained head. Differences are paired over seeds and
# test sentences: both models saw the same ones, so what is hard for both cancels. That is why an interval can be
# narrower than that of the score itself. `p_holm` is corrected for the number of comparisons (Holm), and what it leaves
# below 0.05 is decided.

# %%
columns = ["method", "n_params", "difference", "low", "high", "p", "p_holm", "decided"]
print(ta.compare(runs, "head")[columns].round(3).to_string(index=False))

# %% [markdown]
# ## Which differences hold
#
# The same against LoRA, at the same budget. A size without LoRA beside it is not compared.

# %%
ta.plots.differences(runs, reference="LoRA", at="budget", figsize=6.5)
plt.show()

# %%
print(ta.compare(runs, "LoRA", at="budget")[columns].round(3).to_string(index=False))
print(ta.compare(runs, "Tucker", at="budget")[columns].round(3).to_string(index=False))

# %% [markdown]
# ## What this says, and what it does not
#
# Here two rows hold: at about 9,500 parameters CP and Tucker are ahead of LoRA, and they are not told apart from each
# other. That is a statement about this setting: these rates, this budget, this short training. Its interval covers
# other seeds, drawn as these were. It does not cover other choices. The frontier in
# [frontier.csv](../docs/results/figures/frontier.csv) has five times as much training and adapts all four attention
# matrices, and there LoRA with 18,432 parameters (0.829) is above CP with 28,032 (0.827). So a lead after a few steps
# is a lead after a few steps.
#
# A row that does not hold is no proof that the two are equal. The interval says which differences remain possible. To
# narrow it, add seeds: the sweep computes only the new ones.

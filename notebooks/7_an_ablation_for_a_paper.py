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
# # An ablation for a paper
#
# From a CSV file of your own to the figure and the table of a paper, and to a sentence that the runs support. The
# question here is what the modes of a tensor adapter are worth: the same CP decomposition at the same number of
# parameters, with one choice of its layout taken back at a time.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import tensoradapt as ta

HERE = Path("ablation")  # all that this notebook writes; run it again, and finished runs are not computed again
HERE.mkdir(exist_ok=True)

# %% [markdown]
# ## The data
#
# A CSV file with a header and a row for each text. Here it is made of 10,072 sentences of film reviews that people
# rated (Hutto and Gilbert, 2014). With a file of your own, leave this cell out.

# %%
shipped = ta.load_task("snippets")
rows = [
    {"review": text, "verdict": ["bad", "good"][label]}
    for split in (shipped.train, shipped.validation, shipped.test)
    for (text,), label in zip(split.texts, split.labels, strict=True)
]
pd.DataFrame(rows).to_csv(HERE / "reviews.csv", index=False)
print(*(HERE / "reviews.csv").read_text().splitlines()[:3], sep="\n")

# %% [markdown]
# `ta.register_task` reads and checks the file at once, and draws validation and test sentences from it: equal texts
# stay in one part, whatever the seed of a run is.

# %%
task = ta.register_task(
    "reviews",
    train=str(HERE / "reviews.csv"),
    text="review",
    label="verdict",
    split={"validation": 0.1, "test": 0.1},
)
data = task.load()
print({part: len(getattr(data, part)) for part in ("train", "validation", "test")}, f"chance {data.chance:.3f}")

# %% [markdown]
# ## The sweep
#
# The whole adapter is LoRTA's: one tensor of all layers and projections, with heads split. Each variant takes one of
# these away, and has its largest rank within the same 7,100 parameters. LoRA ties nothing and cannot be that small:
# rank 1 takes 18,432. All adapt the same 24 matrices at one scale. Each also trains a head, which `head` trains alone.
#
# Adapters take equal steps, which move the weights equally far whatever the factors are, so one rate means the same for
# each. For a paper give a list of rates, `"lr": [1e-3, 2e-3, 4e-3]`: each method's is chosen on validation sentences.

# %%
WHOLE = "CP"
VARIANTS = {
    WHOLE: "layer proj : head dim : model",
    "CP, heads not split": "layer proj : (head dim) : model",
    "CP, projections apart": "layer : head dim : model",
    "CP, layers apart": "proj : head dim : model",
}
spec = {
    "model": "all-minilm-l6-v2",  # or the folder or hub name of a model of your own
    "task": "reviews",
    "method": [
        *({"name": name, "method": "cp", "layout": layout, "budget": 7_100} for name, layout in VARIANTS.items()),
        {"name": "LoRA", "method": "lora", "rank": 1},
    ],
    "reference": "head",
    "lr": 2e-3,
    "seed": [0, 1, 2],
    "steps": 60,
    "batch": 16,
    "n_train": 2000,
    "n_validation": 50,
    "n_test": 400,
    "max_length": 32,
}
lines = []
swept = ta.sweep(spec, HERE / "runs", workers=2, say=lines.append)
print(lines[0])
assert swept.complete

# %% [markdown]
# ## The numbers
#
# One table of runs, and what follows from it. `mean` has its 95 % t interval over seeds.

# %%
runs = ta.results(HERE / "runs")
means = ta.summarise(runs)
print(means[["method", "n_params", "n_seeds", "mean", "low", "high"]].round(3).to_string(index=False))

# %% [markdown]
# Which of these differences do the runs decide? `ta.compare` pairs them over seeds and test sentences, and corrects p
# for the number of comparisons (Holm). The whole adapter is compared with each that lacks a part.

# %%
gaps = ta.compare(runs, WHOLE)
columns = ["method", "n_params", "difference", "low", "high", "p_holm", "decided", "seeds_needed"]
print(gaps[columns].round(3).to_string(index=False))

# %% [markdown]
# ## The figure
#
# In the width of a column, as a PDF. Beside it are written the numbers that are drawn (CSV), and its headline and
# caption (TXT), which say what is decided and what the marks mean.

# %%
paths = ta.plots.save(runs, "differences", HERE, formats=("pdf",), width=3.3, reference=WHOLE, headline=False)
print(*(path.as_posix() for path in paths))
ta.plots.differences(runs, reference=WHOLE, figsize=3.3)
plt.show()

# %%
print((HERE / "differences.txt").read_text())

# %% [markdown]
# ## The table
#
# Means ± half of the interval in LaTeX (package booktabs), and all digits as CSV. What is best is bold only where its
# differences to all others of its group are decided.

# %%
ta.paper_table(runs, HERE / "table.tex", label="tab:ablation")
means.to_csv(HERE / "means.csv", index=False)
print((HERE / "table.tex").read_text())

# %% [markdown]
# ## The verdict
#
# A sentence for the paper, made of the comparisons, so that it changes with the runs.

# %%
for gap in gaps.itertuples():
    less = "less" if gap.difference < 0 else "more"
    said = f"is decided (p = {gap.p_holm:.3f}, Holm)" if gap.decided else f"is not decided (p = {gap.p_holm:.2f}, Holm)"
    print(f"{gap.method}: {100 * abs(gap.difference):.1f} points {less} than {WHOLE}, which {said}.")

# %% [markdown]
# So of the three parts one is shown to be worth its place: the projections in one tensor, 6.2 points (95 % interval 3.4
# to 8.9). For layers and heads three seeds decide nothing, which is no proof that they do not matter: the column
# `seeds_needed` says that 9 and 12 would decide differences as large as these. Add them to `seed`, and the sweep
# computes only the new runs. All of it is at one rate and one budget, after 60 steps.

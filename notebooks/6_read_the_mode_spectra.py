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
# # Read the mode spectra
#
# A tensor adapter pays off where its modes are low rank: where few directions of a mode carry most of the update. That
# can be looked at. The update of all matrices is one tensor; unfolded along a mode it is a matrix, and the singular
# values of that matrix say how many directions the mode uses (De Lathauwer, De Moor and Vandewalle, 2000).
#
# First a tensor whose answer is known, then a real update, then one that misleads.

# %%
import os

import matplotlib.pyplot as plt
import numpy as np
import torch

import tensoradapt as ta
from tensoradapt import models, tasks
from tensoradapt.stacking import stack
from tensoradapt.sweep.execute import batches, encoded
from tensoradapt.sweep.spec import RunConfig

FAST = bool(os.environ.get("TENSORADAPT_FAST"))  # a smaller size, for tests
STEPS, PROJECTIONS = (3, ("q", "v")) if FAST else (50, ("q", "k", "v", "o"))

plt.rcParams.update({**ta.plots.RC, "figure.dpi": 110})

# %% [markdown]
# ## A tensor of known ranks
#
# Signal of ranks 2, 4, 5 and 7, and noise a tenth as large in every entry. `noise_rank` counts the directions that
# stand above the noise, which is estimated from the tensor itself.

# %%
rng = np.random.default_rng(0)
sizes = {"layer": 6, "proj": 4, "out": 60, "in": 80}
bases = [rng.standard_normal((n, r)) for n, r in zip(sizes.values(), (2, 4, 5, 7), strict=True)]
signal = np.einsum("abcd,ia,jb,kc,ld->ijkl", rng.standard_normal((2, 4, 5, 7)), *bases)
planted = ta.spectra.spectra(signal + 0.1 * signal.std() * rng.standard_normal(signal.shape), tuple(sizes))
print(planted.noise_rank)
assert list(planted.noise_rank.values()) == [2, 4, 5, 7]

# %% [markdown]
# ## A real update
#
# The attention matrices of all-MiniLM-L6-v2 are trained freely: parameterization `dense` has an entry for every weight,
# so nothing about the method makes any mode low rank. The head is trained besides.

# %%
LAYOUT = "layer proj : head dim : model"
data = tasks.load("snippets", n_train=2000, n_test=8, seed=0)


def trained(parameterization, rank, lr):
    config = RunConfig("adapter", 0, models.MINILM, "snippets", lr, STEPS, batch=16, max_length=32)
    torch.manual_seed(0)
    model = models.load(models.MINILM, data.task)
    sites = ta.find_sites(model, PROJECTIONS)
    adapter = ta.attach(model, ta.plan(sites, parameterization=parameterization, rank=rank), seed=0)
    model.classifier.requires_grad_(True)
    feed = batches(encoded(data.train, config), data.train.labels, config, "cpu")
    fitted = ta.fit(model, feed, lr=lr, head_lr=0.06, heads=("classifier",), steps=STEPS)
    first, last = np.mean(fitted.losses[:10]), np.mean(fitted.losses[-10:])
    print(f"{parameterization}: loss {first:.3f} at first, {last:.3f} at last")
    return adapter


def stacked(adapter):
    """The updates of all sites as one tensor over the layout, each in its orientation."""
    group = ta.plan(adapter.plan.sites, layout=LAYOUT, parameterization="dense").groups[0]
    return stack(group, adapter.delta).numpy(), group.network.layout.names


def shown(found):
    columns = found.rank_for(0.9), found.rank_for(0.99), found.effective_rank, found.noise_rank
    print("mode    size   90 %   99 %   effective   above noise")
    for mode, size in found.shape.items():
        r90, r99, effective, above = (column[mode] for column in columns)
        print(f"{mode:6s} {size:5d} {r90:6d} {r99:6d} {effective:11.1f} {above:13d}")


dense = trained("dense", None, 3e-3)
tensor, names = stacked(dense)
found = ta.spectra.spectra(tensor, names)
shown(found)


# %%
def drawn(found, tensor):
    """The spectra of a tensor, and the cosines between its layers."""
    _, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained", width_ratios=[1.5, 1])
    ta.spectra_plots.plot_spectra(found, axes[0])
    layers = [str(i) for i in range(found.shape["layer"])]
    ta.spectra_plots.plot_similarity(ta.spectra.similarity(tensor, names, "layer"), layers, axes[1])
    axes[1].set(xlabel="layer", ylabel="layer")
    plt.show()


drawn(found, tensor)

# %% [markdown]
# TEXT

# %%
for one in ta.spectra.advice(found, ("layer", "proj", "head")):
    print(f"{one.mode}: {one.rank} of {one.size} directions for 90 %, worth tying: {one.worth_tying}")

# %% [markdown]
# ## An update that misleads
#
# The same for a LoRA of rank 8.

# %%
lora_tensor, _ = stacked(trained("lora", 8, 3e-3))
lora = ta.spectra.spectra(lora_tensor, names)
shown(lora)

# %%
drawn(lora, lora_tensor)

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
# can be measured. The update of all matrices is one tensor; unfolded along a mode it is a matrix, and the singular
# values of that matrix say how many directions the mode uses (De Lathauwer, De Moor and Vandewalle, 2000).
#
# This page reads a tensor of known ranks, then a real update, then one that misleads.

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.utils.data import DataLoader

import tensoradapt as ta

MODEL = "all-minilm-l6-v2"  # built in: fetched once; the folder or hub name of a model of your own does as well

plt.rcParams.update({"font.size": 9, "figure.dpi": 110})

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
# so nothing about the method makes any mode low rank. The head is trained as well.

# %%
data = ta.load_task("snippets", n_train=2000)
task = data.task
rows = task.encode(data.train, MODEL, max_length=32)


def trained(parameterization, rank, lr):
    torch.manual_seed(0)
    model = task.model(MODEL)
    adapter = ta.attach(model, ta.plan(model, method=parameterization, rank=rank, train=("classifier",)), seed=0)
    batches = DataLoader(rows, 16, shuffle=True, collate_fn=lambda some: task.collate(some, model, "cpu"))
    fitted = ta.fit(model, batches, lr=lr, head_lr=0.06, heads=("classifier",), steps=50)
    first, last = np.mean(fitted.losses[:10]), np.mean(fitted.losses[-10:])
    print(f"{parameterization}: loss {first:.3f} at first, {last:.3f} at last")
    return adapter


def stacked(adapter):
    """The updates of all sites as one tensor, with the residual stream as its last mode."""
    tensor = np.zeros((6, 4, 12, 32, 384))
    for site in adapter.plan.sites:
        at, update = dict(site.coords), adapter.delta(site).detach().numpy()  # (out, in)
        # o writes to the residual stream and does not read it, so that its columns are heads, and not its rows
        tensor[at["layer"], "qkvo".index(at["proj"])] = (update if site.reads else update.T).reshape(12, 32, 384)
    return tensor


def shown(spectra):
    r90, r99, effective = spectra.rank_for(0.9), spectra.rank_for(0.99), spectra.effective_rank
    print("mode    size   90 %   99 %   effective")
    for mode, size in spectra.shape.items():
        print(f"{mode:6s} {size:5d} {r90[mode]:6d} {r99[mode]:6d} {effective[mode]:11.1f}")


dense = trained("dense", None, 3e-3)
tensor, names = stacked(dense), ("layer", "proj", "head", "dim", "model")
spectra = ta.spectra.spectra(tensor, names)
shown(spectra)


# %%
def drawn(tensor):
    """The spectra of a tensor, and the cosines between its layers."""
    _, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained", width_ratios=[1.5, 1])
    ta.plots.spectra(tensor, axes[0], names=names)
    ta.plots.spectra(tensor, axes[1], names=names, cosines="layer")
    plt.show()


drawn(tensor)

# %% [markdown]
# The table and the figure show:
#
# - The width is the one mode with fewer directions than its size: 244 of 384 carry 90 % of the energy. The line falls
#   steeply at first, so a small rank keeps a good part, and slowly after that.
# - Layer, projection, head and head dimension use nearly all their directions. Two layers have a cosine of 0.01 at
#   most: they changed in unrelated directions.
#
# So this update cannot be cut to a small tied tensor without losing most of it. That is not the same as saying that a
# tied adapter cannot learn the task. It finds another update, one that its layers can share. The spectra of an update
# say what compressing *that update* costs. They were also taken after 50 steps of Adam at one seed; its steps are of
# nearly equal size in every entry, which spreads the energy over many directions.
#
# `advice` puts the index modes and heads in order, the most compressible first.

# %%
for advice in ta.spectra.advice(spectra, ("layer", "proj", "head")):
    print(f"{advice.mode}: {advice.rank} of {advice.size} directions for 90 %, worth tying: {advice.worth_tying}")

# %% [markdown]
# ## An update that misleads
#
# Now a LoRA of rank 8, trained in the same way.

# %%
lora_tensor = stacked(trained("lora", 8, 3e-3))
lora = ta.spectra.spectra(lora_tensor, names)
shown(lora)

# %%
drawn(lora_tensor)

# %% [markdown]
# A LoRA draws a matrix A for each site, and a site's update lies in the rows of its own A. So the updates of different
# sites are nearly orthogonal by construction, whatever the task: these cosines would be near zero even if the layers
# had learned the same thing. In the width, 24 sites of rank 8 have 192 directions, half of 384, and the line falls to
# rounding there. That is by construction too.
#
# Here the free update happens to show the same about layers, but the LoRA alone could not have shown it. To see what
# modes share, look at an update whose form does not decide it.

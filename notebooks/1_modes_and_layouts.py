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
# # Modes and layouts
#
# Fine-tuning changes many weight matrices: one for each layer and projection. Together these changes are one tensor
# whose modes have names. Two choices turn it into an adapter. The **layout** says which modes the tensor has
# and which matrices share it. The **parameterization** says how the tensor is factored. Each is one argument, and
# any layout can be used with nearly any parameterization.
#
# This page shows what the layouts of all-MiniLM-L6-v2 are and what each of them costs. Plans need shapes alone, so
# most of it runs without the weights.

# %%
import matplotlib.pyplot as plt
import torch

import tensoradapt as ta

MODEL = "all-minilm-l6-v2"  # built in: fetched once; the folder or hub name of a model of your own does as well

plt.style.use("tableau-colorblind10")
plt.rcParams.update({"font.size": 9, "figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## Sites
#
# A *site* is one matrix that can be adapted, with its coordinates: here `layer` and `proj` (q, k, v, o). The rows of
# a query matrix are also `head` times `dim`, which the site knows from the model's config.

# %%
task = ta.load_task("snippets").task  # sentences of film reviews
config = task.base(MODEL)
sites = ta.find_sites(config)
print(len(sites), "sites; the first one:")
print(sites[0].name, f"({sites[0].out} x {sites[0].in_})", dict(sites[0].coords), dict(sites[0].inner))

# %% [markdown]
# ## Layouts
#
# A layout has three parts between colons: index modes, row modes, column modes. A coordinate named in the first part
# is *tied*: one tensor spans all its values. A coordinate that is not named is *free*: there is one tensor for each of
# its values. Parentheses merge modes. So the same 24 matrices are 24 tensors, or 4, or 6, or 1.

# %%
LAYOUTS = [
    ": out : in",
    "proj : out : in",
    "layer : out : in",
    "(layer proj) : out : in",
    "layer proj : out : in",
    "layer proj : head dim : model",
]


def shape_of(plan):
    layout = plan.groups[0].network.layout
    return " x ".join(f"{name} {size}" for name, size in zip(layout.names, layout.shape, strict=True))


for layout in LAYOUTS:
    plan = ta.plan(sites, layout=layout, method="cp", rank=8)
    print(f"{layout:31s} {len(plan.groups):2d} of {shape_of(plan)}")

# %% [markdown]
# Every layout covers the same 3,538,944 entries. The layouts differ in which of them can share a factor.
#
# The name of the column mode decides how matrices are oriented. With `in` each matrix is taken as it is stored, rows
# out and columns in. With `model` the residual stream is always the column side. The matrix `o` writes to that stream,
# so it is transposed, and its heads come to lie on the row side like those of q, k and v. The plan says so.

# %%
print(ta.plan(sites, layout="layer proj : head dim : model", method="cp", rank=8))

# %% [markdown]
# The head factor has a row for each head. A check of the orientation is to set the row of head 3 to zero and look at
# what changes: in q, k and v only the 32 rows of that head may, and in o only its 32 columns. Layer 0 is shown; the
# other layers have the same pattern.

# %%
model = task.model(MODEL)
adapter = ta.attach(model, ta.plan(model, layout="layer proj : head dim : model", method="cp", rank=8))
factors = adapter.tensors[0].factors
PLACE = "bert.encoder.layer.0.attention."
SHOWN = {"q": "self.query", "k": "self.key", "v": "self.value", "o": "output.dense"}
with torch.no_grad():
    factors["dim"].normal_()  # the factor that starts at zero
    before = {proj: adapter.delta(PLACE + name) for proj, name in SHOWN.items()}
    factors["head"][3] = 0
    changed = {proj: adapter.delta(PLACE + name) != before[proj] for proj, name in SHOWN.items()}

figure, axes = plt.subplots(1, 4, figsize=(7, 2.3), layout="constrained", sharey=True)
for ax, (proj, mask) in zip(axes, changed.items(), strict=True):
    ax.imshow(mask, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    ax.spines[:].set_visible(True)
    ax.set(title=proj, xticks=[0, 383], yticks=[0, 383], xlabel="column (in)")
axes[0].set_ylabel("row (out)")
figure.suptitle("black: entries that change with the row of head 3", fontsize=9)
plt.show()

# %%
for proj, mask in changed.items():
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    print(f"{proj}: rows {rows.min()} to {rows.max()}, columns {columns.min()} to {columns.max()}")
    reached = columns if proj == "o" else rows
    assert reached.tolist() == list(range(96, 128))

# %% [markdown]
# ## What a layout costs
#
# At the same rank, LoRA has the same number of parameters over every layout here: it has a pair of its own for each
# position of the index modes, whether these are tied or not. The tensor decompositions have a factor for each mode, so
# tying a mode makes its positions share the large factors and adds one small factor.

# %%
FAMILIES = ["lora", "cp", "tensor_train", "tucker", "block_term", "tensor_ring", "vera"]

print(f"{'rank 8, parameters':31s}", *(f"{name:>12s}" for name in FAMILIES))
for layout in LAYOUTS:
    plans = [ta.plan(sites, layout=layout, method=name, rank=8) for name in FAMILIES]
    print(f"{layout:31s}", *(f"{plan.n_params:12,}" for plan in plans))

# %% [markdown]
# The table shows three things.
#
# - CP and the tensor-train follow the same path: from 147,456 without tying to a few thousand with everything tied.
# - Tucker has a core of one entry for each combination of ranks. With five modes at rank 8 (4 and 6 for the small
#   modes) the core is larger than all factors together, so splitting `out` into `head dim` costs it more than it saves.
# - VeRA trains diagonals of its own for each matrix. Its count does not depend on the layout.
#
# The figure shows how the counts grow with the rank. LoRA cannot get below the dashed line, the 18,432 parameters of
# its rank 1. Tied layouts have adapters of many ranks under it.

# %%
RANKS = [1, 2, 4, 8, 16, 32, 64, 128]
STYLES = list(zip("so^DvP", ("-", "--", "-.", ":", "-", "--"), strict=True))  # markers and lines


def counts(name, layout):
    """Parameters at each rank, as far as the adapter is smaller than the matrices themselves."""
    sizes = []
    for rank in RANKS:
        try:
            sizes.append(ta.plan(sites, layout=layout, method=name, rank=rank).n_params)
        except ta.TensorAdaptError:
            break
    return RANKS[: len(sizes)], sizes


figure, axes = plt.subplots(1, 3, figsize=(8.2, 3.5), layout="constrained", sharey=True)
smallest = ta.plan(sites, layout=": out : in", method="lora", rank=1).n_params
for ax, name in zip(axes, ["cp", "tensor_train", "tucker"], strict=True):
    for layout, (marker, line) in zip(LAYOUTS, STYLES, strict=True):
        ax.loglog(*counts(name, layout), line, marker=marker, markersize=4, linewidth=1.2, label=layout)
    ax.axhline(smallest, color="#555555", linewidth=1, linestyle=(0, (4, 3)))
    ax.set(title=ta.parameterizations.get(name).label, xlabel="rank (upper bound)")
    ax.set_xticks(RANKS[::3], RANKS[::3])
    ax.minorticks_off()
    ax.grid(True, color="#ebebeb", linewidth=0.7)
axes[0].set_ylabel("trainable parameters")
where = {"xycoords": axes[-1].get_yaxis_transform(), "va": "center", "annotation_clip": False}
axes[-1].annotate("LoRA\nr=1", (1.02, smallest), fontsize=8, color="#555555", **where)
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# Ranks are upper bounds: the plan clips each to what its mode can carry, which is why Tucker's steepest line bends. A
# budget in the place of a rank takes the largest configuration within it. That is how parameterizations are compared
# at equal size.

# %%
for name in FAMILIES[1:]:
    plan = ta.plan(sites, layout="layer proj : head dim : model", method=name, budget=10_000)
    print(f"{name:13s} {plan.n_params:6,} of 10,000")

# %% [markdown]
# A layout that a paper uses comes with its name. `ta.published.names()` lists them all.

# %%
for name in ("lora", "lotr", "metatt-4d", "lorta"):
    plan = ta.plan(config, method=name, paper=True, rank=8)
    print(f"{name:10s} {plan.groups[0].network.layout!s:31s} {plan.parameterization:13s} {plan.n_params:8,}")

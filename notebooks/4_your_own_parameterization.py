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
# # Your own parameterization
#
# A parameterization is a small network of labelled factors. From the labels everything else follows: the dense tensor,
# a slice of it, the LoRA pair of a layer, the number of parameters, the first step, the export. So a new one is three
# functions, and it works with every layout, model and command at once.
#
# The example is a tree. Tucker has one core over all modes, which has r^5 entries for five modes of rank r. A
# hierarchical Tucker decomposition (Hackbusch and Kühn, 2009) puts small cores in a tree instead. Ours joins the index
# modes in one node, the row modes in another, the column modes in a third, and these three in a root.

# %%
import tempfile
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

import tensoradapt as ta
from tensoradapt.testing import laws

MODEL = "all-minilm-l6-v2"  # built in: fetched once; the folder or hub name of a model of your own does as well
STEPS, SEEDS = 40, (0, 1, 2)

plt.style.use("tableau-colorblind10")
plt.rcParams.update({"font.size": 9, "figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## Three functions
#
# `build` returns the factors, each with the names of its axes: modes of the layout, or bonds. Exactly one factor starts
# at zero, here the root. `rank` is one number for all bonds, or a mapping from bond names without their `r_`.


# %%
def sides_of(layout):
    sides = {"index": layout.index, "rows": layout.rows, "cols": layout.cols}
    return {side: [mode.name for mode in modes] for side, modes in sides.items() if modes}


def build(layout, rank):
    factors, to_root, bonds = [], [], []
    for side, modes in sides_of(layout).items():
        leaves = [f"r_{mode}" for mode in modes]
        factors += [ta.Factor(mode, (mode, leaf)) for mode, leaf in zip(modes, leaves, strict=True)]
        if len(modes) > 1:
            factors.append(ta.Factor(side, (*leaves, f"r_{side}")))
            bonds += [*leaves, f"r_{side}"]
        else:
            bonds += leaves
        to_root.append(bonds[-1])
    ranks = rank if isinstance(rank, dict) else {bond.removeprefix("r_"): rank for bond in bonds}
    root = ta.Factor("root", tuple(to_root), "zero")
    return ta.Network(layout, (*factors, root), {bond: ranks[bond.removeprefix("r_")] for bond in bonds})


# %% [markdown]
# `count` is the closed formula of the number of parameters, and `oracle` the dense tensor from the definition in the
# literature, written without our labels: the basis of a node is the Kronecker product of the bases below it, times the
# node. Both exist to be compared with what follows from the labels.


# %%
def count(layout, rank):
    total, root = 0, 1
    for side, modes in sides_of(layout).items():
        total += sum(layout.size_of[mode] * rank[mode] for mode in modes)
        if len(modes) > 1:
            total += np.prod([rank[mode] for mode in modes]) * rank[side]
        root *= rank[side if len(modes) > 1 else modes[0]]
    return int(total + root)


def oracle(layout, factors):
    root = factors["root"]
    for side, modes in sides_of(layout).items():
        basis = np.eye(1)
        for mode in modes:
            basis = np.kron(basis, factors[mode])
        if len(modes) > 1:
            basis = basis @ factors[side].reshape(basis.shape[1], -1)
        root = np.tensordot(root, basis, (0, 1))  # the sides' ranks in turn become their entries
    return root.reshape(layout.shape)


tree = SimpleNamespace(__name__="tree", label="Tree", build=build, count=count, oracle=oracle)

# %% [markdown]
# ## The laws
#
# Every built-in parameterization obeys a list of laws over random layouts, ranks, positions and seeds, and so must this
# one. `laws` raises an error that names the first law broken and the smallest case found.

# %%
laws(tree, examples=25)
print("all laws hold")

# %% [markdown]
# The laws catch mistakes. Here is the same tree with one that is easy to make: a formula that is off by one.

# %%
wrong = SimpleNamespace(**{**vars(tree), "count": lambda layout, rank: count(layout, rank) - 1})
try:
    laws(wrong, examples=25)
except AssertionError as error:
    print(str(error).splitlines()[0])

# %% [markdown]
# ## What it costs
#
# An object with the three functions is given in the place of a name. Over five modes the tree's cores grow as r^3 where
# Tucker's grows as r^5.

# %%
LAYOUT, RANKS = "layer proj : head dim : model", (1, 2, 4, 8, 16, 32)
data = ta.load_task("snippets", n_train=2000)
sites = ta.find_sites(data.task.base(MODEL))
FAMILIES = {"CP": "cp", "Tree": tree, "Tucker": "tucker"}
STYLES = {"CP": "C0s-", "Tree": "C1o--", "Tucker": "C5^-."}  # colour, marker and line

figure, ax = plt.subplots(figsize=(4.8, 3.2), layout="constrained")
for name, family in FAMILIES.items():
    sizes = [ta.plan(sites, layout=LAYOUT, method=family, rank=rank).n_params for rank in RANKS]
    ax.loglog(RANKS, sizes, STYLES[name], markersize=5, label=name)
    print(f"{name:7s}", *(f"{n:8,}" for n in sizes))
ax.set_xticks(RANKS, RANKS)
ax.minorticks_off()
ax.set(xlabel="rank (upper bound)", ylabel="trainable parameters")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Training it
#
# Three methods at one budget on the review sentences, with the same data, heads and learning rate. With equal steps
# every step moves the weights equally far, whatever the factors are, so one rate suits all roughly. It was not tuned
# for the tree, so this shows that the tree trains, and not which of the three is best.

# %%
BUDGET = 5_000
rows = data.task.encode(data.train, MODEL, max_length=32)


def train(family, seed):
    torch.manual_seed(seed)
    model = data.task.model(MODEL)
    plan = ta.plan(model, layout=LAYOUT, method=family, budget=BUDGET, train=("classifier",))
    adapter = ta.attach(model, plan, seed=seed)
    order = torch.Generator().manual_seed(seed)  # the same batches for each method
    collate = {"collate_fn": lambda some: data.task.collate(some, model, "cpu")}
    batches = DataLoader(rows, 16, shuffle=True, generator=order, **collate)
    rates = {"lr": 2e-3, "optimizer": "equal_steps", "head_lr": 0.06, "heads": ("classifier",)}
    return adapter, ta.fit(model, batches, steps=STEPS, **rates)


adapters, losses = {}, {}
for name, family in FAMILIES.items():
    trained = [train(family, seed) for seed in SEEDS]
    adapters[name], losses[name] = trained[0][0], np.array([fitted.losses for _, fitted in trained])

# %%
figure, ax = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
WINDOW = 8
for name, values in losses.items():
    mean = np.convolve(values.mean(0), np.ones(WINDOW) / WINDOW, mode="valid")
    step = np.arange(WINDOW, STEPS + 1)
    label = f"{name}, {adapters[name].plan.n_params:,}"
    ax.plot(step, mean, STYLES[name], markevery=8, markersize=5, label=label)
ax.axhline(np.log(2), color="#555555", linewidth=0.9, linestyle=":")
ax.annotate("a coin", (1.01, np.log(2)), xycoords=ax.get_yaxis_transform(), va="center", fontsize=8, color="#555555")
ax.set(xlabel=f"step of 16 sentences, mean of the last {WINDOW}", ylabel=f"training loss, mean of {len(SEEDS)} seeds")
figure.legend(loc="outside upper center", ncols=3, frameon=False, title="parameters")
plt.show()

# %% [markdown]
# Any numbers become a table that `ta.compare` reads: a row for each method and seed, with a score of which more is
# better. Here it is minus the loss of the last ten steps.

# %%
table = pd.DataFrame(
    {"method": name, "seed": seed, "n_params": adapters[name].plan.n_params, "budget": BUDGET, "score": -loss}
    for name, values in losses.items()
    for seed, loss in zip(SEEDS, values[:, -10:].mean(1), strict=True)
)
print(ta.summarise(table)[["method", "n_params", "mean", "low", "high"]].round(3).to_string(index=False))
columns = ["method", "difference", "low", "high", "p_holm", "decided"]
print(ta.compare(table, "Tree")[columns].round(3).to_string(index=False))

# %% [markdown]
# The tree trains. Its loss is the highest of the three at the end; of the two differences three seeds decide that to
# CP, and barely. To compare the three, give each a grid of rates in a sweep.
#
# ## Saved, it needs no plug-in
#
# A checkpoint holds the network itself, its labels and sizes, so loading it does not need the three functions.

# %%
fresh = data.task.model(MODEL)
with tempfile.TemporaryDirectory() as folder:
    adapters["Tree"].save(folder)
    loaded = ta.load(fresh, folder)
site = loaded.plan.sites[0]
assert torch.equal(loaded.delta(site), adapters["Tree"].delta(site))
print(loaded.plan.groups[0].network.equation)

# %% [markdown]
# ## A name of its own
#
# To use it by name, in a sweep or on the command line, put the functions into a module of an installable package and
# register that:
#
# ```toml
# [project.entry-points."tensoradapt.parameterizations"]
# tree = "my_package.tree"
# ```
#
# It is then in `ta.parameterizations.names()`, beside those that come with tensoradapt.

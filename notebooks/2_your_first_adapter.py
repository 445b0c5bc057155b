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
# # Your first adapter
#
# A real pretrained model learns a real task with 7,008 adapter parameters: all-MiniLM-L6-v2 (22.7 million parameters)
# learns to tell whether a sentence of a film review is positive. The sentences were rated by humans. The steps are
# those of any fine-tuning: plan, attach, train, score, save, load, merge.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import ttest_rel
from torch.utils.data import DataLoader

import tensoradapt as ta

MODEL = "all-minilm-l6-v2"  # built in: fetched once; the folder or hub name of a model of your own does as well
STEPS = 60

plt.style.use("tableau-colorblind10")
plt.rcParams.update({"font.size": 9, "figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## Data
#
# A task has three disjoint splits, its metric, and the score of the best constant answer. `ta.load_task` takes the name
# of a task, or a file of your own texts and labels.

# %%
data = ta.load_task("snippets", n_train=2000, n_test=800)
task = data.task
print(len(data.train), "to train on,", len(data.test), f"to test on; a constant answer is right on {data.chance:.3f}")
for i in (4, 6):
    print(data.train.labels[i], data.train.texts[i][0])

# %% [markdown]
# A batch holds what the model takes: padded token ids, their mask, and labels. The task makes them with the model's
# tokenizer; those of a loop of your own do as well.


# %%
def batches(model, split, size, shuffle=False):
    rows = task.encode(split, MODEL, max_length=48)
    return DataLoader(rows, size, shuffle, collate_fn=lambda some: task.collate(some, model, "cpu"))


@torch.no_grad()
def correct(model, split):  # 1 or 0 for each example
    found = [model(**batch).logits.argmax(1) == batch["labels"] for batch in batches(model, split, 64)]
    return torch.cat(found).numpy().astype(float)


# %% [markdown]
# ## Plan and attach
#
# The plan holds all that follows from shapes and names. This one is CP over one tensor of all the attention matrices
# (LoRTA). The classifier was drawn at random and is trained in place; its parameters are counted separately.

# %%
torch.manual_seed(0)
model = task.model(MODEL)
plan = ta.plan(model, layout="layer proj : head dim : model", method="cp", rank=16, train=("classifier",))
adapter = ta.attach(model, plan, seed=0)
print(f"{plan.n_params:,} in the adapter, {plan.n_trained_base:,} in the head")
for name, factor in adapter.tensors[0].factors.items():
    print(f"{name:6s} {tuple(factor.shape)}", "starts at zero" if not factor.any() else "")

# %% [markdown]
# Exactly one factor starts at zero, so the adapted model begins as the base model: switching the adapter off changes no
# output.

# %%
batch = next(iter(batches(model, data.test, 8)))
with torch.no_grad():
    adapted = model(**batch).logits
    with ta.disabled(model):
        assert torch.equal(adapted, model(**batch).logits)

# %% [markdown]
# ## Train
#
# `ta.fit` is a plain loop: AdamW, a short warm-up, then a linear fall to zero. Any other loop will do, as the adapter's
# parameters are ordinary ones. With equal steps, which move the weights equally far whatever the factors are, the rate
# 2e-3 suits every method and rank. The head has its own, larger rate, as it is not pretrained.
#
# For comparison the same is done without an adapter. Only the head is trained, on the same batches.

# %%
rates = {"lr": 2e-3, "optimizer": "equal_steps", "head_lr": 0.06, "heads": ("classifier",)}
torch.manual_seed(1)
fitted = ta.fit(model, batches(model, data.train, 32, shuffle=True), steps=STEPS, **rates)

torch.manual_seed(0)
frozen = task.model(MODEL)
frozen.requires_grad_(False).classifier.requires_grad_(True)
torch.manual_seed(1)
head_only = ta.fit(frozen, batches(frozen, data.train, 32, shuffle=True), lr=0.06, steps=STEPS)
print(fitted.status, head_only.status)


# %%
def smooth(losses, width=10):
    """Means over a window that grows to ``width`` steps."""
    return [np.mean(losses[max(0, i - width + 1) : i + 1]) for i in range(len(losses))]


figure, ax = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
for run, colour, line, label in (
    (head_only, "C1", "--", "head alone"),
    (fitted, "C0", "-", f"adapter of {plan.n_params:,} and head"),
):
    step = np.arange(1, STEPS + 1)
    ax.plot(step, run.losses, line, color=colour, linewidth=0.7, alpha=0.35)
    ax.plot(step, smooth(run.losses), line, color=colour, linewidth=1.8, label=label)
ax.axhline(np.log(2), color="#555555", linewidth=0.9, linestyle=":")
ax.annotate("a coin", (1.01, np.log(2)), xycoords=ax.get_yaxis_transform(), va="center", fontsize=8, color="#555555")
ax.set(xlabel="step of 32 sentences", ylabel="training loss")
figure.legend(loc="outside upper center", ncols=2, frameon=False)
plt.show()

# %% [markdown]
# Thin lines are single batches, thick lines means over the last ten.
#
# ## Score
#
# Both models are scored on the same sentences, so the difference is paired. With one seed the interval covers other
# sentences only, not other seeds: for those a sweep is needed, as in the next notebook.

# %%
right, right_alone = correct(model, data.test), correct(frozen, data.test)
low, high = ttest_rel(right, right_alone).confidence_interval(0.95)
print(f"test accuracy {right.mean():.3f} with the adapter, {right_alone.mean():.3f} with the head alone")
print(f"difference {(right - right_alone).mean():+.3f}, 95 % interval {low:+.3f} to {high:+.3f}, one seed")

# %% [markdown]
# ## Save and load
#
# A checkpoint has the factors, the trained head and the plan, and no base weights. It is loaded into a fresh copy of
# the base model; `load` checks that it is the same base.

# %%
with torch.no_grad():
    expected = model(**batch).logits
with tempfile.TemporaryDirectory() as folder:
    adapter.save(folder)
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    print(sum(path.stat().st_size for path in files) // 1000, "kB:", *(path.relative_to(folder) for path in files))
    fresh = task.model(MODEL).eval()
    ta.load(fresh, folder)
with torch.no_grad():
    assert torch.equal(fresh(**batch).logits, expected)

# %% [markdown]
# ## Merge
#
# Merging adds the update to the weights, so that inference costs as much as the base model's. The originals are kept,
# and `unmerge` restores them bit for bit.

# %%
print(ta.merge(fresh))
with torch.no_grad():
    print("merging moves the logits by less than 1e-4:", bool((fresh(**batch).logits - expected).abs().max() < 1e-4))
ta.unmerge(fresh)
ta.detach(fresh)
base = task.model(MODEL).state_dict()
print("the base weights are back:", all(torch.equal(v, base[k]) for k, v in fresh.state_dict().items() if "bert" in k))

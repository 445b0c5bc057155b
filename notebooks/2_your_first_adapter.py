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
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

import tensoradapt as ta
from tensoradapt import tasks
from tensoradapt.analysis.names import COLOURS
from tensoradapt.analysis.statistics.intervals import paired_difference
from tensoradapt.data import models

FAST = bool(os.environ.get("TENSORADAPT_FAST"))  # a smaller size, for tests
STEPS, N_TEST = (4, 40) if FAST else (60, 800)

plt.rcParams.update({"font.size": 9, "figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## Data
#
# A task has three disjoint splits, its metric, and the score of the best constant answer.

# %%
data = tasks.load("snippets", n_train=2000, n_test=N_TEST, seed=0)
print(len(data.train), "to train on,", len(data.test), f"to test on; a constant answer is right on {data.chance:.3f}")
for i in (4, 6):
    print(data.train.labels[i], data.train.texts[i][0])

# %% [markdown]
# A batch holds what the model takes: padded token ids, their mask, and labels. Nothing here is special to tensoradapt.

# %%
encode = models.encoder(models.MINILM)


def batch_of(split, rows):
    ids = [torch.tensor(tokens) for tokens in encode([split.texts[i] for i in rows], 48)]
    mask = pad_sequence([torch.ones_like(tokens) for tokens in ids], batch_first=True)
    labels = torch.from_numpy(split.labels[rows])
    return {"input_ids": pad_sequence(ids, batch_first=True), "attention_mask": mask, "labels": labels}


def batches(split, size=32, seed=0):
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(split))
        yield from (batch_of(split, order[at : at + size]) for at in range(0, len(order) - size + 1, size))


@torch.no_grad()
def correct(model, split):  # bool (examples,)
    rows = np.arange(len(split))
    parts = [batch_of(split, rows[at : at + 64]) for at in range(0, len(rows), 64)]
    return np.concatenate([(model(**part).logits.argmax(1) == part["labels"]).numpy() for part in parts])


# %% [markdown]
# ## Plan and attach
#
# The plan holds all that follows from shapes and names. This one is CP over one tensor of all the attention matrices
# (LoRTA). The classifier was drawn at random and is trained in place; its parameters are counted separately.

# %%
torch.manual_seed(0)
model = models.load(models.MINILM, data.task)
plan = ta.plan(model, layout="layer proj : head dim : model", method="cp", rank=16, train=("classifier",))
adapter = ta.attach(model, plan, seed=0)
print(f"{plan.n_params:,} in the adapter, {plan.n_trained_base:,} in the head")
for name, factor in adapter.tensors[0].factors.items():
    print(f"{name:6s} {tuple(factor.shape)}", "starts at zero" if not factor.any() else "")

# %% [markdown]
# Exactly one factor starts at zero, so the adapted model begins as the base model: switching the adapter off changes no
# output.

# %%
batch = batch_of(data.test, np.arange(8))
with torch.no_grad():
    adapted = model(**batch).logits
    with ta.disabled(model):
        assert torch.equal(adapted, model(**batch).logits)

# %% [markdown]
# ## Train
#
# `ta.fit` is a plain loop: AdamW, a short warm-up, then a linear fall to zero. Any other loop will do, as the adapter's
# parameters are ordinary ones. The head has its own, larger rate, as it is not pretrained.
#
# For comparison the same is done without an adapter. Only the head is trained, on the same batches.

# %%
torch.manual_seed(0)
fitted = ta.fit(model, batches(data.train), lr=9e-3, head_lr=0.06, heads=("classifier",), steps=STEPS)

torch.manual_seed(0)
frozen = models.load(models.MINILM, data.task)
frozen.requires_grad_(False).classifier.requires_grad_(True)
head_only = ta.fit(frozen, batches(data.train), lr=0.06, steps=STEPS)
print(fitted.status, head_only.status)


# %%
def smooth(losses, width=10):
    """Means over a window that grows to ``width`` steps."""
    return [np.mean(losses[max(0, i - width + 1) : i + 1]) for i in range(len(losses))]


figure, ax = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
for run, colour, line, label in (
    (head_only, COLOURS[1], "--", "head alone"),
    (fitted, COLOURS[0], "-", f"adapter of {plan.n_params:,} and head"),
):
    step = np.arange(1, STEPS + 1)
    ax.plot(step, run.losses, line, color=colour, linewidth=0.7, alpha=0.35)
    ax.plot(step, smooth(run.losses), line, color=colour, linewidth=1.8, label=label)
ax.axhline(np.log(2), color="#555555", linewidth=0.9, linestyle=":")
ax.annotate("a coin", (1.01, np.log(2)), xycoords=ax.get_yaxis_transform(), va="center", fontsize=8, color="#555555")
ax.set(xlabel="step of 32 sentences", ylabel="training loss")
ax.legend(frameon=False, loc="lower left")
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
difference = paired_difference(right[None], right_alone[None])
print(f"test accuracy {right.mean():.3f} with the adapter, {right_alone.mean():.3f} with the head alone")
print(f"difference {difference.mean:+.3f}, 95 % interval {difference.low:+.3f} to {difference.high:+.3f}, one seed")

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
    fresh = models.load(models.MINILM, data.task).eval()
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
base = models.load(models.MINILM, data.task).state_dict()
print("the base weights are back:", all(torch.equal(v, base[k]) for k, v in fresh.state_dict().items() if "bert" in k))

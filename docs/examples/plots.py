"""Examples of figures, which the plot gallery of the site shows.

A function without arguments draws one picture and is named for its figure, or for the figure and a variant. Its
docstring is the question that the figure answers and what its marks are.
"""

import pandas as pd

import tensoradapt as ta


def runs_of(path: str) -> pd.DataFrame:
    """Return a row for each run of a table of means, whose column ``scores`` has them in the order of their seeds."""
    means = pd.read_csv(path)
    scores = means["scores"].str.replace("*", "").str.split()  # a star is at a run that ended at chance
    runs = means.assign(score=scores).explode("score").astype({"score": float})
    return runs.assign(seed=runs.groupby(level=0).cumcount())


def frontier():
    """Which method is worth its parameters?

    In the green zone a size loses less than a point on LoRA r=8. Bars are 95 % intervals of the paired difference to
    it, filled marks are shown to be in the zone. The headline is written from the data.
    """
    ta.plots.frontier(runs_of("docs/results/figures/frontier.csv"), headline=True)


def frontier_column():
    """In the column of a paper.

    A width alone keeps the figure's own height; names stay, ranks go where there is no room.
    """
    ta.plots.frontier(runs_of("docs/results/figures/frontier.csv"), figsize=3.3)


def frontier_dark():
    """In a dark style sheet.

    Ink and paper are those of matplotlib's rcParams, so any style sheet holds.
    """
    from matplotlib import pyplot as plt

    with plt.style.context("dark_background"):
        ta.plots.frontier(runs_of("docs/results/figures/frontier.csv"))


def frontier_methods():
    """Where does each method stand among the others?

    One panel for each method in its colour, the others in grey, on the same axes.
    """
    ta.plots.frontier(runs_of("docs/results/figures/frontier-all.csv"), col="method", figsize=7)


def frontier_tasks():
    """Does the answer hold on other tasks?

    One panel for each task, and one legend for all.
    """
    runs = runs_of("docs/results/figures/tasks.csv").query("task != 'rte'")
    ta.plots.frontier(runs, col="task", figsize=7)


def differences():
    """What does each size lose?

    Each size of each method minus LoRA r=8, sizes of nearly as many parameters together. In the green zone less than a
    point is lost; filled marks and green words are shown to be there, after Holm's correction over all sizes. Bars are
    95 % intervals.
    """
    ta.plots.differences(runs_of("docs/results/figures/frontier.csv"), headline=True)


def differences_column():
    """In the column of a paper.

    Fill and colour of the numbers say what the words beside the wide figure do.
    """
    ta.plots.differences(runs_of("docs/results/figures/frontier.csv"), figsize=3.3)


def differences_dark():
    """In a dark style sheet.

    The same call within the sheet.
    """
    from matplotlib import pyplot as plt

    with plt.style.context("dark_background"):
        ta.plots.differences(runs_of("docs/results/figures/frontier.csv"))


def differences_tasks():
    """And at equal budgets, on several tasks?

    One panel for each task; Holm's correction is over the rows of a panel.
    """
    runs = runs_of("docs/examples/minilm-sweep/means.csv")
    ta.plots.differences(runs, at="budget", col="task", figsize=7)


def layouts():
    """Which layout suits which parameterization?

    Each cell has a mean and its difference to the framed one of the same budget, which is also its colour; bold is what
    differs after Holm's correction over the map.
    """
    ta.plots.layouts(runs_of("docs/examples/layouts/means.csv"), figsize=7, headline=True)


def curves():
    """How does the score change with rank?

    A line for each method; `x` may also be `budget`, `steps` or `lr`.
    """
    ta.plots.curves(runs_of("docs/results/figures/frontier.csv"), x="rank", figsize=7, headline=True)


def curves_rates():
    """Was the learning rate chosen well?

    Validation scores at all rates that were tried; the one that was kept has a ring.
    """
    runs = pd.read_csv("docs/results/headline/records.csv")
    ta.plots.curves(runs[runs["method"].isin(["CP", "Tucker", "lora"])], x="lr", figsize=7)


def learning():
    """Who learns faster?

    The training loss, smoothed, as the mean over seeds; thin lines are seeds. With a
    folder of runs in place of a table the losses are read from it, and `x="seconds"` is the other axis.
    """
    runs = pd.read_csv("docs/examples/learning/runs.csv")  # a column has the losses of all steps
    ta.plots.learning(runs, figsize=7, headline=True)


def aggregates():
    """Which method is best over several tasks?

    Interquartile means of gains over chance, and the probability that a run beats one of LoRA of the same budget; bold
    is what differs after Bonferroni's correction over the figure.
    """
    runs = runs_of("docs/examples/minilm-sweep/means.csv")
    runs["chance"] = runs["task"].map({"sst2": 0.509, "stsb": 0.0})  # the score of a constant answer
    ta.plots.aggregates(runs, figsize=7, headline=True)


def forgetting():
    """What does learning cost elsewhere?

    The score of causal models against the loss of general text: points are means with intervals of both.
    """
    ta.plots.forgetting(pd.read_csv("docs/examples/forgetting/runs.csv"), figsize=7, headline=True)


def network():
    """What is trained, and how is it joined?

    Factors as nodes, bonds as lines between them, modes as open legs. Filled: trained; hollow: starts at zero; green
    legs: index modes, orange: rows, blue: columns.
    """
    from transformers import BertConfig

    plan = ta.plan(BertConfig(), "tucker", "layer proj : head dim : model", rank=8)
    ta.plots.network(plan)


def spectra():
    """How many directions of each mode does an update use?

    Singular values of each mode of one tensor, and beside each line the directions that keep 90 % of the update. An
    adapter goes in as it is: `ta.plots.spectra(adapter)`.
    """
    import numpy as np

    modes = pd.read_csv("docs/results/figures/spectra.csv").groupby("mode", sort=False)
    values = modes["singular_value"].apply(np.array).to_dict()
    sizes, ranks = (modes[name].first().to_dict() for name in ("size", "noise_rank"))
    ta.plots.spectra(ta.spectra.Spectra(sizes, values, noise=np.nan, noise_rank=ranks), figsize=7, headline=True)

"""The numbers that pages say, from the files that hold them."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from tensoradapt.analysis.edges import at_edges
from tensoradapt.analysis.names import display
from tensoradapt.analysis.statistics.intervals import Floats, Interval, t_interval
from tensoradapt.analysis.statistics.significance import holm, paired_p
from tensoradapt.analysis.tables import compare, reported
from tensoradapt.analysis.verdict import compared

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "paper"))
import best_rate
import committed
import learning_rules
import overview
import tiles
from support.margins_again import margins_again

ROOT = Path(__file__).parents[2]
STEP = best_rate.STEP
LORA, HEADLINE = ("LoRA", "8"), "docs/results/headline"
CP1, CP4, LORA1, LORA2 = ("CP (LoRTA)", "1"), ("CP (LoRTA)", "4"), ("LoRA", "1"), ("LoRA", "2")
FROZEN, FULL = ("frozen base + head", ""), ("full fine-tuning", "")
TUCKER_START = "benchmarks/records/tucker_start.csv"
LEARNING_RULES, LAYOUT_SPEED = "benchmarks/records/learning_rules_first.csv", "benchmarks/records/layout_speed.csv"
NUMBERS = "none one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen".split()
Row = dict[str, str]
Key = tuple[str, str]  # method and rank


@cache
def rows(path: str) -> tuple[Row, ...]:
    """The rows of a CSV file."""
    with (ROOT / path).open(newline="") as file:
        return tuple(csv.DictReader(file))


def one(path: str, **wanted: str) -> Row:
    """The only row of a file with these cells."""
    (found,) = [row for row in rows(path) if all(row[key] == value for key, value in wanted.items())]
    return found


@cache
def all_runs(folder: str) -> pd.DataFrame:
    """All runs of a folder of docs/results, those that tuned too."""
    return pd.read_csv(ROOT / "docs/results" / folder / "records.csv")


def signed(row: Row) -> str:
    """A row's difference with its interval, each with its sign."""
    return "{:+.3f} ({:+.3f} to {:+.3f})".format(*(float(row[key]) for key in ("difference", "low", "high")))


def unsigned(gap: Interval) -> str:
    """A mean that is above zero with its interval."""
    return f"{gap.mean:.3f} ({gap.low:.3f} to {gap.high:.3f})"


HEAD = int(rows("docs/results/headline/records.csv")[0]["n_head"])  # which each run of two classes on MiniLM trains


@cache
def figure(name: str = "frontier") -> dict[Key, Row]:
    """The rows of docs/results/figures/NAME.csv by method and rank, with methods as the page writes them."""
    return {
        (row["method"].replace("lotr", "LoTR"), row["rank"]): row for row in rows(f"docs/results/figures/{name}.csv")
    }


def size(key: Key, name: str = "frontier") -> int:
    """An adapter's parameters."""
    return int(figure(name)[key]["n_params"])


def mean(key: Key, name: str = "frontier") -> float:
    """A mean accuracy."""
    return float(figure(name)[key]["mean"])


def scores(key: Key, name: str = "frontier") -> Floats:
    """The accuracy of each seed."""
    return np.array([float(score.strip("*")) for score in figure(name)[key]["scores"].split()])


def share(key: Key) -> tuple[float, Interval]:
    """What part of full fine-tuning's gain over the frozen base an adapter has, of the means and over seeds."""
    gain, most = scores(key) - scores(FROZEN), scores(FULL) - scores(FROZEN)
    return float(gain.mean() / most.mean()), t_interval(gain / most)


def fewer(key: Key, name: str = "frontier", head: int = 0) -> str:
    """How many times fewer parameters than LoRA r=8 a size has."""
    return f"{(size(LORA, name) + head) / (size(key, name) + head):.3g}"


@cache
def gaps(name: str = "frontier") -> dict[Key, tuple[Interval, float]]:
    """Each size's difference to LoRA r=8 over seeds, and its p after Holm's correction over all of them."""
    apart = {key: scores(key, name) - scores(LORA, name) for key in figure(name) if key[1] and key != LORA}
    adjusted = holm([paired_p(gap) for gap in apart.values()])
    return {key: (t_interval(gap), float(p)) for (key, gap), p in zip(apart.items(), adjusted, strict=True)}


@cache
def within(margin: float, name: str = "frontier") -> dict[Key, tuple[bool, bool]]:
    """Whether each size loses less than a margin: by its own lower limit over seeds, and after Holm's correction."""
    limits = gaps(name)
    apart = {key: scores(key, name) - scores(LORA, name) + margin for key in limits}
    p = [paired_p(gap) / 2 if gap.mean() > 0 else 1 - paired_p(gap) / 2 for gap in apart.values()]
    held = dict(zip(apart, holm(p), strict=True))
    return {key: (limits[key][0].low > -margin, bool(held[key] < 0.025)) for key in apart}


def to_lora(key: Key, name: str = "frontier") -> str:
    """The cell of a difference to LoRA r=8 with its interval over seeds."""
    gap = t_interval(scores(key, name) - scores(LORA, name))
    return f"{gap.mean:+.3f} ({gap.low:.3f} to {gap.high:.3f})"


def counts(key: Key, name: str = "frontier") -> str:
    """The cells of a size: its parameters alone and with the head, and how many times fewer than LoRA r=8's."""
    n = size(key, name)
    cells = (f"{n:,}", f"{n + HEAD:,}")
    return " | ".join((*cells, fewer(key, name), fewer(key, name, HEAD)) if key[1] else (*cells, "", ""))


def figure_rows(name: str = "frontier") -> Iterator[str]:
    """How each row of the table of docs/results/figures/README.md begins, up to the difference to LoRA r=8."""
    for (method, rank), row in figure(name).items():
        key = method, rank
        over = [float(row[f"diff_head{end}"] or 0) for end in ("", "_low", "_high")]
        gain = f"{over[0]:+.3f} ({over[1]:.3f} to {over[2]:.3f})" if key != FROZEN else ""
        gap = to_lora(key, name) if key not in (FROZEN, LORA) else ""
        held = f"{gaps(name)[key][1]:.3g}" if key in gaps(name) else ""
        cells = (method, rank, counts(key, name), f"{float(row['mean']):.3f}")
        cells += (f"{float(row['low']):.3f} to {float(row['high']):.3f}",)
        yield f"| {' | '.join((*cells, *([gain] if name == 'frontier' else []), gap, held))} |"


def default_rows() -> Iterator[str]:
    """The rows of the table of the default frontier in docs/results/figures/README.md."""
    table = [
        {**row, "rank": row["rank"].removesuffix(".0")} for row in rows("docs/results/figures/frontier-default.csv")
    ]
    of = {(row["method"], row["rank"]): np.array(row["scores"].split(), float) for row in table}
    for row in table:
        key = row["method"], row["rank"]
        size = f"r={row['rank']}" if row["rank"] else f"n≤{int(row['budget']):,}" if row["budget"] else ""
        cells = [display(row["method"]), size, f"{int(row['n_params']):,}", f"{int(row['n_trained']):,}"]
        cells += [f"{float(row['mean']):.3f}", f"{float(row['low']):.3f} to {float(row['high']):.3f}"]
        for other in (("frozen base + head", ""), ("lora", "8")):
            gap = t_interval(of[key] - of[other])
            apart = key not in (("frozen base + head", ""), other)
            cells.append(f"{gap.mean:+.3f} ({gap.low:.3f} to {gap.high:.3f})" if apart else "")
        yield f"| {' | '.join(cells)} |"


def first_looks(task: str, *steps: str) -> list[float]:
    """The mean score of LoRA r=8 after so many steps, of benchmarks/records/first_looks.csv."""
    own = [row for row in rows(FIRST_LOOKS) if row["task"] == task and row["score"]]
    return [float(np.mean([float(row["score"]) for row in own if row["steps"] == n])) for n in steps]


def difference(folder: str, task: str, method: str, size: str) -> dict[str, float]:
    """The numbers of a row of docs/results/FOLDER/differences.csv."""
    row = one(f"docs/results/{folder}/differences.csv", task=task, method=method, size=size)
    names = ("difference", "low", "high", "low_seeds", "p", "p_holm", "times_fewer", "times_fewer_trained")
    return {key: float(row[key]) for key in (*names, "p_within", "p_within_holm", "n_params", "n_head")}


def differences() -> Iterator[Row]:
    """All rows of docs/results/**/differences.csv."""
    for path in sorted((ROOT / "docs" / "results").rglob("differences.csv")):
        yield from rows(path.relative_to(ROOT).as_posix())


def ranks_decided() -> int:
    """How many differences between ranks of LoRTA are decided."""
    return sum(row["decided"] == "True" for row in rows("docs/results/instruct/ranks/differences.csv"))


def on_alpaca() -> tuple[float, float]:
    """What LoRA r=1 and CP with half of its parameters lose on Alpaca, both decided."""
    found = {row["method"]: row for row in rows("docs/results/instruct/differences.csv")}
    lora, cp = found["lora"], found["CP"]
    assert len(found) == 2 and lora["decided"] == cp["decided"] == lora["within"] == "True" and cp["within"] == "False"
    assert 0.45 < int(cp["n_params"]) / int(lora["n_params"]) < 0.55
    return -float(lora["difference"]), -float(cp["difference"])


def span(folder: str, task: str, method: str, size: str) -> str:
    """A difference with its interval, to the digits that are compared with a margin."""
    row = difference(folder, task, method, size)
    return f"{row['difference']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"


def layout(method: str, budget: str) -> Floats:
    """The accuracy of each seed of a cell of docs/examples/layouts."""
    row = one("docs/examples/layouts/means.csv", method=method, budget=budget)
    return np.array([float(score.strip("*")) for score in row["scores"].split()])


def gain_of_whole_outputs(parameterization: str) -> str:
    """What ``out`` gains in place of ``head dim``, over the three budgets."""
    cells = [
        layout(f"{parameterization} over layer proj : out : in", budget)
        - layout(f"{parameterization} over layer proj : head dim : model", budget)
        for budget in ("2000", "7000", "20000")
    ]
    return unsigned(t_interval(np.mean(cells, axis=0)))


def forgetting_gains() -> list[float]:
    """By how much general text became more likely in each configuration of docs/examples/forgetting, nats a token."""
    cells: dict[tuple[str, str], list[float]] = {}
    for row in rows("docs/examples/forgetting/runs.csv"):
        cells.setdefault((row["method"], row["rank"]), []).append(-float(row["forgetting"]))
    return [float(np.mean(values)) for values in cells.values()]


BUDGETS = ("19000", "37500", "75000")
AROUND = {  # cells of docs/examples/around of one number of parameters, whose difference is taken over sizes
    "CP": [(("CP by HiRA's rule", n), ("CP", n)) for n in BUDGETS],
    "Tensor-train": [(("Tensor-train by HiRA's rule", n), ("Tensor-train", n)) for n in BUDGETS],
    "LoRA": [(("hira", r), ("lora", r)) for r in ("1.0", "2.0", "4.0")],
    "GraLoRA": [(("gralora", "1.0"), ("lora", "2.0")), (("gralora", "2.0"), ("lora", "4.0"))],
    "RaSA": [(("rasa", r), ("lora", r)) for r in ("2.0", "4.0")],
}


def around(method: str, size: str) -> Floats:
    """The accuracy of each seed of a cell of docs/examples/around, by rank or budget."""
    found = one("docs/examples/around/means.csv", method=method, **{"rank" if "." in size else "budget": size})
    return np.array([float(score) for score in found["scores"].strip("'").split()])


def gain_around(*names: str) -> str:
    """What the first cells of these pairs gain over the second, as a mean over sizes and names, paired over seeds."""
    gains = [np.mean([around(*a) - around(*b) for a, b in AROUND[name]], axis=0) for name in names]
    return unsigned(t_interval(np.mean(gains, axis=0)))


def same_rows(spec: str) -> tuple[Row, ...]:
    """The configurations of a specification of docs/examples/same-function."""
    return rows(f"docs/examples/same-function/{spec}.csv")


def same_row(spec: str, method: str) -> tuple[int | float, ...]:
    """A configuration's parameters, its rate (1e-3), its mean over seeds, and the interval."""
    (row,) = [row for row in same_rows(spec) if row["method"] == method]
    return int(row["n_params"]), 1e3 * float(row["lr"]), *(float(row[key]) for key in ("mean", "low", "high"))


def same_tried(method: str) -> float:
    """By how much three tuning seeds put the rate 3.6e-3 ahead of 2e-3 on validation."""
    found = {
        lr: np.mean(
            [float(row["validation"]) for row in same_rows("tried") if (row["method"], row["lr"]) == (method, lr)]
        )
        for lr in ("0.0036", "0.002")
    }
    return float(found["0.0036"] - found["0.002"])


def same_apart(spec: str) -> float:
    """How far apart the means of a specification of it are."""
    means = [float(row["mean"]) for row in same_rows(spec)]
    return max(means) - min(means)


def rate_of_hira() -> float:
    """How many times the rate of the networks added those by HiRA's rule chose in docs/examples/around."""
    rates = {name: one("docs/examples/around/means.csv", method=name, budget="75000")["lr"] for name in (
        "CP", "CP by HiRA's rule", "Tensor-train", "Tensor-train by HiRA's rule")}  # fmt: skip
    (times_,) = {
        round(float(rates[f"{name} by HiRA's rule"]) / float(rates[name]), 1) for name in ("CP", "Tensor-train")
    }
    return times_


def rate(cell: str, steps: int = 300, optimizer: str = "equal") -> float:
    """A cell's best rate in benchmarks/records/best_rate.csv."""
    return float(best_rate.table(steps)[optimizer]["rates"][cell])


def spread(optimizer: str) -> tuple[float, float, float]:
    """How far apart the best rates at 60 steps are, the lowest and the highest."""
    rates = best_rate.table(60)[optimizer]["rates"].values()
    return max(rates) / min(rates), min(rates), max(rates)


def without_size() -> tuple[float, float, float]:
    """The power of the size that best rates of equal steps follow, and how far apart they are without and with it."""
    return *best_rate.by_size(60, "equal"), spread("equal")[0]


SIZES_OF_MINILM = (147456, 18432, 37152)  # LoRA r=8, r=1 and CP


def beside_lora8(folder: str, task: str, *sizes: tuple[str, str]) -> tuple[float | str, ...]:
    """LoRA r=8's mean in a folder of results, and the differences of methods and sizes to it."""
    (lora,) = (row for row in rows(f"docs/results/{folder}/means.csv") if row["rank"] and float(row["rank"]) == 8)
    return float(lora["mean"]), *(span(folder, task, *size) for size in sizes)


def p_beside_lora1(folder: str) -> float:
    """The p of CP to LoRA r=1 in a folder of results, over seeds alone."""
    gaps = compare(reported(all_runs(folder)), "lora", at=1)
    return float(gaps.set_index("method").loc["CP", "p"])


def alike_on_sst2() -> tuple[()]:
    """Nothing; LoRA r=1 and CP are within 0.02 of LoRA r=8 there, and not decided to be worse or within 0.01."""
    assert {told("glue", "sst2", *key) for key in (("lora", "r=1"), ("CP", "n≤37,200"))} == {"within 0.02"}
    assert not any(row["seeds_within"] for row in rows("docs/results/glue/within.csv") if row["margin"] == "0.01")
    return ()


def chosen_rates(folder: str, *n_params: int) -> tuple[tuple[float, float], ...]:
    """The rate that each size of a folder of results has chosen, of its parameters, and its validation score there."""
    runs = all_runs(folder)
    chosen = runs[~runs["tuning"]].groupby("n_params")["lr"].first()
    tried = runs[runs["tuning"]].groupby(["n_params", "lr"])["validation"].mean()
    return tuple((float(chosen[n]), float(tried[n, chosen[n]])) for n in n_params)


def rates_on_sst2() -> tuple[float, ...]:
    """The mean validation score of LoRA r=8, r=1 and CP at 1.1e-3, which each of them has chosen."""
    rates, scores = zip(*chosen_rates("glue", *SIZES_OF_MINILM), strict=True)
    assert {*rates} == {1.1e-3}
    return scores


def rates_on_cola() -> tuple[float, float]:
    """The rates in 1e-4 that both LoRAs and CP have chosen on CoLA."""
    (lora8, lora1, cp), _ = zip(*chosen_rates("cola", *SIZES_OF_MINILM), strict=True)
    assert lora8 == lora1
    return round(1e4 * lora8, 2), round(1e4 * cp, 2)


def cp_beside_lora1_on_cola() -> tuple[str, float, float]:
    """CP's difference to LoRA r=1 on CoLA with its interval, its p, and the p over seeds alone."""
    row = one("docs/results/cola/pairs.csv", method="CP", reference="lora", reference_n_params="18432")
    return signed(row), float(row["p"]), p_beside_lora1("cola")


def seeds_on_cola() -> tuple[int]:
    """The seeds that would decide that LoRA r=1 is worse on CoLA; no number of them decides anything of CP."""
    again = margins_again(ROOT / "docs/results/cola").query("margin == 0.01").set_index("method")
    assert pd.isna(again.loc["CP", "seeds_needed"]) and not any(again["decided"])
    assert again["seeds_within"].isna().all()
    return (int(again.loc["lora", "seeds_needed"]),)


def validation_on_cola() -> tuple[float, ...]:
    """The mean validation score of LoRA r=8, r=1 and CP at the rates they have chosen on CoLA."""
    return tuple(score for _, score in chosen_rates("cola", *SIZES_OF_MINILM))


def cp_on_cifar10() -> tuple[float, int, float]:
    """How many times fewer parameters CP has on CIFAR-10 than LoRA r=8, its count, and by how much it is worse."""
    (row,) = (row for row in rows("docs/results/vision/differences.csv") if row["method"] == "CP")
    assert [told("vision", "cifar10", *of) for of in (("CP", "n≤41,500"), ("lora", "r=1"))] == ["worse", "nothing"]
    return times("vision", "cifar10", "CP", "n≤41,500")[0], int(row["n_params"]), -float(row["difference"])


def cp_beside_lora1() -> tuple[float, float]:
    """CP's share of LoRA r=1's parameters on CIFAR-10 in percent, and its p to it, over seeds alone."""
    gaps = compare(reported(all_runs("vision")), "lora", at=1).set_index("method")
    return 100 / float(gaps.loc["CP", "times_fewer"]), float(gaps.loc["CP", "p"])


def rates_on_cifar10(validation: bool = False) -> tuple[float, ...]:
    """The rates in 1e-4 that LoRA r=8, r=1 and CP have chosen on CIFAR-10, or their mean validation scores there."""
    found = chosen_rates("vision", 663552, 82944, 34920)
    return tuple(score if validation else round(1e4 * rate, 2) for rate, score in found)


@cache
def step_ratio(name: str, shape: str = "minilm") -> float:
    """What a step takes over the frozen model's, the median of benchmarks/records/speed-SHAPE-cpu-1.json."""
    record = json.loads((ROOT / "benchmarks" / "records" / f"speed-{shape}-cpu-1.json").read_text())
    return float(record["competitors"][name]["step"]["median"])


def steps_of_rank_8() -> tuple[float, ...]:
    """The ratios of CP, of LoRA, tensor-train, LoTR and Tucker from the least to the most, and of PEFT's LoRA."""
    ours = [step_ratio(f"{name} r=8") for name in ("lora", "tensor_train", "lotr", "tucker")]
    return step_ratio("cp r=8"), min(ours), max(ours), step_ratio("PEFT LoRA r=8")


def cells_of_rates(optimizer: str) -> list[best_rate.Cell]:
    """The 39 cells of an optimizer in benchmarks/records/best_rate.csv, at 60 steps."""
    return [cell for cell in best_rate.cells(60, (optimizer,)) if best_rate.seeds_of(cell)]


def best_by_rank(optimizer: str) -> tuple[float, ...]:
    """The geometric means of the best rates of ranks 1, 4, 16 and 64, and of 64 without Tucker."""
    rates = best_rate.table(60)[optimizer]["rates"]
    of_rank = [[rate for name, rate in rates.items() if name.endswith(f" r={rank}")] for rank in (1, 4, 16, 64)]
    of_rank.append([rate for name, rate in rates.items() if name.endswith(" r=64") and name != "tucker r=64"])
    return tuple(float(np.exp(np.mean(np.log(of)))) for of in of_rank)


def accuracy_at(optimizer: str, k: int | None = None) -> Floats:
    """Each cell's mean accuracy over two seeds, at rate k or at the least loss of each seed."""
    found = []
    for cell in cells_of_rates(optimizer):
        of_seeds = []
        for seed in best_rate.SEEDS:
            loss, right = best_rate.losses(cell, seed), best_rate.losses(cell, seed, "accuracy")
            of_seeds.append(right[min(loss, key=lambda k, loss=loss: loss[k]) if k is None else k])
        found.append(float(np.mean(of_seeds)))
    return np.array(found)


def own_best() -> tuple[float, ...]:
    """The mean accuracy of the cells' own best, of equal steps and of AdamW."""
    return tuple(float(accuracy_at(optimizer).mean()) for optimizer in ("equal", "adamw"))


def gain_of_equal_steps() -> tuple[float, float, float]:
    """What equal steps gain over AdamW, each at its best rate for all, with the paired interval over cells."""
    ours, theirs = (accuracy_at(name, best_rate.table(60)[name]["k"]) for name in ("equal", "adamw"))
    gap = t_interval(ours - theirs)
    return gap.mean, gap.low, gap.high


def seeds_apart() -> float:
    """By how much the best rates of the two seeds differ, in the median over cells of both optimizers."""
    ratios = []
    for cell in (*cells_of_rates("equal"), *cells_of_rates("adamw")):
        rates = [best_rate.best_of(best_rate.losses(cell, seed)) for seed in best_rate.SEEDS]
        ratios.append(max(rates) / min(rates))
    return float(np.median(ratios))


def first_seeds_apart() -> tuple[float, ...]:
    """How far the best rates of the first seed alone lie apart, of equal steps and of AdamW."""
    seed = best_rate.SEEDS[0]
    found = [
        [best_rate.best_of(best_rate.losses(cell, seed)) for cell in cells_of_rates(name)]
        for name in ("equal", "adamw")
    ]
    return tuple(max(rates) / min(rates) for rates in found)


def lost_above(optimizer: str) -> tuple[int, int]:
    """How many runs of LoRA and Tucker end at chance one step above the best rate of their seed, and of how many."""
    found = []
    for cell in (cell for cell in cells_of_rates(optimizer) if cell[2] in ("lora", "tucker")):
        for seed in best_rate.SEEDS:
            loss, right = best_rate.losses(cell, seed), best_rate.losses(cell, seed, "accuracy")
            found.append(right[min(loss, key=lambda k, loss=loss: loss[k]) + 1] <= 0.53)
    return sum(found), len(found)


def choice_by_loss() -> tuple[float, float, float, int]:
    """What a choice of rates by loss gains, its interval and the number of cells."""
    found = t_interval(best_rate.gain_of_loss())
    return found.mean, found.low, found.high, found.n


def within_headline(margin: str, folder: str = "headline") -> list[Row]:
    """The rows of docs/results/headline/within.csv at a margin, or of a folder in it."""
    return [row for row in rows(f"docs/results/{folder}/within.csv") if row["margin"] == margin]


def inside_headline(margin: str) -> dict[str, list[int]]:
    """The parameters of the sizes of the headline that are within a margin, by method."""
    found: dict[str, list[int]] = {}
    for row in within_headline(margin):
        if row["within"] == "True":
            found.setdefault(row["method"], []).append(int(row["n_params"]))
    return found


def of_headline() -> tuple[int, int, int, float]:
    """The parameters of CP and Tucker that are within 0.01, LoRA r=8's, and LoRA r=8's mean; CP's by HiRA's rule too.

    LoRA r=1 and CP with 18,576 are worse and within 0.02.
    """
    near, inside = inside_headline("0.01"), inside_headline("0.02")
    assert near == {"Tucker": [36840], "CP": [37152], "CP by HiRA's rule": [37152]}
    for method, size, n_params in (("lora", "r=1", 18432), ("CP", "n≤18,600", 18576)):
        worse = difference("headline", "snippets", method, size)
        assert worse["p_holm"] < 0.05 and worse["difference"] < 0 and n_params in inside[method]
    (reference,) = (row for row in rows("docs/results/headline/means.csv") if row["rank"] and float(row["rank"]) == 8)
    return *near["CP"], *near["Tucker"], int(reference["n_params"]), float(reference["mean"])


def lora8_of_headline() -> tuple[int | float, ...]:
    """LoRA r=8's parameters and mean."""
    return of_headline()[2:]


def front_of_headline() -> tuple[int | float, ...]:
    """The parameters of CP that is within 0.01, LoRA r=1's, and those of the smallest CP with its mean."""
    assert 0.249 < of_headline()[0] / of_headline()[2] < 0.255
    least = one("docs/results/headline/means.csv", method="CP", n_params="6192")
    lora = one("docs/results/headline/means.csv", method="lora", rank="1.0")
    assert told("headline", "snippets", "CP", "n≤6,400") == "worse"
    return of_headline()[0], int(lora["n_params"]), int(least["n_params"]), float(least["mean"])


def least_of_headline() -> tuple[int, float]:
    """The fewest parameters within 0.02, tensor-train's, and how many times fewer they are than LoRA r=8's."""
    inside = inside_headline("0.02")
    assert min(inside.values()) == inside["Tensor-train"]
    return inside["Tensor-train"][0], of_headline()[2] / inside["Tensor-train"][0]


def decided_of_headline() -> tuple[float | int | str, ...]:
    """What the smallest CP loses and VeRA's size, both decided; how many are compared, worse and within each margin."""
    rows = within_headline("0.01")
    worse = [row for row in rows if row["decided"] == "True" and float(row["difference"]) < 0]
    inside = [row for row in rows if row["within"] == "True"]
    (vera,) = (int(row["n_params"]) for row in worse if row["method"] == "vera")
    assert any(row["n_params"] == "6192" for row in worse)
    counts = (len(rows), len(worse), len(inside), sum(row["within"] == "True" for row in within_headline("0.02")))
    return cp_of_headline(), vera, *(NUMBERS[n] for n in counts)


def ratios_of_steps() -> tuple[float, ...]:
    """The median of passes of what a step takes over one of LoRA r=8: LoRA r=1, CP r=12, and CP by HiRA's rule."""
    table = pd.read_csv(ROOT / "benchmarks" / "records" / "step_seconds.csv")
    by_pass = table.pivot(index="pass", columns=["method", "rank"], values="seconds")
    ratio = by_pass.div(by_pass["LoRA", 8], axis=0).median()
    return float(ratio["LoRA", 1]), float(ratio["CP", 12]), float(ratio["CP by HiRA's rule", 6])


def references_of_headline() -> tuple[float, ...]:
    """The weights of full fine-tuning in millions, its mean and interval, and those of a head on the frozen base."""
    full, head = (one("docs/results/headline/means.csv", kind=kind) for kind in ("full", "head"))
    assert full["n_seeds"] == head["n_seeds"] == "5" and float(full["lr"]) == 1e-4
    return int(full["n_params"]) / 1e6, *(float(row[end]) for row in (full, head) for end in ("mean", "low", "high"))


def split_heads() -> tuple[str | float, ...]:
    """CP with split heads: how many runs learn and their least and largest score, how many end at chance, and of how
    many tuning runs at the next rate all do, where none does at the chosen one.
    """
    table = all_runs("headline")
    own = table[table["method"] == "CP, heads split"]
    told, tried = own[~own["tuning"]], own[own["tuning"]]
    chance = told["status"] == "at chance"
    scores = told[~chance]["test_metrics"].str.removeprefix("accuracy=").astype(float)
    at, above = (tried[tried["lr"] == rate]["status"] == "at chance" for rate in (3.6e-3, 6.48e-3))
    assert above.all() and not at.any() and set(told["lr"]) == {3.6e-3}
    many = (NUMBERS[len(scores)].capitalize(), NUMBERS[len(told)])
    return *many, float(scores.min()), float(scores.max()), NUMBERS[chance.sum()], NUMBERS[len(above)]


def split_heads_beside_cp() -> tuple[str | float, ...]:
    """How many runs with split heads are lost, of how many, how many others there are, and how far these are below CP
    of their size, which the paired t test over them does not decide.
    """
    table = all_runs("headline")
    told = table[~table["tuning"]].set_index("seed")
    split, cp = (told[told["method"] == name] for name in ("CP, heads split", "CP"))
    cp = cp[cp["n_params"] == 18576]["score"]
    lost = split["status"] == "at chance"
    apart = (split["score"][~lost] - cp).dropna()
    assert len(apart) == (~lost).sum() and paired_p(apart.to_numpy()) > 0.05
    return NUMBERS[lost.sum()], NUMBERS[len(split)], NUMBERS[len(apart)], -float(apart.mean())


def row_of_headline(method: str, n_params: int, folder: str = "headline") -> str:
    """The cells of a size of the headline: its counts, mean, difference to LoRA r=8 and what is decided."""
    of_it = [row for row in within_headline("0.01", folder) if row["n_params"] == str(n_params)]
    (row,) = (row for row in of_it if display(row["method"]) == method)
    key = (folder, "snippets", row["method"], row["size"])
    counts = f"{n_params:,} | {n_params + int(row['n_head']):,} | {float(row['mean']):.3f}"
    return f"{counts} | {span(*key)} | {told(*key)} |"


def told(folder: str, task: str, method: str, size: str) -> str:
    """What is decided of a size: that it is worse, and the smaller of the margins that it is within."""
    every = rows(f"docs/results/{folder}/within.csv")
    own = [row for row in every if (row["task"], row["method"], row["size"]) == (task, method, size)]
    worse = own[0]["decided"] == "True" and float(own[0]["difference"]) < 0
    inside = [f"within {row['margin']}" for row in own if row["within"] == "True"]
    return ", ".join([*(["worse"] if worse else []), *inside[:1]]) or "nothing"


SMALL = "headline/small"


def decided_of_small() -> tuple[int | float, ...]:
    """The budget below LoRA's first rank, how many times fewer that is, and what the sizes lose, all decided."""
    found = within_headline("0.01", SMALL)
    assert len(found) == 6 and all(row["decided"] == "True" for row in found)
    sizes, lost = [int(row["n_params"]) for row in found], [-float(row["difference"]) for row in found]
    return 1640, of_headline()[2] / max(sizes), of_headline()[2] / min(sizes), min(lost), max(lost)


def ends_of_small() -> tuple[str | float, ...]:
    """The highest mean of ``SMALL``, its share of LoRA r=8's gain over the frozen base, the base's, and the least."""
    means = {row["method"]: float(row["mean"]) for row in rows(f"docs/results/{SMALL}/means.csv")}
    lora, base = means.pop("lora"), float(one("docs/results/headline/means.csv", kind="head")["mean"])
    assert (max(means, key=means.__getitem__), min(means, key=means.__getitem__)) == ("Tensor-train", "lora_xs")
    return means["Tensor-train"], 100 * (means["Tensor-train"] - base) / (lora - base), base, means["lora_xs"]


def beside_cp_of_small(method: str) -> str:
    """What a factoring gains over CP below LoRA's first rank, with its interval; none is decided."""
    (row,) = (row for row in rows(f"docs/results/{SMALL}/pairs.csv") if row["method"] == method)
    assert row["reference"] == "CP" and float(row["p_holm"]) > 0.05
    return f"{float(row['difference']):.3f} ({float(row['low']):.3f} to {float(row['high']):.3f})"


def lora_xs_of_small() -> tuple[float, float]:
    """p and Holm's p of LoRA-XS beside CP; it, LoTR and split heads are below CP."""
    found = {row["method"]: row for row in rows(f"docs/results/{SMALL}/pairs.csv")}
    below = {name for name, row in found.items() if float(row["difference"]) < 0}
    assert below == {"lora_xs", "lotr", "CP, heads split"}
    return float(found["lora_xs"]["p"]), float(found["lora_xs"]["p_holm"])


def rates_of_small() -> tuple[int | float | str, ...]:
    """The number of runs, the rates that were chosen, in thousandths, and how many runs are lost: all of them tuned."""
    every = rows(f"docs/results/{SMALL}/records.csv")
    chosen: dict[float, set[str]] = {}
    for row in rows(f"docs/results/{SMALL}/means.csv"):
        if row["method"] != "lora":
            chosen.setdefault(round(1e3 * float(row["lr"]), 2), set()).add(row["method"])
    assert chosen == {1.1: {"lora_xs"}, 2.0: {"CP", "CP, heads split"}, 3.6: {"lotr", "Tensor-train", "Tucker"}}
    lost = [row for row in every if row["status"] != "finished"]
    assert all(row["tuning"] == "True" for row in lost) and {row["method"] for row in lost} == {"lora", "Tucker"}
    return len(every), *sorted(chosen), NUMBERS[len(lost)]


OTHERS = "headline/others"
OF_FIRST_RANK = {"lora_xs", "lotr", "Tensor-train by HiRA's rule", "CP, projections tied too"}  # of LoRA r=1's size


def ranks_of_others() -> tuple[float, ...]:
    """The means of LoRA r=8, r=16 and r=32; these two and r=4 are within 0.02 of r=8, and no more is decided."""
    means = {
        row["rank"]: float(row["mean"]) for row in rows(f"docs/results/{OTHERS}/means.csv") if row["method"] == "lora"
    }
    assert {told(OTHERS, "snippets", "lora", f"r={rank}") for rank in (4, 16, 32)} == {"within 0.02"}
    return tuple(means[rank] for rank in ("8.0", "16.0", "32.0"))


def decided_of_others() -> tuple[float, float]:
    """What the three that are decided to be worse lose, least and most; of three others nothing is decided."""
    found = {row["method"]: row for row in within_headline("0.01", OTHERS) if row["method"] != "lora"}
    said = {method: told(OTHERS, "snippets", method, row["size"]) for method, row in found.items()}
    worse = {method for method, word in said.items() if word == "worse"}
    assert worse == OF_FIRST_RANK - {"CP, projections tied too"} and len(said) == 6
    assert {*said.values()} == {"worse", "nothing"}
    lost = [-float(found[method]["difference"]) for method in worse]
    return min(lost), max(lost)


@cache
def runs_of_others() -> pd.DataFrame:
    """The reported runs of ``OTHERS`` of LoRA r=1's size, and those of the headline over the same seeds."""
    others, first = (reported(all_runs(name)) for name in (OTHERS, "headline"))
    assert {*others["seed"]} == {*range(5)}
    return pd.concat([others[others["method"].isin(OF_FIRST_RANK)], first[first["seed"].isin(others["seed"])]])


def beside_lora1_of_others() -> tuple[float, ...]:
    """LoRA r=1's mean over five seeds, what LoRA-XS loses to it, its p and Holm's over four; none is decided."""
    runs = runs_of_others()
    lora = runs[runs["method"].eq("lora") & runs["rank"].eq(1)]
    gaps = compare(pd.concat([lora, runs[runs["method"].isin(OF_FIRST_RANK)]]), "lora", at=1).set_index("method")
    assert len(gaps) == 4 and not gaps["decided"].any()
    (row,) = gaps[gaps["p"] < 0.05].itertuples()
    assert row.Index == "lora_xs"
    return float(lora["score"].mean()), -row.difference, row.p, row.p_holm


def rule_on_tensor_train() -> tuple[str]:
    """What tensor-train by HiRA's rule has more than tensor-train of its size over the same seeds, not decided."""
    runs, name = runs_of_others(), "Tensor-train"
    both = runs[runs["method"].isin([name, f"{name} by HiRA's rule"]) & runs["n_params"].eq(17616)]
    (row,) = compare(both, name, at="budget").itertuples()
    assert row.p > 0.05
    return (f"{row.difference:.3f} ({row.low:+.3f} to {row.high:+.3f})",)


def rates_of_others() -> tuple[int | float | str, ...]:
    """The number of adapters' runs, the rates that were chosen (LoRA r=32's in 1e-4, others in 1e-3), and how many of
    CP's runs are lost, which all tuned.
    """
    every = [row for row in rows(f"docs/results/{OTHERS}/records.csv") if row["kind"] == "adapter"]
    chosen: dict[float, set[str]] = {}
    for row in rows(f"docs/results/{OTHERS}/means.csv"):
        if row["kind"] == "adapter":
            ranked = f"r={float(row['rank']):g}" if row["method"] == "lora" else row["method"]
            chosen.setdefault(round(1e3 * float(row["lr"]), 2), set()).add(ranked)
    third = OF_FIRST_RANK - {"lora_xs"}
    assert [*chosen.values()].count(third) == 1 and chosen.pop(3.6) == third
    assert chosen == {0.61: {"r=32"}, 1.1: {"r=4", "r=8", "r=16", "gralora"}, 2.0: {"LoRA on q, v", "lora_xs"}}
    lost = [row for row in every if row["status"] != "finished"]
    assert all(row["tuning"] == "True" and row["method"] == "CP, projections tied too" for row in lost)
    return len(every), 6.1, 1.1, 2, 3.6, NUMBERS[len(lost)]


LINEAR = "headline/linear"


def decided_on_linear() -> tuple[float, ...]:
    """On all linear layers the parameters of the CP that is within 0.01, how many times fewer, LoRA r=8's and its mean,
    by how much LoRA r=1 is worse, and the parameters of the CP of which nothing is decided.
    """
    sizes = {row["size"]: row for row in within_headline("0.01", LINEAR)}
    said = {size: told(LINEAR, "snippets", row["method"], size) for size, row in sizes.items()}
    assert said == {"n≤20,900": "nothing", "r=1": "worse", "n≤83,400": "within 0.01"}
    lora = one(f"docs/results/{LINEAR}/means.csv", rank="8.0")
    cp, most, small = (int(row["n_params"]) for row in (sizes["n≤83,400"], lora, sizes["n≤20,900"]))
    return cp, most / cp, most, float(lora["mean"]), -float(sizes["r=1"]["difference"]), small


def small_cp_on_linear() -> tuple[str, ...]:
    """The difference of CP with 20,844 parameters to LoRA r=8 on all linear layers, and its parts to LoRA r=1."""
    row = one(f"docs/results/{LINEAR}/pairs.csv", method="CP", n_params="20844")
    assert (row["reference"], row["reference_n_params"]) == ("lora", "41472") and float(row["p_holm"]) > 0.05
    parts = (f"{float(row['difference']):.3f}", f"{float(row['low']):.3f}", f"{float(row['high']):+.3f}")
    return span(LINEAR, "snippets", "CP", "n≤20,900"), *parts


def rates_on_linear() -> tuple[int | float | str, ...]:
    """The number of runs on all linear layers, the rates of LoRA (in 1e-4) and CP (in 1e-3), a step of 1.8 below those
    of attention, and how many runs are lost, all of which tuned.
    """
    every = rows(f"docs/results/{LINEAR}/records.csv")
    chosen = {(row["method"], float(row["lr"])) for row in rows(f"docs/results/{LINEAR}/means.csv")}
    assert chosen == {("lora", 6.1e-4), ("CP", 1.1e-3)}
    lora, cp = rates_of_headline()[:2]
    assert math.isclose(lora / 0.61, STEP, rel_tol=0.02) and math.isclose(cp / 1.1, STEP, rel_tol=0.02)
    lost = [row for row in every if row["status"] != "finished"]
    assert all(row["tuning"] == "True" for row in lost) and {row["method"] for row in lost} == {"lora", "CP"}
    return len(every), 6.1, 1.1, NUMBERS[len(lost)]


def linear_beside_attention() -> tuple[float | str, ...]:
    """What sizes on all linear layers have more than sizes on attention over the same seeds, with intervals over seeds:
    LoRA r=8 (then its times as many parameters and its p), LoRA r=1, CP, and CP against LoRA r=8 (then times fewer).

    None is decided after Holm's correction over the four.
    """
    both = [reported(all_runs(name)) for name in (LINEAR, "headline")]
    linear, attention = (runs[runs["seed"].isin(range(5))].set_index("seed") for runs in both)
    pairs = ((331776, 147456), (41472, 18432), (20844, 18576), (83376, 147456))
    plain = attention[attention["method"].isin(["lora", "CP"])]
    gaps = [linear["score"][linear["n_params"] == m] - plain["score"][plain["n_params"] == n] for m, n in pairs]
    p = [paired_p(gap.to_numpy()) for gap in gaps]
    assert all(len(gap) == 5 for gap in gaps) and min(holm(p)) > 0.05
    spans = [unsigned(t_interval(gap.to_numpy())) for gap in gaps]
    return spans[0], 331776 / 147456, p[0], *spans[1:], 147456 / 83376


PAPERS = "headline/papers"
PLAIN = {"Tensor-train, heads split": ("Tensor-train", 17616), "Tucker, heads split": ("Tucker", 17760)}


@cache
def split_beside() -> list[tuple[Interval, float]]:
    """What tensor-train and Tucker over LoRTA's layout have more than over ``layer : out : in``, and then more than
    LoRA r=1, over the same seeds, with intervals and p over seeds, which hold after Holm's correction over the four.
    """
    split, whole = (reported(all_runs(name)).set_index("seed") for name in (PAPERS, "headline"))
    others = [*PLAIN.values(), ("lora", 18432), ("lora", 18432)]
    pairs = zip([*PLAIN, *PLAIN], others, strict=True)
    gaps = [
        split[split["method"] == name]["score"] - whole[whole["method"].eq(of) & whole["n_params"].eq(n)]["score"]
        for name, (of, n) in pairs
    ]
    values = [gap.dropna().to_numpy() for gap in gaps]
    p = [paired_p(of) for of in values]
    assert {len(of) for of in values} == {5} and max(holm(p)) < 0.05
    return [(t_interval(of), one) for of, one in zip(values, p, strict=True)]


def lost_by_split_heads() -> tuple[float]:
    """What tensor-train and Tucker with split heads have less than with whole outputs, in the mean, to three digits."""
    (lost,) = {round(-gap.mean, 3) for gap, _ in split_beside()[:2]}
    return (lost,)


def lost_to_lora1() -> tuple[float, ...]:
    """What tensor-train and Tucker with split heads have less than LoRA r=1, in the mean."""
    return tuple(-gap.mean for gap, _ in split_beside()[2:])


def over_lortas_layout() -> tuple[float, ...]:
    """The parameters of tensor-train and Tucker over LoRTA's layout, LoRA r=8's mean, by how much they are worse, what
    whole outputs have more, and the parameters and mean of the smallest CP, then the mean of the head alone.
    """
    found = {row["method"]: row for row in within_headline("0.01", PAPERS)}
    assert {told(PAPERS, "snippets", name, row["size"]) for name, row in found.items()} == {"worse"} and len(found) == 3
    both, cp = [found[name] for name in PLAIN], found["CP, heads split"]
    lora = one(f"docs/results/{PAPERS}/means.csv", rank="8.0")
    head = one("docs/results/headline/means.csv", kind="head")
    (train, tucker), lost = (int(row["n_params"]) for row in both), [-float(row["difference"]) for row in both]
    least = (int(cp["n_params"]), float(cp["mean"]), float(head["mean"]))
    return train, tucker, float(lora["mean"]), *lost, *lost_by_split_heads(), *least


def split_beside_others() -> tuple[str | float, ...]:
    """The differences of ``split_beside`` to whole outputs with the parameters of these, p of tensor-train (Tucker's is
    below 0.001), then the differences to LoRA r=1 and both p.
    """
    spans = [f"{gap.mean:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})" for gap, _ in split_beside()]
    p, (train, tucker) = [one for _, one in split_beside()], (n for _, n in PLAIN.values())
    assert p[1] < 0.001
    return spans[0], train, spans[1], tucker, p[0], *spans[2:], *p[2:]


def smallest_over_lortas_layout() -> tuple[int, float, float]:
    """The parameters of the smallest CP, its mean, and by how much it is worse than LoRA r=8."""
    (row,) = (row for row in within_headline("0.01", PAPERS) if row["method"] == "CP, heads split")
    assert told(PAPERS, "snippets", row["method"], row["size"]) == "worse"
    return int(row["n_params"]), float(row["mean"]), -float(row["difference"])


def smallest_above_the_head() -> tuple[str]:
    """What CP with 438 parameters has more than a head on the frozen base over the same seeds, with its interval."""
    runs = [reported(all_runs(name)) for name in (PAPERS, "headline")]
    cp, head = (
        of[mask].set_index("seed")["score"]
        for of, mask in zip(runs, (runs[0]["n_params"].eq(438), runs[1]["kind"].eq("head")), strict=True)
    )
    return (unsigned(t_interval((cp - head).to_numpy())),)


def rates_over_lortas_layout() -> tuple[int | float | str, ...]:
    """The number of runs, the rates of LoRA r=8 and Tucker, CP and tensor-train (in 1e-3), and how many are lost, which
    tuned.
    """
    every = all_runs(PAPERS)
    chosen = {row["method"]: 1e3 * float(row["lr"]) for row in rows(f"docs/results/{PAPERS}/means.csv")}
    train, tucker = PLAIN
    lost = every[every["status"] != "finished"]
    assert round(chosen["lora"], 1) == round(chosen[tucker], 1) and not at_edges(every)
    assert lost["tuning"].all() and {*lost["method"]} == {train, tucker}
    extended = {name for name, of in every[every["tuning"]].groupby("method") if of["lr"].min() < 1.9e-3}
    assert extended - {"lora"} == {tucker, "CP, heads split"}
    return len(every), chosen["lora"], chosen["CP, heads split"], chosen[train], NUMBERS[len(lost)]


def beside_bitfit() -> tuple[int | float | str, ...]:
    """BitFit's parameters, its mean, by how much the ten adapters are above it, all decided, its interval, and LoRA
    r=8's and CP's differences to it, over seeds.
    """
    runs = reported(all_runs(OTHERS))
    own, gaps = one(f"docs/results/{OTHERS}/means.csv", kind="bitfit"), compare(runs, "bitfit")
    assert len(gaps) == 10 and gaps["decided"].all() and float(own["lr"]) == 3.6e-3
    assert runs["kind"].value_counts()["bitfit"] == 5
    named = gaps.set_index(["method", "n_params"])
    two = [named.loc[key] for key in (("lora", 147456), ("CP, projections tied too", 17894))]
    spans = [f"{row['difference']:.3f} ({row['low']:.3f} to {row['high']:.3f})" for row in two]
    ends = (float(own["low"]), float(own["high"]))
    return int(own["n_params"]), float(own["mean"]), gaps["difference"].min(), gaps["difference"].max(), *ends, *spans


def lora8_apart(folder: str, first: str) -> pd.Series[float]:
    """What LoRA r=8 has more in a folder than in the first one on the rated sentences, by seed, on two processors."""
    asked = "task == 'snippets' and method == 'lora' and rank == 8"
    again, before = (reported(all_runs(name)).query(asked).set_index("seed") for name in (folder, first))
    assert {*again["machine"]}.isdisjoint(before["machine"])
    return (again["score"] - before["score"]).dropna()


def lora8_again(folder: str = OTHERS) -> tuple[float]:
    """By how much LoRA r=8's score of a seed differs from that of the headline, at most."""
    return (float(lora8_apart(folder, "headline").abs().max()),)


def smallest_is_worse() -> tuple[()]:
    """Nothing; CP with a third of LoRA r=1's parameters is decided to be worse."""
    assert row_of_headline("CP", 6192).endswith("| worse |")
    return ()


def alike_at_one_size() -> tuple[()]:
    """Nothing; no tensor is decided to differ from LoRA r=1, nor one of LoRA r=2's size from it, over seeds alone."""
    assert min(p_to_lora2()) > 0.05
    assert not any(float(row["p_holm"]) < 0.05 for row in rows(f"{HEADLINE}/pairs.csv") if row["method"] != "lora")
    return ()


@cache
def pairs_of_headline() -> pd.DataFrame:
    """The pairs of about as many parameters of the headline, and which are alike."""
    folder = ROOT / HEADLINE
    return committed.alike(pd.read_csv(folder / "pairs.csv"), reported(pd.read_csv(folder / "records.csv")), 0.01)


def alike_at_the_same_size(looks: bool = False) -> tuple[int, ...]:
    """The least and the most parameters of the sizes alike with LoRA r=1, those of the largest alike with CP, and CP's.

    With ``looks``: only those that are so at the level of one look of all.
    """
    pairs, four = pairs_of_headline(), {"CP", "Tensor-train", "Tucker", "CP by HiRA's rule"}
    level = 0.025 / pairs["n_seeds"].map({10: 2, 20: 3} if looks else {10: 1, 20: 1})
    pairs = pairs.assign(holds=pairs["p_apart_holm"] < level)
    beside_lora, beside_cp = (pairs[pairs["reference"].eq(name)] for name in ("lora", "CP"))
    first = beside_lora[beside_lora["holds"]]
    assert {*first["method"]} == ({"Tensor-train", "Tucker"} if looks else four)
    assert {*beside_lora["method"]} - four == {"CP, heads split", "vera"}
    second = beside_cp[beside_cp["n_params"].gt(30_000) & beside_cp["holds"]]
    assert {*second["method"]} == four - {"CP"} and len(beside_lora) == 6 and len(beside_cp) == 10
    others = beside_cp[beside_cp["n_params"].between(10_000, 30_000) & ~beside_cp["alike"]]
    assert {*others["method"]} == {"Tensor-train", "CP by HiRA's rule", "CP, heads split", "vera"}
    counts = (first["n_params"].min(), first["n_params"].max(), second["n_params"].min(), second["n_params"].max())
    return *map(int, counts), int(second["reference_n_params"].iloc[0])


def alike_with_lora1() -> tuple[()]:
    """Nothing; sizes of four methods are within 0.01 of LoRA r=1 in either direction."""
    return alike_at_the_same_size()[5:]


def beside_lora2() -> tuple[int, float, str, str]:
    """LoRA r=2's parameters, difference to r=8 and seeds, and the seeds of the three that are within 0.01."""
    every = within_headline("0.01")
    (lora,) = (row for row in every if row["size"] == "r=2")
    (seeds,) = {int(row["n_seeds"]) for row in every if row["within"] == "True"}
    ten, twenty = {10: "ten"}[int(lora["n_seeds"])], {20: "twenty"}[seeds]
    return int(lora["n_params"]), float(lora["difference"]), ten, twenty


@cache
def p_to_lora2() -> tuple[float, float]:
    """The least and the largest p to LoRA r=2, over seeds alone, of the three that are within 0.01 of LoRA r=8."""
    gaps = compare(reported(all_runs("headline")), "lora", at=2)
    near = {(row["method"], int(row["n_params"])) for row in within_headline("0.01") if row["within"] == "True"}
    p = [row.p for row in gaps.itertuples() if (row.method, row.n_params) in near]
    assert len(p) == len(near) == 3
    return min(p), max(p)


def head_on_mpnet() -> tuple[int, float]:
    """The head's parameters on the larger model, and how many times fewer CP trains with it than LoRA r=8."""
    return int(of_mpnet()["CP"]["n_head"]), times("headline/mpnet", "snippets", "CP", "n≤37,200")[1]


def looks_of_headline() -> tuple[float, ...]:
    """The p to be within 0.01 of CP by HiRA's rule and of CP, both below a third of its level, that level, Tucker's p
    above it, and LoRA r=1's.
    """
    level = 0.05 / 2 / 3  # 0.05 is of both sides of an interval
    p = {row["method"]: float(row["p_within_holm"]) for row in within_headline("0.01") if row["within"] == "True"}
    found = [p[name] for name in ("CP by HiRA's rule", "CP", "Tucker")]
    worse = difference("headline", "snippets", "lora", "r=1")["p_holm"]
    assert len(p) == 3 and found[1] < level < found[2] < 0.05 / 2 and 0.05 / 3 < worse < 0.05
    return *found[:2], level, found[2], worse


def undecided_tensor_train() -> tuple[float, int]:
    """Holm's p to be within 0.01 of tensor-train with 36,696 parameters, and the seeds that would decide it."""
    (row,) = (row for row in within_headline("0.01") if row["n_params"] == "36696")
    return float(row["p_within_holm"]), int(row["seeds_within"])


def second_looks_of_headline() -> tuple[float]:
    """Holm's p of tensor-train with 6,240 parameters, above half of 0.05 as none else that is worse over ten seeds is;
    what is within 0.02 is so at the levels of two and of three looks.
    """
    every = {(row["method"], int(row["n_params"])): row for row in within_headline("0.01")}
    ten = {key: row for key, row in every.items() if row["decided"] == "True" and row["n_seeds"] == "10"}
    p = {key: float(row["p_holm"]) for key, row in ten.items()}
    assert {key for key in p if p[key] < 0.05 / 2} == {("CP", 6192), ("CP", 18576), ("vera", 18600)}
    for row in within_headline("0.02"):
        looks = {"10": 2, "20": 3}[row["n_seeds"]]
        assert row["within"] != "True" or float(row["p_within_holm"]) < 0.05 / 2 / looks
    return (p["Tensor-train", 6240],)


def inside_its_grid() -> tuple[()]:
    """Nothing; no chosen rate of the headline, nor of its fewer steps, is at an end of those that were tried."""
    for name in ("headline", "headline/steps"):
        runs = all_runs(name)
        assert not [cell for _, of in runs.groupby("steps") for cell in at_edges(of)]
    return ()


MPNET, FIRST_LOOKS = "docs/results/headline/mpnet", "benchmarks/records/first_looks.csv"
MPNET_TASKS, COUNTS = ("snippets", "sst2"), (73728, 37152, 589824)  # the parameters of LoRA r=1, CP and LoRA r=8


def of_mpnet(margin: str = "0.02", task: str = "snippets") -> dict[str, Row]:
    """The rows of a margin of the larger model on a task, by the method."""
    found = (row for row in rows(f"{MPNET}/within.csv") if row["task"] == task)
    return {row["method"]: row for row in found if row["margin"] == margin}


def larger_model() -> tuple[int | float | str, ...]:
    """The parameters of CP on the larger model, how many times fewer than LoRA r=8's, these, and on both tasks the
    difference to LoRA r=8 and its mean.

    On both CP and LoRA r=1 are within 0.02 and not within 0.01, and no difference is decided.
    """
    every = [row for margin in ("0.01", "0.02") for task in MPNET_TASKS for row in of_mpnet(margin, task).values()]
    assert all((row["within"] == "True") == (row["margin"] == "0.02") and row["decided"] == "False" for row in every)
    whole = {row["task"]: row for row in rows(f"{MPNET}/means.csv") if row["rank"] and float(row["rank"]) == 8}
    cp, most = int(of_mpnet()["CP"]["n_params"]), int(whole["snippets"]["n_params"])
    told = [(span("headline/mpnet", t, "CP", "n≤37,200"), float(whole[t]["mean"])) for t in MPNET_TASKS]
    return cp, most / cp, most, *(value for both in told for value in both)


def cp_to_lora1_on_mpnet() -> tuple[str, ...]:
    """The differences of CP to LoRA r=1 on the larger model, with their intervals, by task."""
    found = [
        one(f"{MPNET}/pairs.csv", task=t, reference="lora", reference_n_params="73728", method="CP")
        for t in MPNET_TASKS
    ]
    return tuple(map(signed, found))


MORE = "headline/mpnet-more"


def second_on_mpnet() -> tuple[float, ...]:
    """The parameters of the smaller Tucker on the larger model, how many times fewer than LoRA r=8, its mean, what
    Tuckers have more than it, the mean of the head alone with its interval, and what adapters add to that.

    All three sizes are within 0.01, and no difference is decided.
    """
    found = within_headline("0.01", MORE)
    assert len(found) == 3 and {told(MORE, "sst2", row["method"], row["size"]) for row in found} == {"within 0.01"}
    head, lora = one(f"docs/results/{MORE}/means.csv", kind="head"), one(f"docs/results/{MORE}/means.csv", rank="8.0")
    (small, *_), (gain, other) = found, (float(row["difference"]) for row in found if row["method"] == "Tucker")
    assert round(gain, 3) == round(other, 3) and {int(row["n_params"]) // 1000 for row in found[1:]} == {73, 74}
    added = [float(row["mean"]) - float(head["mean"]) for row in found]
    n, most = int(small["n_params"]), int(lora["n_params"])
    scores = (float(lora["mean"]), gain, *(float(head[key]) for key in ("mean", "low", "high")))
    return n, most / n, *scores, min(added), max(added)


def rates_of_second_on_mpnet() -> tuple[float | str, ...]:
    """The rates of LoRA r=8 and CP (in 1e-4) and of Tucker (in 1e-3) there, the number of runs, of which none is lost,
    and the difference of Tucker to CP of its size.
    """
    every, path = all_runs(MORE), f"docs/results/{MORE}"
    chosen = {(row["method"], float(row["lr"])) for row in rows(f"{path}/means.csv") if row["kind"] == "adapter"}
    assert chosen == {("lora", 3.39e-4), ("CP", 6.05e-4), ("Tucker", 1.1e-3)} and not at_edges(every)
    assert (every["status"] == "finished").all()
    return 3.4, 6.1, 1.1, len(every), signed(one(f"{path}/pairs.csv", method="Tucker", reference="CP"))


SENTENCES = "headline/mpnet-sentences"


def sizes_on_sentences() -> tuple[int | float | str, ...]:
    """The parameters and difference of the smaller Tucker on the larger model's rated sentences, LoRA r=8's mean, the
    other Tucker's and CP's parameters and differences, and the mean of the head alone.

    Both Tuckers are within 0.02 and not within 0.01, of CP nothing is decided, and the larger Tucker's mean is lower.
    """
    small, large, cp = within_headline("0.01", SENTENCES)
    said = [told(SENTENCES, "snippets", row["method"], row["size"]) for row in (small, large, cp)]
    assert said == ["within 0.02", "within 0.02", "nothing"] and {small["method"], large["method"]} == {"Tucker"}
    assert float(large["mean"]) < float(small["mean"])
    gap = [span(SENTENCES, "snippets", row["method"], row["size"]) for row in (small, large, cp)]
    n = [int(row["n_params"]) for row in (small, large, cp)]
    path = f"docs/results/{SENTENCES}/means.csv"
    lora, head = float(one(path, rank="8.0")["mean"]), float(one(path, kind="head")["mean"])
    return n[0], gap[0], lora, n[1], gap[1], n[2], gap[2], head


def rates_on_sentences() -> tuple[int | float | str, ...]:
    """The rates of LoRA r=8, both Tuckers and CP there (in 1e-3), the number of runs, none lost, the least of CP's
    scores, the ends of its others, and the difference of Tucker to CP of its size.
    """
    every, path = all_runs(SENTENCES), f"docs/results/{SENTENCES}"
    chosen = {row["method"]: 1e3 * float(row["lr"]) for row in rows(f"{path}/means.csv") if row["kind"] == "adapter"}
    assert len({(row["method"], row["lr"]) for row in rows(f"{path}/means.csv")}) == len(chosen) + 1
    assert (every["status"] == "finished").all() and not at_edges(every)
    assert every[every["tuning"] & every["method"].eq("CP")]["lr"].nunique() == 4
    least, *others = sorted(reported(every).query("method == 'CP'")["score"])
    ends = (least, others[0], others[-1], signed(one(f"{path}/pairs.csv", method="Tucker", reference="CP")))
    return chosen["lora"], chosen["Tucker"], chosen["CP"], len(every), *ends


def lora8_on_sentences() -> tuple[float, float]:
    """By how much LoRA r=8's first five seeds differ from those of the first table: the largest, and of the others."""
    apart = lora8_apart(SENTENCES, "headline/mpnet")
    *_, other, most = sorted(apart.abs())
    assert len(apart) == 5 and most == apart.max()
    return float(most), float(other)


def sixteen_times_fewer() -> tuple[float]:
    """How many times fewer CP and the smaller Tucker train on the larger model with the head than LoRA r=8."""
    sizes_on_sentences()
    found = (times("headline/mpnet", "snippets", "CP", "n≤37,200"), times(SENTENCES, "snippets", "Tucker", "n≤37,200"))
    assert {round(bare) for bare, _ in found} == {16}
    (whole,) = {round(both, 2) for _, both in found}
    return (whole,)


def rates_on_mpnet(task: str) -> tuple[str, ...]:
    """The rates of LoRA r=1, CP and LoRA r=8 on the larger model, none at an end of those that were tried."""
    assert not at_edges(all_runs("headline/mpnet"))
    lr = {int(row["n_params"]): float(row["lr"]) for row in rows(f"{MPNET}/means.csv") if row["task"] == task}
    return tuple(f"{10 ** (4 if lr[n] < 1e-3 else 3) * lr[n]:.2g}e-{4 if lr[n] < 1e-3 else 3}" for n in COUNTS)


def tried_on_mpnet() -> tuple[float, float]:
    """The ratio of the rates of LoRA r=8 on SST-2, and how far apart their validation scores are."""
    runs = all_runs("headline/mpnet")
    own = runs[(runs["task"] == "sst2") & runs["tuning"] & (runs["n_params"] == COUNTS[-1])]
    means = own.groupby("lr")["validation"].mean()
    assert len(means) == 4
    return float(means.index.max() / means.index.min()), float(means.max() - means.min())


def steps_of_mpnet(task: str) -> tuple[float, ...]:
    """LoRA r=8 on validation after 75, 150 and 300 steps."""
    of = {"model": "all-mpnet-base-v2", "task": task, "head_lr": "0.006"}
    return tuple(float(one(FIRST_LOOKS, **of, steps=steps)["validation"]) for steps in ("75", "150", "300"))


def first_of_mpnet() -> tuple[float, ...]:
    """LoRA r=8 on validation of rated sentences by steps, then after 150 at three rates of the head."""
    of = {"model": "all-mpnet-base-v2", "task": "snippets", "steps": "150"}
    by_head = [one(FIRST_LOOKS, **of, head_lr=rate) for rate in ("0.02", "0.006", "0.002")]
    return (*steps_of_mpnet("snippets"), *(float(row["validation"]) for row in by_head))


def first_of_sst2() -> list[float]:
    """LoRA r=8 on validation phrases of SST-2 on MiniLM, at three rates of the head."""
    of = {"model": "all-minilm-l6-v2", "task": "sst2", "steps": "1200"}
    return [float(one(FIRST_LOOKS, **of, head_lr=rate)["validation"]) for rate in ("0.006", "0.02", "0.06")]


def steps_of_sst2() -> list[float]:
    """LoRA r=8 on the same phrases after 600, 1,200, 2,400 and 4,800 steps, each of which gains more than 0.01."""
    of = {"model": "all-minilm-l6-v2", "task": "sst2", "head_lr": "0.02"}
    found = [float(one(FIRST_LOOKS, **of, steps=s)["validation"]) for s in ("600", "1200", "2400", "4800")]
    assert np.diff(found).min() > 0.01
    return found


def looks_on_cifar10() -> list[float]:
    """LoRA r=8 on validation pictures of CIFAR-10 at four rates of the head, and at 0.009 after three lengths."""
    looks = [(rate, "240") for rate in ("0.001", "0.003", "0.009", "0.027")]
    looks += [("0.009", steps) for steps in ("120", "240", "480")]
    of = {"task": "cifar10", "seed": "2001"}
    return [float(one(FIRST_LOOKS, **of, head_lr=rate, steps=steps)["validation"]) for rate, steps in looks]


def looks_on_cola() -> list[float]:
    """LoRA r=8's Matthews correlation on validation after four lengths, of which the last gains less than 0.01, and at
    three rates of the head.
    """
    looks = [("0.006", steps) for steps in ("600", "1200", "2400", "4800")]
    looks += [(rate, "2400") for rate in ("0.002", "0.006", "0.018")]
    of = {"task": "cola", "seed": "2001"}
    found = [float(one(FIRST_LOOKS, **of, head_lr=rate, steps=steps)["validation"]) for rate, steps in looks]
    assert found[3] - found[2] < 0.01 < min(np.diff(found[:3]))
    return found


def curve_of_pairs() -> tuple[float, ...]:
    """LoRA r=8's share of 47 validation pairs of UltraFeedback after half an epoch to four, the last's count and p."""
    of = {"task": "ultrafeedback", "seed": "2001", "lr": "0.0003"}
    found = [float(one(FIRST_LOOKS, **of, steps=steps)["validation"]) for steps in ("18", "35", "70", "140")]
    n = round(47 * found[-1])
    return *found, n, binomtest(n, 47).pvalue


def undecided_by_steps() -> tuple[()]:
    """Nothing; none of the six differences to LoRA r=8 at three numbers of steps is decided."""
    found = rows("docs/results/headline/steps/differences.csv")
    assert len(found) == 6 and not any(row["decided"] == "True" for row in found)
    return ()


def cp_of_headline() -> float:
    """The difference to LoRA r=8 of the smallest CP."""
    return difference("headline", "snippets", "CP", "n≤6,400")["difference"]


def lora2_of_headline() -> tuple[float]:
    """The p of LoRA r=2 alone, which is not decided."""
    found = difference("headline", "snippets", "lora", "r=2")
    assert found["p_holm"] > 0.05
    return (found["p"],)


def pair(reference: str, n_params: int, method: str = "CP by HiRA's rule") -> tuple[str, float, float]:
    """A difference of docs/results/headline/pairs.csv with its interval, its p and Holm's."""
    every = [row for row in rows("docs/results/headline/pairs.csv") if row["reference"] == reference]
    assert not any(float(row["p_holm"]) < 0.05 for row in every)
    (row,) = (row for row in every if (row["n_params"], row["method"]) == (str(n_params), method))
    gap, low, high = (float(row[key]) for key in ("difference", "low", "high"))
    return f"{gap:.3f} ({low:.3f} to {high:.3f})", float(row["p"]), float(row["p_holm"])


def rates_of_headline() -> tuple[float, ...]:
    """The chosen rates, in thousandths: one for all sizes of the methods that have it."""
    found = rows("docs/results/headline/means.csv")
    groups = (("lora",), ("CP", "Tensor-train", "Tucker"), ("vera", "CP by HiRA's rule", "CP, heads split"))
    rates = [{1e3 * float(row["lr"]) for row in found if row["method"] in group} for group in groups]
    return tuple(round(of.pop(), 2) for of in rates if len(of) == 1)


def tried_of_lora() -> tuple[float, float, str]:
    """LoRA r=8's mean validation accuracy one step above its rate and at it, and how many are at chance two above."""
    tried = [
        row for row in rows("docs/results/headline/records.csv") if row["tuning"] == "True" and row["rank"][:1] == "8"
    ]
    at = {rate: [row for row in tried if float(row["lr"]) == rate] for rate in (1.1e-3, 2e-3, 3.6e-3)}
    means = [float(np.mean([float(row["validation"]) for row in at[rate]])) for rate in (2e-3, 1.1e-3)]
    return *means, NUMBERS[sum(row["status"] == "at chance" for row in at[3.6e-3])]


def tucker_cells() -> tuple[tuple[str, str], ...]:
    """The arms and ranks of benchmarks/records/tucker_start.csv."""
    return tuple(dict.fromkeys((row["arm"], row["rank"]) for row in rows(TUCKER_START)))


def tucker_scores(arm: str, rank: str) -> tuple[float, ...]:
    """Mean accuracies over seeds of an arm of it: after a quarter, a half and all of the steps."""
    found = [row for row in rows(TUCKER_START) if (row["arm"], row["rank"]) == (arm, rank)]
    return tuple(float(np.mean([float(row[at]) for row in found])) for at in ("quarter", "half", "accuracy"))


def rule_cells() -> tuple[tuple[str, str], ...]:
    """The networks and rules of benchmarks/records/learning_rules_first.csv."""
    return tuple(dict.fromkeys((row["network"], row["rule"]) for row in rows(LEARNING_RULES)))


def rule_row(network: str, rule: str) -> tuple[float, float, float]:
    """A rule's best rate (1e-3), its mean accuracy over the seeds that chose no rate, and the ms of a step."""
    found = [row for row in rows(LEARNING_RULES) if (row["network"], row["rule"]) == (network, rule)]
    seeds = [row for row in found if row["seed"] != "1000"]
    (rate_,) = {float(row["lr"]) for row in seeds}
    ms = one("benchmarks/records/learning_rules_ms.csv", network=network, rule=rule)["ms"]
    return 1e3 * rate_, float(np.mean([float(row["accuracy"]) for row in seeds])), float(ms)


@cache
def rules_on_tasks() -> pd.DataFrame:
    """The means of benchmarks/records/learning_rules.csv, a row for each task, network and rule."""
    return learning_rules.means(pd.read_csv(ROOT / "benchmarks/records/learning_rules.csv"))


def rule_page_rows() -> list[str]:
    """The rows of that table on the page."""
    return learning_rules.page_rows(rules_on_tasks())


def gains_of_rule(rule: str, network: str, column: str = "gain") -> tuple[float, ...]:
    """What a rule gains over AdamW of a network on the tasks where it was run, or another column."""
    table = rules_on_tasks().set_index(["network", "rule"]).loc[(network, rule)].set_index("task")[column]
    return tuple(float(table[task]) for task in learning_rules.HEADS if task in table)


def collapsed_on_sst2(rule: str) -> tuple[int, float]:
    """How many runs of CP r=64 by a rule end at chance on SST-2 at the best rate, and the mean of the others."""
    runs = pd.read_csv(ROOT / "benchmarks/records/learning_rules.csv").dropna(subset="score")
    chosen = rules_on_tasks().set_index(["task", "network", "rule"])["lr"]["sst2", "CP r=64", rule]
    its = runs[(runs[["task", "network", "rule"]] == ["sst2", "CP r=64", rule]).all(axis=1) & (runs["lr"] == chosen)]
    lost = its["score"] < 0.55
    return int(lost.sum()), float(its["score"][~lost].mean())


def rates_of_rules() -> tuple[str, ...]:
    """The best rates of rules on the three tasks, as the page writes them."""
    return tuple(f"{1000 * lr:.2g}e-3" for lr in sorted({*rules_on_tasks()["lr"]}))


def lost_of_lotr() -> tuple[str, float, float]:
    """How many runs of LoTR on STS-B are far below the others, the hundredth above them, and the others' mean."""
    runs = pd.read_csv(ROOT / "benchmarks/records/learning_rules.csv").dropna(subset="score")
    scores = runs["score"][(runs["task"] == "stsb") & (runs["network"] == "LoTR r=16")]
    lost = scores < scores.max() / 2
    return ("none", "one", "two")[lost.sum()], math.ceil(100 * scores[lost].max()) / 100, float(scores[~lost].mean())


def apart_by_rules() -> tuple[float, ...]:
    """How far RITE's accuracy is below AdamW's, and how much longer three rules take than AdamW (ms)."""
    adamw, train = rule_row("CP r=64", "AdamW"), rule_row("Tensor-train r=32", "AdamW")
    longer = (rule_row("CP r=64", rule)[2] - adamw[2] for rule in ("preconditioned", "whitened"))
    others = rule_row("Tensor-train r=32", "preconditioned")[2] - train[2]
    return adamw[1] - rule_row("CP r=64", "RITE")[1], *longer, others


def of_library(form: str, n: str, *columns: str) -> tuple[float, ...]:
    """Cells of benchmarks/records/library.csv."""
    found = one("benchmarks/records/library.csv", form=form, adapters=n)
    return tuple(int(found[name]) if found[name].isdigit() else float(found[name]) for name in columns)


@cache
def of_scale(what: str) -> tuple[float, ...]:
    """Processor seconds of a row of benchmarks/records/sweep_scale.csv at three sizes, and MiB at the largest."""
    found = [one("benchmarks/records/sweep_scale.csv", runs=n, what=what) for n in ("100", "1000", "10000")]
    return (*(float(row["processor_seconds"]) for row in found), int(found[-1]["MiB_peak"]))


def power_of_scale(*whats: str) -> tuple[float, float]:
    """By which powers of the number of runs processor seconds grow from 1,000 to 10,000 of them, least and most."""
    powers = [math.log10(of_scale(what)[2] / of_scale(what)[1]) for what in whats]
    return min(powers), max(powers)


def of_layout(task: str, method: str, layout_: str, lr: str = "0.002") -> float:
    """The mean score over seeds of a cell of benchmarks/records/layout_speed.csv."""
    wanted = (task, method, layout_, lr)
    found = [row for row in rows(LAYOUT_SPEED) if (row["task"], row["method"], row["layout"], row["lr"]) == wanted]
    assert len(found) == 3
    return float(np.mean([float(row["score"]) for row in found]))


def spread_of_rank_one(tucker: str) -> float:
    """How far apart LoRA, CP and an arm of Tucker are at rank 1."""
    found = [tucker_scores(arm, "1")[-1] for arm in ("LoRA", "CP", tucker)]
    return max(found) - min(found)


def row_to_take(key: tuple[str, str]) -> str:
    """The last cells of a row of the first table of docs/start/which-method.md."""
    gap, p = gaps()[key]
    return f"{size(key) + HEAD:,} | {mean(key):.3f} | {gap.mean:.3f} ({gap.low:.3f} to {gap.high:.3f}) | {p:.3f} |"


def cells(budget: str, *names: str) -> tuple[float, ...]:
    """Mean accuracies of cells of docs/examples/layouts."""
    return tuple(layout(name, budget).mean() for name in names)


def sweep(task: str, method: str) -> dict[str, str]:
    """A row of docs/examples/minilm-sweep at 10,000 parameters."""
    return one("docs/examples/minilm-sweep/means.csv", task=task, method=method, budget="10000")


def compressed(form: str, budget: str) -> tuple[int, float]:
    row = one("benchmarks/records/compression.csv", form=form, budget=budget)
    return int(row["n_params"]), float(row["accuracy"])


def times(folder: str, task: str, method: str, size: str) -> tuple[float, float]:
    row = difference(folder, task, method, size)
    return row["times_fewer"], row["times_fewer_trained"]


def share_text() -> tuple[float, float, float]:
    of_means, over_seeds = share(CP1)
    return 100 * of_means, 100 * over_seeds.low, 100 * over_seeds.high


def _not_here(task: str, method: str, steps: int) -> Floats:
    row = one("benchmarks/records/not_here.csv", task=task, method=method, steps=str(steps))
    return np.array([float(score) for score in row["scores"].split()])


def chance_of(task: str, method: str, steps: int) -> float:
    """The mean score over seeds of a row of benchmarks/records/not_here.csv."""
    return float(_not_here(task, method, steps).mean())


def ends_of(task: str, *steps: int) -> tuple[float, float]:
    """The least and the largest score of LoRA r=8 on a task of that record, over seeds and numbers of steps."""
    scores = np.concatenate([_not_here(task, "lora", n) for n in steps])
    return float(scores.min()), float(scores.max())


def decided_on_sentences() -> tuple[int, int]:
    """How many sizes of docs/results/figures/frontier.csv are decided to differ from LoRA r=8, of how many; all of
    these are worse.
    """
    (one,) = compared(tiles.read(ROOT / "docs" / "results" / "figures" / "frontier.csv"))
    decided = one.paired["decided"]
    assert (one.paired["difference"][decided] < 0).all()
    return int(decided.sum()), len(decided)


def runs_of_the_figure() -> int:
    """The runs of docs/results/figures/frontier.csv, none of which is at chance or diverged."""
    assert not any(int(row[key]) for row in figure().values() for key in ("n_at_chance", "n_diverged"))
    return sum(int(row["n_seeds"]) for row in figure().values())


def generated(name: str, page: str, family: str = "") -> tuple[str, str]:
    """The part of a name on a page of docs/results, or of a family's, as it stands there and as its files make it."""
    there = page.split(overview.BEGIN.format(name))[1].split(overview.END.format(name))[0].strip()
    return there, overview.PARTS[name](ROOT / "docs" / "results" / family)

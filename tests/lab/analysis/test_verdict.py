"""The verdict says what comparisons decide and no more; facts say how runs were made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest
from support.synthetic_runs import write_synthetic
from support.synthetic_sweep import sweep, tuned_apart

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis import plots
from tensoradapt.lab.analysis.facts import facts, listed, reported
from tensoradapt.lab.analysis.names import display
from tensoradapt.lab.analysis.results import table_of
from tensoradapt.lab.analysis.tables import compare
from tensoradapt.lab.analysis.verdict import compared, lines, sentences, times

LEVELS = {("LoRA", 8, 8000): 0.90, ("CP", 2, 200): 0.90, ("VeRA", 4, 400): 0.70, ("frozen base + head", None, 0): 0.60}


def runs(levels: dict = LEVELS, seeds: int = 3, spread: float = 1e-4, **same: object) -> pandas.DataFrame:
    """A row for each run; the scores of a configuration are its level and noise that is not that of others."""
    rng = np.random.default_rng(0)
    rows = [
        {"task": "rte", "metric": "accuracy", "method": method, "rank": rank, "n_params": n, "seed": seed, **same}
        | {"score": level + spread * rng.normal()}
        for (method, rank, n), level in levels.items()
        for seed in range(seeds)
    ]
    return pandas.DataFrame(rows)


def said(table: pandas.DataFrame, **options: object) -> str:
    (one,) = compared(table, **options)
    return " ".join(sentences(one))


def test_it_says_what_is_above_the_base_and_what_is_within_the_reference() -> None:
    text = said(runs())
    assert text.startswith("CP, VeRA and LoRA are decided to be above the frozen base (0.600). ")
    assert (
        "Within 0.01 (3 % of what it gains over the frozen base) of LoRA r=8 (8,000 parameters): CP r=2 with 200 "
        "parameters (40 times fewer)" in text
    )
    assert "decided to be worse: VeRA" in text and "undecided" not in text and "better" not in text
    assert lines(runs()) == [f"rte: {text}"]


@pytest.mark.parametrize("spread", [0.001, 0.02, 0.1])
def test_every_method_that_it_calls_decided_is_so_by_compare(spread: float) -> None:
    """A mean alone names no method: what is listed is what ``compare`` decides after correction."""
    table = runs(spread=spread)
    base, gaps = compare(table, "head"), compare(table, "lora")
    above, *_ = said(table).split(";")[0].split(". ")
    for method, own in base.groupby("method"):
        assert (display(method) in above) == bool((own["decided"] & (own["difference"] > 0)).any())
    assert ("decided to be worse" in said(table)) == bool((gaps["decided"] & (gaps["difference"] < 0)).any())
    assert ("Within 0.01" in said(table)) == bool(gaps["within"].any())
    rest = gaps[~gaps["decided"] & ~gaps["within"]]
    assert ("undecided" in said(table).split(". ")[1]) == bool(len(rest))


def test_what_is_undecided_says_how_many_more_seeds_it_takes() -> None:
    table = runs({("LoRA", 8, 8000): 0.90, ("CP", 2, 200): 0.90}, spread=0)
    table.loc[table["method"] == "CP", "score"] = [0.894, 0.904, 0.914]
    (gap,) = compare(table).to_dict("records")
    more = gap["seeds_needed"] - gap["n_seeds"]
    assert more > 1 and f"the difference is undecided ({more} more seeds would decide that if means" in said(table)
    within = gap["seeds_within"] - gap["n_seeds"]
    assert "None of 1 is decided to be within 0.01 of LoRA r=8 (8,000 parameters); CP r=2" in said(table)
    assert within > 1 and f"; CP r=2 would be with {within} more seeds like these" in said(table)


def test_a_reference_that_has_a_rank_has_no_budget_in_common_with_others() -> None:
    table = runs().assign(budget=lambda t: t["n_params"].where(t["method"] == "VeRA"))
    table.loc[table["method"] == "VeRA", "rank"] = np.nan
    assert "decided to be worse: VeRA" in said(table)


def test_at_equal_budgets_differences_are_of_one_budget_and_savings_of_the_largest_reference() -> None:
    levels = {("LoRA", None, n): level for n, level in ((1000, 0.80), (9000, 0.90))}
    levels |= {("CP", None, n): level for n, level in ((990, 0.90), (8990, 0.9001))}
    table = runs(levels, seeds=4).assign(budget=lambda t: np.where(t["n_params"] < 2000, 1000, 9000))
    text = said(table)
    assert (
        "Within 0.01 of LoRA (9,000 parameters): CP n≤1,000 with 990 parameters (9.1 times fewer; 0.100 above LoRA"
        in text
    )
    assert "decided to be better at the same budget: CP (n≤1,000)" in text
    again = table[table["n_params"] == 8990].assign(budget=20_000)
    assert "CP n≤1,000 with 990 parameters" in said(pandas.concat([table, again], ignore_index=True)), "one size twice"


def test_one_seed_decides_nothing_without_scores_of_test_examples(tmp_path: Path) -> None:
    text = said(runs(seeds=1))
    assert "Nothing is decided about the frozen base (0.600): one seed without scores of test examples." in text
    assert "No difference to LoRA is decided: one seed without scores of test examples." in text
    for name, accuracy in (("lora", 0.95), ("cp", 0.5)):
        write_synthetic(tmp_path, parameterization=name, accuracy=accuracy)
    assert "decided to be worse: CP (LoRTA)" in said(table_of(tmp_path)), "these have scores of test examples"


def test_a_task_without_base_or_reference_says_so() -> None:
    table = runs()
    assert said(table[table["method"] != "frozen base + head"]).startswith("No run of the frozen base says what")
    assert "All adapters are LoRA, with which others would be compared." in said(
        table[~table["method"].isin(["CP", "VeRA"])]
    )
    both = pandas.concat([table, runs({("CP", 2, 200): 0.9, ("VeRA", 4, 400): 0.8}).assign(task="sst2")])
    assert "There is no run of LoRA to compare with, so methods are not told apart." in lines(both)[1]
    apart = table.assign(seed=table["seed"] + 10 * (table["method"] == "LoRA"))
    assert "No other adapter shares a seed with LoRA" in said(apart)
    assert said(table[table["method"] == "frozen base + head"]) == "No adapter was run, so there is nothing to compare."
    with pytest.raises(TensorAdaptError, match="reference is 'lorAs'"):
        lines(table, "lorAs")


def test_lost_runs_are_named_with_the_reason() -> None:
    table = runs().assign(status="finished", note=None)
    table.loc[(table["method"] == "VeRA") & (table["seed"] == 1), ["status", "note"]] = [
        "diverged",
        "loss is nan \x1b[31m",
    ]
    assert "Lost of 12 runs: 1 of VeRA diverged (loss is nan \\x1b[31m)." in said(table.assign(chance=0.5))
    lost = table.assign(status=np.where(table["method"] == "LoRA", "finished", "at chance"), note=None)
    only = lost[lost["method"] != "LoRA"]
    assert said(only).startswith("Lost of 9 runs: 3 of CP and 3 of VeRA at chance; try lower learning rates")
    assert said(lost[lost["method"].isin(["LoRA", "frozen base + head"])]).count("Lost") == 0, "a base may be at chance"


def test_a_reference_may_be_full_fine_tuning() -> None:
    table = runs(LEVELS | {("full fine-tuning", None, 10**6): 0.9})
    assert (
        "Within 0.01 (3 % of what it gains over the frozen base) of full fine-tuning (1,000,000 parameters): CP r=2"
        in said(table, reference="full fine-tuning")
    )


def test_times_and_lists_are_read_as_words() -> None:
    assert [times(x) for x in (12.4, 1.02, 0.5)] == ["12 times fewer", "as many", "2.0 times more"]
    assert (
        listed("abc") == "a, b and c" and listed("a") == "a" and listed("abcdefghij") == "a, b, c, d, e, f and 4 others"
    )


@pytest.mark.thorough
def test_each_task_has_its_own_comparisons(tmp_path: Path) -> None:
    sweep(tmp_path)
    found = compared(tmp_path)
    assert [one.task for one in found] == ["sst2", "stsb"] and all(len(list(sentences(one))) <= 3 for one in found)
    assert {len(one.base) for one in found} == {12} and {len(one.paired) for one in found} == {9}


@pytest.mark.thorough
def test_facts_say_how_rates_were_chosen_and_what_is_unequal(tmp_path: Path) -> None:
    sweep(tmp_path / "a", tasks=("sst2",))
    text = facts(table_of(tmp_path / "a"))
    assert text.startswith(
        "tiny-model on sst2: test accuracy over 3 seeds (means with 95 % t intervals). Learning rates"
    )
    assert "chosen on validation among 0.001, 0.003, 0.01 for each method at its middle size (seed 1000): 0.003" in text
    assert text.endswith("runs, none at chance or diverged.")
    assert "chosen" not in facts(reported(table_of(tmp_path / "a"))), "runs that tuned may have been left out"
    tuned_apart(tmp_path / "b")
    text = facts(table_of(tmp_path / "b"))
    assert "LoRA 0.001, 0.003, 0.01, 0.03333) at each size (mean over seeds 1000, 1001), smallest size first" in text
    assert "over 1 to 2 seeds" in text and "LoRTA 0.001/0.003/0.01" in text


def test_facts_of_a_table_of_ones_own() -> None:
    table = table_of(runs(seeds=1).assign(layout=["a", "b", "a", None], precision=["fp32", "bf16", "fp32", None]))
    text = facts(table)
    assert "test accuracy of one seed, so without intervals. Layouts differ: a of LoRA, VeRA; b of CP." in text
    assert "Computed in bf16 and fp32. 4 runs, none at chance or diverged." in text
    both = facts(table.assign(threads=[1, 2, 2, 2], status=["at chance", "diverged", "finished", "finished"]))
    assert "Runs used 1 and 2 threads, which changes last digits. Of 4 runs, 1 ended at chance and 1 diverged;" in both


def test_the_frontiers_headline_decides_as_the_verdict_does_also_with_one_seed(tmp_path: Path) -> None:
    write_synthetic(tmp_path, kind="head", accuracy=0.6)
    write_synthetic(tmp_path, kind="full", accuracy=0.9)
    write_synthetic(tmp_path, accuracy=0.85, n_params=10)
    text = said(tmp_path)
    assert "is decided to be above the frozen base (0.600) (over the test examples of one seed)" in text
    headline = plots.frontier(tmp_path, headline=True).get_figure(root=True).get_suptitle()
    assert headline.startswith("No smaller size keeps 90 % of full fine-tuning's gain: CP (LoRTA) r=4 83 % with 10")


def test_nothing_is_said_to_be_within_a_reference_all_of_whose_runs_are_lost() -> None:
    levels = {("LoRA", 8, 8000): 0.5, ("CP", 2, 200): 0.5, ("VeRA", 4, 400): 0.8, ("frozen base + head", None, 0): 0.5}
    table = runs(levels, seeds=8).assign(lost=lambda t: t["method"].isin(["LoRA", "CP"]))
    text = said(table)
    assert "All runs of LoRA are lost, so nothing is compared with it." in text and "ithin" not in text


def test_a_decision_over_the_examples_of_one_seed_is_named_beside_others(tmp_path: Path) -> None:
    for seed in range(3):
        write_synthetic(tmp_path, parameterization="lora", rank=8, seed=seed, accuracy=0.9, n_params=9000)
        write_synthetic(tmp_path, parameterization="vera", seed=seed, accuracy=0.5, n_params=500)
    write_synthetic(tmp_path, accuracy=0.5)
    text = said(table_of(tmp_path))
    assert "decided to be worse: VeRA and CP (LoRTA), CP (LoRTA) over the test examples of one seed." in text


def test_where_all_runs_are_lost_it_says_so_and_whose_note_it_shows() -> None:
    table = runs({("LoRA", 8, 8000): 0.5, ("CP", 2, 200): 0.5}).assign(lost=True, status="at chance", note="noise")
    assert said(table).startswith("All 6 runs are lost: 3 of LoRA and 3 of CP at chance (noise); try lower ")
    assert "at chance (one of them: noise 0)" in said(table.assign(note=[f"noise {i}" for i in range(6)]))

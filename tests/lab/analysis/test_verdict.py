"""The verdict says what comparisons decide and no more; facts say how runs were made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest
from support.synthetic_runs import sweep, tuned_apart, write_synthetic

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis import plots
from tensoradapt.lab.analysis.facts import facts, reported
from tensoradapt.lab.analysis.names import display
from tensoradapt.lab.analysis.results import table_of
from tensoradapt.lab.analysis.tables import compare
from tensoradapt.lab.analysis.verdict import compared, lines, sentences

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


def test_the_frontiers_headline_decides_as_the_verdict_does_also_with_one_seed(tmp_path: Path) -> None:
    write_synthetic(tmp_path, kind="head", accuracy=0.6)
    write_synthetic(tmp_path, kind="full", accuracy=0.9)
    write_synthetic(tmp_path, accuracy=0.85, n_params=10)
    text = said(tmp_path)
    assert "is decided to be above the frozen base (0.600) (over the test examples of one seed)" in text
    headline = plots.frontier(tmp_path, headline=True).get_figure(root=True).get_suptitle()
    assert headline.startswith("No smaller size keeps 90 % of full fine-tuning's gain: CP (LoRTA) r=4 83 % with 10")


def test_where_all_runs_are_lost_it_says_so_and_whose_note_it_shows() -> None:
    table = runs({("LoRA", 8, 8000): 0.5, ("CP", 2, 200): 0.5}).assign(lost=True, status="at chance", note="noise")
    assert said(table).startswith("All 6 runs are lost: 3 of LoRA and 3 of CP at chance (noise); try lower ")
    assert "at chance (one of them: noise 0)" in said(table.assign(note=[f"noise {i}" for i in range(6)]))

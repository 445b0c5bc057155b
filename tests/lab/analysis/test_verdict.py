"""The verdict says what comparisons show and no more, in the same words everywhere; facts say how runs were made."""

from __future__ import annotations

import html
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas
import pytest
from matplotlib import pyplot
from matplotlib.text import Text
from support.synthetic_runs import sweep, tuned_apart, write_synthetic

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.analysis.comparisons import compare
from tensoradapt.lab.analysis.descriptions import facts, reported
from tensoradapt.lab.analysis.names import tone
from tensoradapt.lab.analysis.plots._parts import GOOD, GREY, tone_of
from tensoradapt.lab.analysis.results import VERDICTS, table_of
from tensoradapt.lab.analysis.verdict import OUTCOMES, amount, judge, lines, summary
from tensoradapt.lab.cli.main import main

LEVELS = {
    ("LoRA", 8, 8000): 0.90,
    ("CP", 2, 200): 0.899,
    ("Tucker", 2, 300): 0.887,
    ("VeRA", 4, 400): 0.70,
    ("frozen base + head", None, 0): 0.60,
}
NOISE = {"Tensor-train": 0.03}


def runs(levels: dict = LEVELS, seeds: int = 5, spread: float = 1e-3, **same: object) -> pandas.DataFrame:
    """A row for each run; the scores of a configuration are its level and noise that is not that of others."""
    rng = np.random.default_rng(0)
    rows = [
        {"task": "rte", "metric": "accuracy", "method": method, "rank": rank, "n_params": n, "seed": seed, **same}
        | {"score": level + NOISE.get(method, spread) * rng.normal()}
        for (method, rank, n), level in levels.items()
        for seed in range(seeds)
    ]
    return pandas.DataFrame(rows)


ALL = runs(LEVELS | {("LoRA", 4, 4000): 0.887, ("Tensor-train", 2, 100): 0.89, ("LoHa", 2, 500): 0.9})
ALL = ALL.assign(lost=(ALL["method"] == "LoHa") & (ALL["seed"] == 0))
ALL["status"] = np.where(ALL["lost"], "at chance", "finished")
SAID = {
    ("CP", 2): "less than 1 point lost",
    ("Tucker", 2): "worse, but by less than 2 points",
    ("LoRA", 4): "worse, but by less than 2 points",
    ("VeRA", 4): "worse",
    ("Tensor-train", 2): "not settled",
    ("LoHa", 2): "1 of 5 runs failed",
}


def words(table: pandas.DataFrame, **options: object) -> dict[tuple[str, int], str]:
    found = ta.verdict(table, **options)
    return {(row["method"], row["rank"]): row["verdict"] for _, row in found.iterrows()}


def said(table: pandas.DataFrame, **options: object) -> str:
    (one,) = judge(table, **options)
    return " ".join(summary(one))


def test_each_size_has_one_of_five_words() -> None:
    assert words(ALL) == SAID
    bounded = runs({("LoRA", 8, 8000): 0.90, ("CP", 2, 200): 0.895}, spread=0.008)
    assert words(bounded) == {("CP", 2): "less than 2 points lost"}
    outcomes = {*ta.verdict(ALL)["outcome"], *ta.verdict(bounded)["outcome"]}
    assert outcomes == set(OUTCOMES) and set(VERDICTS) <= set(ta.verdict(ALL))


@pytest.mark.parametrize("spread", [0.001, 0.02, 0.1])
@pytest.mark.parametrize("seeds", [2, 5])
def test_every_word_is_what_comparisons_show(spread: float, seeds: int) -> None:
    """A mean alone settles nothing: words are what ``compare`` decides after correction, at one margin and at two."""
    table = runs(spread=spread, seeds=seeds)
    one, two = compare(table, "lora", margin=0.01), compare(table, "lora", margin=0.02)
    for found, gap, wider in zip(ta.verdict(table).itertuples(), one.itertuples(), two.itertuples(), strict=True):
        worse = gap.decided and gap.difference < 0
        expected = "kept" if gap.within else "worse" if worse else "close" if wider.within else "open"
        assert (found.method, found.outcome) == (gap.method, expected) and found.within_twice == wider.within
        assert ("less than 2 points" in found.verdict) == (wider.within and not gap.within)


@pytest.mark.parametrize("level", [0.893, 0.896])
def test_what_is_not_settled_says_how_many_seeds_it_takes(level: float) -> None:
    table, seeds = runs({("LoRA", 8, 8000): 0.90, ("CP", 2, 200): level}, spread=0.02), 5
    (found,), (gap,) = ta.verdict(table).to_dict("records"), compare(table).to_dict("records")
    more = [n for n in (gap["seeds_needed"], gap["seeds_within"]) if not pandas.isna(n) and n > seeds]
    assert found["outcome"] == "open" and found["seeds_settle"] == min(more)
    text = f"{found['seeds_settle'] - seeds} more seeds"
    assert f"points lower; {text} like these would settle it." in found["sentence"]
    assert f"Not settled: CP (about {text} would settle it)." in said(table)


def test_a_share_of_100_has_the_words_of_a_share_of_1_and_other_metrics_have_their_own_unit() -> None:
    percent = ALL.assign(score=100 * ALL["score"])
    assert words(percent) == SAID and list(ta.verdict(percent)["sentence"]) == list(ta.verdict(ALL)["sentence"])
    own = ALL.assign(metric="negative bits")
    assert words(own)[("CP", 2)] == "less than 0.01 lost" and words(own)[("Tucker", 2)].endswith("less than 0.02")
    assert words(own, margin=0.5)[("VeRA", 4)] == "less than 0.5 lost"
    assert amount(0.005, 100) == "0.5 points"


def test_the_summary_begins_with_the_answer() -> None:
    text = said(ALL)
    assert text.startswith("CP: 40× fewer parameters than LoRA r=8, less than 1 point lost. ")
    assert "Worse: Tucker, VeRA and LoRA r=4. Not settled: Tensor-train (" in text
    assert "All are better than a head on the frozen base (0.600)." in text
    assert text.endswith("1 of 40 runs failed: 1 of LoHa at chance.")
    without = ALL[ALL["method"] != "CP"]
    assert said(without).startswith("No smaller adapter is shown to lose less than 1 point on LoRA r=8. ")
    assert lines(ALL) == [f"rte: {text}"]


def test_one_seed_settles_nothing_without_scores_of_test_examples(tmp_path: Path) -> None:
    assert set(words(runs(seeds=1)).values()) == {"not settled"}
    assert "Not settled: CP, Tucker and VeRA (one seed settles nothing)." in said(runs(seeds=1))
    for name, accuracy in (("lora", 0.95), ("cp", 0.5)):
        write_synthetic(tmp_path, parameterization=name, accuracy=accuracy)
    assert "Worse: CP (LoRTA)." in said(table_of(tmp_path)), "these have scores of test examples"


def test_a_task_without_base_or_reference_says_so() -> None:
    table = runs()
    assert "frozen base" not in said(table[table["method"] != "frozen base + head"])
    assert "All adapters are LoRA, with which others would be compared." in said(
        table[~table["method"].isin(["CP", "Tucker", "VeRA"])]
    )
    both = pandas.concat([table, runs({("CP", 2, 200): 0.9, ("VeRA", 4, 400): 0.8}).assign(task="sst2")])
    assert "There is no run of LoRA to compare with, so methods are not told apart." in lines(both)[1]
    apart = table.assign(seed=table["seed"] + 10 * (table["method"] == "LoRA"))
    assert "No other adapter shares a seed with LoRA" in said(apart) and ta.verdict(apart).empty
    assert said(table[table["method"] == "frozen base + head"]) == "No adapter was run, so there is nothing to compare."
    low = runs(LEVELS | {("frozen base + head", None, 0): 0.95})
    assert "No adapter is needed: a head on the frozen base (0.950) is as good as the best of them (0.900)." in said(
        low
    )
    with pytest.raises(TensorAdaptError, match="reference is 'lorAs'"):
        lines(table, "lorAs")
    with pytest.raises(TensorAdaptError, match="margin is 0; expected a difference in score above 0"):
        ta.verdict(table, margin=0)


@pytest.mark.parametrize("kind", [None, "head"])
def test_a_table_of_others_may_call_the_frozen_base_head(kind: str | None) -> None:
    table = runs().replace({"method": {"frozen base + head": "head"}})
    table["kind"] = np.where(table["method"] == "head", kind, None)
    assert said(table) == said(runs())
    assert ta.plots.frontier(table, headline=True).get_figure(root=True).get_suptitle()
    named = runs().assign(kind=lambda own: np.where(own["method"] == "frozen base + head", "head", "adapter"))
    assert said(named.replace({"method": {"frozen base + head": "mean of tokens"}})) == said(runs())


def test_a_reference_that_failed_settles_nothing() -> None:
    failed = runs().assign(lost=lambda table: table["method"] == "LoRA")
    assert set(words(failed).values()) == {"5 of 5 runs of the reference failed"}
    assert said(failed).startswith("All runs of LoRA r=8 failed, so nothing is compared with it. ")


@pytest.mark.parametrize(
    ("method", "said"), [("CP", "1 of 5 runs failed"), ("LoRA", "1 of 5 runs of the reference failed")]
)
def test_between_two_sizes_a_failed_run_is_that_of_the_method_whose_it_is(method: str, said: str) -> None:
    table = runs({("LoRA", 8, 8000): 0.90, ("CP", 2, 2000): 0.88, ("CP", 4, 20_000): 0.92})
    failed = (table["method"] == method) & (table["n_params"] != 2000) & (table["seed"] == 0)
    (row,) = ta.verdict(table.assign(lost=failed), at="n_params").to_dict("records")
    assert (row["n_params"], row["verdict"]) == (8000, said)


@pytest.mark.parametrize("columns", [40, 80])
def test_the_words_are_the_same_in_figure_table_terminal_report_and_notebook(
    columns: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(tmp_path, tasks=("sst2",))
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["results", str(tmp_path), "--compare"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    page = ta.report(tmp_path).read_text()
    (one,), table = judge(tmp_path), ta.verdict(tmp_path)
    for sentence in summary(one):
        assert sentence in shown and html.escape(sentence) in page
    assert len(table) and all(f"<td>{html.escape(text)}</td>" in page for text in table["verdict"])
    assert columns < 80 or all(text.partition(",")[0] in shown for text in table["verdict"])
    notebook = html.unescape(table._repr_html_())
    pyplot.close(figure := ta.plots.differences(tmp_path).figure)
    drawn = [" ".join(text.get_text().split()) for text in figure.findobj(Text)]
    for size, own in table.groupby(["method", "rank", "budget"], dropna=False):
        (row,) = own.to_dict("records")
        assert row["sentence"] in notebook and f'<span class="{row["outcome"]}">{row["verdict"]}</span>' in notebook, (
            size
        )
    counts = {text: sum(text == each.split(" · ")[0] for each in drawn) for text in set(table["verdict"])}
    assert counts == dict(table["verdict"].value_counts()), drawn


def test_the_words_of_a_notebook_have_the_colours_of_figures() -> None:
    """Of black ink: a share of the colour of what is shown, and the rest of ink; grey is ink on paper."""
    style = (files("tensoradapt.lab") / "notebook.css").read_text()
    assert tone_of("kept") == tone(0.7, GOOD, ink=True) and f"color-mix(in srgb,{GOOD} 70%,currentColor)" in style
    grey = f".open,.failed){{color:color-mix(in srgb,currentColor {100 - round(100 * GREY)}%,transparent)"
    assert tone_of("open") == tone_of("failed") == tone(GREY) and grey in style


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


def test_where_all_runs_are_lost_it_says_so_and_whose_note_it_shows() -> None:
    table = runs({("LoRA", 8, 8000): 0.5, ("CP", 2, 200): 0.5}, seeds=3)
    table = table.assign(lost=True, status="at chance", note="noise")
    assert said(table).startswith("All 6 runs failed: 3 of LoRA and 3 of CP at chance (noise); try lower ")
    assert "at chance (one of them: noise 0)" in said(table.assign(note=[f"noise {i}" for i in range(6)]))

"""What the front pages say with numbers, and where each number comes from; read by tests/test_claims.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from support.page_numbers import (
    CP1,
    CP4,
    FROZEN,
    FULL,
    HEAD,
    LINEAR,
    LORA,
    LORA1,
    NUMBERS,
    PAPERS,
    SMALL,
    alike_at_one_size,
    alike_at_the_same_size,
    alike_on_sst2,
    alike_with_lora1,
    apart_by_rules,
    around,
    beside_bitfit,
    beside_cp_of_small,
    beside_lora1_of_others,
    beside_lora2,
    beside_lora8,
    best_by_rank,
    cells,
    chance_of,
    choice_by_loss,
    collapsed_on_sst2,
    compressed,
    cp_beside_lora1,
    cp_beside_lora1_on_cola,
    cp_on_cifar10,
    cp_to_lora1_on_mpnet,
    curve_of_pairs,
    decided_of_headline,
    decided_of_others,
    decided_of_small,
    decided_on_linear,
    decided_on_sentences,
    ends_of,
    ends_of_small,
    fewer,
    figure,
    first_looks,
    first_of_mpnet,
    first_of_sst2,
    first_seeds_apart,
    forgetting_gains,
    front_of_headline,
    gain_around,
    gain_of_equal_steps,
    gain_of_whole_outputs,
    gains_of_rule,
    gaps,
    head_on_mpnet,
    inside_its_grid,
    larger_model,
    least_of_headline,
    linear_beside_attention,
    looks_of_headline,
    looks_on_cifar10,
    looks_on_cola,
    lora2_of_headline,
    lora8_again,
    lora8_of_headline,
    lora8_on_sentences,
    lora_xs_of_small,
    lost_above,
    lost_by_split_heads,
    lost_of_lotr,
    lost_to_lora1,
    mean,
    of_headline,
    of_layout,
    of_library,
    of_mpnet,
    of_scale,
    on_alpaca,
    over_lortas_layout,
    own_best,
    p_beside_lora1,
    p_to_lora2,
    pair,
    power_of_scale,
    ranks_decided,
    ranks_of_others,
    rate,
    rate_of_hira,
    rates_of_headline,
    rates_of_others,
    rates_of_rules,
    rates_of_second_on_mpnet,
    rates_of_small,
    rates_on_cifar10,
    rates_on_cola,
    rates_on_linear,
    rates_on_mpnet,
    rates_on_sentences,
    rates_on_sst2,
    rates_over_lortas_layout,
    ratios_of_steps,
    references_of_headline,
    row_of_headline,
    row_to_take,
    rule_cells,
    rule_on_tensor_train,
    rule_page_rows,
    rule_row,
    runs_of_the_figure,
    same_apart,
    same_row,
    same_tried,
    second_looks_of_headline,
    second_on_mpnet,
    seeds_apart,
    seeds_on_cola,
    share,
    share_text,
    sixteen_times_fewer,
    size,
    sizes_on_sentences,
    small_cp_on_linear,
    smallest_above_the_head,
    smallest_is_worse,
    smallest_over_lortas_layout,
    span,
    split_beside_others,
    split_heads,
    split_heads_beside_cp,
    spread,
    spread_of_rank_one,
    step_ratio,
    steps_of_mpnet,
    steps_of_rank_8,
    steps_of_sst2,
    sweep,
    times,
    told,
    tried_of_lora,
    tried_on_mpnet,
    tucker_cells,
    tucker_scores,
    undecided_by_steps,
    undecided_tensor_train,
    validation_on_cola,
    without_size,
)  # fmt: skip

README, INDEX, WHICH, RESULTS = "README.md", "docs/index.md", "docs/start/which-method.md", "docs/results/README.md"
HEADLINE, HIRA_HEADLINE = "docs/results/headline/README.md", ("headline", "snippets", "CP by HiRA's rule", "n≤18,600")
FRONT = "CP over `layer : out : in` with {:,}, a quarter of them, is decided to lose less than 0.01, whether its "
FRONT += 'update is added or multiplied ([HiRA\'s rule]): "decided" is after a correction for all sizes that were '
FRONT += "compared. LoRA's first rank takes {:,}; CP with a third of it, {:,}, has {:.3f} and is decided to be worse."
EQUAL, TABLES = "docs/results/equal-steps.md", "docs/results/tables.md"
PERFORMANCE, GLUE = "docs/results/performance.md", "docs/results/glue/README.md"
VISION, COLA = "docs/results/vision/README.md", "docs/results/cola/README.md"
AROUND = "docs/examples/around/README.md"
LIBRARY = "docs/guides/adapter-libraries.md"
PROTOCOL, NOT_HERE = "docs/results/protocol.md", "docs/results/not-here.md"
RATES = "docs/guides/learning-rates.md"
KNOWN = "docs/results/what-we-know.md"
SWEEPS = "docs/guides/sweeps/README.md"
SCALED = ("dry run", "resume", "status", "results")  # of which the page has a row
RULED = "docs/results/learning-rules.md"
SAME = "docs/examples/same-function/README.md"
ONE_SET = {"LoRA": "lora", **{name: name for name in ("CP", "Tensor-train", "Tucker", "Kronecker")}}
LEARN, CORE = "docs/concepts/how-factors-learn.md", "Tucker, core at zero"
WHOLE, SPLIT, TIED = "layer proj : out : in", "layer proj : head dim : model", "layer : out : in"

Claim = tuple[str, str, Callable[[], tuple[Any, ...]]]  # page, what it says, and the numbers in it
CLAIMS: list[Claim] = [
    (
        "docs/results/protocol.md",
        "rated sentences 300 steps of 16, where LoRA r=8 has {:.3f} and after 600 steps {:.3f}",
        lambda: first_looks("snippets", "300", "600"),
    ),
    *((page, "LoRA r=8 with {:,} parameters has an accuracy of {:.3f}", lora8_of_headline) for page in (README, INDEX)),
    *((page, FRONT, front_of_headline) for page in (README, INDEX)),
    (
        README,
        "with {:,} parameters gains {:.1f} % of what full fine-tuning gains (95 % over seeds: {:.1f} to {:.1f} %; ",
        lambda: (size(CP1), *share_text()),
    ),
    (README, "`--full` {} of [six methods", lambda: (runs_of_the_figure(),)),
    (README, "every run also trains a head of {} numbers.", lambda: (HEAD,)),
    (
        README,
        "one rate for all methods, {:.1f}e-3 with `--full`; for four of its sizes the best rate at 300 steps was "
        "looked for, and it lies between {:.4f} (Tucker r=16) and {:.4f} (LoTR r=16).",
        lambda: (1000 * float(figure()[LORA]["lr"]), rate("tucker r=16"), rate("lotr r=16")),
    ),
    (WHICH, "all-MiniLM-L6-v2 ({:.1f} million weights)", lambda: (size(FULL) / 1e6,)),
    (
        WHICH,
        "LoRA r=8 {:.3f}, full fine-tuning {:.3f}, a head on the frozen base {:.3f} (`tensoradapt",
        lambda: (mean(LORA), mean(FULL), mean(FROZEN)),
    ),
    (WHICH, "LoRA r=8 ({:,} parameters), paired", lambda: (size(LORA),)),
    (WHICH, "a head of {} numbers, which is counted", lambda: (HEAD,)),
    (WHICH, "at a rate of its own, ten or twenty seeds, LoRA r=8 {:.3f}", lambda: of_headline()[3:]),
    *(
        (
            WHICH,
            f"| {name} ({{:,}}) | {{}}",
            lambda method=method, n=n: (n, row_of_headline(method, n).partition("| ")[2]),
        )
        for name, method, n in (
            ("about 6,000 | CP over `layer : out : in`", "CP", 6192),
            ("about 18,000 | LoRA r=1 †", "LoRA", 18432),
            ("or tensor-train over `layer : out : in`", "Tensor-train", 17616),
            ("about 37,000 | CP over `layer : out : in`", "CP", 37152),
            ("or Tucker † over `layer : out : in`", "Tucker", 36840),
        )
    ),
    (WHICH, "no tensor over `layer : out : in` is decided to differ from LoRA of its size", alike_at_one_size),
    (
        WHICH,
        "{}e-3 for LoRA, {:.0f}e-3 for CP, tensor-train and Tucker and {}e-3 for VeRA and HiRA's rule",
        rates_of_headline,
    ),
    (WHICH, "CP r=1 ({:,}) | {}", lambda: (size(CP1), row_to_take(CP1))),
    (
        WHICH,
        "| about 1,000 | Tucker r=2 ({:,}); tensor-train r=2 ({:,}) has {:.3f} | {}",
        lambda: (
            size(("Tucker", "2")),
            size(("Tensor-train", "2")),
            mean(("Tensor-train", "2")),
            row_to_take(("Tucker", "2")),
        ),
    ),
    (
        WHICH,
        "| about 1,600 | tensor-train over `layer proj : out : in` ({:,}), five seeds | {}",
        lambda: (1636, row_of_headline("Tensor-train", 1636, SMALL).partition("| ")[2]),
    ),
    (
        WHICH,
        "LoRA's first rank takes {:,} parameters on these 24 matrices; on q and v alone it starts at {:,}",
        lambda: (size(LORA1), int(sweep("sst2", "lora")["n_params"])),
    ),
    (
        WHICH,
        "438 numbers gain {:.1f} % of what full fine-tuning gains ({:.3f} of {:.3f}; 95 % over seeds: "
        "{:.1f} to {:.1f} %), {:,} {:.1f} % ({:.3f})",
        lambda: (
            share_text()[0],
            float(figure()[CP1]["diff_head"]),
            float(figure()[FULL]["diff_head"]),
            *share_text()[1:],
            size(CP4),
            100 * share(CP4)[0],
            float(figure()[CP4]["diff_head"]),
        ),
    ),
    (
        WHICH,
        "{:.3f} and {:.3f} on STS-B, where LoRA on q, v has {:.3f}",
        lambda: tuple(float(sweep("stsb", method)["mean"]) for method in ("cara", "fact-tt", "lora")),
    ),
    (
        WHICH,
        "{:,} of {:,} numbers keep {:.3f} of {:.3f}",
        lambda: (
            compressed("tensor_train", "20000")[0],
            compressed("lora", "")[0],
            compressed("tensor_train", "20000")[1],
            compressed("lora", "")[1],
        ),
    ),
    (
        WHICH,
        "| 2,000 | CP over `layer proj : out : in` (tensor-train: {:.3f} too) | {:.3f} | CP {:.3f} |",
        lambda: cells("2000", f"tensor_train over {WHOLE}", f"cp over {WHOLE}", f"cp over {SPLIT}"),
    ),
    (
        WHICH,
        "| 7,000 | tensor-train over `layer proj : out : in`; CP over `layer : out : in` has {:.3f} "
        "| {:.3f} | CP {:.3f} |",
        lambda: cells("7000", "cp over layer : out : in", f"tensor_train over {WHOLE}", f"cp over {SPLIT}"),
    ),
    (
        WHICH,
        "| 20,000 | CP over `layer : out : in` | {:.3f} | CP {:.3f} |",
        lambda: cells("20000", "cp over layer : out : in", f"cp over {SPLIT}"),
    ),
    (WHICH, "CP gains {} and tensor-train {} by", lambda: tuple(map(gain_of_whole_outputs, ("cp", "tensor_train")))),
    (
        WHICH,
        "({:.3f} against {:.3f} at 2,000)",
        lambda: cells("2000", "tucker over layer proj : head dim : in", f"tucker over {WHOLE}"),
    ),
    (EQUAL, "| {1:.4f} to {2:.4f}: {0:.1f} apart |", lambda: spread("equal")),
    (EQUAL, "| {1:.4f} to {2:.4f}: {0:.1f} apart |", lambda: spread("adamw")),
    (
        EQUAL,
        "to the power {:.2f}, and a rate of that form would leave them {:.1f} apart in place of {:.1f}",
        without_size,
    ),
    (
        PERFORMANCE,
        "CP r=8 takes {:.2f} of the frozen model's on MiniLM's shape, LoRA, tensor-train, LoTR and Tucker r=8 {:.2f} "
        "to {:.2f}, PEFT's LoRA r=8 {:.2f};",
        steps_of_rank_8,
    ),
    (
        PERFORMANCE,
        "VeRA r=256 takes {:.2f}, PEFT's {:.2f}. On RoBERTa-base's shape VeRA is slower than PEFT's, {:.2f} and "
        "{:.2f}.",
        lambda: tuple(
            step_ratio(f"{name} r=256", shape) for shape in ("minilm", "roberta-base") for name in ("vera", "PEFT VeRA")
        ),
    ),
    (EQUAL, "| mean accuracy of the cells' own best | {:.3f} | {:.3f} |", own_best),
    (
        EQUAL,
        "equal steps has {:.3f} more accuracy than AdamW at the matched scale ({:.3f} to {:.3f},",
        gain_of_equal_steps,
    ),
    (EQUAL, "that of one seed is {:.1f} times that of the other in the median.", lambda: (seeds_apart(),)),
    (EQUAL, "With one seed the best rates lay {:.1f} and {:.1f} apart.", first_seeds_apart),
    (EQUAL, "all cells {:.4f} at rank 1, {:.4f}, {:.4f}, {:.4f} at rank 64;", lambda: best_by_rank("equal")[:4]),
    (EQUAL, "AdamW {:.4f}, {:.4f}, {:.4f}, {:.4f}).", lambda: best_by_rank("adamw")[:4]),
    (
        EQUAL,
        "the last ones are {:.4f} and {:.4f}.",
        lambda: tuple(best_by_rank(name)[4] for name in ("equal", "adamw")),
    ),
    (
        EQUAL,
        "end at chance: {} of {} with equal steps, {} of 16",
        lambda: (*lost_above("equal"), lost_above("adamw")[0]),
    ),
    (EQUAL, "has {:.3f} more accuracy with the other seed ({:.3f} to {:.3f}, t interval over {} cells", choice_by_loss),
    (
        WHICH,
        "CP with {:,} parameters is decided to lose less than 0.01 against LoRA r=8 with {:,} too.",
        lambda: decided_on_linear()[:3:2],
    ),
    (
        HEADLINE,
        "with {:,} parameters, {:.2f} times fewer than LoRA r=8 ({:,} parameters, {:.3f}), is decided to lose less "
        "than 0.01, as on attention, and LoRA r=1 to be worse, by {:.3f}.** CP with {:,}, half as many as LoRA r=1, is",
        decided_on_linear,
    ),
    (
        HEADLINE,
        "half as many as LoRA r=1, is {}, not decided after Holm's correction, and {} ({} to {}) above LoRA r=1.",
        small_cp_on_linear,
    ),
    (
        HEADLINE,
        "Five seeds, {} runs; the best rates are {}e-4 for LoRA and {}e-3 for CP, one step of 1.8 below those of "
        "attention, none at an end of what was tried. No reported run is lost; {} runs of LoRA and CP that tuned are",
        rates_on_linear,
    ),
    (
        HEADLINE,
        "LoRA r=8 has {} more than on q, k, v, o, for {:.2f} times as many parameters (p {:.3f} alone, and not after "
        "Holm's correction over these four), LoRA r=1 {}, CP with 20,844 {} more than CP with 18,576 there, and CP "
        "with 83,376 {} more than LoRA r=8 there, with {:.2f} times fewer.",
        linear_beside_attention,
    ),
    (
        HEADLINE,
        "[On all linear layers] CP with four times fewer parameters than LoRA r=8 is decided to lose less than 0.01",
        lambda: decided_on_linear()[:0],
    ),
    (README, "a quarter of LoRA r=8's is decided to lose less than 0.01 too.", lambda: decided_on_linear()[:0]),
    (KNOWN, "loses less than 0.01, on q, k, v, o and on all linear layers,", lambda: decided_on_linear()[:0]),
    (RESULTS, "cost less than 0.01, with CP, on q, k, v, o and on all linear", lambda: decided_on_linear()[:0]),
    (KNOWN, "(on all linear layers {}e-4 and {}e-3 for LoRA and CP)", lambda: rates_on_linear()[1:3]),
    (
        RATES,
        "[on all linear layers] of MiniLM {}e-4 for LoRA and {}e-3 for CP were best",
        lambda: rates_on_linear()[1:3],
    ),
    *(
        (NOT_HERE, f"{text} {{:.3f}}", lambda case=case: (chance_of(*case),))
        for text, case in {
            "| 35:": ("ultrafeedback", "lora", 35),
            "| 80:": ("polyreactivity", "lora", 80),
            "0.542, 160:": ("polyreactivity", "lora", 160),
            "0.493, 320:": ("polyreactivity", "lora", 320),
            "0.608 |": ("polyreactivity", "full fine-tuning", 160),
            "Jain and Shehata |": ("antibody-mlm", "frozen base + head", 40),
            "| 20:": ("antibody-mlm", "lora", 20),
            "-0.598, 40:": ("antibody-mlm", "lora", 40),
            "-0.592, 80:": ("antibody-mlm", "lora", 80),
            "-0.584 |": ("antibody-mlm", "full fine-tuning", 40),
        }.items()
    ),
    (
        NOT_HERE,
        "gains {:.3f} nats in 40 steps on the third, and {:.3f} in 80.",
        lambda: tuple(
            chance_of("antibody-mlm", "lora", steps) - chance_of("antibody-mlm", "frozen base + head", 40)
            for steps in (40, 80)
        ),
    ),
    (
        NOT_HERE,
        "at 3e-4 it has {:.3f}, {:.3f}, {:.3f} and {:.3f} of 47 validation pairs after 18, 35, 70 and 140 steps, half "
        "an epoch to four, and the last are {} of 47, p {:.2f}",
        curve_of_pairs,
    ),
    (NOT_HERE, "go from {:.3f} to {:.3f}, and counts", lambda: ends_of("polyreactivity", 80, 160, 320)),
    (
        NOT_HERE,
        "LoRA r=8 has {:.3f} in the mean of three seeds and full fine-tuning {:.3f}, of",
        lambda: tuple(chance_of("rte", method, 800) for method in ("lora", "full fine-tuning")),
    ),
    (NOT_HERE, "three seeds {:.3f} to {:.3f}, so", lambda: ends_of("antibody-mlm", 40)),
    (
        RESULTS,
        "and with five seeds, {} of {} sizes are decided to differ from LoRA r=8, all of them to be worse.",
        decided_on_sentences,
    ),
    (
        RESULTS,
        "LoRA r=1 (-{:.4f} nats a token) and CP with half of its parameters (-{:.4f}) are decided to be worse",
        on_alpaca,
    ),
    (
        KNOWN,
        "on Alpaca LoRA r=1 and CP with half of its parameters, by {:.3f} and {:.3f} nats a token.",
        on_alpaca,
    ),
    (
        "docs/results/figures/README.md",
        "At one rate for all, over the layouts of the papers, {} of {} sizes are decided to be below LoRA r=8.",
        decided_on_sentences,
    ),
    (RESULTS, "No tensor over `layer : out : in` is decided to differ from LoRA of its size;", alike_at_one_size),
    (RESULTS, "CP and Tucker with sixteen times fewer ({:.2f} times with the head)", sixteen_times_fewer),
    (KNOWN, "On SST-2 LoRA r=1 and CP with four times fewer lose less than 0.02.", alike_on_sst2),
    (RESULTS, "LoRA r=1 and CP with four times fewer cost less than 0.02 ([SST-2]).", alike_on_sst2),
    (KNOWN, "On CIFAR-10 CP with {:.0f} times fewer is worse, by {:.3f},", lambda: cp_on_cifar10()[::2]),
    (
        RESULTS,
        "on CIFAR-10, CP with {:.0f} times fewer parameters than LoRA r=8 (-{:.3f},",
        lambda: cp_on_cifar10()[::2],
    ),
    (
        VISION,
        "with {:.0f} times fewer parameters than LoRA r=8 is decided to be worse; LoRA r=1",
        lambda: cp_on_cifar10()[:1],
    ),
    (
        VISION,
        "LoRA r=8 has {:.3f} of the test pictures right, CP {}, LoRA r=1 {}.",
        lambda: beside_lora8("vision", "cifar10", ("CP", "n≤41,500"), ("lora", "r=1")),
    ),
    (VISION, "CP has {:.0f} % of LoRA r=1's parameters; these two are not told apart (p {:.2f} over", cp_beside_lora1),
    (VISION, "{}e-4 for LoRA r=8, {}e-4 for r=1 and {:.0f}e-4 for CP, after", rates_on_cifar10),
    (VISION, "On validation they have {:.3f}, {:.3f} and {:.3f};", lambda: rates_on_cifar10(validation=True)),
    (
        COLA,
        "LoRA r=8 has a Matthews correlation of {:.3f} on the test sentences, CP {}, LoRA r=1 {}.",
        lambda: beside_lora8("cola", "cola", ("CP", "n≤37,200"), ("lora", "r=1")),
    ),
    (COLA, "is {} from it, which is not decided either (p {:.2f}; over seeds alone {:.2f}).", cp_beside_lora1_on_cola),
    (COLA, "{} would decide that LoRA r=1 is worse", seeds_on_cola),
    (COLA, "{}e-4 for both LoRAs and {}e-4 for CP, after", rates_on_cola),
    (COLA, "On validation LoRA r=8 has {:.3f} there, LoRA r=1 {:.3f} and CP {:.3f}.", validation_on_cola),
    (COLA, "it has {:.3f}, {:.3f}, {:.3f} and {:.3f} on validation after 600,", lambda: looks_on_cola()[:4]),
    (GLUE, "it has {:.4f}, {:.4f}, {:.4f} and {:.4f} on validation after 600,", steps_of_sst2),
    (
        GLUE,
        "LoRA r=8 has {:.3f} of the test sentences right, LoRA r=1 {}, CP {}.",
        lambda: beside_lora8("glue", "sst2", ("lora", "r=1"), ("CP", "n≤37,200")),
    ),
    (GLUE, "these two are not told apart either (p {:.2f} over seeds alone).", lambda: (p_beside_lora1("glue"),)),
    (GLUE, "On validation LoRA r=8 has {:.3f} there, LoRA r=1 {:.3f} and CP {:.3f}.", rates_on_sst2),
    (KNOWN, "with a third of LoRA r=1's, CP is worse.", smallest_is_worse),
    (KNOWN, "On MPNet CP and Tucker with sixteen times fewer ({:.2f} times with the head)", sixteen_times_fewer),
    (KNOWN, "any difference between a tensor over `layer : out : in` and LoRA of the same size", alike_at_one_size),
    (
        RESULTS,
        "{} differences between ranks of LoRTA are decided too",
        lambda: (NUMBERS[ranks_decided()].capitalize(),),
    ),
    (
        KNOWN,
        "LoRA r=8 with {:,} parameters has {:.3f}, full fine-tuning {:.3f}, a head on the frozen base {:.3f}.",
        lambda: (*of_headline()[2:], *references_of_headline()[1::3]),
    ),
    *(
        (KNOWN, f"| {name} | {{}}", lambda name=name, n=n: (row_of_headline(name.split(" r=1")[0].split(" †")[0], n),))
        for name, n in (
            ("CP", 6192),
            ("Tensor-train", 17616),
            ("LoRA r=1 †", 18432),
            ("CP by HiRA's rule", 18576),
            ("Tucker †", 36840),
            ("CP", 37152),
        )
    ),
    (
        KNOWN,
        "| Tensor-train, projections tied too, five seeds | {}",
        lambda: (row_of_headline("Tensor-train", 1636, SMALL),),
    ),
    (
        KNOWN,
        "Tucker was {:.3f} behind with its core at zero; with the larger factor at zero five factorings of that set "
        "lie {:.3f} apart at one rate",
        lambda: (spread_of_rank_one(CORE), same_apart("rank1-one-rate")),
    ),
    (
        KNOWN,
        "in 100 steps it gains {} over CP and {} over tensor-train, alone, at a rate {:.1f} times as high",
        lambda: (*map(gain_around, ("CP", "Tensor-train")), rate_of_hira()),
    ),
    (
        KNOWN,
        "in 300 steps {} over CP with 18,576 parameters (Holm's p {:.3f}), {} with 37,152,",
        lambda: (pair("CP", 18576)[0][:5], pair("CP", 18576)[2], pair("CP", 37152)[0][:5]),
    ),
    (KNOWN, "{}e-3 for LoRA, {:.0f}e-3 for CP, tensor-train and Tucker and {}e-3 by HiRA's rule", rates_of_headline),
    (KNOWN, "the best lie {:.1f} apart, and above", lambda: spread("equal")[:1]),
    (KNOWN, "At its paper's scale and one rate LoRTA learns less [as rank grows]", lambda: ranks_decided() and ()),
    (
        KNOWN,
        "| MiniLM | rated sentences, the paper's layout | {} | {:.3f} ({:.3f} to {:.3f}) | worse |",
        lambda: (
            fewer(("CP (LoRTA)", "64")),
            *(getattr(gaps()["CP (LoRTA)", "64"][0], end) for end in ("mean", "low", "high")),
        ),
    ),
    *(
        (KNOWN, f"| {name} | {{:.3g}} | {{}} | {{}} |", lambda case=case: (times(*case)[0], span(*case), told(*case)))
        for name, case in {
            "MiniLM | rated sentences": ("headline", "snippets", "CP", "n≤37,200"),
            "MiniLM | rated sentences, all linear layers": (LINEAR, "snippets", "CP", "n≤83,400"),
            "MiniLM | SST-2": ("glue", "sst2", "CP", "n≤37,200"),
            "MiniLM | CoLA, Matthews correlation": ("cola", "cola", "CP", "n≤37,200"),
            "MPNet | rated sentences": ("headline/mpnet", "snippets", "CP", "n≤37,200"),
            "MPNet | SST-2": ("headline/mpnet", "sst2", "CP", "n≤37,200"),
            "DINOv2-small | CIFAR-10, all linear layers": ("vision", "cifar10", "CP", "n≤41,500"),
            "SmolLM2-135M | Alpaca, nats a token": ("instruct", "alpaca-answers", "CP", "n≤57,600"),
        }.items()
    ),
    (KNOWN, "the three within 0.01 of LoRA r=1, [whichever", alike_with_lora1),
    (WHICH, "of LoRA r=1's size CP, tensor-train and Tucker are [within 0.01 of it]", alike_with_lora1),
    (RESULTS, "of LoRA r=1's size CP, tensor-train and Tucker are decided to be within 0.01 of it", alike_with_lora1),
    (HEADLINE, "tensor-train, Tucker and CP by HiRA's rule of LoRA r=1's size are [decided to be", alike_with_lora1),
    (
        HEADLINE,
        "CP, tensor-train, Tucker and CP by HiRA's rule with {:,} to {:,} parameters are decided to be within 0.01 of "
        "LoRA r=1, whichever is ahead, and tensor-train, Tucker and CP by HiRA's rule with {:,} to {:,} of CP with "
        "{:,}.** VeRA and CP with split heads are not decided to be alike with either, nor are tensor-train",
        alike_at_the_same_size,
    ),
    (
        HEADLINE,
        "tensor-train and Tucker are alike with LoRA r=1 at the level of one of them, CP and CP by HiRA's rule are not",
        lambda: alike_at_the_same_size(looks=True)[5:],
    ),
    (HEADLINE, "with {:,} parameters, and Tucker, with {:,} †; LoRA r=8 has {:,} ({:.3f}).", of_headline),
    (WHICH, "with {:,} and {:,} parameters a loss below 0.01 is decided", lambda: of_headline()[:2]),
    (HEADLINE, "lose less than 0.02 is tensor-train with {:,} parameters, {:.1f} times fewer.", least_of_headline),
    (
        HEADLINE,
        "Nearest with {:.3g} times fewer is CP by HiRA's rule, {:,} parameters: {}.",
        lambda: (times(*HIRA_HEADLINE)[0], 18576, span(*HIRA_HEADLINE)),
    ),
    (
        HEADLINE,
        "6,192 parameters, is decided to be worse ({:.4f}), and so is VeRA with {:,}. Of {} sizes {} are decided to be "
        "worse, {} to lose less than 0.01 and {} to lose less than 0.02",
        decided_of_headline,
    ),
    (HEADLINE, "and none of these rates at an end of its grid", inside_its_grid),
    (HEADLINE, "is nowhere told apart from LoRA r=8, at a quarter, a half and all of the steps", undecided_by_steps),
    (HEADLINE, "LoRA r=2 with {:,} is at {:.4f} with {} seeds, where the three above have {}, and", beside_lora2),
    (HEADLINE, "over its ten no one of them is told apart from it (p {:.2f} to {:.2f}, over seeds alone", p_to_lora2),
    (HEADLINE, "With the head of {:,} parameters that every run trains these are {:.2f} times fewer", head_on_mpnet),
    (
        HEADLINE,
        "and, to be within 0.01, Holm's p {:.3f}, where 0.025 is asked: with 1,500 test sentences that takes {} seeds.",
        undecided_tensor_train,
    ),
    (
        HEADLINE,
        "at a third of the level as well (p {:.4f} and {:.4f}, where {:.4f} is asked); Tucker would not (p {:.4f}), "
        "nor would LoRA r=1 be worse (Holm's p {:.3f}).",
        looks_of_headline,
    ),
    (
        HEADLINE,
        "at half of the level CP with 6,192 and with 18,576 and VeRA would be worse too, tensor-train with 6,240 would "
        "not (Holm's p {:.3f}). What is within 0.02 would be so at these levels too.",
        second_looks_of_headline,
    ),
    (HEADLINE, "LoRA r=2 is below r=8 alone (p {:.3f}), and not after Holm.", lora2_of_headline),
    (
        HEADLINE,
        "gains {} over CP with 18,576 parameters, p {:.3f} alone and {:.3f} after Holm's correction",
        lambda: pair("CP", 18576),
    ),
    (HEADLINE, "with 37,152 it gains {}.", lambda: pair("CP", 37152)[:1]),
    (
        HEADLINE,
        "are {}e-3 for LoRA, {:.0f}e-3 for CP, tensor-train and Tucker and {}e-3 for VeRA, by HiRA's rule and with "
        "split heads",
        rates_of_headline,
    ),
    (
        HEADLINE,
        "{} of {} runs have {:.3f} to {:.3f}; {} ended at chance, so their mean says little. At the next rate above "
        "theirs all {} tuning runs ended at chance",
        split_heads,
    ),
    (
        HEADLINE,
        "a step of LoRA r=1 takes {:.2f} times as long as one of LoRA r=8, of CP with 37,152 parameters {:.2f} and by "
        "HiRA's rule {:.2f}",
        ratios_of_steps,
    ),
    (
        HEADLINE,
        "of all {:.3g} million weights has {:.3f} ({:.3f} to {:.3f}) at 1e-4, a head on the frozen base {:.3f} "
        "({:.3f} to {:.3f}), with five seeds each.",
        references_of_headline,
    ),
    (
        HEADLINE,
        "its own LoRA r=8 has {:.3f} on validation in place of {:.3f}, and {} of three runs end at",
        tried_of_lora,
    ),
    (
        HEADLINE,
        "with {:,} parameters, {:.3g} times fewer than LoRA r=8 ({:,} parameters), is decided to lose less than 0.02 "
        "on both tasks: {} on the rated sentences, where LoRA r=8 has {:.3f}, and {} on SST-2, where it has {:.3f}.",
        larger_model,
    ),
    (
        HEADLINE,
        "With at most {:,} parameters, {:.0f} to {:.0f} times fewer than LoRA r=8, all six factorings that were run "
        "are decided to be worse, by {:.3f} to {:.3f}, and none of them is told apart from CP.",
        decided_of_small,
    ),
    (
        HEADLINE,
        "[With at most {:,} parameters] all of six factorings are decided to be worse, by {:.3f} to {:.3f}.",
        lambda: (decided_of_small()[0], *decided_of_small()[3:]),
    ),
    (
        HEADLINE,
        "has the highest mean, {:.3f}, which is {:.0f} % of what LoRA r=8 gains over a head on the frozen base "
        "({:.3f}); LoRA-XS has the lowest, {:.3f}.",
        ends_of_small,
    ),
    (
        HEADLINE,
        "Tensor-train is {} above CP and Tucker {};",
        lambda: (beside_cp_of_small("Tensor-train"), beside_cp_of_small("Tucker")),
    ),
    (
        HEADLINE,
        "LoRA-XS alone too (p {:.3f}), and not after Holm's correction over the five ({:.3f}).",
        lora_xs_of_small,
    ),
    (
        HEADLINE,
        "Five seeds, {} runs; the best rates are {}e-3 for LoRA-XS, {:.0f}e-3 for both CPs, {}e-3 for the others, none "
        "at an end of what was tried. No reported run is lost; {} runs of LoRA r=8 and Tucker that tuned are",
        rates_of_small,
    ),
    (
        HEADLINE,
        "LoRA r=8 has {:.3f}, r=16 {:.3f} and r=32 {:.3f}, and r=4, 16 and 32 are decided to lose less than 0.02.",
        ranks_of_others,
    ),
    (
        HEADLINE,
        "LoRA-XS, LoTR and tensor-train by HiRA's rule are decided to be worse than LoRA r=8, by {:.3f} to {:.3f}.** "
        "CP with projections tied too, GraLoRA and LoRA r=8 on q, v alone are not decided.",
        decided_of_others,
    ),
    (
        HEADLINE,
        "LoRA r=1 has {:.3f}, and none of the four of its size is decided to differ from it: LoRA-XS is {:.3f} below "
        "it alone (p {:.3f}, over seeds), and not after Holm's correction over the four ({:.3f}).",
        beside_lora1_of_others,
    ),
    (HEADLINE, "Tensor-train by HiRA's rule is {} from tensor-train of its size", rule_on_tensor_train),
    (
        HEADLINE,
        "Five seeds, {} runs; the best rates are {}e-4 for LoRA r=32, {}e-3 for r=4, 8 and 16 and for GraLoRA, {}e-3 "
        "for LoRA on q, v and for LoRA-XS, and {}e-3 for the others, none at an end of what was tried. No reported run "
        "is lost; {} of CP that tuned are",
        rates_of_others,
    ),
    (KNOWN, "and over tensor-train with 17,616 {}.", lambda: (rule_on_tensor_train()[0].split()[0],)),
    (
        "docs/guides/hira.md",
        "it has {} more than CP with 18,576 parameters and {} less than tensor-train with 17,616",
        lambda: (pair("CP", 18576)[0].split()[0], rule_on_tensor_train()[0].split()[0].removeprefix("-")),
    ),
    (
        HEADLINE,
        "BitFit, which trains the {:,} biases of the base, has {:.3f}, and all ten adapters are decided to be above "
        "it**, by {:.3f} to {:.3f}.",
        lambda: beside_bitfit()[:4],
    ),
    (
        HEADLINE,
        "BitFit has {:.3f} to {:.3f} at 3.6e-3 of AdamW, of four rates; Holm's correction is over the ten, over seeds. "
        "LoRA r=8 is {} above it, CP with projections tied too, which has fewer parameters, {}.",
        lambda: beside_bitfit()[4:],
    ),
    (
        HEADLINE,
        "Over LoRTA's `layer proj : head dim : model` tensor-train with {:,} parameters and Tucker with {:,}, each at "
        "a rate of its own, are decided to be worse than LoRA r=8 ({:.3f}), by {:.3f} and {:.3f}; both have {:.3f} "
        "less than they have over `layer : out : in` with about as many. LoRTA's smallest size, CP with {} "
        "parameters, has {:.3f}, where a head on the frozen base has {:.3f}.",
        over_lortas_layout,
    ),
    (
        HEADLINE,
        "Over the same five seeds tensor-train is {} from tensor-train with {:,} parameters over `layer : out : in`, "
        "and Tucker {} from Tucker with {:,}: p {:.3f} and < 0.001. From LoRA r=1 they are {} and {}, p {:.3f} and "
        "{:.3f}. After Holm's correction over these four all are below 0.05, over seeds.",
        split_beside_others,
    ),
    (
        WHICH,
        "At a rate of its own CP with {} has {:.3f} and is decided to be worse than LoRA r=8, by {:.3f}",
        smallest_over_lortas_layout,
    ),
    (HEADLINE, "LoRA r=8's five seeds are up to {:.4f} apart.", lambda: lora8_again(PAPERS)),
    (
        HEADLINE,
        "{} of {} runs ended at chance, and the {} others are {:.3f} below CP over `layer : out : in`",
        split_heads_beside_cp,
    ),
    (HEADLINE, "It is {} above the head alone over these seeds.", smallest_above_the_head),
    (
        HEADLINE,
        "Five seeds, {} runs; the best rates are {:.1f}e-3 for LoRA r=8 and Tucker, {:.0f}e-3 for CP and {:.1f}e-3 for "
        "tensor-train, the grids of CP and Tucker extended downwards and none at an end. No reported run is lost; {} "
        "runs of tensor-train and Tucker that tuned are",
        rates_over_lortas_layout,
    ),
    (HEADLINE, "of LoRA r=1's size are decided to be worse, than LoRA r=1 too.", lambda: over_lortas_layout()[:0]),
    (WHICH, "with about 18,000 parameters have {:.3f} less than over", lost_by_split_heads),
    (
        KNOWN,
        "with about 18,000 parameters have {:.3f} less over LoRTA's split heads than over `layer : out : in`, and "
        "{:.3f} and {:.3f} less than LoRA r=1, [decided] over seeds; CP has {:.3f} less over {} seeds",
        lambda: (*lost_by_split_heads(), *lost_to_lora1(), *split_heads_beside_cp()[:1:-1]),
    ),
    (
        RESULTS,
        "tensor-train and Tucker with eight times fewer parameters than LoRA r=8 are decided to be worse, by {:.3f} "
        "and {:.3f}, and, over seeds, than LoRA r=1, by {:.3f} and {:.3f}.",
        lambda: (*over_lortas_layout()[3:5], *lost_to_lora1()),
    ),
    (HEADLINE, "where its five seeds are up to {:.4f} from what they have above.", lora8_again),
    (HEADLINE, "CP is at {} and {} from it.", cp_to_lora1_on_mpnet),
    (
        HEADLINE,
        "Tucker with {:,} parameters, {:.1f} times fewer than LoRA r=8 ({:.3f}), is decided to lose less than 0.01, "
        "and so are Tucker and CP with about 74,000.** Tucker's means are above LoRA r=8's, by {:.3f}, which is not "
        "decided. A head alone on the frozen base has {:.3f} ({:.3f} to {:.3f}), so these adapters add {:.3f} to "
        "{:.3f} to what the head gives.",
        second_on_mpnet,
    ),
    (
        HEADLINE,
        "On the rated sentences Tucker with {:,} parameters, at {} from LoRA r=8 ({:.3f}), and Tucker with {:,}, at "
        "{}, are decided to lose less than 0.02. CP with {:,}, at {}, is not decided either way.** Twice the "
        "parameters of Tucker have no higher mean. A head alone has {:.3f}.",
        sizes_on_sentences,
    ),
    (
        HEADLINE,
        "Here the best rates are {:.1f}e-3 for LoRA r=8, {:.0f}e-3 for both Tuckers and {:.1f}e-3 for CP, whose grid "
        "was extended upwards, none at an end; {} runs, none lost. At 3.6e-3 one of CP's five runs has {:.3f}, and its "
        "four others {:.3f} to {:.3f}. Tucker with 73,968 is {} from CP with 74,304.",
        rates_on_sentences,
    ),
    (
        HEADLINE,
        "one of its five seeds has {:.3f} more than above and the others differ by up to {:.4f},",
        lora8_on_sentences,
    ),
    (
        HEADLINE,
        "Here the best rates are {}e-4 for LoRA r=8, {}e-4 for CP and {}e-3 for both Tuckers, all three grids extended "
        "downwards and none at an end; {} runs, none lost. Tucker with 73,968 is {} from CP with 74,304.",
        rates_of_second_on_mpnet,
    ),
    (
        HEADLINE,
        "to lose less than 0.02 on two tasks, and so is Tucker with {:.1f} times fewer, on SST-2 less than 0.01.",
        lambda: (second_on_mpnet()[1], *sizes_on_sentences()[:0]),
    ),
    (RESULTS, "and Tucker less than 0.01 on SST-2.", lambda: second_on_mpnet()[:0]),
    (KNOWN, "Tucker on SST-2 less than 0.01.", lambda: second_on_mpnet()[:0]),
    (
        HEADLINE,
        "of the first table on the rated sentences are {} for LoRA r=1 and CP and {} for LoRA r=8, ",
        lambda: rates_on_mpnet("snippets")[1:],
    ),
    (HEADLINE, "and on SST-2 {}, {} and {}.", lambda: rates_on_mpnet("sst2")),
    (HEADLINE, "four rates of LoRA r=8, a ratio of {:.1f}, lie within {:.4f} on validation", tried_on_mpnet),
    (
        HEADLINE,
        "{:.3f}, {:.3f} and {:.3f} on validation after 75, 150 and 300 steps, and after 150 steps {:.3f}, {:.3f} and "
        "{:.3f} at head rates",
        first_of_mpnet,
    ),
    (
        PROTOCOL,
        "LoRA r=8 has {:.3f}, {:.3f} and {:.3f} on validation after 75, 150 and 300 steps (one seed)",
        lambda: steps_of_mpnet("sst2"),
    ),
    (
        PROTOCOL,
        "CIFAR-10 240, where it has {:.3f} and after 480 steps {:.3f}.",
        lambda: first_looks("cifar10", "240", "480"),
    ),
    (PROTOCOL, "though 120 gain LoRA r=8 {:.3f} nats", lambda: (-np.subtract(*first_looks("alpaca", "60", "120")),)),
    (
        PROTOCOL,
        "LoRA r=8 has {:.4f}, {:.4f} and {:.4f} on them after 600, 1,200 and 2,400 steps; a later look has {:.4f}",
        steps_of_sst2,
    ),
    (
        PROTOCOL,
        "with 0.001, 0.003, 0.009 and 0.027 LoRA r=8 has {:.3f}, {:.3f}, {:.3f} and {:.3f} on those 300, and with "
        "0.009 after 120, 240 and 480 steps {:.3f}, {:.3f} and {:.3f}",
        looks_on_cifar10,
    ),
    (
        PROTOCOL,
        "LoRA r=8 has {:.3f}, {:.3f} and {:.3f} there after 600, 1,200 and 2,400 steps, and by a later look {:.3f} "
        "after 4,800, so 2,400 are enough. The head takes 0.006: with 0.002, 0.006 and 0.018 LoRA r=8 has {:.3f}, "
        "{:.3f} and {:.3f} (6.1e-4",
        looks_on_cola,
    ),
    (PROTOCOL, "0.006, 0.02 and 0.06 have {:.4f}, {:.4f} and {:.4f} on them", first_of_sst2),
    (HEADLINE, "The head of this model has {:,} parameters", lambda: (int(of_mpnet()["CP"]["n_head"]),)),
    (
        TABLES,
        "{} numbers for two classes on MiniLM, {:,} on MPNet,",
        lambda: (HEAD, int(of_mpnet()["CP"]["n_head"])),
    ),
    *(
        (LEARN, f"| {arm} | {rank} | {{:.3f}} | {{:.3f}} | {{:.3f}} |", lambda cell=(arm, rank): tucker_scores(*cell))
        for arm, rank in tucker_cells()
    ),
    (
        SAME,
        "their means over five seeds lie {:.3f} apart; of rank 8 {:.3f}.",
        lambda: (same_apart("rank1-one-rate"), same_apart("rank8")),
    ),
    *(
        (
            SAME,
            f"| {name} | {{:,}} | {{:.3f}} ({{:.3f}} to {{:.3f}}) | {{:.1f}} | {{:.3f}} ({{:.3f}} to {{:.3f}}) |",
            lambda key=key: (
                *(cell for i, cell in enumerate(same_row("rank1-one-rate", key)) if i != 1),
                *same_row("rank1", key)[1:],
            ),
        )
        for name, key in ONE_SET.items()
        if name != "Tensor-train"
    ),
    *(
        (
            SAME,
            f"| {name} | {{:,}} | {{:.1f}} | {{:.3f}} ({{:.3f}} to {{:.3f}}) |",
            lambda key=key: same_row("rank8", key),
        )
        for name, key in ONE_SET.items()
        if name != "Kronecker"
    ),
    (SAME, "CP and Tucker lay {:.3f} apart", lambda: (spread_of_rank_one(CORE),)),
    (SAME, "ahead of 2e-3 by {:.3f} and {:.3f}, and", lambda: tuple(map(same_tried, ("lora", "Kronecker")))),
    (
        AROUND,
        "CP {}, tensor-train {}, LoRA's product {}, means over three sizes",
        lambda: tuple(map(gain_around, ("CP", "Tensor-train", "LoRA"))),
    ),
    (
        "docs/guides/hira.md",
        "the same network added, in 100 steps, by {} over CP,",
        lambda: (gain_around("CP", "Tensor-train", "LoRA"),),
    ),
    ("docs/guides/sums.md", "with as many parameters: {} (", lambda: (gain_around("RaSA"),)),
    (
        WHICH,
        "over CP it gains {} at three sizes, over tensor-train {}, alone",
        lambda: tuple(map(gain_around, ("CP", "Tensor-train"))),
    ),
    (WHICH, "as `gralora`: {} over LoRA at two sizes", lambda: (gain_around("GraLoRA"),)),
    (AROUND, "all three together {}", lambda: (gain_around("CP", "Tensor-train", "LoRA"),)),
    (AROUND, "are not told apart from LoRA: {} and {}.", lambda: tuple(map(gain_around, ("GraLoRA", "RaSA")))),
    (
        AROUND,
        "With 74,304 parameters CP by HiRA's rule has {:.3f}, LoRA r=8 with twice as many {:.3f}, added CP {:.3f}.",
        lambda: tuple(
            around(*cell).mean() for cell in (("CP by HiRA's rule", "75000"), ("lora", "8.0"), ("CP", "75000"))
        ),
    ),
    (
        AROUND,
        "{:.3f} and {:.3f} with 18,000, {:.3f} and {:.3f} with 74,000",
        lambda: tuple(around(name, n).mean() for n in ("19000", "75000") for name in ("CP", "Tensor-train")),
    ),
    *((RULED, row, lambda: ()) for row in rule_page_rows()),
    (
        RULED,
        "that is decided: {:.3f}, {:.3f} and {:+.3f} over CP (p {:.2f}, {:.2f} and {:.2f} alone), ",
        lambda: (*gains_of_rule("balanced", "CP r=64"), *gains_of_rule("balanced", "CP r=64", "p")),
    ),
    (
        RULED,
        "{:+.3f}, {:.3f} and {:.3f} over the tensor-train ({:.2f}, {:.2f} and {:.3f}, the last {:.2f} after Holm",
        lambda: (
            *gains_of_rule("balanced", "Tensor-train r=32"),
            *gains_of_rule("balanced", "Tensor-train r=32", "p"),
            gains_of_rule("balanced", "Tensor-train r=32", "p_holm")[-1],
        ),
    ),
    (
        RULED,
        "The best rates are {}, {}, {} and, of LoTR alone, {}.",
        rates_of_rules,
    ),
    (RULED, "On STS-B {} of five runs of LoTR are below {:.2f}, and the others have {:.3f}.", lost_of_lotr),
    (
        RULED,
        "{} of ten runs of CP r=64 by AdamW at 3.6e-3 end at chance, {} of five of the balanced and {} of ten of the "
        "whitened; the others have {:.3f}, {:.3f} and {:.3f}.",
        lambda: (
            *(("none", "one", "two")[collapsed_on_sst2(rule)[0]] for rule in ("AdamW", "balanced", "whitened")),
            *(collapsed_on_sst2(rule)[1] for rule in ("AdamW", "balanced", "whitened")),
        ),
    ),
    (
        RULED,
        "over CP r=64 {:.3f}, {:.3f} and {:.3f} with ten seeds (p {:.3f}, {:.2f} and {:.3f} alone, {:.2f}, {:.2f} and "
        "{:.2f} after Holm), over CP r=9 {:.3f}, {:.3f} and {:.3f} with five",
        lambda: (
            *gains_of_rule("whitened", "CP r=64"),
            *gains_of_rule("whitened", "CP r=64", "p"),
            *gains_of_rule("whitened", "CP r=64", "p_holm"),
            *gains_of_rule("whitened", "CP r=9, tied over layers"),
        ),
    ),
    (
        RULED,
        "`ta.preconditioned` gains {:.3f}, {:.3f} and {:.3f}",
        lambda: gains_of_rule("preconditioned", "CP r=64"),
    ),
    (
        RULED,
        "RITE is {:.3f} below it at its best rate. Preconditioned and whitened steps of CP cost {:.0f} and {:.0f} ms "
        "more, 1 to 2 % of a step; of a tensor-train `ta.preconditioned` takes {:.0f} ms more",
        apart_by_rules,
    ),
    (
        RULED,
        "lie {:.3f} apart after 150 steps, of rank 8 {:.3f}, means",
        lambda: (same_apart("rank1-one-rate"), same_apart("rank8")),
    ),
    (
        RULED,
        "| CP | {:.3f} (r=64, 28,032 numbers) | {:.3f} (r=9, 27,864) |",
        lambda: (of_layout("snippets", "cp", SPLIT), of_layout("snippets", "cp", TIED)),
    ),
    (
        RULED,
        "have {:.3f} on SST-2 after 300 steps and {:.3f} after 200, and on STS-B {:.3f} and {:.3f} (Spearman",
        lambda: tuple(of_layout(task, "cp", where) for task in ("sst2", "stsb") for where in (SPLIT, TIED)),
    ),
    (
        RULED,
        "| tensor-train | {:.3f} (r=32, 35,840) | {:.3f} (r=10, 33,120) |",
        lambda: (of_layout("snippets", "tensor_train", SPLIT), of_layout("snippets", "tensor_train", TIED)),
    ),
    (
        RULED,
        "a Matthews correlation of {:.3f} and {:.3f}, LoRA r=1 with 18,432 numbers {:.3f};",
        lambda: tuple(of_layout("cola", *cell, "0.0011") for cell in (("cp", SPLIT), ("cp", TIED), ("lora", ""))),
    ),
    (
        RULED,
        "LoRA r=1 fall to {:.3f} and {:.3f}.",
        lambda: (of_layout("cola", "cp", TIED), of_layout("cola", "lora", "")),
    ),
    (
        LIBRARY,
        "1,000 become {:,} bytes each and {:,} shared with an error of {:.3f}, in {:.0f} s of one core and with {:,} "
        "MiB",
        lambda: of_library(
            "Tucker of rows and columns", "1000", "bytes_each", "bytes_shared", "error", "seconds", "MiB_peak"
        ),
    ),
    (LIBRARY, "at most; 100 take {:.1f} s.", lambda: of_library("Tucker of rows and columns", "100", "seconds")),
    (LIBRARY, "has an error of {:.3f} at 100", lambda: of_library("Tucker", "100", "error")),
    *(
        (SWEEPS, f"| {what} | {{:.0f}} | {{:.0f}} | {{:.0f}} | {{:,.0f}} MiB |", lambda what=what: of_scale(what))
        for what in SCALED
    ),
    (SWEEPS, "by the power {:.2f} to {:.2f} of their number", lambda: power_of_scale(*SCALED)),
    *(
        (RULED, f"| {cell[0]} | {cell[1]} | {{:.2f}} | {{:.3f}} | {{:.1f}} |", lambda cell=cell: rule_row(*cell))
        for cell in rule_cells()
    ),
    (
        "docs/examples/forgetting/README.md",
        "more likely, by {:.3f} to {:.3f} nats",
        lambda: (min(gains := forgetting_gains()), max(gains)),
    ),
    (
        LEARN,
        "With the core at zero they lie {:.3f} apart; with the larger factor at zero {:.3f}.",
        lambda: (spread_of_rank_one(CORE), spread_of_rank_one("Tucker")),
    ),
]


EXEMPT = {  # numbers that come from no file of runs, and why
    KNOWN: {
        'claim "up to 67 % fewer': "LoRTA's claim, of its abstract",
        "tensor-train and LoRA r=1 less than 0.02": "the other",
        "lose less than 0.02, on two tasks,": "the same",
    },
    README: {
        "10,072 human-rated": "sentences of the data",
        "about 85 MB": "the size of a download",
    },
    INDEX: {},
    WHICH: {
        "| about 500 |": "what a reader has in mind",
        "MLPs too, 10,000 parameters": "the budget of the sweep",
        "below 7,000 parameters": "a budget of the sweep",
        "1.5e-3 where no rate is chosen, and 2e-3 at 60 steps": "advice: the rates that the runs have",
    },
    RESULTS: {
        "within 0.01 holds at the level of one": "a margin",
        "eight times fewer less than 0.02, with CP": "a margin",
        "cost less than 0.02, on the rated": "a margin",
    },
    TABLES: {
        "0.05 after Holm": "the level",
        "less than 0.01 is lost (0.01 nats": "the margin",
        "correction, 0.025;": "the level",
        "below 0.025 where": "the level",
        "above -0.01.": "the margin",
        "up to 67 % fewer trainable parameters (3 times fewer)": "LoRTA's claim, of its abstract",
        "parameters than LoRA r=8 have numbers below 1": "of the table",
    },
}

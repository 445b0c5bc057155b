"""What guides and examples say with numbers, and where each number comes from; read by tests/test_claims.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from support.page_numbers import (
    around,
    forgetting_gains,
    gain_around,
    of_scale,
    pair,
    power_of_scale,
    rates_on_linear,
    rule_on_tensor_train,
    same_apart,
    same_row,
    same_tried,
    spread_of_rank_one,
    tucker_cells,
    tucker_scores,
)

README = "README.md"
AROUND = "docs/examples/around/README.md"
RATES = "docs/guides/learning-rates.md"
SWEEPS = "docs/guides/sweeps/README.md"
SCALED = ("dry run", "resume", "status", "results")
SAME = "docs/examples/same-function/README.md"
ONE_SET = {"LoRA": "lora", **{name: name for name in ("CP", "Tensor-train", "Tucker", "Kronecker")}}
LEARN = "docs/concepts/how-factors-learn.md"
CORE = "Tucker, core at zero"

Claim = tuple[str, str, Callable[[], tuple[Any, ...]]]
CLAIMS: list[Claim] = [
    (
        RATES,
        "[on all linear layers] of MiniLM {}e-4 for LoRA and {}e-3 for CP were best",
        lambda: rates_on_linear()[1:3],
    ),
    (
        "docs/guides/hira.md",
        "it has {} more than CP with 18,576 parameters and {} less than tensor-train with 17,616",
        lambda: (pair("CP", 18576)[0].split()[0], rule_on_tensor_train()[0].split()[0].removeprefix("-")),
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
    *(
        (SWEEPS, f"| {what} | {{:.0f}} | {{:.0f}} | {{:.0f}} | {{:,.0f}} MiB |", lambda what=what: of_scale(what))
        for what in SCALED
    ),
    (SWEEPS, "by the power {:.2f} to {:.2f} of their number", lambda: power_of_scale(*SCALED)),
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

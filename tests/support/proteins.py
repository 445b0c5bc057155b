"""A tiny masked language model of antibodies with its tokenizer, and folders of generated antibody sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers

from tensoradapt.data.antiberty import RESIDUES, SPECIAL, tokenizer
from tensoradapt.tasks.protein.sequences import FILES, FOLDER

Rows = Sequence[tuple[str, str]]  # sequences and labels


def save_model(folder: Path, positions: int = 64) -> str:
    """Save the model, whose base is always the same; returns its folder."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
    settings = transformers.BertConfig(
        **sizes, vocab_size=25, max_position_embeddings=positions, initializer_range=0.2, pad_token_id=0
    )
    transformers.BertForMaskedLM(settings).save_pretrained(folder)
    tokenizer(transformers, [*SPECIAL, *RESIDUES], positions).save_pretrained(folder)
    return str(folder)


def drawn(n: int, seed: int) -> list[tuple[str, str]]:
    """Sequences of 12 to 20 residues; those of label 1 have tryptophan where others have glycine."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        letters = "".join(rng.choice(list("ACDEFKLSTVG"), rng.integers(12, 21)))
        rows.append((letters.replace("G", "W" if i % 2 else "G") + "GW"[i % 2], f"{i % 2}.0"))
    return rows


def write(root: Path, changes: Mapping[str, Rows] | None = None) -> Path:
    """Write the three files below ``root``, as ``TENSORADAPT_DATA`` names it."""
    rows = {"boughter": drawn(200, 0), "jain": drawn(40, 1), "shehata": drawn(40, 2), **(changes or {})}
    (root / FOLDER).mkdir(parents=True)
    for name, (file, column) in FILES.items():
        lines = [f"{column},label", *(",".join(row) for row in rows[name])]
        (root / FOLDER / file).write_text("\n".join(lines) + "\n")
    return root

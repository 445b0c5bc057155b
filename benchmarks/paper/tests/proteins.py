"""Tiny models of antibodies and of folding, folders of generated antibody sequences, and files of generated chains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers.models.esm.configuration_esm import get_default_vocab_list

from tensoradapt_paper.antiberty import RESIDUES, SPECIAL, tokenizer
from tensoradapt_paper.protein.sequences import FILES, FOLDER

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


TRUNK = {
    "num_blocks": 2,
    "sequence_state_dim": 16,
    "pairwise_state_dim": 8,
    "sequence_head_width": 8,
    "pairwise_head_width": 4,
    "position_bins": 8,
    "max_recycles": 2,
    "chunk_size": None,
    "structure_module": {
        "sequence_dim": 16,
        "pairwise_dim": 8,
        "ipa_dim": 4,
        "resnet_dim": 8,
        "num_heads_ipa": 2,
        "num_qk_points": 2,
        "num_v_points": 2,
        "num_blocks": 2,
        "num_resnet_blocks": 1,
    },
}


def folding_model(folder: Path | None = None) -> transformers.PreTrainedModel:
    """An ESMFold of two layers and two folding blocks with random weights, saved where a folder is given.

    All matrices are drawn, as those that begin at zero would let nothing through.
    """
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    settings = transformers.EsmConfig(
        **sizes,
        vocab_size=33,
        vocab_list=list(get_default_vocab_list()),
        pad_token_id=1,
        mask_token_id=32,
        position_embedding_type="rotary",
        is_folding_model=True,
        esmfold_config={"fp16_esm": False, "lddt_head_hid_dim": 8, "trunk": TRUNK},
    )
    model = transformers.EsmForProteinFolding(settings).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    if folder:
        model.save_pretrained(folder)
    return model


def helix(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the CA and CB atoms of an ideal helix, (n, 3) each, in ångströms."""
    turn = np.radians(100) * np.arange(n)
    around, along = np.stack([np.cos(turn), np.sin(turn)], 1), 1.5 * np.arange(n)[:, None]
    ca, cb = (np.hstack([radius * around, along]).astype(np.float32) for radius in (2.3, 3.3))
    return ca, cb


def pdb_text(residues: Sequence[str], ca: np.ndarray, cb: np.ndarray, without: Sequence[tuple[int, str]] = ()) -> str:
    """A PDB file of one chain with CA and CB atoms, but for those of ``without``: places and atoms."""
    lines = []
    for i, residue in enumerate(residues):
        for atom, place in (("CA", ca[i]), ("CB", cb[i])):
            if (i, atom) not in without and (residue, atom) != ("GLY", "CB"):
                x, y, z = place
                lines.append(
                    f"ATOM  {len(lines) + 1:>5}  {atom:<3} {residue} A{i + 1:>4}    {x:8.3f}{y:8.3f}{z:8.3f}"
                    f"  1.00  0.00           C  "
                )
    return "\n".join([*lines, "END", ""])

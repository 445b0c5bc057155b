"""Folding: a distogram of ESMFold, trained on chains of the PDB; judged by it, by CA-lDDT and by TM-score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import assets, models
from tensoradapt.lab.metrics.metric import Score, averaged, quotient
from tensoradapt.lab.tasks.classification import padded
from tensoradapt.lab.tasks.splits import Split, Splits, divide
from tensoradapt.lab.tasks.task import Task
from tensoradapt_paper.archives import PDB_CHAINS
from tensoradapt_paper.protein import structures
from tensoradapt_paper.protein.structures import LETTERS, Chain

if TYPE_CHECKING:
    from torch import Tensor, nn

LONGEST = 200  # residues of a chain that is taken; memory grows with their square
BINS, NEAREST, FARTHEST = 64, 2.3125, 21.6875  # distances between CB atoms, in ångströms, as in AlphaFold 2
IGNORED = -100  # the label of a pair without both atoms, as of torch's cross entropy
CA = 1  # its place among the atoms of a residue


def _frequencies(score: Score, split: Split, n_labels: int) -> float:
    """The log-likelihood of the frequencies of the bins in the split."""
    found = np.concatenate([distance_bins(_chains()[name].cb).ravel() for name in split.ids])
    counts = np.bincount(found[found != IGNORED], minlength=BINS)
    shares = counts[counts > 0] / counts.sum()
    return float((shares * np.log(shares)).sum())


def _pairs(stored: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The log-likelihood of the bins of each chain, in nats, and the number of its pairs."""
    nats, pairs = stored[:, :2].astype(np.float64).T
    return nats, pairs


class Folding(Task):
    """Which of 64 bins holds the distance of each two residues; the model's structure is scored beside it."""

    name = "folding"
    metrics = (
        quotient("log_likelihood", _pairs, -math.inf, 0.0, chance=_frequencies),
        averaged("lddt", lambda stored, split: stored[:, 2].astype(np.float64)),
        averaged("tm_score", lambda stored, split: stored[:, 3].astype(np.float64)),
    )
    source = "chains of the PDB among the test files of MDAnalysisTests 2.11.0"
    licence = "structures of the PDB: CC0; package GPL"
    content = f"{PDB_CHAINS.name} {PDB_CHAINS.sha256}"

    def splits(self, n_train: int | None = None, n_test: int | None = None) -> Splits:
        """The chains of the asset by a hash of their sequence: a fifth for test, an eighth of the rest to validate."""
        chains = _chains()
        kept = [chain for chain in chains.values() if len(chain) <= LONGEST]
        long = len(chains) - len(kept)
        said = (f"{long} of {len(chains)} chains left out: more than {LONGEST} residues",) if long else ()
        texts = tuple((chain.sequence,) for chain in kept)
        split = Split(texts, np.zeros(len(kept), dtype=np.int64), tuple(chain.name for chain in kept))
        test, validation, train = divide(split, [len(kept) // 5, len(kept) // 10], 0)
        return train, validation, test, (*said, *structures.notes(kept))

    def base(self, name: str) -> Any:
        """The modules of the model without weights; raises TensorAdaptError for one that folds nothing."""
        if not getattr(models.config(name), "is_folding_model", False):
            raise TensorAdaptError(
                f"model {name} is no folding model; expected an EsmForProteinFolding, such as facebook/esmfold_v1"
            )
        return models.skeleton(name, "EsmForProteinFolding")

    def model(self, name: str) -> nn.Module:
        """Load the model, its language model in fp32 too."""
        return models.from_pretrained(models.transformers().EsmForProteinFolding, name).float()

    def encode(self, split: Split, model: str, max_length: int) -> list[Chain]:
        """The chains of a split, whole; raises TensorAdaptError for one of more residues than ``max_length``."""
        chains = [_chains()[name] for name in split.ids]
        if long := [chain for chain in chains if len(chain) > max_length]:
            raise TensorAdaptError(
                f"{long[0].name}: {len(long[0])} residues are more than max_length={max_length}; chains are not cut: "
                f"set max_length = {LONGEST}"
            )
        return chains

    def collate(self, examples: Sequence[Chain], model: nn.Module, device: str) -> Mapping[str, Tensor]:
        """Residue types and their mask (batch, longest), places of CA, bins of pairs (batch, longest, longest)."""
        import torch

        batch = padded([[_type(letter) for letter in chain.sequence] for chain in examples], device)
        n, longest = batch["input_ids"].shape
        places, bins = np.full((n, longest, 3), np.nan, dtype=np.float32), np.full((n, longest, longest), IGNORED)
        for row, chain in enumerate(examples):
            places[row, : len(chain)] = chain.ca
            bins[row, : len(chain), : len(chain)] = distance_bins(chain.cb)
        return {**batch, "ca": torch.tensor(places, device=device), "bins": torch.tensor(bins, device=device)}

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """The mean cross entropy (nats) of the bins of all known pairs, after one pass through the folding blocks."""
        nats = _nats(folded(model, batch, recycles=0)["distogram_logits"], batch["bins"])
        return nats.sum() / (batch["bins"] != IGNORED).sum()

    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return each chain's log-likelihood (nats) of its pairs' bins, their number, CA-lDDT and TM-score, (batch, 4).

        The model recycles as often as its config says.
        """
        import torch

        made = folded(model, batch, recycles=None)
        pairs = (batch["bins"] != IGNORED).sum((1, 2))
        nats = _nats(made["distogram_logits"], batch["bins"]).sum((1, 2))
        places = made["positions"][-1][:, :, CA].detach().float().cpu().numpy()
        scores = [_scores(*row) for row in zip(*(batch[key].cpu().numpy() for key in ROWS), places, strict=True)]
        return torch.cat([torch.stack([-nats, pairs], 1), torch.tensor(scores, device=nats.device)], 1)


ROWS = ("input_ids", "attention_mask", "ca")


def distance_bins(cb: np.ndarray) -> np.ndarray:
    """The bins of the distances between places (n, 3), (n, n); ``IGNORED`` for a pair that lacks one, or of one."""
    apart = np.linalg.norm(cb[:, None] - cb[None], axis=-1)
    bins = np.searchsorted(np.linspace(NEAREST, FARTHEST, BINS - 1), apart)
    return np.where(np.isnan(apart) | np.eye(len(cb), dtype=bool), IGNORED, bins)


def folded(model: Any, batch: Mapping[str, Tensor], recycles: int | None) -> dict[str, Any]:
    """What EsmForProteinFolding computes of a batch, with gradients of its language model too.

    Its own ``forward`` detaches the language model, whose adapters would not be trained.
    """
    import torch

    ids, mask = batch["input_ids"], batch["attention_mask"]
    states = model.compute_language_model_representations(model.af2_idx_to_esm_idx(ids, mask))
    states = states.to(model.esm_s_combine.dtype)
    single = model.esm_s_mlp((model.esm_s_combine.softmax(0).unsqueeze(0) @ states).squeeze(2))
    if model.config.esmfold_config.embed_aa:
        single = single + model.embedding(ids)
    n, longest = ids.shape
    pair = single.new_zeros(n, longest, longest, model.config.esmfold_config.trunk.pairwise_state_dim)
    order = torch.arange(longest, device=ids.device).expand_as(ids)
    made = model.trunk(single, pair, ids, order, mask, no_recycles=recycles)
    logits = model.distogram_head(made["s_z"])
    return {**made, "distogram_logits": (logits + logits.transpose(1, 2)) / 2}


def _nats(logits: Tensor, bins: Tensor) -> Tensor:
    import torch

    return torch.nn.functional.cross_entropy(logits.float().permute(0, 3, 1, 2), bins, reduction="none")


def _scores(ids: np.ndarray, mask: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    n = int(mask.sum())
    sequence = "".join((LETTERS + structures.UNKNOWN)[i] for i in ids[:n])
    return structures.lddt(true[:n], predicted[:n]), structures.tm_score(true[:n], predicted[:n], sequence)


def _type(letter: str) -> int:
    return LETTERS.find(letter) if letter in LETTERS else len(LETTERS)


@lru_cache(maxsize=1)
def _chains() -> dict[str, Chain]:
    chains = map(structures.read, sorted(assets.fetch(PDB_CHAINS).glob("*.pdb.gz")))
    return {chain.name: chain for chain in chains}


FOLDING = Folding()

"""Folding: chains are read and counted, scores are those of known structures, and adapters of both trunks train."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import proteins
import pytest
import tmtools
import torch
from support.configs import config_of

import tensoradapt as ta
from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.runs.execute import execute
from tensoradapt_paper.protein import folding, structures
from tensoradapt_paper.protein.folding import FOLDING
from tensoradapt_paper.protein.structures import LETTERS, Chain

RESIDUES = ("ALA", "GLY", "SER", "UNK", "TRP", "LEU", "LYS", "VAL")


def generated(n: int = 30) -> dict[str, Chain]:
    """Helices of 8 to 12 residues, each stretched or not by its first residue."""
    rng, chains = np.random.default_rng(0), {}
    for i in range(n):
        length = int(rng.integers(8, 13))
        letters = "AW"[i % 2] + "".join(rng.choice(list(LETTERS), length - 1))
        ca, cb = (places * (1 + i % 2) for places in proteins.helix(length))
        chains[f"c{i}"] = Chain(f"c{i}", letters, ca, cb, 0)
    return chains


@pytest.fixture
def chains(monkeypatch: pytest.MonkeyPatch) -> dict[str, Chain]:
    made = generated()
    monkeypatch.setattr(folding, "_chains", lambda: made)
    return made


def moved(places: np.ndarray) -> np.ndarray:
    """The places turned and shifted."""
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    return places @ (turn * np.sign(np.linalg.det(turn))) + 7


@pytest.mark.parametrize("suffix", [".pdb", ".pdb.gz"])
def test_missing_atoms_gaps_and_unknown_residues_are_counted(tmp_path: Path, suffix: str) -> None:
    ca, cb = proteins.helix(8)
    ca[5:], cb[5:] = ca[5:] + 20, cb[5:] + 20
    text = proteins.pdb_text(RESIDUES, ca, cb, without=[(2, "CB"), (6, "CA")])
    path = tmp_path / f"1abcA{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    chain = structures.read(path)
    assert (chain.name, chain.sequence, chain.missing, chain.gaps) == ("1abcA", "AGSXWLKV", 2, 1)
    assert np.allclose(chain.ca[[0, 1, 7]], ca[[0, 1, 7]], atol=1e-3) and np.isnan(chain.ca[6]).all()
    assert np.allclose(chain.cb[1], ca[1], atol=1e-3) and np.isnan(chain.cb[2]).all()
    assert structures.notes([chain]) == (
        "2 of 8 residues lack a CA or CB atom; pairs with them are left out",
        "1 gaps in chains, over which residues are taken for neighbours",
        "1 unknown residues",
    )


def test_files_without_a_chain_are_refused(tmp_path: Path) -> None:
    ca, cb = proteins.helix(8)
    for name, text, message in (
        ("few.pdb", proteins.pdb_text(RESIDUES[:2], ca, cb), r"few\.pdb has 2 residues with a CA"),
        ("no.cif", "nothing", r"no\.cif cannot be read"),
        ("empty.pdb", "", r"empty\.pdb cannot be read"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(TensorAdaptError, match=message):
            structures.read(tmp_path / name)


def test_scores_are_one_for_the_same_structure_and_fall_with_noise() -> None:
    true, _ = proteins.helix(40)
    noise = np.random.default_rng(0).normal(size=true.shape)
    for score in (structures.lddt, lambda a, b: structures.tm_score(a, b, "A" * 40)):
        values = [score(true, moved(true + size * noise)) for size in (0, 0.5, 2)]
        assert values[0] == pytest.approx(1, abs=1e-4) and values[0] > values[1] + 0.02 > values[2] + 0.1
    gone = true.copy()
    gone[3] = np.nan
    assert structures.lddt(gone, true) == 1 and structures.tm_score(gone, true, "A" * 40) == pytest.approx(1, abs=1e-4)


def test_distances_fall_into_bins_and_unknown_pairs_into_none() -> None:
    places = np.array([[0, 0, 0], [2.3, 0, 0], [2.4, 0, 0], [21.7, 0, 0], [np.nan] * 3])
    bins = folding.distance_bins(places)
    assert bins[0].tolist() == [-100, 0, 1, 63, -100] and (bins == bins.T).all()
    assert bins[1, 3] == 55  # 19.4 is above the 55th of 63 edges from 2.3125, each 0.3125 apart
    assert (np.diag(bins) == -100).all() and (bins[4] == -100).all()


def test_the_language_model_has_gradients_which_its_own_forward_cuts(chains: dict[str, Chain]) -> None:
    model = proteins.folding_model().requires_grad_(True)
    batch = FOLDING.collate([*chains.values()][:3], model, "cpu")
    own = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], num_recycles=1)
    ours = folding.folded(model, batch, recycles=1)
    known = batch["attention_mask"].bool()
    assert torch.equal(own.distogram_logits, ours["distogram_logits"])
    assert torch.equal(own.positions[:, known], ours["positions"][:, known])
    query = model.esm.encoder.layer[0].attention.self.query.weight
    own.distogram_logits.sum().backward()
    assert query.grad is None
    FOLDING.loss(model, batch).backward()
    assert query.grad.abs().max() > 1e-6


def test_the_loss_is_the_mean_over_known_pairs(chains: dict[str, Chain]) -> None:
    model, rows = proteins.folding_model(), [*chains.values()][:2]
    rows[0].cb[2] = np.nan
    nats, pairs = [], []
    with torch.no_grad():
        for chain in rows:
            batch = FOLDING.collate([chain], model, "cpu")
            logits = folding.folded(model, batch, 0)["distogram_logits"].log_softmax(-1)[0]
            known = [(i, j) for i in range(len(chain)) for j in range(len(chain)) if batch["bins"][0, i, j] >= 0]
            nats += [-float(logits[i, j, batch["bins"][0, i, j]]) for i, j in known]
            pairs.append(len(known))
        whole = FOLDING.loss(model, FOLDING.collate(rows, model, "cpu"))
    n = len(rows[0]) - 1
    assert pairs[0] == n * (n - 1) and float(whole) == pytest.approx(np.mean(nats), rel=1e-3)


def test_sites_are_in_the_language_model_and_in_the_folding_blocks() -> None:
    model = proteins.folding_model()
    language = ta.find_sites(model)
    assert {site.module.split(".layer.")[0] for site in language} == {"esm.encoder"} and len(language) == 2 * 4
    both = ta.find_sites(model, modules="trunk.blocks.*")
    assert len(both) == 2 * 4 + 2 * 34
    assert {site.module.split(".")[0] for site in both} == {"esm", "trunk"}


@pytest.mark.thorough
@pytest.mark.parametrize("modules", [(), ("trunk.blocks.*",)])
def test_adapters_of_either_trunk_lower_the_loss(chains: dict[str, Chain], modules: tuple[str, ...]) -> None:
    model = proteins.folding_model()
    ta.attach(model, ta.plan(ta.find_sites(model, modules=modules), ": out : in", "lora", 4), seed=0)
    batch = FOLDING.collate([*chains.values()][:8], model, "cpu")
    losses = ta.fit(model, [batch] * 25, lr=2e-2, steps=25, loss=FOLDING.loss).losses
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.1


def test_a_run_stores_likelihood_and_scores(chains: dict[str, Chain], tmp_path: Path) -> None:
    proteins.folding_model(tmp_path)
    sizes = {"rank": 4, "batch": 4, "steps": 3, "lr": 1e-2, "max_length": 12}
    parts = execute(config_of(str(tmp_path), "folding", "cp", **sizes), "cpu")
    found, stored = parts["result"]["test"], parts["arrays"]["predictions"]
    assert stored.shape == (6, 4) and set(found) == {"log_likelihood", "lddt", "tm_score"}
    assert found["log_likelihood"] == pytest.approx(stored[:, 0].sum() / stored[:, 1].sum())
    assert 0 <= found["lddt"] <= 1 and 0 < found["tm_score"] <= 1


def test_models_that_fold_nothing_and_long_chains_are_refused(chains: dict[str, Chain]) -> None:
    with pytest.raises(TensorAdaptError, match="is no folding model"):
        FOLDING.base("tiny-random-bert")
    with pytest.raises(TensorAdaptError, match=r"c\d+: \d+ residues are more than max_length=8"):
        FOLDING.encode(FOLDING.load().train, "any", 8)
    chains["long"] = Chain("long", "A" * 201, *proteins.helix(201), 0)
    data = FOLDING.load()
    assert "1 of 31 chains left out: more than 200 residues" in data.notes
    assert (len(data.test), len(data.validation), len(data.train)) == (6, 3, 21)


@pytest.mark.slow
def test_a_known_pair_has_the_score_that_tm_align_prints() -> None:
    """Values of the authors' own TM-align program, from the tests of tmtools."""
    folder = Path(tmtools.__file__).parent / "data"
    first, second = (structures.read(folder / f"{name}.pdb") for name in ("2gtl", "7ok9"))
    forward = structures.tm_score(second.ca, first.ca, second.sequence, first.sequence)
    back = structures.tm_score(first.ca, second.ca, first.sequence, second.sequence)
    assert (back, forward) == pytest.approx((0.38759, 0.15158), abs=1e-4)


@pytest.mark.slow
def test_chains_of_the_data_bank_train_a_random_model() -> None:
    data = FOLDING.load()
    assert (len(data.train), len(data.validation), len(data.test)) == (35, 5, 10)
    assert data.notes == ("2 of 6860 residues lack a CA or CB atom; pairs with them are left out",)
    rows = sorted(FOLDING.encode(data.train, "any", 200), key=len)[:4]
    assert all(structures.lddt(row.ca, moved(row.ca)) == 1 for row in rows)
    model = proteins.folding_model()
    ta.attach(model, ta.plan(ta.find_sites(model, modules="trunk.blocks.*"), ": out : in", "lora", 4), seed=0)
    batches = [FOLDING.collate([row], model, "cpu") for row in rows] * 4
    losses = ta.fit(model, batches, lr=2e-2, steps=16, loss=FOLDING.loss).losses
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.1

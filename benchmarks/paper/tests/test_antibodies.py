"""Antibody sequences: what is counted, what is refused, what is masked, and that both tasks learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import proteins
import pytest
import torch
import transformers
from sklearn.metrics import roc_auc_score
from support.configs import config_of, encoded

from tensoradapt.errors import TensorAdaptError
from tensoradapt.lab.data import models
from tensoradapt.lab.runs.batches import batches
from tensoradapt.lab.runs.config import RunConfig
from tensoradapt.lab.runs.execute import execute, load_data, prepare
from tensoradapt.lab.tasks.splits import DataSpec, Split, joined, take
from tensoradapt_paper.antiberty import RESIDUES
from tensoradapt_paper.protein import polyreactivity, sequences
from tensoradapt_paper.protein.masked import ANTIBODY_MLM as MASKED
from tensoradapt_paper.protein.polyreactivity import POLYREACTIVITY, POLYREACTIVITY_SHEHATA


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder, generated."""
    monkeypatch.setenv("TENSORADAPT_DATA", str(tmp_path / "data"))
    return proteins.write(tmp_path / "data")


@pytest.fixture
def model(tmp_path: Path) -> str:
    return proteins.save_model(tmp_path / "model")


def config(task: str, model: str, **more: object) -> RunConfig:
    sizes: dict[str, Any] = {"rank": 4, "batch": 16, "steps": 60, "lr": 2e-2, "head_lr": 0.05, **more}
    if task == "antibody-mlm":
        del sizes["head_lr"]
    return config_of(model, task, "lora", **sizes)


def file(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(["sequence,label", *rows]) + "\n")
    return path


def test_repeats_contradictions_and_unknown_residues_are_counted(tmp_path: Path) -> None:
    split, notes = sequences.read(file(tmp_path, "ACD,0.0", "ACX,1", "ACD,0", "EFG,0", "EFG,1", "XBZ,1"), "sequence")
    assert [text for (text,) in split.texts or ()] == ["ACD", "ACX", "XBZ"]
    assert split.labels.tolist() == [0, 1, 1] and split.ids == ("rows-2", "rows-3", "rows-7")
    assert notes == [
        "rows: 2 rows removed, as equal sequences have both labels",
        "rows: 1 rows removed, as an earlier one has their sequence",
        "rows: 4 unknown residues in 2 sequences",
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",1", "line 3: found no sequence"),
        ("AC*D,1", r"line 3: found the character '\*'"),
        ("AC-D,1", "line 3: found the character '-'"),
        ("acd,1", "line 3: found the character 'a'"),
        ("ACD,", "line 3: the label is missing"),
        ("ACD,2", "line 3: the label is '2'; expected 0"),
        ("ACD,nan", "line 3: the label is 'nan'"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_refused_by_their_line(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(TensorAdaptError, match=message):
        sequences.read(file(tmp_path, "ACD,0", row), "sequence")


def test_data_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORADAPT_DATA", str(tmp_path))
    with pytest.raises(TensorAdaptError, match=r"lacks boughter_VH_train_914\.csv, jain_VH_86\.csv"):
        POLYREACTIVITY.load()


def test_splits_share_no_sequence_and_what_is_tested_is_not_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boughter, jain, shehata = proteins.drawn(100, 0), proteins.drawn(20, 1), proteins.drawn(20, 2)
    rows = {"boughter": [*boughter, *jain[:3], shehata[0], *boughter[:5]], "jain": jain, "shehata": shehata}
    monkeypatch.setenv("TENSORADAPT_DATA", str(proteins.write(tmp_path, rows)))
    for task in (POLYREACTIVITY, POLYREACTIVITY_SHEHATA, MASKED):
        data = task.load()
        assert "4 sequences removed from train: they are also in a test set" in data.notes
        parts = [set(split.texts or ()) for split in (data.train, data.validation, data.test)]
        assert len(parts[0]) + len(parts[1]) == 100 and len(parts[1]) == 20
        assert not (parts[0] & parts[1] or (parts[0] | parts[1]) & {(text,) for text, _ in (*jain, *shehata)})


def test_long_sequences_and_tokens_of_words_are_refused(root: Path, model: str) -> None:
    test = POLYREACTIVITY.load().test
    longest = max(len(text) for (text,) in test.texts or ()) + 2
    rows = POLYREACTIVITY.encode(test, model, longest)
    assert [len(row) - 2 for row in rows] == [len(text) for (text,) in test.texts or ()]
    with pytest.raises(
        TensorAdaptError, match=rf"jain_VH_86-\d+: \d+ residues .* set max_length to that \({longest - 1}"
    ):
        POLYREACTIVITY.encode(test, model, longest - 1)
    long = replace(test, texts=(("A" * 63,),), labels=test.labels[:1], ids=("row-1",))
    with pytest.raises(TensorAdaptError, match=r"row-1: 63 residues .* more than the 64 tokens .* leave the row out"):
        POLYREACTIVITY.encode(long, model, 512)
    with pytest.raises(TensorAdaptError, match=r"makes 3 tokens of .* expected one for each"):
        POLYREACTIVITY.encode(test, models.TINY, 64)


def test_a_residue_is_a_token_and_an_unknown_one_has_none_of_its_own(model: str) -> None:
    found = transformers.AutoTokenizer.from_pretrained(model)
    ids = found(RESIDUES + "XB")["input_ids"]
    assert len(set(ids[1:21])) == 20 and ids[21:23] == [found.unk_token_id] * 2
    assert (ids[0], ids[-1]) == (found.cls_token_id, found.sep_token_id)


def test_metrics_are_those_of_margins() -> None:
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 2, 50), rng.normal(size=(50, 2))
    split = Split(tuple((f"A{i}",) for i in range(50)), labels, tuple(map(str, range(50))))
    found = POLYREACTIVITY.evaluate(logits + rng.normal(size=(50, 1)), split)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(labels, logits[:, 1] - logits[:, 0]))
    assert found["accuracy"] == (logits.argmax(1) == labels).mean()
    one = take(split, np.flatnonzero(labels == 1))
    assert np.isnan(POLYREACTIVITY.evaluate(logits[: len(one)], one)["roc_auc"])


@pytest.mark.thorough
def test_areas_within_noise_of_chance_are_at_chance(root: Path) -> None:
    test = POLYREACTIVITY.splits()[2]
    labels, at_chance = test.labels, POLYREACTIVITY.metric.at_chance
    rng = np.random.default_rng(0)
    areas = np.array([roc_auc_score(labels, rng.normal(size=len(labels))) for _ in range(400)])
    beyond = [not at_chance(area, 0.5, test) for area in areas]
    assert at_chance(0.5 + 1.8 * areas.std(), 0.5, test)
    assert not at_chance(0.5 + 2.2 * areas.std(), 0.5, test)
    assert np.mean(beyond) < 0.05


def test_a_regression_on_counts_finds_a_rule_of_counts(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = POLYREACTIVITY.load()
    assert polyreactivity.counts(data.test).sum(1).tolist() == [len(text) for (text,) in data.test.texts or ()]
    assert polyreactivity.regression(polyreactivity.counts, data.train, data.test)["roc_auc"] == 1.0
    polyreactivity.main()
    assert "Boughter, ten folds of 200: accuracy 1.000" in capsys.readouterr().out


@pytest.mark.thorough
def test_an_adapter_learns_polyreactivity(root: Path, model: str) -> None:
    parts = execute(config("polyreactivity", model), "cpu")
    result, arrays = parts["result"], parts["arrays"]
    assert result["status"] == "finished" and result["test"]["roc_auc"] > 0.9
    margins = arrays["predictions"][:, 1] - arrays["predictions"][:, 0]
    assert result["test"]["roc_auc"] == pytest.approx(roc_auc_score(arrays["labels"], margins))


def test_masks_of_evaluation_are_of_the_sequence_and_never_of_the_unknown(root: Path, model: str) -> None:
    test = MASKED.load().test
    test = replace(test, texts=(("XXACDEFXXX",), *(test.texts or ())[1:]))
    rows = MASKED.encode(test, model, 64)
    back = MASKED.encode(take(test, np.arange(len(test))[::-1]), model, 64)[::-1]
    assert [row.hidden for row in rows] == [row.hidden for row in back]
    assert set(rows[0].hidden) < {3, 4, 5, 6, 7} and len(rows[0].hidden) == 1
    for row in rows[1:]:
        assert (
            len(row.hidden) == round(0.15 * (len(row) - 2)) and 0 not in row.hidden and len(row) - 1 not in row.hidden
        )


def test_likelihoods_are_those_of_the_language_model(root: Path, model: str) -> None:
    run = config("antibody-mlm", model)
    loaded, _ = prepare(load_data(run).task, run)
    loaded.eval()
    rows = encoded(load_data(run).test, run)[:8]
    batch = MASKED.collate(rows, loaded, "cpu")
    with torch.no_grad():
        stored = MASKED.predict(loaded, batch)
        for row, (nats, right, masked) in zip(rows, stored, strict=True):
            ids = torch.tensor([row.ids])
            labels = torch.full_like(ids, -100)
            labels[0, row.hidden] = ids[0, row.hidden]
            own = loaded(input_ids=ids.masked_fill(labels != -100, row.mask), labels=labels)
            assert float(nats / masked) == pytest.approx(-float(own.loss), rel=1e-4)
            assert right == (own.logits.argmax(-1) == labels).sum() and masked == len(row.hidden)
    found = MASKED.evaluate(stored.numpy(), load_data(run).test)
    assert found["log_likelihood"] == pytest.approx(float(stored[:, 0].sum() / stored[:, 2].sum()))


def test_masks_of_training_are_drawn_anew_from_torchs_generator(root: Path, model: str) -> None:
    run = config("antibody-mlm", model)
    loaded, _ = prepare(load_data(run).task, run)
    loaded.eval()
    examples = encoded(load_data(run).train, run)
    batch = next(batches(MASKED, loaded, examples, run.data.batch, run.seed, "cpu"))
    with torch.no_grad():
        losses = [float(MASKED.loss(loaded, batch)) for _ in range(3)]
        torch.manual_seed(5)
        first = float(MASKED.loss(loaded, batch))
        torch.manual_seed(5)
        assert float(MASKED.loss(loaded, batch)) == first
    assert len(set(losses)) == 3


@pytest.mark.thorough
def test_an_adapter_learns_masked_residues(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(residue * length, str(length % 2)) for length in range(12, 20) for residue in RESIDUES]
    files = {"boughter": rows[:100], "jain": rows[100:130], "shehata": rows[130:]}
    monkeypatch.setenv("TENSORADAPT_DATA", str(proteins.write(tmp_path / "repeated", files)))
    runs = [config("antibody-mlm", model, steps=n, rank=8, projections=("attention", "mlp")) for n in (1, 120)]
    before, after = (execute(run, "cpu")["result"]["test"] for run in runs)
    assert after["log_likelihood"] > before["log_likelihood"] + 0.5 and after["accuracy"] > 2 * before["accuracy"]


def test_a_model_that_masks_nothing_is_refused(root: Path, model: str) -> None:
    found = transformers.AutoTokenizer.from_pretrained(model)
    found.mask_token = None
    found.save_pretrained(model)
    with pytest.raises(TensorAdaptError, match="has no token that masks"):
        MASKED.encode(MASKED.load().test, model, 64)


@pytest.mark.slow
def test_antiberty_recovers_masked_residues_and_counts_alone_say_little() -> None:
    data = MASKED.load(data=DataSpec(n_test=32))
    loaded = MASKED.model("antiberty").eval()
    with torch.no_grad():
        stored = MASKED.predict(loaded, MASKED.collate(MASKED.encode(data.test, "antiberty", 160), loaded, "cpu"))
    found = MASKED.evaluate(stored.numpy(), data.test)
    assert found["accuracy"] > 0.7 and found["log_likelihood"] > -1.2 > MASKED.chance(data.test)
    known = sequences.load()
    assert (len(known.train), len(known.validation), len(known.jain), len(known.shehata)) == (713, 178, 86, 398)
    boughter = joined(known.train, known.validation)
    assert polyreactivity.ten_folds(polyreactivity.counts, boughter) == pytest.approx(0.648, abs=0.01)
    area = polyreactivity.regression(polyreactivity.counts, known.train, known.jain)["roc_auc"]
    assert area == pytest.approx(0.613, abs=0.01)

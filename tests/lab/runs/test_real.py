"""Real weights and real sentences: what a user trains is what a user loads."""

import subprocess
import sys

import pytest
import torch
from support.configs import config_of

import tensoradapt as ta
from tensoradapt.lab.data import models
from tensoradapt.lab.runs.execute import execute
from tensoradapt.lab.sweeps.frontier import FRONTIER, rate
from tensoradapt.lab.tasks.classification import head_of, padded
from tensoradapt.training.fit import fit

pytestmark = pytest.mark.slow
SHARED = {"model": models.MINILM, "task": "snippets", "n_train": 1000, "n_validation": 50, "n_test": 400, "steps": 30}
NEW_PROCESS = """
import sys, torch
import tensoradapt as ta
from tensoradapt.lab import tasks
from tensoradapt.lab.data import models
torch.manual_seed(99)  # another head is drawn: the saved one must replace it
model = models.load(models.MINILM, tasks.get("snippets")).eval()
ta.load(model, sys.argv[1])
batch = torch.load(sys.argv[2])
with torch.no_grad():
    torch.save(model(**batch).logits, sys.argv[3])
"""


@pytest.mark.parametrize("family", FRONTIER)
def test_a_trained_adapter_with_its_head_gives_equal_logits_in_a_new_process(family, tmp_path):
    data = ta.load_task("snippets", n_train=64)
    torch.manual_seed(0)
    model = models.load(models.MINILM, data.task)
    plan = ta.plan(ta.find_sites(model), family, rank=8, train=head_of(model))
    adapter = ta.attach(model, plan, seed=0)
    rows = models.encoder(models.MINILM)(data.train.texts, 64)
    batch = padded(rows[:16], "cpu")
    labels = torch.as_tensor(data.train.labels[:16])
    fitted = fit(
        model, [{**batch, "labels": labels}] * 4, lr=rate(family), head_lr=rate("head"), heads=plan.train, steps=4
    )
    assert fitted.losses[-1] < fitted.losses[0]
    adapter.save(tmp_path / "saved")
    torch.save(batch, tmp_path / "batch.pt")
    with torch.no_grad():
        expected = model(**batch).logits
    paths = [str(tmp_path / name) for name in ("saved", "batch.pt", "logits.pt")]
    subprocess.run([sys.executable, "-c", NEW_PROCESS, *paths], check=True, timeout=300)
    assert torch.equal(torch.load(tmp_path / "logits.pt"), expected)


def test_lora_learns_real_sentiment_beyond_the_frozen_base():
    head = execute(config_of(kind="head", lr=rate("head"), **SHARED), "cpu")["result"]
    run = config_of(adapter="lora", layout=": out : in", rank=8, lr=rate("lora"), head_lr=rate("head"), **SHARED)
    lora = execute(run, "cpu")["result"]
    assert lora["status"] == "finished" and lora["n_params"] == 147_456
    assert lora["test"]["accuracy"] > head["test"]["accuracy"] + 0.03

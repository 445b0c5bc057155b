"""The command line of compress, as cli.main calls it."""

from __future__ import annotations

import shutil
from pathlib import Path

import peft
import pytest
import torch
from support.models import make

import tensoradapt as ta
from tensoradapt.compression.compress import compress
from tensoradapt.lab.cli.main import main

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA folder, and the config of its base beside it."""
    path = tmp_path_factory.mktemp("lora")
    model = peft.get_peft_model(make("llama", torch.float32), peft.LoraConfig(r=2, target_modules=["q_proj", "o_proj"]))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(str(path))
    make("llama").config.save_pretrained(path / "base")
    return path


def call(*words: object) -> int:
    return main(["compress", *map(str, words)])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command that is bad input prints, on one line."""
    assert call(*words) == 2
    return " ".join(capsys.readouterr().err.split())


def test_a_folder_becomes_an_adapter(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = "layer proj : head dim : model"
    how = ("--model", folder / "base", "--method", "tucker", "--layout", layout)
    assert call(folder, *how, "--max-error", 0.7, "--out", tmp_path / "new") == 0
    expected = compress(folder, make("llama"), layout, "tucker", max_error=0.7)
    printed = capsys.readouterr().out
    assert f"relative error {expected.error:.3g}" in printed
    assert "strict=False" in printed
    model = make("llama", torch.float32)
    adapter = ta.load(model, tmp_path / "new", strict=False)
    site = adapter.plan.sites[0]
    torch.testing.assert_close(adapter.delta(site), expected.attach(make("llama")).delta(site))


def test_wishes_that_exclude_each_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = ("--model", folder / "base", "--method", "cp")
    both = refused(capsys, folder, *how, "--rank", 2, "--budget", 900)
    assert "--rank and --budget were given; expected one of them" in both
    assert "cp needs a size; give --rank, --max-error or --budget" in refused(capsys, folder, *how)
    assert "budget 9 is below the smallest possible" in refused(capsys, folder, *how, "--budget", 9)


def test_several_folders_become_the_tasks_of_one_adapter(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    (broken := tmp_path / "broken").mkdir()
    how = ("--model", folder / "base", "--method", "tucker", "--rank", 2, "--layout", "task layer proj : out : in")
    assert "adapter 'broken'" in refused(capsys, folder, other, broken, *how)
    assert call(folder, other, broken, *how, "--damaged", "skip", "--out", tmp_path / "new") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "2 adapters with 4 numbers of their own each" in printed and "left out: adapter " in printed
    adapter = ta.load(make("llama", torch.float32), tmp_path / "new", strict=False)
    assert adapter.plan.spec.tasks == (folder.name, "other")

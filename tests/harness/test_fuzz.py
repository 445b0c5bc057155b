"""Public calls with wrong types and extreme values: each returns or raises a TensorAdaptError, soon and shortly."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.fuzz_calls import escapes, one_wrong, several_wrong
from harness.public_calls import CALLS, LIGHT, adapted, adapter

import tensoradapt as ta


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """A call that asks for more fails, and so does the test."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter in both forms."""
    folder = tmp_path_factory.mktemp("written")
    adapter().save(folder / "saved")
    ta.export_lora(adapted(), folder / "lora")
    lines = [f"text number {i},{'no' if i % 2 else 'yes'}" for i in range(40)]
    (folder / "data.csv").write_text("\n".join(["text,label", *lines]))
    return folder


@pytest.fixture(autouse=True)
def here(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls work in a folder of their own, two levels down, as paths may begin with "../.."."""
    monkeypatch.chdir(shutil.copytree(written, tmp_path / "a" / "b"))


@pytest.mark.thorough
@pytest.mark.parametrize("name", CALLS)
def test_one_wrong_argument(name: str) -> None:
    """Each argument with each fifth of the odd values, of which the next argument has the next ones."""
    n, kinds, examples = escapes(one_wrong(*CALLS[name], every=5))
    assert n > 10 and not kinds, {kind: (count, examples[kind]) for kind, count in kinds.most_common(20)}


@pytest.mark.nightly
@pytest.mark.parametrize("name", CALLS)
def test_each_wrong_argument(name: str) -> None:
    n, kinds, examples = escapes(one_wrong(*CALLS[name]))
    assert n > 50 and not kinds, {kind: (count, examples[kind]) for kind, count in kinds.most_common(20)}


@pytest.mark.nightly
@pytest.mark.parametrize("name", CALLS)
def test_several_wrong_arguments(name: str) -> None:
    n, kinds, examples = escapes(several_wrong(*CALLS[name], n=25_000 if name in LIGHT else 2_000))
    print(f"{name}: {n:,} calls")
    assert not kinds, {kind: (count, examples[kind]) for kind, count in kinds.most_common(20)}

